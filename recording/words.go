package recording

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Mark is what an event says in words, where it is not a terminal's or a program's bytes: for
// transcripts, and for the markers of casts. The words are what hosts and clients wrote.
func Mark(ev Event) (kind, words string, ok bool) {
	var v interface{ String() string }
	switch ev.Kind {
	case KindSignal:
		return "signal", "SIG" + string(ev.Data[:min(len(ev.Data), 64)]), true
	case KindResize:
		kind, v = "resize", new(Resize)
	case KindFile:
		kind, v = "file", new(File)
	case KindForward:
		kind, v = "forward", new(Forward)
	case KindGap:
		kind, v = "gap", new(Gap)
	case KindNote:
		kind, v = "note", new(Note)
	case KindHidden:
		kind, v = "hidden", new(Hidden)
	case KindInputSummary:
		kind, v = "input", new(InputSummary)
	case KindEnd:
		kind, v = "end", new(End)
	default:
		return "", "", false
	}
	if json.Unmarshal(ev.Data, v) != nil {
		return "", "", false
	}
	return kind, v.String(), true
}

func bytesWords(n int64) string { return strconv.FormatInt(n, 10) + " bytes" }

func (r *Resize) String() string { return strconv.Itoa(r.Cols) + "×" + strconv.Itoa(r.Rows) }

func (f *File) String() string {
	text := f.Op + " " + f.Path
	if f.Target != "" {
		text += " → " + f.Target
	}
	if f.Bytes > 0 {
		text += ", " + bytesWords(f.Bytes)
	}
	if f.SHA256 != "" {
		text += ", sha256 " + f.SHA256
	}
	if f.Error != "" {
		text += ": " + f.Error
	}
	return text
}

func (f *Forward) String() string {
	text := strings.Join(strings.Fields(f.State+" "+f.Type+" "+f.Target), " ")
	if f.Origin != "" {
		text += " from " + f.Origin
	}
	if f.State == "closed" {
		text += ", " + bytesWords(f.Sent) + " sent, " + strconv.FormatInt(f.Received, 10) + " received, " + strconv.FormatFloat(float64(f.Millis)/1000, 'f', 1, 64) + " s"
	}
	if f.Error != "" {
		text += ": " + f.Error
	}
	return text
}

func (g *Gap) String() string { return bytesWords(g.Bytes) + " not kept: " + g.Why }

func (n *Note) String() string { return strings.TrimSpace(n.What + " " + n.Text) }

func (h *Hidden) String() string {
	return strconv.FormatInt(h.Keys, 10) + " keys typed while the terminal showed none"
}

func (s *InputSummary) String() string {
	text := bytesWords(s.Bytes) + " from the client in all"
	if s.SHA256 != "" {
		text += ", sha256 " + s.SHA256
	}
	return text
}

func (e *End) String() string { return strings.TrimSpace(e.Cause + " " + e.Text) }
