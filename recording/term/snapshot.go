package term

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Snapshot returns bytes that bring any terminal of this size into this state. What
// has begun and is not finished, half a character or half a sequence, comes last, so
// that the bytes that follow in the stream finish it.
func (t *Term) Snapshot() []byte {
	b := append(make([]byte, 0, 2048), "\x1bc"...)
	b = t.paintScreen(b, t.main)
	if t.cur == t.alt {
		b = t.placeCursor(b, t.main, t.main.saved, 0)
		b = append(b, "\x1b7\x1b[?6l\x1b(B\x1b)B\x0f\x1b[m\x1b[?1047h"...)
		b = t.paintScreen(b, t.alt)
	}
	b = t.tabStops(b)
	if t.cur.saved != (cursor{}) {
		b = t.placeCursor(b, t.cur, t.cur.saved, 0)
		b = append(b, "\x1b7\x1b[?6l\x1b(B\x1b)B\x0f"...)
	}
	if t.top != 0 || t.bot != t.rows-1 {
		b = sequence(b, "", 'r', t.top+1, t.bot+1)
	}
	top := 0
	if t.cursor.origin {
		top = t.top
	}
	b = t.placeCursor(b, t.cur, t.cursor, top)
	b = t.switches(b)
	return t.unfinished(b)
}

// paintScreen draws a screen that is empty, by rows, leaving out what is empty.
func (t *Term) paintScreen(b []byte, s *screen) []byte {
	var p pen
	for y, row := range s.rows {
		at := -1 // where the cursor is in this row
		for x := 0; x < len(row); x++ {
			c := row[x]
			if c.width == 0 || c.r == 0 && c.bg == 0 {
				continue
			}
			if at != x {
				b = sequence(b, "", 'H', y+1, x+1)
			}
			if c.pen != p {
				b, p = appendPen(b, c.pen), c.pen
			}
			if c.r != 0 {
				b = appendCell(b, c)
				at = x + int(c.width)
				continue
			}
			n := 1
			for x+n < len(row) && row[x+n] == c {
				n++
			}
			b = sequence(b, "", 'X', n)
			at, x = x, x+n-1
		}
	}
	if p != (pen{}) {
		b = append(b, "\x1b[m"...)
	}
	return b
}

// placeCursor brings the cursor where c is, with everything DECSC would save. Rows of
// the terminal count from top.
func (t *Term) placeCursor(b []byte, s *screen, c cursor, top int) []byte {
	if c.origin {
		b = append(b, "\x1b[?6h"...)
	}
	// A character is drawn once more where the cursor waits to wrap behind it, or
	// where REP would repeat it.
	row, again, waits := s.rows[c.y], c.x-1, t.canWrap(s, c)
	if waits {
		again = c.x
	}
	if again > 0 && row[again].width == 0 {
		again--
	}
	if waits || again >= 0 && row[again].r == t.last && t.last != 0 {
		b = sequence(b, "", 'H', c.y-top+1, again+1)
		b = appendCell(appendPen(b, row[again].pen), row[again])
	}
	if !waits {
		b = sequence(b, "", 'H', c.y-top+1, c.x+1)
	}
	b = appendPen(b, c.pen)
	for g, drawing := range c.charset {
		if drawing {
			b = append(b, 0x1b, "()"[g], '0')
		}
	}
	if c.shift == 1 {
		b = append(b, 0x0e)
	}
	return b
}

func (t *Term) tabStops(b []byte) []byte {
	usual := true
	for x, set := range t.tabs {
		if set != (x > 0 && x%8 == 0) {
			usual = false
		}
	}
	if usual {
		return b
	}
	b = append(b, "\x1b[3g"...)
	for x, set := range t.tabs {
		if set {
			b = append(sequence(b, "", 'H', 1, x+1), "\x1bH"...)
		}
	}
	return b
}

func (t *Term) switches(b []byte) []byte {
	for _, p := range privateModes {
		on, usual := t.modes&p.m != 0, p.m == modeWrap
		switch {
		case on && !usual:
			b = sequence(b, "?", 'h', p.n)
		case !on && usual:
			b = sequence(b, "?", 'l', p.n)
		}
	}
	if t.modes&modeInsert != 0 {
		b = append(b, "\x1b[4h"...)
	}
	if t.modes&modeNewline != 0 {
		b = append(b, "\x1b[20h"...)
	}
	if t.modes&modeHideCursor != 0 {
		b = append(b, "\x1b[?25l"...)
	}
	if t.style != 0 {
		b = append(b, 0x1b, '[', byte('0'+t.style), ' ', 'q')
	}
	return b
}

