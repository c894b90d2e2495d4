package term

const (
	// MaxCols and MaxRows bound the screen: a client may claim any size.
	MaxCols = 500
	MaxRows = 200

	defaultCols = 80
	defaultRows = 24
	maxParams   = 32
)

// mode are the switches of the terminal that are on or off.
type mode uint32

const (
	modeInsert mode = 1 << iota
	modeNewline
	modeCursorKeys
	modeReverse
	modeWrap
	modeHideCursor
	modeKeypad
	modePaste
	modeFocus
	modeMouseX10
	modeMouse
	modeMouseDrag
	modeMouseAll
	modeMouseUTF8
	modeMouseSGR
)

// privateModes are the numbers of DECSET that are kept as a bit and written back by
// Snapshot in this order.
var privateModes = [...]struct {
	n int
	m mode
}{
	{1, modeCursorKeys}, {5, modeReverse}, {7, modeWrap}, {66, modeKeypad},
	{9, modeMouseX10}, {1000, modeMouse}, {1002, modeMouseDrag}, {1003, modeMouseAll},
	{1004, modeFocus}, {1005, modeMouseUTF8}, {1006, modeMouseSGR}, {2004, modePaste},
}

type state uint8

const (
	ground       state = iota
	escape             // after ESC
	escapeInter        // ESC and an intermediate
	csi                // parameters of a control sequence
	csiIgnore          // to the end of one that is not understood
	stringIgnore       // OSC, DCS, APC, PM, SOS: to ST (or BEL)
	stringEscape       // ESC inside one of those
)

// Term is a screen and what it takes to change it. It is not safe for concurrent use.
type Term struct {
	// Scrolled is called with each line that leaves the top of the main screen, or is
	// cleared from it, for transcripts. May be nil.
	Scrolled func(line string)

	cols, rows int
	main, alt  *screen // alt is made when it is first shown, and empty whenever it is shown again
	cur        *screen // one of the two
	cursor     cursor
	top, bot   int // scroll region, rows from 0
	tabs       []bool
	modes      mode
	style      int // DECSCUSR
	last       rune

	work int64 // see Work

	state   state
	inter   byte
	private byte
	params  [maxParams]int
	sub     [maxParams]bool // the parameter came after a colon
	nparams int
	utf     [4]byte // an unfinished rune
	nutf    int
}

// New returns an empty screen. Sizes are brought inside 1..MaxCols and 1..MaxRows; 0
// means 80 by 24.
func New(cols, rows int) *Term {
	t := &Term{}
	t.cols, t.rows = bound(cols, rows)
	t.reset()
	return t
}

func bound(cols, rows int) (int, int) {
	if cols <= 0 {
		cols = defaultCols
	}
	if rows <= 0 {
		rows = defaultRows
	}
	return min(cols, MaxCols), min(rows, MaxRows)
}

// Work is how many bytes were written and about how many places on the screen were changed or
// moved for them. A few bytes can clear a whole screen: who plays what others wrote stops when
// it is too much.
func (t *Term) Work() int64 { return t.work }

// area is what clearing or moving the whole screen costs.
func (t *Term) area() int64 { return int64(t.cols) * int64(t.rows) }

func (t *Term) reset() {
	t.work += 2 * t.area()
	t.main, t.alt = newScreen(t.cols, t.rows), nil
	t.cur = t.main
	t.cursor = cursor{}
	t.top, t.bot = 0, t.rows-1
	t.defaultTabs()
	t.modes = modeWrap
	t.style = 0
	t.last = 0
	t.state = ground
}

func (t *Term) defaultTabs() {
	t.tabs = make([]bool, t.cols)
	for x := 8; x < t.cols; x += 8 {
		t.tabs[x] = true
	}
}

// Size is the screen's, after bounding.
func (t *Term) Size() (cols, rows int) { return t.cols, t.rows }

// Cursor is where the cursor is, from 0, and whether it is shown.
func (t *Term) Cursor() (x, y int, shown bool) {
	return t.cursor.x, t.cursor.y, t.modes&modeHideCursor == 0
}

// Resize changes the size as a window does. Lines are not rewrapped.
func (t *Term) Resize(cols, rows int) {
	cols, rows = bound(cols, rows)
	if cols == t.cols && rows == t.rows {
		return
	}
	t.work += 2*t.area() + 2*int64(cols)*int64(rows)
	for _, s := range []*screen{t.main, t.alt} {
		if s == nil {
			continue
		}
		y := s.saved.y
		if s == t.cur {
			y = t.cursor.y
		}
		dropped := s.resize(cols, rows, y)
		if s == t.cur {
			t.cursor.y -= dropped
		}
		s.saved.y = max(0, s.saved.y-dropped)
		clampCursor(&s.saved, cols, rows)
	}
	old := len(t.tabs)
	tabs := make([]bool, cols)
	copy(tabs, t.tabs)
	for x := old; x < cols; x++ {
		tabs[x] = x%8 == 0 && x > 0
	}
	t.tabs = tabs
	t.cols, t.rows = cols, rows
	t.top, t.bot = 0, rows-1
	clampCursor(&t.cursor, cols, rows)
}

