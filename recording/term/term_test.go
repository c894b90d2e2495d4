package term

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func feed(t *testing.T, cols, rows int, parts ...string) *Term {
	t.Helper()
	term := New(cols, rows)
	for _, p := range parts {
		term.Write([]byte(p))
	}
	return term
}

func TestScreens(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     string // rows joined by |, trailing empty rows left out
		x, y     int
	}{
		{"lines", "one\r\ntwo", "one|two", 3, 1},
		{"backspace", "abc\b\bX", "aXc", 2, 0},
		{"wrap", "abcdefghijKL", "abcdefghij|KL", 2, 1},
		{"wait at the last column", "abcdefghij", "abcdefghij", 9, 0},
		{"no wrap", "\x1b[?7labcdefghijKL", "abcdefghiL", 9, 0},
		{"scroll", "1\r\n2\r\n3\r\n4\r\n5\r\n6", "2|3|4|5|6", 1, 4},
		{"tabs", "a\tb", "a       b", 9, 0},
		{"absolute", "\x1b[3;4Hx\x1b[Hy", "y||   x", 1, 0},
		{"beyond", "\x1b[99;99Hx", "||||         x", 9, 4},
		{"relative", "\x1b[3;4H\x1b[A\x1b[2Da\x1b[2B\x1b[Cb", "| a||   b", 4, 3},
		{"erase line", "abcdef\x1b[3D\x1b[K", "abc", 3, 0},
		{"erase line left", "abcdef\x1b[3D\x1b[1K", "    ef", 3, 0},
		{"erase display", "ab\r\ncd\r\nef\x1b[2;2H\x1b[J", "ab|c", 1, 1},
		{"erase display above", "ab\r\ncd\r\nef\x1b[2;1H\x1b[1J", "| d|ef", 0, 1},
		{"clear", "ab\r\ncd\x1b[2J\x1b[Hx", "x", 1, 0},
		{"insert chars", "abcd\x1b[3D\x1b[2@", "a  bcd", 1, 0},
		{"delete chars", "abcd\x1b[3D\x1b[2P", "ad", 1, 0},
		{"erase chars", "abcd\x1b[3D\x1b[2X", "a  d", 1, 0},
		{"insert mode", "bcd\r\x1b[4ha\x1b[4l", "abcd", 1, 0},
		{"insert lines", "1\r\n2\r\n3\x1b[2H\x1b[L", "1||2|3", 0, 1},
		{"delete lines", "1\r\n2\r\n3\x1b[2H\x1b[M", "1|3", 0, 1},
		{"region scroll", "1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[4H\n", "1|3|4||5", 0, 3},
		{"region reverse", "1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[2H\x1bM", "1||2|3|5", 0, 1},
		{"origin", "\x1b[2;4r\x1b[?6h\x1b[Hx\x1b[9;1Hy", "|x||y", 1, 3},
		{"scroll up", "1\r\n2\x1b[S", "2", 1, 1},
		{"scroll down", "1\r\n2\x1b[T", "|1|2", 1, 1},
		{"repeat", "a\x1b[3b", "aaaa", 4, 0},
		{"save", "ab\x1b7\r\ncd\x1b8X", "abX|cd", 3, 0},
		{"alternate", "main\x1b[?1049h\x1b[Halt\x1b[?1049l!", "main!", 5, 0},
		{"in the alternate", "main\x1b[?1049h\x1b[Halt", "alt", 3, 0},
		{"line drawing", "\x1b(0lqk\x1b(Bq", "┌─┐q", 4, 0},
		{"shift", "\x1b)0q\x0eq\x0fq", "q─q", 3, 0},
		{"wide", "a漢b", "a漢b", 4, 0},
		{"wide at the edge", "123456789漢", "123456789|漢", 2, 1},
		{"half of a wide", "漢\rx", "x", 1, 0},
		{"other half of a wide", "漢\x1b[2Gx", " x", 2, 0},
		{"combining", "e\u0301x", "e\u0301x", 2, 0},
		{"utf-8 broken", "a\xffb\xe2\x82c", "a\ufffdb\ufffd\ufffdc", 6, 0},
		{"title dropped", "a\x1b]0;title\x07b\x1b]52;c;QUJD\x1b\\c", "abc", 3, 0},
		{"device control dropped", "a\x1bPq#0;2;0;0;0\x07\x1b\\b", "ab", 2, 0},
		{"string cut by a sequence", "a\x1b]0;t\x1b[1mb", "ab", 2, 0},
		{"cancel", "a\x1b[12\x18b", "ab", 2, 0},
		{"control inside a sequence", "ab\x1b[\r1Cc", "ac", 2, 0},
		{"unknown sequences", "a\x1b[>4;2m\x1b[=1c\x1b[1$pb\x1b%Gc", "abc", 3, 0},
		{"reset", "abc\x1b[2;3r\x1bcx", "x", 1, 0},
		{"alignment", "\x1b#8", "EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE", 0, 0},
		{"hidden format characters", "a\u202eb\u200bc\u0085d", "abcd", 4, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			term := feed(t, 10, 5, c.in)
			got := strings.TrimRight(strings.Join(term.Text(), "|"), "|")
			x, y, _ := term.Cursor()
			if got != c.want || x != c.x || y != c.y {
				t.Errorf("screen %q cursor %d,%d; want %q %d,%d", got, x, y, c.want, c.x, c.y)
			}
		})
	}
}

