package replay

import (
	"fmt"
	"image"
	"image/color"
	drawing "image/draw"
	"image/gif"
	"image/png"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// colours is one screen of what a terminal can show.
func colours(s *script) {
	s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm-256color", Cols: 40, Rows: 10})
	s.wait(time.Second).data(1, recording.KindOutput, "\x1b[?25l\x1b[48;2;200;30;40m  red back  \x1b[0m\r\n")
	s.wait(time.Second).data(1, recording.KindOutput, "\x1b[38;5;46m██\x1b[0m \x1b[7minverse\x1b[0m \x1b[1mbold\x1b[0m \x1b[3mitalic\x1b[0m \x1b[4munder\x1b[0m \x1b[2mdim\x1b[0m\r\n漢字 wide 🚀 ├─┤ größer\r\n")
	var all strings.Builder
	for i := range 216 {
		fmt.Fprintf(&all, "\x1b[48;5;%dm ", 16+i)
	}
	s.wait(time.Second).data(1, recording.KindOutput, all.String()+"\x1b[0m")
	s.wait(2*time.Second).json(1, recording.KindExit, recording.Exit{Status: 0}).data(1, recording.KindClose, "")
}

// flood is five minutes of a whole screen ten times a second.
func flood(s *script) {
	s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm", Cols: 150, Rows: 40})
	for i := range 3000 {
		s.wait(100*time.Millisecond).data(1, recording.KindOutput, "\x1b[H"+strings.Repeat(fmt.Sprintf("%07d and more of it ", i*7919), 150*40/26))
	}
	s.json(1, recording.KindExit, recording.Exit{Status: 0}).data(1, recording.KindClose, "")
}

// TestGIF has the page make GIFs, and looks at them.
func TestGIF(t *testing.T) {
	if testing.Short() {
		t.Skip("it drives a browser")
	}
	needBrowser(t)
	w := newWorld(t)
	if page(w) != 200 {
		t.Fatal(errNoPage)
	}
	ids := map[string]string{}
	for name, play := range map[string]func(*script){"shell": shell, "colours": colours, "flood": flood, "exec": ran("make check")} {
		id, b := record(t, meta("erin@example.com", "ops", name, w.now), play)
		put(t, w.store, name, id, b)
		ids[name] = id
	}
	shots := os.Getenv("SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	srv := httptest.NewServer(w.newViewer(root))
	defer srv.Close()
	drive(t, "gif.mjs", map[string]any{"ids": ids, "shots": shots, "url": srv.URL, "token": token}, func(line string) bool {
		switch line {
		case "FAILING", "WORKING":
			w.mu.Lock()
			w.failing = line == "FAILING"
			w.mu.Unlock()
			return true
		}
		return false
	})
	if os.Getenv("ONLY") != "" {
		return
	}

	g, last := lookAt(t, shots, "part")
	if len(g.Image) < 10 || seconds100(g) < 300 || seconds100(g) > 900 {
		t.Errorf("part: %d pictures in %d hundredths", len(g.Image), seconds100(g))
	}
	// The first picture is what the terminal showed then, before the command was typed; the last has its output.
	if n := count(last, color.RGBA{250, 180, 90, 255}); n < 5 {
		t.Errorf("part: %d pixels of [emerg]'s colour in the last picture", n)
	}
	first := image.NewRGBA(last.Bounds())
	drawing.Draw(first, first.Bounds(), g.Image[0], image.Point{}, drawing.Over)
	if n, red := count(first, color.RGBA{250, 180, 90, 255}), count(first, color.RGBA{255, 139, 146, 255}); n != 0 || red < 5 {
		t.Errorf("part: the first picture has %d pixels of what came later, and %d of what was there", n, red)
	}

	g, last = lookAt(t, shots, "all")
	// As large as the terminal gets: 100 columns and 30 lines.
	if b := last.Bounds(); b.Dx()%100 != 0 || b.Dy()%30 != 0 || b.Dx() < 400 || len(g.Image) < 15 || seconds100(g) > 1500 {
		t.Errorf("all: %v, %d pictures, %d hundredths", b, len(g.Image), seconds100(g))
	}

	_, last = lookAt(t, shots, "colours")
	cw, ch := last.Bounds().Dx()/40, last.Bounds().Dy()/10
	at := func(x, y int) color.RGBA { return last.RGBAAt(x*cw+cw/2, y*ch+ch/2) }
	for _, c := range []struct {
		x, y int
		want color.RGBA
	}{{0, 0, color.RGBA{200, 30, 40, 255}}, {0, 1, color.RGBA{0, 255, 0, 255}}, {20, 9, color.RGBA{0x14, 0x16, 0x1c, 255}}, {0, 3, color.RGBA{0, 0, 0, 255}}, {30, 3, color.RGBA{0, 255, 0, 255}}} {
		if got := at(c.x, c.y); !near(got, c.want) {
			t.Errorf("colours: column %d of line %d is %v, want %v", c.x, c.y, got, c.want)
		}
	}
	for _, place := range [][2]int{{0, 2}, {2, 2}, {10, 2}} { // two characters and what is drawn for an emoji
		if inked(last, place[0]*cw, place[1]*ch, 2*cw, ch) < 20 {
			t.Errorf("colours: nothing is drawn at column %d of line %d", place[0], place[1])
		}
	}
	gifs := 0
	for _, e := range w.audited {
		if e.Kind == "recording.download" && e.Extra["as"] == "gif" {
			gifs++
		}
	}
	if gifs != 4 {
		t.Errorf("%d GIFs were audited, want 4", gifs)
	}
}

// lookAt decodes a GIF and gives its last picture as it is shown, and keeps that as PNG.
func lookAt(t *testing.T, dir, name string) (*gif.GIF, *image.RGBA) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, name+".gif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := gif.DecodeAll(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	out := image.NewRGBA(image.Rect(0, 0, g.Config.Width, g.Config.Height))
	for i, p := range g.Image {
		if g.Disposal[i] != gif.DisposalNone || p.Bounds() != out.Bounds() || g.Delay[i] < 2 {
			t.Errorf("%s: picture %d: disposal %d, %v, %d hundredths", name, i, g.Disposal[i], p.Bounds(), g.Delay[i])
		}
		drawing.Draw(out, out.Bounds(), p, image.Point{}, drawing.Over)
	}
	to, err := os.Create(filepath.Join(dir, name+"-last.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := png.Encode(to, out); err != nil {
		t.Fatal(err)
	}
	st, _ := f.Stat()
	t.Logf("%s: %d pictures of %dx%d, %d hundredths, %d bytes", name, len(g.Image), g.Config.Width, g.Config.Height, seconds100(g), st.Size())
	return g, out
}

func seconds100(g *gif.GIF) (n int) {
	for _, d := range g.Delay {
		n += d
	}
	return n
}

func near(a, b color.RGBA) bool {
	d := func(x, y uint8) int { return max(int(x)-int(y), int(y)-int(x)) }
	return d(a.R, b.R) < 12 && d(a.G, b.G) < 12 && d(a.B, b.B) < 12 && a.A == 255
}

func count(m *image.RGBA, c color.RGBA) (n int) {
	for i := 0; i < len(m.Pix); i += 4 {
		if near(color.RGBA{m.Pix[i], m.Pix[i+1], m.Pix[i+2], m.Pix[i+3]}, c) {
			n++
		}
	}
	return n
}

// inked is how many pixels of a place are not the background's.
func inked(m *image.RGBA, x, y, w, h int) (n int) {
	for j := range h {
		for i := range w {
			if !near(m.RGBAAt(x+i, y+j), color.RGBA{0x14, 0x16, 0x1c, 255}) {
				n++
			}
		}
	}
	return n
}
