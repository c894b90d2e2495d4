package ssh

// action is what an escape sequence asks for.
type action byte

const (
	actDisconnect action = '.'
	actSuspend    action = 0x1a // ^Z
	actBreak      action = 'B'
	actHelp       action = '?'
	actList       action = '#'
)

// escape finds escape sequences in typed input. They count only after a line end, and at
// the start.
//
//	line start --char--> seen --known--> action, line start
//	     |                 '---other--> char and other, in line
//	     '--other--> in line --CR or LF--> line start
type escape struct {
	char   byte
	inLine bool
	seen   bool
}

// feed gives back what is to be sent, and what is to be done. Sequences may come in pieces.
func (e *escape) feed(in []byte) (out []byte, act []action) {
	out = make([]byte, 0, len(in)+1)
	for _, b := range in {
		if e.seen {
			e.seen = false
			switch {
			case b == e.char:
				out = append(out, b)
				e.inLine = true
				continue
			case action(b) == actDisconnect:
				return out, append(act, actDisconnect)
			case action(b) == actSuspend, action(b) == actBreak, action(b) == actHelp, action(b) == actList:
				act = append(act, action(b))
				continue
			}
			out = append(out, e.char)
		} else if b == e.char && !e.inLine {
			e.seen = true
			continue
		}
		out = append(out, b)
		e.inLine = b != '\r' && b != '\n'
	}
	return out, act
}
