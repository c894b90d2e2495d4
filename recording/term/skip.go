package term

import "bytes"

// skipLines is how many screens of line feeds must follow what is not drawn: the first brings
// the cursor to the bottom from wherever it is, the second scrolls all else away.
const skipLines = 2

// Skip takes as much of the start of b as the rest of b scrolls off the screen again, without
// drawing it, and says how much that was. Write(b[n:]) must be next: then the screen is what
// Write(b) makes of it. Output that floods a terminal is mostly such.
//
// What is skipped may set colours, which are followed, and move and erase, which does not
// matter; the rest of b must be lines of text and colours. Anything else, and a terminal
// whose lines somebody wants (Scrolled), is left to Write.
func (t *Term) Skip(b []byte) int {
	if t.Scrolled != nil || t.state != ground || t.top != 0 || t.bot != t.rows-1 || bytes.IndexByte(b, 0x0e) >= 0 || bytes.IndexByte(b, 0x0f) >= 0 {
		return 0
	}
	n := tail(b, skipLines*t.rows)
	if n == 0 {
		return 0
	}
	from := n // the colours that no reset comes after
	for at := 0; ; {
		i := bytes.IndexByte(b[at:n], 0x1b)
		if i < 0 {
			break
		}
		at += i
		size := calmSequence(b[at:n])
		if size == 0 {
			return 0
		}
		if b[at+size-1] == 'm' && (from == n || size == 3 || size == 4 && b[at+2] == '0') {
			from = at
		}
		at += size
	}
	for from < n {
		size := calmSequence(b[from:n])
		if b[from+size-1] == 'm' {
			t.Write(b[from : from+size])
		}
		from += size
		i := bytes.IndexByte(b[from:n], 0x1b)
		if i < 0 {
			break
		}
		from += i
	}
	// b[:n] ends with a carriage return.
	t.nutf, t.cursor.x, t.cursor.wrap = 0, 0, false
	return n
}

// tail is where the last part of b begins that follows a carriage return, is lines of text
// and colours, has so many line feeds, and draws something. 0: there is none.
func tail(b []byte, feeds int) int {
	drawn := false
	for i := len(b) - 1; i > 0; i-- {
		switch c := b[i]; {
		case c == '\n':
			feeds--
		case c == 0x1b:
			n := calmSequence(b[i:])
			if n == 0 && !unfinished(b[i:]) || n > 0 && b[i+n-1] != 'm' && b[i+n-1] != 'K' {
				return 0
			}
			if n > 0 && i+n < len(b) && b[i+n] >= 0x20 && b[i+n] < 0x7f {
				drawn = true
			}
		case c == '\r' && feeds <= 0 && drawn:
			return i + 1
		case c >= 0x20 && c < 0x7f && b[i-1] == '\n':
			drawn = true // no part of a sequence
		}
	}
	return 0
}

// calmSequence is the length of the control sequence at the start of b, if it is one that
// only draws, moves, erases or sets colours and is whole; else 0.
func calmSequence(b []byte) int {
	if len(b) < 3 || b[1] != '[' {
		return 0
	}
	for i, c := range b[2:] {
		switch {
		case c >= '0' && c <= ';': // a colon too
			continue
		case i < 64 && (c >= '@' && c <= 'H' || c == 'J' || c == 'K' || c == 'L' || c == 'M' || c == 'P' || c == 'S' || c == 'T' || c == 'X' || c == 'd' || c == 'f' || c == 'm'):
			return i + 3
		}
		return 0
	}
	return 0
}

// unfinished reports whether b is the beginning of a control sequence and nothing else.
func unfinished(b []byte) bool {
	for i, c := range b {
		if i == 1 && c != '[' || i > 1 && (c < '0' || c > ';') {
			return false
		}
	}
	return true
}
