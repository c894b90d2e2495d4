package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	xterm "golang.org/x/term"

	"tssh/recording"
	"tssh/recording/term"
)

// player shows a track on a terminal. What it writes there is all its own: moves,
// colours and text from the emulator, never the recorded bytes.
//
//	space pause     + - faster, slower     left right 5 s     up down 1 min, pages too
//	. , one step    i pauses as recorded   home end           q quit
//	/ find          n N next, previous hit { } previous, next command
//	0 to 9 tenths   ? the keys
type player struct {
	tr      track
	opt     playOptions
	in, out *os.File

	screen  *term.Term
	painter *term.Painter
	cols    int
	rows    int // of the terminal, the last one is ours

	at     time.Duration // where we are
	ahead  *playEvent    // the next event, read and not applied
	ended  bool
	paused bool
	keys   chan byte
	find   finder
	help   bool // the keys are shown, not the picture

	from time.Duration        // where it begins
	more func() (bool, error) // at the end of what there is: may there be more? nil: no
	news <-chan struct{}      // there is more, or something else to show
}

func newPlayer(tr track, opt playOptions, in, out *os.File) *player {
	return &player{tr: tr, opt: opt, in: in, out: out, keys: make(chan byte, 64)}
}

// run plays to the end or until q. The terminal is as it was when it returns.
func (p *player) run() (err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if fd := int(p.in.Fd()); xterm.IsTerminal(fd) {
		old, err := xterm.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer func() { _ = xterm.Restore(fd, old) }() // nothing more can be done about it
		go p.readKeys()                               // ends with the program, or with its input
	}
	if _, err := io.WriteString(p.out, "\x1b[?1049h\x1b[?7l\x1b[2J"); err != nil {
		return err
	}
	defer func() {
		_, werr := io.WriteString(p.out, "\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1049l")
		if err == nil {
			err = werr
		}
		if err == nil {
			_, err = fmt.Fprintf(p.out, "%s: played to %s of %s\r\n", printable(p.tr.title()), recording.Clock(p.at), recording.Clock(p.tr.duration()))
		}
	}()
	if err := p.seek(p.from); err != nil {
		return err
	}
	for {
		over, err := p.atEnd()
		if err != nil {
			return err
		}
		if err := p.paint(); err != nil {
			return err
		}
		if over {
			return nil
		}
		before := time.Now()
		wait := p.wait()
		select {
		case <-time.After(wait):
			if p.paused {
				continue
			}
			p.at += time.Duration(float64(time.Since(before)) * p.opt.Speed)
		case <-p.news:
		case k := <-p.keys:
			if !p.paused {
				p.at += time.Duration(float64(time.Since(before)) * p.opt.Speed)
			}
			quit, err := p.key(k)
			if quit || err != nil {
				return err
			}
		case <-signals:
			return nil
		}
		if err := p.applyUntil(p.at); err != nil {
			return err
		}
	}
}

// atEnd looks for more where there is nothing left to show, and says whether that is all.
func (p *player) atEnd() (over bool, err error) {
	if !p.ended || p.paused {
		return false, nil
	}
	if p.more == nil {
		return true, nil
	}
	more, err := p.more()
	if err != nil {
		return false, err
	}
	p.ended = !more
	p.at = p.tr.duration() // what comes is shown as it comes
	return !more, p.applyUntil(p.at)
}

// tick is how often the clock in the status line moves; frame the least time between
// two pictures.
const (
	tick  = 250 * time.Millisecond
	frame = 16 * time.Millisecond
)

// wait is how long nothing happens. A pause longer than allowed is shortened.
func (p *player) wait() time.Duration {
	if p.paused || p.ahead == nil {
		return tick
	}
	if p.opt.Idle > 0 && p.ahead.at-p.at > p.opt.Idle {
		p.at = p.ahead.at - p.opt.Idle
	}
	return min(tick, max(frame, time.Duration(float64(p.ahead.at-p.at)/p.opt.Speed)))
}

// applyUntil brings the screen to a time.
func (p *player) applyUntil(at time.Duration) error {
	for !p.ended {
		if p.ahead == nil {
			ev, err := p.tr.next()
			if err == io.EOF {
				p.ended = true
				p.at = min(p.at, p.tr.duration())
				return nil
			}
			if err != nil {
				return err
			}
			p.ahead = &ev
		}
		if p.ahead.at > at {
			return nil
		}
		p.ahead.apply(p.screen)
		p.ahead = nil
	}
	return nil
}