// clampCursor brings a cursor inside a new size. It no longer waits to wrap.
func clampCursor(c *cursor, cols, rows int) {
	c.x = min(max(0, c.x), cols-1)
	c.y = min(max(0, c.y), rows-1)
	c.wrap = false
}

// put draws one character at the cursor.
func (t *Term) put(r rune) {
	if r < 0x7f && t.cursor.charset[t.cursor.shift] {
		r = lineDrawing(r)
	}
	w := runeWidth(r)
	switch {
	case w < 0:
		return
	case w == 0:
		t.mark(r)
		return
	case w > t.cols:
		return
	}
	t.last = r
	if t.cursor.wrap || t.cursor.x+w > t.cols {
		if t.modes&modeWrap == 0 {
			t.cursor.x = t.cols - w
		} else {
			t.cursor.x = 0
			t.lineFeed()
		}
		t.cursor.wrap = false
	}
	row := t.cur.row(t.cursor.y)
	x := t.cursor.x
	if t.modes&modeInsert != 0 {
		t.work += int64(t.cols)
		copy(row[x+w:], row[x:])
		mend(row, x, x)
		mend(row, x+w, t.cols)
	}
	row[x] = cell{r: r, width: uint8(w), pen: t.cursor.pen}
	if w == 2 {
		row[x+1] = cell{width: 0, pen: t.cursor.pen}
	}
	mend(row, x, x+w)
	t.advance(w)
}

func (t *Term) advance(w int) {
	if t.cursor.x += w; t.cursor.x >= t.cols {
		t.cursor.x = t.cols - 1
		t.cursor.wrap = t.modes&modeWrap != 0
	}
}

// mark adds a combining mark to the character before the cursor.
func (t *Term) mark(r rune) {
	x := t.cursor.x
	if !t.cursor.wrap {
		x--
	}
	row := t.cur.row(t.cursor.y)
	if x > 0 && row[x].width == 0 {
		x--
	}
	if x < 0 || row[x].r == 0 {
		return
	}
	for i := range row[x].marks {
		if row[x].marks[i] == 0 {
			row[x].marks[i] = r
			return
		}
	}
}

// plain draws a run of ASCII in the common case: no insert mode, no line drawing. It
// returns how much of b it drew, at least 1.
func (t *Term) plain(b []byte) int {
	if t.cursor.wrap {
		t.cursor.x, t.cursor.wrap = 0, false
		t.lineFeed()
	}
	row := t.cur.row(t.cursor.y)
	x := t.cursor.x
	n := min(len(b), t.cols-x)
	for i, c := range b[:n] {
		row[x+i] = cell{r: rune(c), width: 1, pen: t.cursor.pen}
	}
	mend(row, x, x+n)
	t.last = rune(b[n-1])
	t.advance(n)
	return n
}

func (t *Term) lineFeed() {
	switch {
	case t.cursor.y == t.bot:
		t.work += int64(t.cols)
		if t.top == 0 && t.Scrolled != nil && t.cur == t.main {
			t.Scrolled(t.Line(0))
		}
		t.cur.scroll(t.top, t.bot, 1, t.cursor.pen)
	case t.cursor.y < t.rows-1:
		t.cursor.y++
	}
}

func (t *Term) reverseIndex() {
	switch {
	case t.cursor.y == t.top:
		t.work += int64(t.cols)
		t.cur.scroll(t.top, t.bot, -1, t.cursor.pen)
	case t.cursor.y > 0:
		t.cursor.y--
	}
	t.cursor.wrap = false
}

// moveTo takes a position from 0; in origin mode rows count from the region's top.
func (t *Term) moveTo(x, y int) {
	top, bot := 0, t.rows-1
	if t.cursor.origin {
		top, bot = t.top, t.bot
		y += top
	}
	t.cursor.x = min(max(0, x), t.cols-1)
	t.cursor.y = min(max(top, y), bot)
	t.cursor.wrap = false
}

func (t *Term) save() { t.cur.saved = t.cursor }

func (t *Term) restore() {
	t.cursor = t.cur.saved
	c := &t.cursor
	if c.origin {
		c.y = min(max(c.y, t.top), t.bot)
	}
	c.wrap = t.modes&modeWrap != 0 && t.canWrap(t.cur, *c)
}

// canWrap says whether a cursor that waits to wrap still has the character it waits
// behind.
func (t *Term) canWrap(s *screen, c cursor) bool {
	last := s.rows[c.y][t.cols-1]
	return c.wrap && c.x == t.cols-1 && (last.r != 0 || last.width == 0)
}

func (t *Term) showAlt(on bool) {
	t.cursor.wrap = false
	if !on {
		t.cur = t.main
		return
	}
	if t.cur == t.main {
		t.work += t.area()
		if t.alt == nil {
			t.alt = newScreen(t.cols, t.rows)
		}
		t.alt.wipe(0, t.rows, pen{})
		t.alt.saved = cursor{}
		t.cur = t.alt
	}
}

func (t *Term) clear(s *screen) {
	t.work += t.area()
	if t.Scrolled != nil && s == t.main {
		lines := t.Text()
		for len(lines) > 0 && lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		for _, line := range lines {
			t.Scrolled(line)
		}
	}
	s.wipe(0, len(s.rows), t.cursor.pen)
}