func TestColours(t *testing.T) {
	for in, want := range map[string]pen{
		"\x1b[1;31m":                 {fg: indexed | 1, attr: bold},
		"\x1b[97;104m":               {fg: indexed | 15, bg: indexed | 12},
		"\x1b[38;5;208;4m":           {fg: indexed | 208, attr: underline},
		"\x1b[48;2;1;2;3m":           {bg: direct | 0x010203},
		"\x1b[38:2::1:2:3;1m":        {fg: direct | 0x010203, attr: bold},
		"\x1b[38:2:1:2:3m":           {fg: direct | 0x010203},
		"\x1b[38:5:9m":               {fg: indexed | 9},
		"\x1b[4:3m":                  {attr: underline},
		"\x1b[4;4:0m":                {},
		"\x1b[58:2::9:9:9;1m":        {attr: bold},
		"\x1b[58;5;9;1m":             {attr: bold},
		"\x1b[1;2;3;7;9m\x1b[22;27m": {attr: italic | strike},
		"\x1b[31;41m\x1b[39;49m":     {},
		"\x1b[31m\x1b[m":             {},
		"\x1b[38;5m":                 {},
		"\x1b[38;5;999m":             {},
		"\x1b[38m":                   {},
	} {
		if got := feed(t, 10, 2, in).cursor.pen; got != want {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
}

// differ says what two terminals do not have in common, or "".
func differ(a, b *Term) string {
	norm := func(t *Term, s *screen) cursor {
		c := s.saved
		c.wrap = t.canWrap(s, c)
		return c
	}
	switch {
	case a.cols != b.cols || a.rows != b.rows:
		return "size"
	case (a.cur == a.main) != (b.cur == b.main):
		return "which screen"
	case a.cursor != b.cursor:
		return fmt.Sprintf("cursor %+v, %+v", a.cursor, b.cursor)
	case norm(a, a.main) != norm(b, b.main) || norm(a, a.cur) != norm(b, b.cur):
		return fmt.Sprintf("saved cursor %+v, %+v; main %+v %+v", a.cur.saved, b.cur.saved, a.main.saved, b.main.saved)
	case a.top != b.top || a.bot != b.bot:
		return fmt.Sprintf("region %d-%d, %d-%d", a.top, a.bot, b.top, b.bot)
	case a.modes != b.modes || a.style != b.style:
		return fmt.Sprintf("modes %b, %b", a.modes, b.modes)
	case fmt.Sprint(a.tabs) != fmt.Sprint(b.tabs):
		return "tabs"
	}
	for _, s := range [][2]*screen{{a.main, b.main}, {a.cur, b.cur}} {
		for y := range s[0].rows {
			for x := range s[0].rows[y] {
				if s[0].rows[y][x] != s[1].rows[y][x] {
					return fmt.Sprintf("cell %d,%d: %+v, %+v", x, y, s[0].rows[y][x], s[1].rows[y][x])
				}
			}
		}
	}
	return ""
}

// sound checks what must hold after any input.
func sound(t *testing.T, term *Term) {
	t.Helper()
	c := term.cursor
	if c.x < 0 || c.x >= term.cols || c.y < 0 || c.y >= term.rows || term.top < 0 || term.bot >= term.rows || term.top > term.bot {
		t.Fatalf("cursor %+v region %d-%d size %dx%d", c, term.top, term.bot, term.cols, term.rows)
	}
	if c.wrap && (c.x != term.cols-1 || term.modes&modeWrap == 0) {
		t.Fatalf("waits to wrap at %d", c.x)
	}
	for _, c := range term.cur.blank {
		if c != (pen{}).blank() {
			t.Fatalf("the row of all empty rows was drawn in: %+v", c)
		}
	}
	for y, row := range term.cur.rows {
		if len(row) != term.cols {
			t.Fatalf("row %d has %d cells", y, len(row))
		}
		for x, c := range row {
			wideOK := c.width == 2 && x+1 < len(row) && row[x+1].width == 0
			restOK := c.width == 0 && x > 0 && row[x-1].width == 2
			if c.width != 1 && !wideOK && !restOK || c.r != 0 && runeWidth(c.r) < 1 {
				t.Fatalf("cell %d,%d: %+v", x, y, c)
			}
		}
	}
}

var pieces = []string{
	"hello ", "a", "漢字", "é", "e\u0301", "🙂", "\r", "\n", "\r\n", "\b", "\t", "\x0e", "\x0f", "\x1b(0", "\x1b(B", "\x1b)0",
	"\x1b[1;31m", "\x1b[38;5;200m", "\x1b[48;2;10;20;30m", "\x1b[0m", "\x1b[7m", "\x1b[4:3m", "\x1b[44m",
	"\x1b[H", "\x1b[5;7H", "\x1b[2;20H", "\x1b[A", "\x1b[3B", "\x1b[4C", "\x1b[2D", "\x1b[10G", "\x1b[3d",
	"\x1b[J", "\x1b[1J", "\x1b[2J", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[3@", "\x1b[2P", "\x1b[4X", "\x1b[2L", "\x1b[M", "\x1b[2S", "\x1b[T",
	"\x1b[2;5r", "\x1b[r", "\x1b[?6h", "\x1b[?6l", "\x1b[?7l", "\x1b[?7h", "\x1b[4h", "\x1b[4l", "\x1b[20h", "\x1b[20l",
	"\x1b7", "\x1b8", "\x1b[s", "\x1b[u", "\x1bD", "\x1bM", "\x1bE", "\x1bH", "\x1b[g", "\x1b[3g", "\x1b[I", "\x1b[Z", "\x1b[5b",
	"\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l", "\x1b[?1047h", "\x1b[?1047l", "\x1b[?1048h", "\x1b[?1048l",
	"\x1b[?25l", "\x1b[?25h", "\x1b[?1h", "\x1b[?2004h", "\x1b[?1000;1006h", "\x1b[?1006l", "\x1b=", "\x1b>", "\x1b[4 q", "\x1b[!p", "\x1bc", "\x1b#8",
	"\x1b]0;title\x07", "\x1b]52;c;QUJD\x1b\\", "\x1bPq#1\x1b\\", "\x1b[>1;2c", "\x1b[1$p", "\xff", "\xe2\x82", "\xf0\x9f", "a long line that will wrap at the edge of it ",
}

func randomStream(r *rand.Rand, n int) []byte {
	var b []byte
	for range n {
		b = append(b, pieces[r.IntN(len(pieces))]...)
	}
	return b
}

func TestSnapshotMakesAnEqualTerminal(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 4000 {
		cols, rows := 1+r.IntN(30), 1+r.IntN(8)
		stream := randomStream(r, 1+r.IntN(60))
		cut := r.IntN(len(stream) + 1) // inside a rune or a sequence as well
		a := New(cols, rows)
		a.Write(stream[:cut])
		snap := a.Snapshot()
		b := New(cols, rows)
		b.Write([]byte("\x1b[?1049h\x1b[3;4r junk \x1b]0;x")) // whatever was there before
		b.Write([]byte("\x1b\\"))
		b.Write(snap)
		sound(t, a)
		if d := differ(a, b); d != "" {
			t.Fatalf("%d: %dx%d %q\nsnapshot %q\n%s", i, cols, rows, stream[:cut], snap, d)
		}
		lost := func(s *screen) bool { return s.saved.wrap && !a.canWrap(s, s.saved) }
		if bytes.Contains(stream[max(0, cut-4):], []byte("\x1b[5b")) || lost(a.main) || lost(a.cur) {
			// Not kept: what REP repeats when it is nowhere on the screen, and that a
			// saved cursor waited behind a character erased since.
			continue
		}
		a.Write(stream[cut:])
		b.Write(stream[cut:])
		if d := differ(a, b); d != "" {
			t.Fatalf("%d: %dx%d %q | %q\nsnapshot %q\nafter the rest: %s", i, cols, rows, stream[:cut], stream[cut:], snap, d)
		}
	}
}

func TestChunkingDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 2000 {
		stream := randomStream(r, 40)
		whole, parts := New(20, 6), New(20, 6)
		whole.Write(stream)
		for rest := stream; len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 5))
			parts.Write(rest[:n])
			rest = rest[n:]
		}
		if d := differ(whole, parts); d != "" {
			t.Fatalf("%d: %q: %s", i, stream, d)
		}
	}
}

func TestResizeKeepsSound(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		term := New(1+r.IntN(30), 1+r.IntN(10))
		for range 10 {
			term.Write(randomStream(r, 10))
			term.Resize(1+r.IntN(30), 1+r.IntN(10))
			sound(t, term)
			other := New(term.Size())
			other.Write(term.Snapshot())
			if d := differ(term, other); d != "" {
				t.Fatal(d)
			}
		}
	}
}

func TestSizesAreBounded(t *testing.T) {
	for _, size := range [][2]int{{0xffffffff, 0xffffffff}, {-1, -5}, {0, 0}, {1 << 40, 1}} {
		term := New(size[0], size[1])
		term.Resize(size[1], size[0])
		if cols, rows := term.Size(); cols < 1 || cols > MaxCols || rows < 1 || rows > MaxRows {
			t.Errorf("%v: %dx%d", size, cols, rows)
		}
	}
}

func TestPainterShowsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var out bytes.Buffer
	for range 200 {
		term, watcher := New(20, 6), New(20, 6)
		p := NewPainter(&out, 20, 6)
		for range 8 {
			term.Write(randomStream(r, 10))
			out.Reset()
			if err := p.Paint(term); err != nil {
				t.Fatal(err)
			}
			onlyOurs(t, out.Bytes())
			watcher.Write(out.Bytes())
			for y := range 6 {
				if a, b := term.Line(y), watcher.Line(y); a != b {
					t.Fatalf("row %d: %q, watcher %q\n%q", y, a, b, out.Bytes())
				}
			}
		}
	}
}

// TestPainterFollowsTheCursor: of a screen that is larger than the area, the part with the cursor is shown.
func TestPainterFollowsTheCursor(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		const cols, rows = 11, 3
		var out bytes.Buffer
		term, watcher := New(40, 12), New(cols, rows)
		p := NewPainter(&out, cols, rows)
		for range 20 {
			term.Write(randomStream(r, 10))
			if r.IntN(8) == 0 {
				term.Resize(1+r.IntN(60), 1+r.IntN(20))
			}
			out.Reset()
			if err := p.Paint(term); err != nil {
				t.Fatal(err)
			}
			onlyOurs(t, out.Bytes())
			watcher.Write(out.Bytes())
			left, top := p.Offset()
			x, y, shown := term.Cursor()
			x = min(x, term.cols-1)
			if x < left || x >= left+cols || y < top || y >= top+rows {
				t.Fatalf("the cursor at %d,%d of %dx%d is not in what begins at %d,%d", x, y, term.cols, term.rows, left, top)
			}
			if wx, wy, there := watcher.Cursor(); shown != there || shown && (wx != x-left || wy != y-top) {
				t.Fatalf("the cursor is at %d,%d (%v), not at %d,%d (%v)", wx, wy, there, x-left, y-top, shown)
			}
			for wy := range rows {
				row := newRow(cols, pen{})
				if wy+top < term.rows {
					mend(row, 0, copy(row, term.cur.rows[wy+top][left:]))
				}
				for wx, c := range row {
					if got := watcher.cur.rows[wy][wx]; got.r != c.r && (got.r > ' ' || c.r > ' ') {
						t.Fatalf("at %d,%d: %q, not %q", wx, wy, got.r, c.r)
					}
				}
			}
		}
	}
}

// TestRuns: neighbours that look the same are one, with their colours; nothing is left of what is hidden.
func TestRuns(t *testing.T) {
	x := New(20, 2)
	x.Write([]byte("a\x1b[1;31mb\x1b[7mc\x1b[0;38;5;200;48;2;1;2;3m漢d\x1b[0m\x1b[8mpw\x1b[0m e   "))
	want := []Run{{"a", 1, 0, 0, false, false}, {"b", 1, 2, 0, false, true}, {"c", 1, 2, 0, true, true}, {"漢d", 3, 201, DirectRGB | 0x010203, false, false}, {"   e", 4, 0, 0, false, false}}
	if got := x.Runs(0, 20); !slices.Equal(got, want) {
		t.Errorf("%+v\nnot %+v", got, want)
	}
	if got := x.Runs(0, 2); !slices.Equal(got, want[:2]) {
		t.Errorf("cut: %+v", got)
	}
	if got := x.Runs(1, 20); got != nil {
		t.Errorf("an empty row: %+v", got)
	}
}

// onlyOurs fails if b holds anything but printable text, CUP, SGR and showing or
// hiding the cursor.
func onlyOurs(t *testing.T, b []byte) {
	t.Helper()
	for _, part := range bytes.Split(b, []byte("\x1b"))[1:] {
		i := bytes.IndexFunc(part, func(r rune) bool { return r >= 0x40 && r != '[' })
		if part[0] != '[' || i < 0 {
			t.Fatalf("sequence %q", part)
		}
		switch seq := string(part[:i+1]); {
		case part[i] == 'H' || part[i] == 'm':
			if strings.Trim(seq[1:i], "0123456789;") != "" {
				t.Fatalf("sequence %q", seq)
			}
		case seq == "[?25l" || seq == "[?25h":
		default:
			t.Fatalf("sequence %q", seq)
		}
	}
	for _, r := range string(b) {
		if r != 0x1b && runeWidth(r) < 0 {
			t.Fatalf("character %U", r)
		}
	}
}

func FuzzTerm(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20 {
		f.Add(randomStream(r, 30), uint8(20), uint8(6))
	}
	f.Add([]byte("\x1b[38;2m\x1b[:::m\x1b[99999999999999999999b"), uint8(3), uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, cols, rows uint8) {
		if len(stream) > 4096 {
			return // time, not correctness: a few bytes may clear the whole screen
		}
		term := New(int(cols), int(rows))
		term.Write(stream)
		sound(t, term)
		other := New(term.Size())
		other.Write(term.Snapshot())
		if d := differ(term, other); d != "" {
			t.Fatalf("snapshot: %s", d)
		}
		var out bytes.Buffer
		if err := NewPainter(&out, 40, 12).Paint(term); err != nil {
			t.Fatal(err)
		}
		onlyOurs(t, out.Bytes())
		term.Resize(int(rows), int(cols))
		sound(t, term)
	})
}

func BenchmarkWrite(b *testing.B) {
	var listing, text bytes.Buffer
	for i := 0; listing.Len() < 64<<10; i++ {
		fmt.Fprintf(&listing, "-rw-r--r-- 1 root root %d Nov 23 \x1b[01;34mfile%d\x1b[0m\r\n", i*37, i)
	}
	for text.Len() < 64<<10 {
		text.WriteString("les éléphants 漢字 │ box ─\r\n")
	}
	for name, data := range map[string][]byte{"listing": listing.Bytes(), "utf8": text.Bytes()} {
		b.Run(name, func(b *testing.B) {
			term := New(120, 40)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				term.Write(data)
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	term := New(120, 40)
	for i := range 60 {
		fmt.Fprintf(term2writer{term}, "-rw-r--r-- 1 root root %d Nov 23 \x1b[01;34mfile%d\x1b[0m\r\n", i*37, i)
	}
	for b.Loop() {
		term.Snapshot()
	}
}

type term2writer struct{ *Term }

func (w term2writer) Write(p []byte) (int, error) { w.Term.Write(p); return len(p), nil }
