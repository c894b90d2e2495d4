package term

import "unicode/utf8"

// Write takes what a program wrote to its terminal. Sequences and characters may be
// cut anywhere between two calls.
func (t *Term) Write(b []byte) {
	t.work += int64(len(b))
	for len(b) > 0 {
		switch t.state {
		case ground:
			b = t.text(b)
		case csi:
			b = t.parameters(b)
		case stringIgnore:
			b = t.skipString(b)
		default:
			t.control(b[0])
			b = b[1:]
		}
	}
}

// text draws from the start of b and returns the rest.
func (t *Term) text(b []byte) []byte {
	if t.nutf > 0 {
		return t.continueRune(b)
	}
	c := b[0]
	if c >= 0x20 && c < 0x7f {
		n := 1
		for n < len(b) && b[n] >= 0x20 && b[n] < 0x7f {
			n++
		}
		if t.modes&(modeInsert|modeWrap) != modeWrap || t.cursor.charset[t.cursor.shift] {
			for _, c := range b[:n] {
				t.put(rune(c))
			}
			return b[n:]
		}
		return b[t.plain(b[:n]):]
	}
	if c < 0x80 {
		t.c0(c)
		return b[1:]
	}
	if !utf8.FullRune(b) {
		t.nutf = copy(t.utf[:], b)
		return nil
	}
	r, n := utf8.DecodeRune(b)
	t.put(r)
	return b[n:]
}

// continueRune adds bytes to an unfinished rune until it is whole or wrong.
func (t *Term) continueRune(b []byte) []byte {
	if b[0]&0xc0 == 0x80 {
		t.utf[t.nutf] = b[0]
		t.nutf++
		if !utf8.FullRune(t.utf[:t.nutf]) {
			return b[1:]
		}
		r, n := utf8.DecodeRune(t.utf[:t.nutf])
		if r != utf8.RuneError || n > 1 {
			t.nutf = 0
			t.put(r)
			return b[1:]
		}
		t.nutf-- // that byte does not belong to it
	}
	// Each byte of a broken rune shows once, as it does when they come together.
	for range t.nutf {
		t.put(utf8.RuneError)
	}
	t.nutf = 0
	return b
}

// c0 acts on a control character; in any state but a string's.
func (t *Term) c0(c byte) {
	switch c {
	case 0x08:
		if t.cursor.x > 0 {
			t.cursor.x--
		}
		t.cursor.wrap = false
	case 0x09:
		t.tab(1)
	case 0x0a, 0x0b, 0x0c:
		t.lineFeed()
		if t.modes&modeNewline != 0 {
			t.cursor.x = 0
		}
		t.cursor.wrap = false
	case 0x0d:
		t.cursor.x, t.cursor.wrap = 0, false
	case 0x0e:
		t.cursor.shift = 1
	case 0x0f:
		t.cursor.shift = 0
	case 0x18, 0x1a:
		t.state = ground
	case 0x1b:
		t.state, t.inter = escape, 0
	}
}

func (t *Term) tab(n int) {
	for range min(n, t.cols) {
		x := t.cursor.x + 1
		for x < t.cols-1 && !t.tabs[x] {
			x++
		}
		t.cursor.x = min(x, t.cols-1)
	}
	t.cursor.wrap = false
}

func (t *Term) backTab(n int) {
	for range min(n, t.cols) {
		x := t.cursor.x - 1
		for x > 0 && !t.tabs[x] {
			x--
		}
		t.cursor.x = max(x, 0)
	}
	t.cursor.wrap = false
}

// control is one byte in the states that are short.
func (t *Term) control(c byte) {
	switch t.state {
	case stringEscape:
		if c == '\\' {
			t.state = ground
			return
		}
		t.state, t.inter = escape, 0 // the string was cut off by another sequence
		t.control(c)
	case escape, escapeInter:
		switch {
		case c < 0x20:
			t.c0(c)
		case c < 0x30:
			t.inter, t.state = c, escapeInter
		case c < 0x7f:
			inter := t.inter
			if t.state == escape {
				inter = 0
			}
			t.state = ground
			t.escape(inter, c)
		case c >= 0x80: // not a sequence: show it as text
			t.state = ground
			t.text([]byte{c})
		}
	case csiIgnore:
		switch {
		case c < 0x20:
			t.c0(c)
		case c >= 0x40 && c < 0x7f:
			t.state = ground
		}
	}
}

// parameters reads a control sequence up to its final byte.
func (t *Term) parameters(b []byte) []byte {
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			if t.inter != 0 {
				t.state = csiIgnore
				return b[i+1:]
			}
			if p := &t.params[t.nparams]; *p < 0 {
				*p = int(c - '0')
			} else {
				*p = min(*p*10+int(c-'0'), 0xffff)
			}
		case c == ';' || c == ':':
			if t.nparams == maxParams-1 {
				t.state = csiIgnore
				return b[i+1:]
			}
			t.nparams++
			t.params[t.nparams], t.sub[t.nparams] = -1, c == ':'
		case c >= '<' && c <= '?':
			if t.nparams > 0 || t.params[0] >= 0 || t.private != 0 {
				t.state = csiIgnore
				return b[i+1:]
			}
			t.private = c
		case c < 0x20:
			t.c0(c)
			if t.state != csi {
				return b[i+1:]
			}
		case c < 0x30:
			t.inter = c
		case c < 0x7f:
			t.state = ground
			t.nparams++
			t.csi(c)
			return b[i+1:]
		case c >= 0x80:
			t.state = csiIgnore
			return b[i+1:]
		}
	}
	return nil
}

// skipString drops a string up to its end.
func (t *Term) skipString(b []byte) []byte {
	for i, c := range b {
		switch c {
		case 0x07: // xterm's other end of an OSC
			if t.inter != ']' {
				continue
			}
			t.state = ground
			return b[i+1:]
		case 0x18, 0x1a:
			t.state = ground
			return b[i+1:]
		case 0x1b:
			t.state = stringEscape
			return b[i+1:]
		}
	}
	return nil
}

func (t *Term) escape(inter, c byte) {
	switch inter {
	case 0:
	case '(', ')':
		t.cursor.charset[inter-'('] = c == '0'
		return
	case '#':
		if c == '8' { // alignment test
			t.work += t.area()
			t.cursor.pen = pen{}
			for y := range t.cur.rows {
				row := t.cur.row(y)
				for x := range row {
					row[x] = cell{r: 'E', width: 1}
				}
			}
			t.top, t.bot = 0, t.rows-1
			t.cursor.origin = false
			t.moveTo(0, 0)
		}
		return
	default:
		return
	}
	switch c {
	case '[':
		t.state, t.inter, t.private, t.nparams = csi, 0, 0, 0
		t.params[0], t.sub[0] = -1, false
	case ']', 'P', 'X', '^', '_':
		t.state, t.inter = stringIgnore, c
	case '7':
		t.save()
	case '8':
		t.restore()
	case 'D':
		t.lineFeed()
		t.cursor.wrap = false
	case 'E':
		t.lineFeed()
		t.cursor.x, t.cursor.wrap = 0, false
	case 'H':
		t.tabs[t.cursor.x] = true
	case 'M':
		t.reverseIndex()
	case 'c':
		t.reset()
	case '=':
		t.modes |= modeKeypad
	case '>':
		t.modes &^= modeKeypad
	}
}

// lineDrawing maps ASCII to the DEC special graphics set.
func lineDrawing(r rune) rune {
	if r < 0x5f || r > 0x7e {
		return r
	}
	return [...]rune{
		' ', '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼',
		'⎺', '⎻', '─', '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
	}[r-0x5f]
}
