package transcript

import (
	"encoding/json"
	"errors"
	"hash/maphash"
	"strings"
	"time"
	"unicode"

	"tssh/recording"
	"tssh/recording/term"
)

// Line is a row of text that was on a screen.
type Line struct {
	Channel uint32        `json:"ch"`
	At      time.Duration `json:"at"`
	Text    string        `json:"text"`
	Command int           `json:"command"` // index into Transcript.Commands, -1 before the first
	Stderr  bool          `json:"stderr,omitempty"`
}

// How a Command is known.
const (
	SourceExec  = "exec"
	SourceMark  = "mark"
	SourceGuess = "guess"
)

// Command is one command of a person or a program.
type Command struct {
	Channel uint32        `json:"ch"`
	At      time.Duration `json:"at"`
	End     time.Duration `json:"end,omitempty"` // 0: not seen
	Text    string        `json:"text"`
	Source  string        `json:"source"`
	Exit    *int          `json:"exit,omitempty"`
	Signal  string        `json:"signal,omitempty"`
}

// Mark is something else that happened: a resize, a file, a forward, bytes that were not kept.
type Mark struct {
	Channel uint32        `json:"ch"`
	At      time.Duration `json:"at"`
	Kind    string        `json:"kind"` // resize, file, forward, bulk, gap, note, signal, hidden, input, exit (of a shell), end
	Text    string        `json:"text"`
	End     time.Duration `json:"end,omitempty"` // of a forward that was open: when it was closed
	Failed  bool          `json:"failed,omitempty"`
	Paths   []string      `json:"-"` // of an operation on files
}

// Transcript is a recording as text.
type Transcript struct {
	Lines    []Line
	Commands []Command
	Marks    []Mark
	// Until is where a limit was reached, 0 if none was: later text is not here.
	Until time.Duration
}

// Limits bound a transcript; a zero field takes the default.
type Limits struct {
	Lines    int // 200,000
	Bytes    int // of text, 16 MiB
	Commands int // 10,000
	Marks    int // 10,000
	// Work bounds what drawing costs, in the measure of term.Work: 2e9. A recording gets so much
	// only by its length, workPerByte for each byte of output and workFree for its beginning: no
	// program draws more on the whole, and one written to cost much is cut off early.
	Work int64
}

const (
	quiet       = 200 * time.Millisecond
	pause       = 50 * time.Millisecond // which a prompt stands at least before the first key
	long        = time.Second           // after which the row with the cursor counts as written
	recent      = 4096
	maxText     = 1024 // bytes of a line or a command that are kept
	maxScreens  = 64   // channels that are read; more are not
	prompts     = "$#%>❯»"
	longestMark = 4096
	workFree    = 100e6
	workPerByte = 1000
	workPiece   = 4096 // bytes that are drawn between two looks at what it costs
)

var errFull = errors.New("full")

