package session

import (
	"testing"
)

// TestFlow: what may be written between, and where, however the output is cut.
func TestFlow(t *testing.T) {
	for _, c := range []struct {
		out          string
		between, alt bool
	}{
		{"plain\r\n", true, false},
		{"\x1b", false, false},
		{"\x1b[3", false, false},
		{"\x1b[31m", true, false},
		{"\x1b]0;title", false, false},
		{"\x1b]0;title\x07", true, false},
		{"\x1b]0;title\x1b", false, false},
		{"\x1b]0;title\x1b\\", true, false},
		{"\x1bPq#0", false, false},
		{"\x1b(", false, false},
		{"\x1b(B", true, false},
		{"\x1b[?1049h\x1b[2J", true, true},
		{"\x1b[?1;1049;25hvim\x1b[?1049l", true, false},
		{"\x1b[?47h", true, true},
		{"\x1b[1049h", true, false},
		{"gr\xc3", false, false},
		{"gr\xc3\xb6", true, false},
		{"\xe2\x82", false, false},
		{"\x1b[?1049\x18h", true, false},
	} {
		var whole, cut flow
		whole.feed([]byte(c.out))
		for i := range len(c.out) {
			cut.feed([]byte(c.out[i : i+1]))
		}
		if got := whole.between(); got != c.between || whole.alt != c.alt {
			t.Errorf("%q: between %v, alternate screen %v", c.out, got, whole.alt)
		}
		// A character that comes in pieces is plain text to a byte at a time; sequences are not.
		if cut.state != whole.state || cut.alt != whole.alt {
			t.Errorf("%q in pieces: state %q, alternate screen %v", c.out, cut.state, cut.alt)
		}
	}
}
