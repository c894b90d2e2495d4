package term

// arg is the i-th parameter, or def where it is missing or 0.
func (t *Term) arg(i, def int) int {
	if i >= t.nparams || t.params[i] <= 0 {
		return def
	}
	return t.params[i]
}

// csi acts on a whole control sequence (ECMA-48, and the DEC and xterm additions).
func (t *Term) csi(final byte) {
	switch {
	case t.inter == 0 && t.private == 0:
		t.csiPlain(final)
	case t.inter == 0 && t.private == '?':
		t.csiPrivate(final)
	case t.inter == ' ' && t.private == 0 && final == 'q':
		if n := t.arg(0, 0); n <= 6 {
			t.style = n
		}
	case t.inter == '!' && t.private == 0 && final == 'p':
		t.softReset()
	}
}

func (t *Term) softReset() {
	t.modes = t.modes&^(modeInsert|modeHideCursor|modeCursorKeys|modeKeypad) | modeWrap
	t.top, t.bot = 0, t.rows-1
	x, y := t.cursor.x, t.cursor.y
	t.cursor = cursor{x: x, y: y}
	t.cur.saved = cursor{}
}

func (t *Term) csiPlain(final byte) {
	c := &t.cursor
	n := t.arg(0, 1)
	switch final {
	case 'J', 'L', 'M', 'S', 'T':
		t.work += t.area()
	case '@', 'I', 'K', 'P', 'X', 'Z', 'b':
		t.work += int64(t.cols)
	}
	switch final {
	case '@':
		n = min(n, t.cols-c.x)
		row := t.cur.row(c.y)
		copy(row[c.x+n:], row[c.x:])
		fill(row[c.x:c.x+n], c.pen)
		mend(row, c.x, c.x+n)
		mend(row, t.cols, t.cols)
		c.wrap = false
	case 'A':
		t.vertical(-n)
	case 'B', 'e':
		t.vertical(n)
	case 'C', 'a':
		c.x, c.wrap = min(c.x+n, t.cols-1), false
	case 'D':
		c.x, c.wrap = max(c.x-n, 0), false
	case 'E':
		t.vertical(n)
		c.x = 0
	case 'F':
		t.vertical(-n)
		c.x = 0
	case 'G', '`':
		c.x, c.wrap = min(n, t.cols)-1, false
	case 'H', 'f':
		t.moveTo(t.arg(1, 1)-1, n-1)
	case 'I':
		t.tab(n)
	case 'J':
		t.eraseDisplay(t.arg(0, 0))
	case 'K':
		t.eraseLine(t.arg(0, 0))
	case 'L', 'M':
		if c.y < t.top || c.y > t.bot {
			return
		}
		if final == 'L' {
			n = -n
		}
		t.cur.scroll(c.y, t.bot, n, c.pen)
		c.x, c.wrap = 0, false
	case 'P':
		n = min(n, t.cols-c.x)
		row := t.cur.row(c.y)
		copy(row[c.x:], row[c.x+n:])
		fill(row[t.cols-n:], c.pen)
		mend(row, c.x, t.cols-n)
		c.wrap = false
	case 'S':
		t.cur.scroll(t.top, t.bot, n, c.pen)
		c.wrap = false
	case 'T':
		if t.nparams <= 1 { // with more it is mouse highlighting
			t.cur.scroll(t.top, t.bot, -n, c.pen)
			c.wrap = false
		}
	case 'X':
		erase(t.cur.row(c.y), c.x, c.x+n, c.pen)
		c.wrap = false
	case 'Z':
		t.backTab(n)
	case 'b':
		if t.last != 0 {
			for range min(n, t.cols) { // nobody repeats more than a line: few bytes must not cost much
				t.put(t.last)
			}
		}
	case 'd':
		t.moveTo(c.x, n-1)
	case 'g':
		switch t.arg(0, 0) {
		case 0:
			t.tabs[c.x] = false
		case 3:
			clear(t.tabs)
		}
	case 'h', 'l':
		for i := range t.nparams {
			switch t.params[i] {
			case 4:
				t.setMode(modeInsert, final == 'h')
			case 20:
				t.setMode(modeNewline, final == 'h')
			}
		}
	case 'm':
		t.sgr()
	case 'r':
		top, bot := n-1, min(t.arg(1, t.rows), t.rows)-1
		if top < bot {
			t.top, t.bot = top, bot
			t.moveTo(0, 0)
		}
	case 's':
		t.save()
	case 'u':
		t.restore()
	}
}

// vertical moves the cursor up or down; the scroll region holds it if it is inside.
func (t *Term) vertical(n int) {
	c := &t.cursor
	y := c.y + n
	if n < 0 {
		if c.y >= t.top {
			y = max(y, t.top)
		}
	} else if c.y <= t.bot {
		y = min(y, t.bot)
	}
	c.y = min(max(0, y), t.rows-1)
	c.wrap = false
}

func (t *Term) eraseDisplay(how int) {
	c := &t.cursor
	switch how {
	case 0:
		erase(t.cur.row(c.y), c.x, t.cols, c.pen)
		t.cur.wipe(c.y+1, t.rows, c.pen)
	case 1:
		erase(t.cur.row(c.y), 0, c.x+1, c.pen)
		t.cur.wipe(0, c.y, c.pen)
	case 2:
		t.clear(t.cur)
	default: // 3 is the scrollback, which is not kept
		return
	}
	c.wrap = false
}

