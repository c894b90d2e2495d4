package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tssh/recording"
	"tssh/recording/term"
)

// stockCast is one cast for web/test/stock.mjs and what a player has to make of it.
type stockCast struct {
	Name    string   `json:"name"`
	Cast    string   `json:"cast"`
	Rows    int      `json:"rows"`
	Screen  []string `json:"screen"` // at its end
	Seconds float64  `json:"seconds"`
	Marks   []string `json:"marks"` // some of its markers
}

// TestStockPlayer has the stock web player of asciinema play casts as the viewer gives them, of
// both versions: at their end it shows what the terminal showed, in the size that it had, after
// the time that passed. One is of a recording that still runs.
func TestStockPlayer(t *testing.T) {
	if testing.Short() {
		t.Skip("drives a browser")
	}
	if _, err := os.Stat("web/node_modules/asciinema-player"); err != nil {
		t.Fatal("the stock player is missing: run make, or (cd recording/replay/web && npm ci)")
	}
	w := newWorld(t)
	begin := w.now.Add(-time.Hour)
	id, b := record(t, meta("alice@example.com", "deploy", "web", begin), shell)
	put(t, w.store, "web", id, b)
	live, half := record(t, meta("alice@example.com", "deploy", "db1", begin), shell)
	put(t, w.store, "db1", live, half[:len(half)*6/10])
	full, b := record(t, meta("alice@example.com", "deploy", "gw", begin), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "exec", Command: "vim notes", PTY: true, Term: "xterm-256color", Cols: 60, Rows: 12})
		for _, part := range []string{"\x1b[?1049h\x1b[2J\x1b[H", "\x1b[3;5H\x1b[7mcaf\xc3", "\xa9 漢", "字 🙂\x1b[0m", "\x1b[5;2H\x1b[38;5;208morange\x1b[0m ~"} {
			s.wait(300*time.Millisecond).data(1, recording.KindOutput, part)
		}
		s.wait(time.Second).json(1, recording.KindExit, recording.Exit{Status: 1}).data(1, recording.KindClose, "")
	})
	put(t, w.store, "gw", full, b)
	var casts []stockCast
	for _, c := range []struct {
		name, id, version string
		marks             []string
	}{
		{"v3", id, "3", []string{"systemctl status nginx"}},
		{"v2", id, "2", []string{"systemctl status nginx"}},
		{"running", live, "3", nil},
		{"full screen", full, "3", nil},
	} {
		casts = append(casts, w.stockCast(c.name, c.id, c.version, c.marks))
	}
	if casts[2].Seconds >= casts[0].Seconds {
		t.Fatal("the running one is all there")
	}
	text, err := json.Marshal(casts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "test/stock.mjs")
	cmd.Dir, cmd.Stdin = "web", bytes.NewReader(text)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || strings.Count(string(out), "ok ") != len(casts) {
		t.Error(err)
	}
}

// stockCast asks the viewer for a cast, and finds in the recording's own bytes what it shows.
func (w *world) stockCast(name, id, version string, marks []string) stockCast {
	w.t.Helper()
	res := w.ask("GET", hub+"/api/recordings/"+id+"/cast?version="+version, fromAlice)
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %v %d %s", name, err, res.StatusCode, text)
	}
	c := stockCast{Name: name, Cast: string(text), Marks: marks}
	src, err := w.store.Read(id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer src.Close()
	f, err := recording.NewReader(src, src.Size())
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	var screen *term.Term
	var opened, last time.Duration
	if err := f.Events(func(e recording.Event) error {
		if e.Channel != 1 {
			return nil
		}
		last = e.At
		switch e.Kind {
		case recording.KindOpen:
			var o recording.Open
			if err := json.Unmarshal(e.Data, &o); err != nil {
				return err
			}
			screen, opened = term.New(o.Cols, o.Rows), e.At
		case recording.KindResize:
			var r recording.Resize
			if err := json.Unmarshal(e.Data, &r); err != nil {
				return err
			}
			screen.Resize(r.Cols, r.Rows)
		case recording.KindOutput:
			screen.Write(e.Data)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	c.Screen, c.Seconds = screen.Text(), (last - opened).Seconds()
	_, c.Rows = screen.Size()
	return c
}
