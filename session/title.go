package session

// titles is what is known of the window's title: enough to put back what was there before a notice took its place.
// Programs set it with OSC 0 and 2, and keep it on the terminal's stack with CSI 22 t and CSI 23 t (XTerm's window
// operations). A terminal without that stack ignores them.
type titles struct {
	now    title
	stack  []title // what the program kept, as far as it is known
	pushed bool    // ours stands on the terminal's stack
	osc    []byte  // of the one that is being read
	long   bool    // longer than is kept
}

type title struct {
	known bool
	text  string
}

const (
	maxTitle  = 256 // bytes kept of one
	maxTitles = 10  // kept on the stack, as xterm has it
)

// begin and read take an operating system command, whose end is done.
func (t *titles) begin() { t.osc, t.long = t.osc[:0], false }

func (t *titles) read(c byte) {
	if len(t.osc) >= maxTitle {
		t.long = true
		return
	}
	t.osc = append(t.osc, c)
}

func (t *titles) done() {
	if len(t.osc) < 2 || t.osc[1] != ';' || t.osc[0] != '0' && t.osc[0] != '2' {
		return
	}
	t.now = title{!t.long, string(t.osc[2:])}
	if t.long {
		t.now.text = ""
	}
}

// window follows CSI ... t: 22 keeps the title, 23 brings it back; a second parameter of 1 is the icon's alone.
func (t *titles) window(seq string) {
	switch seq {
	case "22", "22;0", "22;2":
		if len(t.stack) == maxTitles {
			t.stack = append(t.stack[:0], t.stack[1:]...)
		}
		t.stack = append(t.stack, t.now)
	case "23", "23;0", "23;2":
		t.now = title{}
		if n := len(t.stack); n > 0 {
			t.now, t.stack = t.stack[n-1], t.stack[:n-1]
		}
	}
}

// show makes words the title.
func (t *titles) show(words string) string {
	keep := ""
	if !t.pushed {
		keep, t.pushed = "\x1b[22;2t", true
	}
	return keep + "\x1b]2;" + words + "\x07"
}

// restore makes the title what it was, or what the program has made it since. Where that is not known the terminal's
// stack has it, and one without a stack is left with an empty title, for which most have a word of their own.
func (t *titles) restore() string {
	switch {
	case !t.pushed:
		return ""
	case t.now.known:
		t.pushed = false
		return "\x1b[23;2t\x1b]2;" + t.now.text + "\x07"
	}
	t.pushed = false
	return "\x1b]2;\x07\x1b[23;2t"
}
