package session

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// window is a terminal as far as titles go.
type window struct {
	title string
	stack []string
	plain bool // has no stack
}

func (w *window) write(s string) {
	for s != "" {
		switch {
		case strings.HasPrefix(s, "\x1b]"):
			end := strings.IndexAny(s, "\x07\\")
			kind, text, _ := strings.Cut(strings.TrimRight(s[2:end], "\x1b"), ";")
			if kind == "0" || kind == "2" {
				w.title = text
			}
			s = s[end+1:]
		case strings.HasPrefix(s, "\x1b["):
			end := strings.IndexFunc(s[2:], func(r rune) bool { return r >= 0x40 }) + 2
			switch seq := s[2 : end+1]; {
			case w.plain:
			case seq == "22;2t" || seq == "22;0t" || seq == "22t":
				w.stack = append(w.stack, w.title)
			case (seq == "23;2t" || seq == "23;0t" || seq == "23t") && len(w.stack) > 0:
				w.title, w.stack = w.stack[len(w.stack)-1], w.stack[:len(w.stack)-1]
			}
			s = s[end+1:]
		default:
			s = s[1:]
		}
	}
}

// TestTitleComesBack: whatever a program does with the title before, while and after a notice has it, in the end it is
// as without the notice; and a terminal without a stack does not go on showing the notice.
func TestTitleComesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var f flow
		with, without, plain := window{title: "xterm"}, window{title: "xterm"}, window{title: "xterm", plain: true}
		var all strings.Builder
		program := func(s string) {
			all.WriteString(s)
			f.feed([]byte(s))
			with.write(s)
			without.write(s)
			plain.write(s)
		}
		some := func(pushes bool) {
			depth := 0
			for range r.IntN(4) {
				switch r.IntN(5) {
				case 0:
					program(fmt.Sprintf("\x1b]%d;title %d\x07", 2*r.IntN(2), r.IntN(100)))
				case 1:
					program(fmt.Sprintf("\x1b]2;title %d\x1b\\", r.IntN(100)))
				case 2:
					program("text \x1b[1mbold\x1b[22m \x1b]1;icon\x07\x1b]52;c;aGk=\x07")
				case 3:
					if pushes {
						depth++
						program([]string{"\x1b[22;2t", "\x1b[22;0t", "\x1b[22t"}[r.IntN(3)])
					}
				default:
					if depth > 0 || !pushes && len(f.titles.stack) > 0 {
						depth--
						program("\x1b[23;2t")
					}
				}
			}
			for ; pushes && depth > 0; depth-- {
				program("\x1b[23;2t")
			}
		}
		ours := func(s string) {
			if !f.between() {
				t.Fatalf("in the middle of %q", all.String())
			}
			with.write(s)
			plain.write(s)
			all.WriteString("<" + s + ">")
		}
		if r.IntN(2) == 0 {
			program("\x1b[22;2t\x1b]2;vim\x07")
		}
		some(true)
		for range 1 + r.IntN(2) {
			ours(f.titles.show("tssh: watched"))
			some(false)
		}
		ours(f.titles.restore())
		if with.title != without.title || len(with.stack) != len(without.stack) {
			t.Fatalf("%q: the title is %q, not %q; %d kept, not %d", all.String(), with.title, without.title, len(with.stack), len(without.stack))
		}
		if plain.title == "tssh: watched" {
			t.Fatalf("%q: the notice stays", all.String())
		}
		if again := f.titles.restore(); again != "" {
			t.Fatalf("twice: %q", again)
		}
	}
	var f flow
	f.feed([]byte("\x1b]2;" + strings.Repeat("x", 10*maxTitle) + "\x07"))
	if f.titles.now.known || len(f.titles.osc) > maxTitle {
		t.Errorf("a long title: %v, %d bytes", f.titles.now, len(f.titles.osc))
	}
	for range 100 {
		f.feed([]byte("\x1b[22t"))
	}
	if len(f.titles.stack) != maxTitles {
		t.Errorf("%d titles kept", len(f.titles.stack))
	}
}