func (p *player) seek(at time.Duration) error {
	at = min(max(0, at), p.tr.duration())
	screen, err := p.tr.start(at)
	if err != nil {
		return err
	}
	p.screen, p.at, p.ahead, p.ended = screen, at, nil, false
	return p.applyUntil(at)
}

// step shows the next event.
func (p *player) step() error {
	if p.ahead != nil {
		p.at = p.ahead.at
	}
	return p.applyUntil(p.at)
}

const (
	smallSeek = 5 * time.Second
	largeSeek = time.Minute
)

// key acts on one key. Arrows are translated by readKeys.
func (p *player) key(k byte) (quit bool, err error) {
	p.find.say = ""
	if p.find.typing {
		return false, p.typeKey(k)
	}
	if p.help { // any key ends it
		p.help = false
		if k != 'q' && k != 3 {
			return false, nil
		}
	}
	if k >= '0' && k <= '9' {
		return false, p.seek(p.tr.duration() * time.Duration(k-'0') / 10)
	}
	switch k {
	case '?':
		p.help, p.paused = true, true
	case '/':
		p.find.typing, p.find.typed, p.paused = true, nil, true
	case 'n':
		return false, p.hit(1)
	case 'N':
		return false, p.hit(-1)
	case '}':
		return false, p.command(1)
	case '{':
		return false, p.command(-1)
	case ',':
		return false, p.back()
	case 'q', 3, 4:
		return true, nil
	case ' ':
		p.paused = !p.paused
	case '+', '=', ']':
		p.opt.Speed = min(p.opt.Speed*2, 1000)
	case '-', '[':
		p.opt.Speed = max(p.opt.Speed/2, 1.0/64)
	case 'i':
		if p.opt.Idle == 0 {
			p.opt.Idle = defaultIdle
		} else {
			p.opt.Idle = 0
		}
	case '.':
		p.paused = true
		return false, p.step()
	case keyLeft:
		return false, p.seek(p.at - smallSeek)
	case keyRight:
		return false, p.seek(p.at + smallSeek)
	case keyDown:
		return false, p.seek(p.at - largeSeek)
	case keyUp:
		return false, p.seek(p.at + largeSeek)
	case keyHome:
		return false, p.seek(0)
	case keyEnd:
		p.paused = true
		return false, p.seek(p.tr.duration())
	}
	return false, nil
}

// Keys of more than one byte, as one.
const (
	keyUp byte = 0x80 + iota
	keyDown
	keyRight
	keyLeft
	keyHome
	keyEnd
)

// readKeys turns what is typed into single bytes.
func (p *player) readKeys() {
	buf := make([]byte, 64)
	for {
		n, err := p.in.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			k, size := decodeKey(b)
			b = b[size:]
			if k != 0 {
				p.keys <- k
			}
		}
		if err != nil {
			return
		}
	}
}

// editKeys are the ends of the sequences that many terminals, screen and tmux among them, send for these keys (VT220).
var editKeys = map[string]byte{"1~": keyHome, "7~": keyHome, "4~": keyEnd, "8~": keyEnd, "5~": keyDown, "6~": keyUp}

// decodeKey reads one key at the start of b; 0 is one that means nothing here.
func decodeKey(b []byte) (k byte, size int) {
	if b[0] != 0x1b {
		if b[0] >= 0x80 {
			return 0, 1
		}
		return b[0], 1
	}
	if len(b) < 3 || b[1] != '[' && b[1] != 'O' {
		return 0, 1
	}
	switch b[2] {
	case 'A', 'B', 'C', 'D':
		return keyUp + b[2] - 'A', 3
	case 'H':
		return keyHome, 3
	case 'F':
		return keyEnd, 3
	}
	for i := 2; i < len(b); i++ { // some other sequence: to its end
		if b[i] >= 0x40 {
			return editKeys[string(b[2:i+1])], i + 1
		}
	}
	return 0, len(b)
}

// paint shows the screen and our line below it.
func (p *player) paint() error {
	cols, rows, err := xterm.GetSize(int(p.out.Fd()))
	if err != nil || cols < 1 || rows < 2 {
		cols, rows = 80, 24
	}
	if cols != p.cols || rows != p.rows || p.painter == nil {
		p.cols, p.rows = cols, rows
		p.painter = term.NewPainter(p.out, cols, rows-1)
		if _, err := io.WriteString(p.out, "\x1b[0m\x1b[2J"); err != nil {
			return err
		}
	}
	if p.help {
		return p.paintHelp()
	}
	if _, err := io.WriteString(p.out, p.status()); err != nil {
		return err
	}
	return p.painter.Paint(p.screen)
}
