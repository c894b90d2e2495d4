package replay

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"tssh/recording"
	"tssh/recording/term"
)

// TestPictures: the last screen comes with its colours, is drawn once as long as the recording is the same, and what is
// kept of them is bounded.
func TestPictures(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 300, Rows: 100})
		for i := range 99 {
			s.data(1, recording.KindOutput, fmt.Sprintf("row %d\r\n", i))
		}
		s.data(1, recording.KindOutput, "\x1b[1;31mred\x1b[0m plain \x1b[48;2;1;2;3mx\x1b[0m")
	})
	url := hub + "/api/recordings/" + id + "/screen"
	text := body(t, w.ask("GET", url, fromAlice))
	var got screenJSON
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	last := len(got.Paint) - 1
	if got.Cols != pictureCols || got.Rows != pictureRows || last != pictureRows-1 || got.Lines[0] != "row 40" || got.Lines[last] != "red plain x" {
		t.Fatalf("%d x %d, %q", got.Cols, got.Rows, got.Lines)
	}
	want := []runJSON{{Text: "red", Cells: 3, FG: 2, Bold: true}, {Text: " plain ", Cells: 7}, {Text: "x", Cells: 1, BG: 1<<24 | 0x010203}}
	if !slices.Equal(got.Paint[last], want) {
		t.Errorf("%+v", got.Paint[last])
	}
	open := w.viewer.open
	w.viewer.open = nil // whoever draws again falls
	if again := body(t, w.ask("GET", url, fromAlice)); again != text {
		t.Errorf("%s", again)
	}
	w.viewer.open = open
	if res := w.ask("GET", url, fromBob); res.StatusCode != 403 {
		t.Errorf("bob has the kept one: %d", res.StatusCode)
	}

	p := pictures{most: 100}
	drawn := 0
	of := func(id string, size int64) {
		t.Helper()
		b, err := p.of(id, size, func() ([]byte, error) { drawn++; return make([]byte, 30), nil })
		if err != nil || len(b) != 30 {
			t.Fatal(len(b), err)
		}
		held := 0
		for _, k := range p.kept {
			held += len(k.json)
		}
		if held != p.bytes || held > p.most {
			t.Fatalf("%d bytes kept, %d counted", held, p.bytes)
		}
	}
	for _, c := range []struct {
		id   string
		size int64
		draw bool
	}{{"a", 1, true}, {"b", 1, true}, {"c", 1, true}, {"a", 1, false}, {"d", 1, true}, {"a", 1, false}, {"b", 1, true}, {"a", 2, true}, {"d", 1, false}} {
		before := drawn
		if of(c.id, c.size); drawn > before != c.draw {
			t.Errorf("%s of size %d: drawn %v", c.id, c.size, drawn > before)
		}
	}
	if _, err := p.of("huge", 1, func() ([]byte, error) { return make([]byte, 500), nil }); err != nil || p.bytes != 0 {
		t.Errorf("%v, %d bytes", err, p.bytes)
	}
	// However a screen is coloured, a picture of it is small.
	x := term.New(500, 200)
	for y := range 200 {
		for c := range 500 {
			x.Write(fmt.Appendf(nil, "\x1b[%d;%dH\x1b[38;2;%d;%d;7m#", y+1, c+1, y, c%256))
		}
	}
	var big screenJSON
	paintOf(x, &big)
	b, err := json.Marshal(big)
	if err != nil || len(b) > 300<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
