package session

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"

	"tssh/recording"
)

// typing is what a client sent on a channel.
type typing struct {
	mu     sync.Mutex
	bytes  int64
	sum    *recording.Digest // of it all, on a channel without a terminal; nil before
	hidden int64             // keys since the last event that are not kept
	told   bool              // the summary is written
}

func (t *typing) count(n int) {
	t.mu.Lock()
	t.bytes += int64(n)
	t.mu.Unlock()
}

func (t *typing) total() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}

// typed takes what the client sent into the recording, before the program gets it: counted
// and hashed, and kept only where the rule asks and the terminal shows it. Without a terminal
// b is read until the next call has returned.
func (s *channel) typed(b []byte) error {
	t := &s.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes += int64(len(b))
	if s.pty == nil {
		if s.c.journal.Dropped() {
			return nil
		}
		if t.sum == nil {
			t.sum = recording.NewDigest()
		}
		t.sum.Add(b)
		return nil
	}
	if g := s.c.grant.Load(); g == nil || !g.Input {
		return nil
	}
	if !s.pty.echoes() {
		t.hidden += int64(len(b))
		if bytes.ContainsAny(b, "\r\n") {
			return s.hiddenLocked() // one a line, so that one can see when
		}
		return nil
	}
	if err := s.hiddenLocked(); err != nil {
		return err
	}
	return s.c.record(s.id, recording.KindInput, b)
}

// hiddenLocked says how many keys were not kept since it last did. Called with typing.mu held.
func (s *channel) hiddenLocked() error {
	n := s.typing.hidden
	if n == 0 {
		return nil
	}
	s.typing.hidden = 0
	return s.c.recordJSON(s.id, recording.KindHidden, recording.Hidden{Keys: n})
}

// typedAll ends the story of the input, once.
func (s *channel) typedAll() {
	t := &s.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told || t.bytes == 0 {
		return
	}
	t.told = true
	if s.hiddenLocked() != nil {
		return
	}
	sum := recording.InputSummary{Bytes: t.bytes}
	if t.sum != nil {
		sum.SHA256 = t.sum.Hex()
	}
	_ = s.c.recordJSON(s.id, recording.KindInputSummary, sum)
}

// echoes reports whether the terminal shows what is typed, as it is now. The master's
// termios is the terminal's (tty_ioctl(4)). What cannot be known is not shown.
func (t *terminal) echoes() bool {
	on := false
	err := t.control(func(fd int) error {
		got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		on = err == nil && got.Lflag&unix.ECHO != 0
		return err
	})
	return err == nil && on
}