// Read makes the transcript of a whole recording, or of what there is of it.
func Read(r *recording.Reader, lim Limits) (*Transcript, error) {
	b := NewBuilder(lim)
	err := r.Events(func(e recording.Event) error {
		b.Event(e)
		if b.full {
			b.t.Until = e.At
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	return b.Done(r.Duration()), nil
}

// Builder makes a transcript of events that are given to it one by one.
type Builder struct {
	t     Transcript
	lim   Limits
	bytes int
	fed   int64 // bytes of output
	spent int64 // on all screens, in the measure of Limits.Work
	// looked is how many places of screens were read; as each look but those at marks waits
	// for a quiet moment, length has its part in that too.
	looked int64
	full   bool
	ch     map[uint32]*channel
	seed   maphash.Seed
	// forwards are those that are open, by channel: their place in the marks, which bound them.
	forwards map[uint32]int
}

// NewBuilder begins a transcript.
func NewBuilder(lim Limits) *Builder {
	def := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	def(&lim.Lines, 200_000)
	def(&lim.Bytes, 16<<20)
	def(&lim.Commands, 10_000)
	def(&lim.Marks, 10_000)
	if lim.Work <= 0 {
		lim.Work = 2e9
	}
	return &Builder{lim: lim, ch: map[uint32]*channel{}, forwards: map[uint32]int{}, seed: maphash.MakeSeed()}
}

// channel is one channel on the way. Its screen is nil where no terminal was.
type channel struct {
	n       uint32
	screen  *term.Term
	at      time.Duration   // of the last event applied
	written []time.Duration // of each row, when the cursor was last in it
	from    int             // the first row that the event being applied may have written to
	dirty   bool            // something was written since the rows were looked at
	command int             // the one that runs, -1 if none
	exec    int             // the one the channel was opened for, -1 for a shell
	seen    map[uint64]struct{}
	order   []uint64 // of seen, a ring
	next    int

	plain [2]lineBuffer // stdout and stderr without a terminal

	marks   bool // the shell sends them
	scan    markScanner
	inputX  int // where the typed command begins, by a mark; -1 if unknown
	inputY  int
	prompt  string // the row's text when the screen stood still behind a prompt
	promptY int
}

// Event takes the next event; a Builder that is full takes no more.
func (b *Builder) Event(e recording.Event) {
	if b.full {
		return
	}
	if e.Kind == recording.KindOpen {
		b.open(e)
		return
	}
	c := b.ch[e.Channel]
	switch e.Kind {
	case recording.KindOutput, recording.KindStderr:
		if c == nil {
			return
		}
		if c.screen == nil {
			b.plain(c, e)
			return
		}
		b.still(c, e.At)
		c.at = e.At
		_, c.from, _ = c.screen.Cursor()
		b.write(c, e.Data)
		c.wrote()
	case recording.KindResize:
		var s recording.Resize
		if json.Unmarshal(e.Data, &s) != nil {
			return
		}
		b.mark(e, "resize", itoa(s.Cols)+"×"+itoa(s.Rows))
		if c != nil && c.screen != nil && s.Cols > 0 && s.Rows > 0 {
			b.still(c, e.At)
			before := c.screen.Work()
			c.screen.Resize(s.Cols, s.Rows)
			b.spend(c.screen.Work() - before)
			c.dirty = true
		}
	case recording.KindExit:
		var x recording.Exit
		if c == nil || json.Unmarshal(e.Data, &x) != nil {
			return
		}
		b.flush(c, e.At)
		if c.exec < 0 {
			b.mark(e, "exit", exitWords(x))
		}
		if c.exec >= 0 {
			k := &b.t.Commands[c.exec]
			k.End, k.Signal = e.At, clean(x.Signal, 32)
			if x.Signal == "" {
				k.Exit = &x.Status
			}
		}
	case recording.KindClose:
		if c != nil {
			b.flush(c, e.At)
			b.end(c, e.At, nil)
			delete(b.ch, e.Channel)
		}
	case recording.KindFile:
		var f recording.File
		if json.Unmarshal(e.Data, &f) == nil {
			b.file(e, f)
		}
	case recording.KindForward:
		var f recording.Forward
		if json.Unmarshal(e.Data, &f) == nil {
			b.forward(e, f)
		}
	case recording.KindBulk:
		var k recording.Bulk
		if json.Unmarshal(e.Data, &k) == nil && (k.Bytes == 0 || k.Ends) {
			b.mark(e, "bulk", bulkWords(k))
		}
	case recording.KindGap, recording.KindNote, recording.KindSignal, recording.KindHidden, recording.KindInputSummary, recording.KindEnd:
		if kind, words, ok := recording.Mark(e); ok && words != ordinaryEnd {
			b.mark(e, kind, words)
		}
	}
}

// ordinaryEnd is the end that nobody needs to be told of.
const ordinaryEnd = "closed"

// exitWords says how a shell ended.
func exitWords(x recording.Exit) string {
	if x.Signal != "" {
		return "killed by SIG" + x.Signal
	}
	return "status " + itoa(x.Status)
}

func bulkWords(k recording.Bulk) string {
	if k.Bytes == 0 {
		return k.Stream + ": from here on counted and hashed, not kept"
	}
	return k.Stream + ": " + itoa(int(k.Bytes)) + " bytes were not kept, sha256 " + k.SHA256
}

func (b *Builder) open(e recording.Event) {
	var o recording.Open
	if json.Unmarshal(e.Data, &o) != nil || len(b.ch) >= maxScreens {
		return
	}
	c := &channel{n: e.Channel, at: e.At, command: -1, exec: -1, inputX: -1, promptY: -1, seen: map[uint64]struct{}{}}
	if o.PTY {
		c.screen = term.New(o.Cols, o.Rows)
		b.spend(c.screen.Work())
		c.screen.Scrolled = func(line string) { b.scrolled(c, line) }
	}
	b.ch[e.Channel] = c
	if o.Type == "exec" {
		c.exec = b.begin(c, e.At, o.Command, SourceExec)
		c.command = c.exec
	}
}

// mark adds one and gives its place, nil if there are too many.
func (b *Builder) mark(e recording.Event, kind, text string) *Mark {
	if len(b.t.Marks) >= b.lim.Marks {
		return nil
	}
	b.t.Marks = append(b.t.Marks, Mark{Channel: e.Channel, At: e.At, Kind: kind, Text: clean(text, maxText)})
	return &b.t.Marks[len(b.t.Marks)-1]
}

// file is an operation on files.
func (b *Builder) file(e recording.Event, f recording.File) {
	if m := b.mark(e, "file", f.String()); m != nil {
		m.Failed = f.Error != ""
		for _, p := range []string{f.Path, f.Target} {
			if p != "" {
				m.Paths = append(m.Paths, clean(p, maxText))
			}
		}
	}
}

// forward is one end of a forward; the first learns from the last how long it was open.
func (b *Builder) forward(e recording.Event, f recording.Forward) {
	m := b.mark(e, "forward", f.String())
	if m == nil {
		return
	}
	m.Failed = f.State == "failed" || f.State == "refused"
	at := len(b.t.Marks) - 1
	first, open := b.forwards[e.Channel]
	switch {
	case f.State == "open":
		b.forwards[e.Channel] = at
	case f.State == "closed" && open:
		b.t.Marks[first].End = e.At
		delete(b.forwards, e.Channel)
	}
}

// begin starts a command and returns its index, -1 if there are too many.
func (b *Builder) begin(c *channel, at time.Duration, text, source string) int {
	if len(b.t.Commands) >= b.lim.Commands {
		return -1
	}
	b.t.Commands = append(b.t.Commands, Command{Channel: c.n, At: at, Text: clean(text, maxText), Source: source})
	return len(b.t.Commands) - 1
}

// end closes the command that a shell ran, if there is one.
func (b *Builder) end(c *channel, at time.Duration, exit *int) {
	if c.command < 0 || c.command == c.exec {
		return
	}
	k := &b.t.Commands[c.command]
	if k.End == 0 {
		k.End, k.Exit = at, exit
	}
	c.command = c.exec
}

// line keeps a line, unless it was kept lately.
func (b *Builder) line(c *channel, at time.Duration, text string, stderr bool) {
	text = clean(strings.TrimRight(text, " "), maxText)
	if text == "" || b.full {
		return
	}
	if c.screen != nil {
		h := maphash.String(b.seed, text)
		if _, ok := c.seen[h]; ok {
			return
		}
		if len(c.order) < recent {
			c.order = append(c.order, h)
		} else {
			delete(c.seen, c.order[c.next])
			c.order[c.next] = h
			c.next = (c.next + 1) % recent
		}
		c.seen[h] = struct{}{}
	}
	if len(b.t.Lines) >= b.lim.Lines || b.bytes+len(text) > b.lim.Bytes {
		b.full = true
		return
	}
	b.bytes += len(text)
	b.t.Lines = append(b.t.Lines, Line{Channel: c.n, At: at, Text: text, Command: c.command, Stderr: stderr})
}

// scrolled gets a line that leaves the screen at its top.
func (b *Builder) scrolled(c *channel, line string) {
	at := c.at
	if c.from > 0 && len(c.written) > 0 {
		at = c.written[0] // it was in view since then, and is not any more
	}
	b.line(c, at, line, false)
	if len(c.written) > 0 {
		copy(c.written, c.written[1:])
		c.written[len(c.written)-1] = c.at
	}
	c.from--
	c.inputY--
	if c.promptY--; c.promptY < -1 {
		c.promptY = -1
	}
}

// wrote notes when the rows were written that the cursor went through.
func (c *channel) wrote() {
	_, rows := c.screen.Size()
	_, y, _ := c.screen.Cursor()
	for len(c.written) < rows {
		c.written = append(c.written, c.at)
	}
	c.written = c.written[:rows]
	for i := max(0, min(c.from, y)); i <= max(c.from, y) && i < rows; i++ {
		c.written[i] = c.at
	}
}

// still looks at the rows if the screen stood still until now.
func (b *Builder) still(c *channel, now time.Duration) {
	waited := now - c.at
	if !c.dirty || waited < pause {
		return
	}
	if waited >= quiet {
		b.rows(c, false)
	}
	x, y, _ := c.screen.Cursor()
	row := c.screen.Line(y)
	if !c.marks && c.promptY != y { // behind a prompt, in a row of which nothing was typed yet
		if r := lastRune(row); row != "" && strings.ContainsRune(prompts, r) && x > 0 && x <= len([]rune(row))+1 {
			b.end(c, c.at, nil)
			c.prompt, c.promptY = row, y
		}
	}
	if waited >= long && c.promptY != y && c.inputX < 0 { // not a command on the way
		b.line(c, c.at, row, false)
	}
}

// rows takes the rows of the screen; the one with the cursor only at the end.
func (b *Builder) rows(c *channel, all bool) {
	c.dirty = false
	cols, rows := c.screen.Size()
	if b.looked += int64(cols) * int64(rows); b.looked > 2*b.lim.Work {
		b.full = true
	}
	_, cy, _ := c.screen.Cursor()
	for y := range rows {
		if y == cy && !all {
			continue
		}
		b.line(c, c.at, c.screen.Line(y), false)
	}
}

// flush takes whatever is left when nothing more comes.
func (b *Builder) flush(c *channel, at time.Duration) {
	if c.screen != nil {
		b.rows(c, true)
		return
	}
	for i := range c.plain {
		if rest := c.plain[i].rest(); rest != "" {
			b.line(c, at, rest, i == 1)
		}
	}
}

// Done ends the transcript at a time and returns it.
func (b *Builder) Done(at time.Duration) *Transcript {
	for _, c := range b.ch {
		b.flush(c, at)
		b.end(c, at, nil)
	}
	return &b.t
}

// write gives bytes to the screen as long as that is not too dear.
func (b *Builder) write(c *channel, data []byte) {
	for len(data) > 0 && !b.full {
		n := min(len(data), workPiece)
		before := c.screen.Work()
		b.writePiece(c, data[:n])
		b.fed += int64(n)
		b.spend(c.screen.Work() - before)
		data = data[n:]
	}
}

// spend counts what was done, and says that it was enough.
func (b *Builder) spend(n int64) {
	if b.spent += n; b.spent > min(b.lim.Work, workFree+workPerByte*b.fed) {
		b.full = true
	}
}

// writePiece stops at each mark and each end of a typed row.
func (b *Builder) writePiece(c *channel, data []byte) {
	c.dirty = true
	for len(data) > 0 {
		n, m, ok := c.scan.next(data)
		b.screenWrite(c, data[:n])
		data = data[n:]
		if ok {
			b.shellMark(c, m)
		}
	}
}

// screenWrite is one write, in which the cursor may leave the row of a prompt.
func (b *Builder) screenWrite(c *channel, data []byte) {
	if c.marks || c.promptY < 0 {
		c.screen.Write(data)
		return
	}
	for len(data) > 0 && c.promptY >= 0 {
		n := len(data)
		for i, x := range data {
			if x == '\r' || x == '\n' {
				n = i
				break
			}
		}
		c.screen.Write(data[:n])
		data = data[n:]
		if len(data) == 0 {
			break
		}
		row := c.screen.Line(c.promptY)
		if rest, ok := strings.CutPrefix(row, c.prompt); ok {
			if typed := strings.TrimSpace(rest); typed != "" {
				b.line(c, c.at, row, false)
				c.command = b.guess(c, typed)
			}
		}
		c.promptY = -1
	}
	c.screen.Write(data)
}

func (b *Builder) guess(c *channel, typed string) int {
	if n := b.begin(c, c.at, typed, SourceGuess); n >= 0 {
		return n
	}
	return c.exec
}

// shellMark acts on what the shell says of itself.
func (b *Builder) shellMark(c *channel, m mark) {
	cols, rows := c.screen.Size()
	b.spend(int64(cols) * int64(rows)) // of reading it below
	if !c.marks {
		c.marks, c.promptY = true, -1
	}
	switch m.letter {
	case 'A':
		b.rows(c, false)
		b.end(c, c.at, nil)
		c.inputX = -1
	case 'B':
		c.inputX, c.inputY, _ = c.screen.Cursor()
	case 'C':
		if c.inputX < 0 && m.text == "" {
			return
		}
		text := m.text
		if text == "" {
			text = b.typed(c)
		}
		c.inputX = -1
		if text == "" {
			return
		}
		if n := b.begin(c, c.at, text, SourceMark); n >= 0 {
			b.rows(c, false)
			c.command = n
		}
	case 'D':
		b.rows(c, false)
		b.end(c, c.at, m.exit)
	}
}

// typed is the text from where the command began to the cursor.
func (b *Builder) typed(c *channel) string {
	_, y, _ := c.screen.Cursor()
	var text strings.Builder
	for row := max(0, c.inputY); row <= y && row-c.inputY < 20; row++ {
		line := []rune(c.screen.Line(row))
		if row == c.inputY {
			line = line[min(c.inputX, len(line)):]
		}
		text.WriteString(string(line))
	}
	return strings.TrimSpace(text.String())
}

// plain takes output of a channel without a terminal.
func (b *Builder) plain(c *channel, e recording.Event) {
	i := 0
	if e.Kind == recording.KindStderr {
		i = 1
	}
	c.at = e.At
	c.plain[i].add(e.Data, func(line string) { b.line(c, e.At, line, i == 1) })
}

// lineBuffer divides a stream into lines.
type lineBuffer struct{ b []byte }

func (l *lineBuffer) add(data []byte, fn func(string)) {
	for _, x := range data {
		if x == '\n' {
			fn(string(l.b))
			l.b = l.b[:0]
			continue
		}
		if len(l.b) < maxText+4 { // the rest of a longer line is not kept
			l.b = append(l.b, x)
		}
	}
}

func (l *lineBuffer) rest() string {
	s := string(l.b)
	l.b = nil
	return s
}

// clean is s without what could act on a terminal or hide in a page, and not longer than n.
func clean(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == unicode.ReplacementChar || unicode.Is(unicode.Bidi_Control, r):
			return '\ufffd'
		case unicode.IsPrint(r) || unicode.Is(unicode.M, r) || r == '\u200d':
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "\ufffd"))
}
