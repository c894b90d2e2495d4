package session

import (
	"bytes"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"tssh/recording"
)

// A notice is a line of the monitor's for the person of a terminal, in the middle of what a
// program draws. It is written between two of the program's sequences, at a prompt or among
// plain lines, as wall does it; while a program has the whole screen the words go into the window's title, and
// the line follows when the screen is plain again, with the title that was there. It is recorded like all that a
// client gets.

// noticeLook is how often a terminal that is not plain is looked at again, and noticeQuiet how
// long its program must have been silent.
const (
	noticeLook  = 250 * time.Millisecond
	noticeQuiet = 100 * time.Millisecond
)

// flow is what is known of a terminal's output so far: enough to write between two sequences.
type flow struct {
	mu     sync.Mutex // held while something is written
	state  byte       // 0 plain text, else inside a sequence
	seq    []byte     // the parameters of a control sequence
	within bool       // in the middle of a character
	alt    bool       // the alternate screen
	last   time.Time
	titles titles
}

const (
	inEscape   = 'e'
	inControl  = '['
	inString   = ']'  // an operating system command
	inOther    = 'P'  // a string of another kind
	inStringBS = '\\' // an escape in a string
	maxSeq     = 64
)

// feed follows what is written. mu is held.
func (f *flow) feed(b []byte) {
	f.last = time.Now()
	f.within = cutOff(b)
	for len(b) > 0 {
		if f.state == 0 {
			i := bytes.IndexByte(b, 0x1b)
			if i < 0 {
				return
			}
			f.state, b = inEscape, b[i+1:]
			continue
		}
		c := b[0]
		b = b[1:]
		f.step(c)
	}
}

func (f *flow) step(c byte) {
	switch f.state {
	case inStringBS, inEscape:
		if f.state == inStringBS && c == '\\' {
			f.titles.done()
		}
		switch {
		case c == '[':
			f.state, f.seq = inControl, f.seq[:0]
		case c == ']':
			f.state = inString
			f.titles.begin()
		case c == 'P' || c == 'X' || c == '^' || c == '_':
			f.state = inOther
		case c == 0x1b || c >= 0x20 && c <= 0x2f:
			f.state = inEscape
		default:
			f.state = 0
		}
	case inControl:
		switch {
		case c >= 0x40 && c <= 0x7e:
			f.private(c)
			if c == 't' {
				f.titles.window(string(f.seq))
			}
			f.state = 0
		case c == 0x1b:
			f.state = inEscape
		case c == 0x18 || c == 0x1a:
			f.state = 0
		case len(f.seq) < maxSeq:
			f.seq = append(f.seq, c)
		}
	case inString:
		switch c {
		case 0x07:
			f.titles.done()
			f.state = 0
		case 0x18, 0x1a:
			f.state = 0
		case 0x1b:
			f.state = inStringBS
		default:
			f.titles.read(c)
		}
	case inOther:
		switch c {
		case 0x07, 0x18, 0x1a:
			f.state = 0
		case 0x1b:
			f.state = inEscape
		}
	}
}

// private takes note of the alternate screen: DECSET and DECRST 47, 1047 and 1049.
func (f *flow) private(final byte) {
	if final != 'h' && final != 'l' || len(f.seq) == 0 || f.seq[0] != '?' {
		return
	}
	for p := range bytes.SplitSeq(f.seq[1:], []byte(";")) {
		switch string(p) {
		case "47", "1047", "1049":
			f.alt = final == 'h'
		}
	}
}

// cutOff reports whether b ends in the middle of a character.
func cutOff(b []byte) bool {
	for i := 1; i <= min(3, len(b)); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) {
			return !utf8.FullRune(tail)
		}
	}
	return false
}

// between reports whether something can be written without harm to a sequence. mu is held.
func (f *flow) between() bool { return f.state == 0 && !f.within }

// notice shows a line of the monitor's on every terminal. It must not wait.
func (c *conn) notice(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.channels {
		s.mu.Lock()
		if p := s.prog; p != nil && p.stderr == nil && !s.closing {
			first := s.notices == nil
			s.notices = []string{plain(line)} // what was not shown yet is old
			if first {
				go s.showNotices(p) // ends when they are shown, or with the channel
			}
		}
		s.mu.Unlock()
	}
}

// showNotices waits for a moment at which they disturb nothing.
func (s *channel) showNotices(p *program) {
	titled := ""
	for {
		s.mu.Lock()
		lines := s.notices
		s.mu.Unlock()
		if s.showNotice(p, lines[0], &titled) {
			s.mu.Lock()
			done := s.notices[0] == lines[0]
			if done {
				s.notices = nil
			}
			s.mu.Unlock()
			if done {
				return
			}
		}
		select {
		case <-s.gone:
			return
		case <-p.drained:
			return
		case <-time.After(noticeLook):
		}
	}
}

// showNotice reports whether the line was written.
func (s *channel) showNotice(p *program, line string, titled *string) bool {
	p.flow.mu.Lock()
	defer p.flow.mu.Unlock()
	if !p.flow.between() || time.Since(p.flow.last) < noticeQuiet {
		return false
	}
	raw, front := p.terminal()
	if p.flow.alt || raw && (front != p.pid || !s.shell) {
		if *titled != line {
			*titled = line
			s.put(p.flow.titles.show("tssh: " + line))
		}
		return false
	}
	s.put(p.flow.titles.restore() + "\r\n\x1b[0mtssh: " + line + "\r\n")
	return true
}

// untitle gives the title back at the program's end, where no line followed.
func (p *program) untitle(s *channel) {
	p.flow.mu.Lock()
	defer p.flow.mu.Unlock()
	if !p.flow.between() { // cut off by its end: whatever came now would be a part of it
		return
	}
	if back := p.flow.titles.restore(); back != "" {
		s.put(back)
	}
}

// put writes to the terminal, on record first.
func (s *channel) put(text string) {
	if s.c.record(s.id, recording.KindOutput, []byte(text)) == nil {
		_, _ = io.WriteString(s.ch, text) // a client that is gone shows elsewhere
	}
}

// terminal tells how its program uses the terminal: whether it reads key by key, and which
// process group is in front.
func (p *program) terminal() (raw bool, front int) {
	c, err := p.stdout.SyscallConn()
	if err != nil {
		return true, 0
	}
	_ = c.Control(func(fd uintptr) {
		front, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
		t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		raw = err != nil || t.Lflag&unix.ICANON == 0
	})
	return raw, front
}