// unfinished is the start of what the next bytes go on with.
func (t *Term) unfinished(b []byte) []byte {
	switch t.state {
	case ground:
		return append(b, t.utf[:t.nutf]...)
	case escape:
		return append(b, 0x1b)
	case escapeInter:
		return append(b, 0x1b, t.inter)
	case csiIgnore:
		return append(b, "\x1b[0?"...)
	case csi:
		b = append(b, 0x1b, '[')
		if t.private != 0 {
			b = append(b, t.private)
		}
		for i := range t.nparams + 1 {
			if i > 0 {
				b = append(b, ";:"[btoi(t.sub[i])])
			}
			if t.params[i] >= 0 {
				b = strconv.AppendInt(b, int64(t.params[i]), 10)
			}
		}
		if t.inter != 0 {
			b = append(b, t.inter)
		}
		return b
	}
	// A string is dropped here, and must do nothing elsewhere either: an OSC that
	// nobody knows, or an application string.
	if t.inter == ']' {
		b = append(b, "\x1b]9999;"...)
	} else {
		b = append(b, "\x1b_"...)
	}
	if t.state == stringEscape {
		b = append(b, 0x1b)
	}
	return b
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sequence(b []byte, private string, final byte, params ...int) []byte {
	b = append(b, 0x1b, '[')
	b = append(b, private...)
	for i, p := range params {
		if i > 0 {
			b = append(b, ';')
		}
		b = strconv.AppendInt(b, int64(p), 10)
	}
	return append(b, final)
}

func appendCell(b []byte, c cell) []byte {
	if c.r == 0 {
		return append(b, ' ')
	}
	b = utf8.AppendRune(b, c.r)
	for _, m := range c.marks {
		if m != 0 {
			b = utf8.AppendRune(b, m)
		}
	}
	return b
}

var attrCodes = [...]struct {
	a    attr
	code string
}{
	{bold, ";1"}, {faint, ";2"}, {italic, ";3"}, {underline, ";4"}, {blink, ";5"}, {reverse, ";7"},
	{hidden, ";8"}, {strike, ";9"}, {doubleUnderline, ";21"}, {overline, ";53"},
}

// appendPen selects a pen, whatever it was before.
func appendPen(b []byte, p pen) []byte {
	b = append(b, "\x1b[0"...)
	for _, c := range attrCodes {
		if p.attr&c.a != 0 {
			b = append(b, c.code...)
		}
	}
	b = appendColour(b, p.fg, 0)
	b = appendColour(b, p.bg, 10)
	return append(b, 'm')
}

func appendColour(b []byte, c colour, shift int64) []byte {
	n := int64(c & 0xffffff)
	switch {
	case c&direct != 0:
		b = append(b, ';')
		b = strconv.AppendInt(b, 38+shift, 10)
		b = append(b, ";2"...)
		for _, v := range [...]int64{n >> 16, n >> 8 & 0xff, n & 0xff} {
			b = append(b, ';')
			b = strconv.AppendInt(b, v, 10)
		}
	case c&indexed == 0:
	case n < 8:
		b = append(b, ';')
		b = strconv.AppendInt(b, 30+shift+n, 10)
	case n < 16:
		b = append(b, ';')
		b = strconv.AppendInt(b, 90+shift+n-8, 10)
	default:
		b = append(b, ';')
		b = strconv.AppendInt(b, 38+shift, 10)
		b = append(b, ";5;"...)
		b = strconv.AppendInt(b, n, 10)
	}
	return b
}

// Text is what the screen shows, a string a row, without trailing blanks.
func (t *Term) Text() []string {
	lines := make([]string, t.rows)
	for y := range lines {
		lines[y] = t.Line(y)
	}
	return lines
}

// Line is row y of Text.
func (t *Term) Line(y int) string {
	var b []byte
	for _, c := range t.cur.rows[y] {
		if c.width != 0 {
			b = appendCell(b, c)
		}
	}
	return strings.TrimRight(string(b), " ")
}
