package replay

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/store"
	"tssh/recording/term"
)

// screenJSON is what a terminal showed last: the pictures of the list. Lines are its text, and paint the same in runs
// of one look each. Of a large screen it is a part (term.Painter has the rule), and cols and rows are that part's.
type screenJSON struct {
	Cols  int         `json:"cols"`
	Rows  int         `json:"rows"`
	Lines []string    `json:"lines"`
	Paint [][]runJSON `json:"paint"`
}

// runJSON is a term.Run, with its colours as they are to be drawn: 0, the page's own, n+1 of the palette, 1<<24 and more is direct.
type runJSON struct {
	Text  string `json:"s"`
	Cells int    `json:"w"`
	FG    uint32 `json:"f,omitempty"`
	BG    uint32 `json:"b,omitempty"`
	Flip  bool   `json:"r,omitempty"`
	Bold  bool   `json:"d,omitempty"`
}

// A picture has at most so many columns, rows and runs; where there are more of those the rest is in the page's own colours.
const (
	pictureCols, pictureRows = 200, 60
	pictureRuns              = 4000
)

// screenWork bounds what drawing that may cost, in the measure of term.Work; then it is what is there by then.
const screenWork = 200e6

// screenFrames bounds how far before the end the terminal is built up where no keyframe is near.
const screenFrames = 8

// screen gives what the terminal showed at the end: nothing where the last that it got was to be cleared.
func (v *Viewer) screen(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.allowed(r, id)
	if err != nil {
		return err
	}
	if err := v.note("recording.view", id, &sum, 0, map[string]string{"from": "end", "as": "picture"}); err != nil {
		return err
	}
	out := []byte(`{"cols":0,"rows":0,"lines":[],"paint":[]}`)
	// The list asks for this by itself. Nobody is shown as watching by that, so where watchers
	// are shown there is no picture of what runs.
	secret := v.watchShown(id, &sum) && !v.watches(id, &sum)
	if ch, ok := terminalOf(&sum); ok && !secret {
		if out, err = v.pictures.of(sum.Meta.ID, sum.Size, func() ([]byte, error) {
			var s screenJSON
			if err := v.open.with(&sum, func(f *recording.Reader) error { return lastScreen(f, ch, &s) }); err != nil {
				return nil, err
			}
			return json.Marshal(s)
		}); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Write(out) // a browser that went away is no concern here
	return nil
}

// picturesKept is how many bytes of pictures are in memory; one is some kilobytes.
const picturesKept = 8 << 20

// pictures keeps what was drawn lately, as it was sent: a recording that did not grow has the picture it had. Whoever
// asks for one has been asked for by the policy before.
type pictures struct {
	most int // bytes

	mu    sync.Mutex
	kept  map[string]*picture
	bytes int
	clock int64 // counts uses
}

type picture struct {
	size int64 // of the recording it is of
	json []byte
	used int64
}

// of gives the picture of a recording of that size, drawn if need be.
func (p *pictures) of(id string, size int64, draw func() ([]byte, error)) ([]byte, error) {
	p.mu.Lock()
	if k := p.kept[id]; k != nil && k.size == size {
		p.clock++
		k.used = p.clock
		p.mu.Unlock()
		return k.json, nil
	}
	p.mu.Unlock()
	b, err := draw()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = map[string]*picture{}
	}
	p.drop(id)
	p.clock++
	p.kept[id] = &picture{size, b, p.clock}
	for p.bytes += len(b); p.bytes > p.most; {
		oldest := ""
		for id, k := range p.kept {
			if oldest == "" || k.used < p.kept[oldest].used {
				oldest = id
			}
		}
		p.drop(oldest)
	}
	return b, nil
}

// drop forgets one. mu is held.
func (p *pictures) drop(id string) {
	if k := p.kept[id]; k != nil {
		p.bytes -= len(k.json)
		delete(p.kept, id)
	}
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
	paintOf(screen, out)
	return nil
}

// paintOf takes the part of a screen that is drawn, to its last row that has something.
func paintOf(screen *term.Term, out *screenJSON) {
	cols, rows := screen.Size()
	_, y, _ := screen.Cursor()
	top := min(max(0, y+1-pictureRows), max(0, rows-pictureRows))
	out.Cols, out.Rows = min(cols, pictureCols), min(rows, pictureRows)
	out.Lines, out.Paint = []string{}, [][]runJSON{}
	runs, filled := 0, 0
	for row := range out.Rows {
		paint := []runJSON{}
		text := ""
		for _, r := range screen.Runs(top+row, out.Cols) {
			j := runJSON{r.Text, r.Cells, r.FG, r.BG, r.Flip, r.Bold}
			if runs++; runs > pictureRuns {
				j.FG, j.BG, j.Flip, j.Bold = 0, 0, false, false
			}
			if n := len(paint); n > 0 && runs > pictureRuns {
				paint[n-1].Text, paint[n-1].Cells = paint[n-1].Text+j.Text, paint[n-1].Cells+j.Cells
			} else {
				paint = append(paint, j)
			}
			text += r.Text
		}
		out.Lines, out.Paint = append(out.Lines, strings.TrimRight(text, " ")), append(out.Paint, paint)
		if len(paint) > 0 {
			filled = row + 1
		}
	}
	out.Lines, out.Paint = out.Lines[:filled], out.Paint[:filled]
}
