package transcript

import (
	"cmp"
	"slices"

	"tssh/recording"
)

// Markers are the commands as casts have them. Those that a client asked for are in the cast's
// own header.
func (t *Transcript) Markers() (out []recording.CastMarker) {
	for _, c := range t.Commands {
		text := "$ " + c.Text
		switch c.Source {
		case SourceExec:
			continue
		case SourceGuess:
			text += " (read from the screen)"
		}
		out = append(out, recording.CastMarker{Channel: c.Channel, At: c.At, Text: text})
	}
	slices.SortStableFunc(out, func(a, b recording.CastMarker) int { return cmp.Compare(a.At, b.At) })
	return out
}
