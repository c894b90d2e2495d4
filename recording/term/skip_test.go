package term

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// sameSkipped writes b to two terminals after the same beginning, one with Skip, and compares.
func sameSkipped(t *testing.T, before, b, after []byte) (skipped int) {
	t.Helper()
	one, two := New(20, 5), New(20, 5)
	one.Write(before)
	two.Write(before)
	one.Write(b)
	skipped = two.Skip(b)
	two.Write(b[skipped:])
	one.Write(after)
	two.Write(after)
	if !bytes.Equal(one.Snapshot(), two.Snapshot()) {
		t.Fatalf("after %q, %q (%d skipped) and %q the screens differ:\n%q\n%q", before, b, skipped, after, one.Text(), two.Text())
	}
	return skipped
}

var skipPieces = []string{
	"\r\n", "\r\n", "\r\n", "words\r\n", "a line that is longer than the screen is\r\n", "\n", "\r", "\t", "\b", "\x07", "x", "é", "漢字", "e\u0301", "\xe6\xbc",
	"\x1b[31m", "\x1b[0;1;38:2::1:2:3m", "\x1b[m", "\x1b[K", "\x1b[44m", "\x1b[2C", "\x1b[A", "\x1b[5B", "\x1b[H", "\x1b[2J", "\x1b[3L", "\x1b[S", "\x1b[2T", "\x1b[3;4H",
	"\x1b[2;4r", "\x1b7", "\x1b8", "\x1b(0", "\x1b(B", "\x0e", "\x0f", "\x1b[4h", "\x1b[4l", "\x1b[?7l", "\x1b[?7h", "\x1b[?1049h", "\x1b[?1049l", "\x1b]0;t\r\n\x07",
	"\x1b[3b", "\x1b[?6h", "\x1b[20h", "\x1bc", "\x1bH", "\x1b[3g", "\x1b[", "\x1b[3", "\x1b", "1", "m", "\x1bM", "\x1bD", "\x1b#8", "\x1b[?25l", "\x18",
}

// TestSkip compares what is skipped with what is drawn, on output of all kinds.
func TestSkip(t *testing.T) {
	lines := bytes.Repeat([]byte("\x1b[32msome\x1b[0m words\r\n"), 40)
	if n := sameSkipped(t, nil, lines, nil); n < len(lines)/2 {
		t.Errorf("%d of %d bytes of plain lines skipped", n, len(lines))
	}
	r := rand.New(rand.NewPCG(1, 2))
	piece := func(calm int) (b []byte) {
		for range r.IntN(30) {
			if r.IntN(100) < calm {
				b = append(b, skipPieces[r.IntN(18)]...)
			} else {
				b = append(b, skipPieces[r.IntN(len(skipPieces))]...)
			}
		}
		return b
	}
	skips := 0
	for i := range 60000 {
		before := piece(50)
		b := piece(80 + i%21)
		for range r.IntN(16) {
			b = append(b, fmt.Sprintf("\x1b[3%dmline %d\r\n", r.IntN(8), r.IntN(100))...)
			b = append(b, piece(97)...)
		}
		if sameSkipped(t, before, b, piece(50)) > 0 {
			skips++
		}
	}
	if t.Logf("%d of 60000 were skipped in part", skips); skips < 5000 {
		t.Errorf("only %d were skipped in part", skips)
	}
}

func FuzzSkip(f *testing.F) {
	for _, p := range skipPieces {
		f.Add([]byte("a\x1b[1m"), append([]byte(p), bytes.Repeat([]byte("some words\r\n"), 20)...), []byte("b"))
	}
	f.Fuzz(func(t *testing.T, before, b, after []byte) { sameSkipped(t, before, b, after) })
}
