package term

import "io"

// Painter draws screens on a terminal that is not trusted with the bytes the screens
// came from. It writes differences only. Of a screen that is larger it shows a part: the top left one, or, where the
// cursor is outside of that, the nearest that has it, for there something happens.
type Painter struct {
	w          io.Writer
	cols, rows int
	left, top  int      // of the screen, what is shown first
	shown      [][]cell // what is there now; nil rows are unknown
	buf        []byte
}

// NewPainter draws in the top left cols x rows of the terminal behind w.
func NewPainter(w io.Writer, cols, rows int) *Painter {
	p := &Painter{w: w}
	p.Resize(cols, rows)
	return p
}

// Resize changes the area and forgets what it shows.
func (p *Painter) Resize(cols, rows int) {
	p.cols, p.rows = min(max(1, cols), 2*MaxCols), min(max(1, rows), 2*MaxRows)
	p.shown = make([][]cell, p.rows)
}

// Offset is where in the screen the area begins, as of the last Paint.
func (p *Painter) Offset() (left, top int) { return p.left, p.top }

// follow moves the area to where the cursor is, with as much as can be of what is above it. Sideways it goes by halves, so that typing does not move the picture
// at each key; and back to the left edge as soon as the cursor is in what is seen from there.
func (p *Painter) follow(t *Term) {
	x, y := min(t.cursor.x, t.cols-1), t.cursor.y
	p.top = max(0, y-p.rows+1)
	p.left = 0
	if half := max(1, p.cols/2); x >= p.cols {
		p.left = min((x-p.cols)/half*half+half, t.cols-p.cols)
	}
}

// Paint makes the area show t. It uses one Write.
func (p *Painter) Paint(t *Term) error {
	p.follow(t)
	b := append(p.buf[:0], "\x1b[?25l"...)
	flip := t.modes&modeReverse != 0
	for y := range p.rows {
		want := newRow(p.cols, pen{})
		if at := y + p.top; at < t.rows {
			n := copy(want, t.cur.rows[at][p.left:])
			mend(want, 0, n) // what the edges cut through
		}
		if flip && y+p.top < t.rows {
			for x := range min(t.cols-p.left, p.cols) {
				want[x].attr ^= reverse
			}
		}
		b = p.paintRow(b, y, want)
		p.shown[y] = want
	}
	b = append(b, "\x1b[0m"...)
	if x, y, shown := t.Cursor(); shown && x-p.left < p.cols {
		b = append(sequence(b, "", 'H', y-p.top+1, x-p.left+1), "\x1b[?25h"...)
	}
	p.buf = b
	_, err := p.w.Write(b)
	return err
}

// paintRow draws from the first cell that differs to the last.
func (p *Painter) paintRow(b []byte, y int, want []cell) []byte {
	from, to := 0, len(want)
	if had := p.shown[y]; had != nil {
		for from < to && had[from] == want[from] {
			from++
		}
		for to > from && had[to-1] == want[to-1] {
			to--
		}
		if from == to {
			return b
		}
		for from > 0 && (want[from].width == 0 || had[from].width == 0) {
			from--
		}
		for to < len(want) && (want[to].width == 0 || had[to].width == 0) {
			to++
		}
	}
	b = sequence(b, "", 'H', y+1, from+1)
	var cur pen
	b = append(b, "\x1b[0m"...)
	for x := from; x < to; x++ {
		c := want[x]
		if c.width == 0 {
			continue
		}
		if c.pen != cur {
			b, cur = appendPen(b, c.pen), c.pen
		}
		b = appendCell(b, c)
		if c.width == 2 || c.marks[0] != 0 { // the other terminal may think otherwise of its width
			b = sequence(b, "", 'H', y+1, min(x+int(c.width), p.cols-1)+1)
		}
	}
	return b
}
