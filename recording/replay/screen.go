package replay

import (
	"encoding/json"
	"net/http"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/store"
	"tssh/recording/term"
)

// screenJSON is what a terminal showed last, as text: the pictures of the list.
type screenJSON struct {
	Cols  int      `json:"cols"`
	Rows  int      `json:"rows"`
	Lines []string `json:"lines"`
}

// screenWork bounds what drawing that may cost, in the measure of term.Work; then it is what is there by then.
const screenWork = 200e6

// screenFrames bounds how far before the end the terminal is built up where no keyframe is near.
const screenFrames = 8

// screen gives the last screen that has text on it: at the very end many programs have cleared theirs.
func (v *Viewer) screen(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.allowed(r, id)
	if err != nil {
		return err
	}
	if err := v.note("recording.view", id, &sum, 0, map[string]string{"from": "end", "as": "picture"}); err != nil {
		return err
	}
	out := screenJSON{Lines: []string{}}
	// The list asks for this by itself. Nobody is shown as watching by that, so where watchers
	// are shown there is no picture of what runs.
	secret := v.cfg.Live != nil && sum.Live && v.may(v.cfg.Policy(), id, &sum).Named && !v.watches(id, &sum)
	if ch, ok := terminalOf(&sum); ok && !secret {
		err = v.open.with(&sum, func(f *recording.Reader) error { return lastScreen(f, ch, &out) })
	}
	if err != nil {
		return err
	}
	respond(w, http.StatusOK, out)
	return nil
}

func terminalOf(sum *store.Summary) (store.Channel, bool) {
	for _, c := range sum.Channels {
		if c.PTY {
			return c, true
		}
	}
	return store.Channel{}, false
}

func draw(screen *term.Term, b []byte) {
	for len(b) > 0 && screen.Work() < screenWork {
		n := min(len(b), 4096)
		screen.Write(b[:n])
		b = b[n:]
	}
}

func lastScreen(f *recording.Reader, ch store.Channel, out *screenJSON) error {
	index := f.Index()
	from := len(index) - 1
	for from > 0 && from > len(index)-screenFrames && !index[from].Keyframe {
		from--
	}
	screen := term.New(ch.Cols, ch.Rows)
	for i := max(0, from); i < len(index); i++ {
		events, key, err := f.Frame(i)
		if err != nil {
			return err
		}
		if key != nil {
			for _, s := range key.Screens {
				if s.Channel == ch.N {
					screen = term.New(s.Cols, s.Rows)
					draw(screen, s.ANSI)
				}
			}
		}
		for _, e := range events {
			if e.Channel != ch.N {
				continue
			}
			switch e.Kind {
			case recording.KindOutput, recording.KindStderr:
				draw(screen, e.Data)
			case recording.KindResize:
				var s recording.Resize
				if json.Unmarshal(e.Data, &s) == nil && s.Cols > 0 && s.Rows > 0 && screen.Work() < screenWork {
					screen.Resize(s.Cols, s.Rows)
				}
			}
		}
	}
	out.Cols, out.Rows = screen.Size()
	lines := screen.Text()
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	out.Lines = append(out.Lines, lines...)
	return nil
}
