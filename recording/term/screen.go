package term

// attr are the ways a character is shown that are on or off.
type attr uint16

const (
	bold attr = 1 << iota
	faint
	italic
	underline
	blink
	reverse
	hidden
	strike
	doubleUnderline
	overline
)

// colour is 0 for the terminal's own, 1<<24|n for one of the 256, 2<<24|rgb for a
// direct one.
type colour uint32

const (
	indexed colour = 1 << 24
	direct  colour = 2 << 24
)

// pen is how the next character is drawn.
type pen struct {
	fg, bg colour
	attr   attr
}

// cell is one place on the screen. A wide character has width 2 and is followed by a
// cell with width 0; that one draws nothing. A cell never written has r == 0.
type cell struct {
	r     rune
	marks [2]rune
	pen
	width uint8
}

// blank is what erasing leaves: the background colour stays.
func (p pen) blank() cell { return cell{width: 1, pen: pen{bg: p.bg}} }

// cursor is what DECSC keeps.
type cursor struct {
	x, y    int
	wrap    bool // the last column was written: the next character starts a line
	pen     pen
	origin  bool
	charset [2]bool // G0, G1: line drawing
	shift   int     // which of them
}

// screen is one of the two buffers. Rows that nothing was drawn in yet are one and the same,
// which is never written to: a terminal that says little costs little.
type screen struct {
	rows  [][]cell
	blank []cell
	saved cursor
}

func newScreen(cols, rows int) *screen {
	s := &screen{rows: make([][]cell, rows), blank: newRow(cols, pen{})}
	for y := range s.rows {
		s.rows[y] = s.blank
	}
	return s
}

func (s *screen) shared(row []cell) bool { return &row[0] == &s.blank[0] }

// row is a row to draw in.
func (s *screen) row(y int) []cell {
	if s.shared(s.rows[y]) {
		s.rows[y] = newRow(len(s.blank), pen{})
	}
	return s.rows[y]
}

// filled is a row of blanks, made of this one.
func (s *screen) filled(row []cell, p pen) []cell {
	switch {
	case !s.shared(row):
		fill(row, p)
	case p.blank() != (pen{}).blank():
		return newRow(len(row), p)
	}
	return row
}

// wipe makes rows [from, to) blank.
func (s *screen) wipe(from, to int, p pen) {
	for y := from; y < to; y++ {
		s.rows[y] = s.filled(s.rows[y], p)
	}
}

func newRow(cols int, p pen) []cell {
	row := make([]cell, cols)
	fill(row, p)
	return row
}

func fill(row []cell, p pen) {
	b := p.blank()
	for x := range row {
		row[x] = b
	}
}

// mend removes halves of wide characters at the edges of a change between columns
// from and to.
func mend(row []cell, from, to int) {
	mendAt(row, from)
	if to != from {
		mendAt(row, to)
	}
}

// mendAt looks at the boundary before column x.
func mendAt(row []cell, x int) {
	if x < len(row) && row[x].width == 0 && (x == 0 || row[x-1].width != 2) {
		row[x] = row[x].pen.blank()
	}
	if x > 0 && row[x-1].width == 2 && (x == len(row) || row[x].width != 0) {
		row[x-1] = row[x-1].pen.blank()
	}
}

// erase blanks columns [from, to) of a row.
func erase(row []cell, from, to int, p pen) {
	from, to = max(0, from), min(to, len(row))
	if from >= to {
		return
	}
	fill(row[from:to], p)
	mend(row, from, to)
}

// scroll moves rows [top, bottom] up by n (down if negative); the freed rows are blank.
func (s *screen) scroll(top, bottom, n int, p pen) {
	height := bottom - top + 1
	if n == 0 || height <= 0 {
		return
	}
	region := s.rows[top : bottom+1]
	switch {
	case n >= height || -n >= height:
		s.wipe(top, bottom+1, p)
	case n == 1: // the usual case, without a temporary
		first := region[0]
		copy(region, region[1:])
		region[height-1] = s.filled(first, p)
	case n > 0:
		out := append([][]cell(nil), region[:n]...)
		copy(region, region[n:])
		copy(region[height-n:], out)
		s.wipe(bottom+1-n, bottom+1, p)
	default:
		out := append([][]cell(nil), region[height+n:]...)
		copy(region[-n:], region)
		copy(region, out)
		s.wipe(top, top-n, p)
	}
}

// resize keeps what fits; lines are cut or filled at the right, and go or come at the
// bottom, after dropping lines above so that row y stays on the screen.
func (s *screen) resize(cols, rows, y int) (dropped int) {
	if dropped = max(0, y-rows+1); dropped > 0 {
		s.rows = s.rows[dropped:]
	}
	next, blank := make([][]cell, rows), newRow(cols, pen{})
	for i := range next {
		if i >= len(s.rows) || s.shared(s.rows[i]) {
			next[i] = blank
			continue
		}
		row := newRow(cols, pen{})
		n := copy(row, s.rows[i])
		mend(row, n, n)
		next[i] = row
	}
	s.rows, s.blank = next, blank
	return dropped
}