func (t *Term) eraseLine(how int) {
	c := &t.cursor
	row := t.cur.row(c.y)
	switch how {
	case 0:
		erase(row, c.x, t.cols, c.pen)
	case 1:
		erase(row, 0, c.x+1, c.pen)
	case 2:
		fill(row, c.pen)
	}
	c.wrap = false
}

func (t *Term) setMode(m mode, on bool) {
	if on {
		t.modes |= m
	} else {
		t.modes &^= m
	}
}

func (t *Term) csiPrivate(final byte) {
	switch final {
	case 'h', 'l':
		for i := range t.nparams {
			t.privateMode(t.params[i], final == 'h')
		}
	case 'J': // selective erase: nothing is ever protected
		t.work += t.area()
		t.eraseDisplay(t.arg(0, 0))
	case 'K':
		t.work += int64(t.cols)
		t.eraseLine(t.arg(0, 0))
	}
}

func (t *Term) privateMode(n int, on bool) {
	for _, p := range privateModes {
		if p.n == n {
			t.setMode(p.m, on)
			if p.m == modeWrap && !on {
				t.cursor.wrap = false
			}
			return
		}
	}
	switch n {
	case 6:
		t.cursor.origin = on
		t.moveTo(0, 0)
	case 25:
		t.setMode(modeHideCursor, !on)
	case 47, 1047:
		t.showAlt(on)
	case 1048:
		if on {
			t.save()
		} else {
			t.restore()
		}
	case 1049:
		switch {
		case on && t.cur == t.main:
			t.save()
			t.showAlt(true)
		case !on && t.cur != t.main:
			t.showAlt(false)
			t.restore()
		}
	}
}

// sgr changes the pen.
func (t *Term) sgr() {
	p := &t.cursor.pen
	for i := 0; i < t.nparams; i++ {
		n := max(0, t.params[i])
		switch {
		case n == 0:
			*p = pen{}
		case n == 1:
			p.attr |= bold
		case n == 2:
			p.attr |= faint
		case n == 3:
			p.attr |= italic
		case n == 4:
			p.attr &^= underline | doubleUnderline
			style := 1
			if i+1 < t.nparams && t.sub[i+1] { // 4:0 none, 4:2 double, 4:3 curly...
				i++
				style = t.params[i]
			}
			switch style {
			case 0:
			case 2:
				p.attr |= doubleUnderline
			default:
				p.attr |= underline
			}
		case n == 5 || n == 6:
			p.attr |= blink
		case n == 7:
			p.attr |= reverse
		case n == 8:
			p.attr |= hidden
		case n == 9:
			p.attr |= strike
		case n == 21:
			p.attr = p.attr&^underline | doubleUnderline
		case n == 22:
			p.attr &^= bold | faint
		case n == 23:
			p.attr &^= italic
		case n == 24:
			p.attr &^= underline | doubleUnderline
		case n == 25:
			p.attr &^= blink
		case n == 27:
			p.attr &^= reverse
		case n == 28:
			p.attr &^= hidden
		case n == 29:
			p.attr &^= strike
		case n == 53:
			p.attr |= overline
		case n == 55:
			p.attr &^= overline
		case n >= 30 && n <= 37:
			p.fg = indexed | colour(n-30)
		case n == 39:
			p.fg = 0
		case n >= 40 && n <= 47:
			p.bg = indexed | colour(n-40)
		case n == 49:
			p.bg = 0
		case n >= 90 && n <= 97:
			p.fg = indexed | colour(n-90+8)
		case n >= 100 && n <= 107:
			p.bg = indexed | colour(n-100+8)
		case n == 38 || n == 48 || n == 58:
			var c colour
			var ok bool
			c, ok, i = t.extended(i)
			switch {
			case !ok || n == 58: // the underline's own colour is not kept
			case n == 38:
				p.fg = c
			default:
				p.bg = c
			}
		}
		for i+1 < t.nparams && t.sub[i+1] { // what is left of a colon group
			i++
		}
	}
}

// extended reads 38;5;N, 38;2;R;G;B and their forms with colons, from the 38 at i. It
// returns the index of the last parameter it used.
func (t *Term) extended(i int) (c colour, ok bool, last int) {
	if i+1 >= t.nparams {
		return 0, false, i
	}
	colons := t.sub[i+1]
	end := i + 1 // one past the group
	if colons {
		for end < t.nparams && t.sub[end] {
			end++
		}
	} else {
		end = t.nparams
	}
	val := func(j int) int { return max(0, t.params[j]) }
	switch t.params[i+1] {
	case 5:
		if i+2 < end && val(i+2) <= 255 {
			return indexed | colour(val(i+2)), true, i + 2
		}
		return 0, false, min(i+2, end-1)
	case 2:
		j := i + 2
		if colons && end-j >= 4 { // 38:2:space:r:g:b
			j++
		}
		if j+2 < end && val(j) <= 255 && val(j+1) <= 255 && val(j+2) <= 255 {
			return direct | colour(val(j)<<16|val(j+1)<<8|val(j+2)), true, j + 2
		}
		return 0, false, min(j+2, end-1)
	}
	return 0, false, i + 1
}
