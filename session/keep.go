package session

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tssh/session/control"
)

// gate lets through what is waiting when it is opened. It costs one load while it is open.
type gate struct{ shut atomic.Pointer[chan struct{}] }

// set shuts or opens the gate and says whether it was the other way. One goroutine at a time.
func (g *gate) set(shut bool) bool {
	now := g.shut.Load()
	switch {
	case shut && now == nil:
		c := make(chan struct{})
		g.shut.Store(&c)
	case !shut && now != nil:
		g.shut.Store(nil)
		close(*now)
	default:
		return false
	}
	return true
}

func (g *gate) wait(ctx context.Context) {
	for {
		c := g.shut.Load()
		if c == nil {
			return
		}
		select {
		case <-*c:
		case <-ctx.Done():
			return
		}
	}
}

// keep obeys the monitor about the recording. It runs on the goroutine that receives its
// messages and so must not wait.
func (c *conn) keep(k control.KeepMsg) {
	if g := c.grant.Load(); k.Drop && g != nil && g.Lossy {
		c.journal.Drop()
	}
	c.held.set(k.Held)
	if c.paused.set(k.Held && k.Paused) {
		c.tellPaused(k.Held && k.Paused)
	}
}

// mayFlow waits while output, and what forwards carry, is held back because the recording
// does not go on.
func (c *conn) mayFlow() { c.held.wait(c.ctx) }

// mayCome waits while what the client sends is held back too.
func (c *conn) mayCome() { c.paused.wait(c.ctx) }

const (
	sayPaused  = "paused: this session is not recorded at the moment; it goes on when it is"
	sayResumed = "recorded again; the session goes on"
)

// tellPaused says it where people read it. It is not in the recording, which is what does not
// work; that has a note of its own later.
func (c *conn) tellPaused(paused bool) {
	say := sayResumed
	if paused {
		say = sayPaused
	}
	c.mu.Lock()
	open := make([]*channel, 0, len(c.channels))
	for _, s := range c.channels {
		open = append(open, s)
	}
	c.mu.Unlock()
	for _, s := range open {
		s.mu.Lock()
		ch, runs := s.ch, s.prog != nil && s.files == nil
		s.mu.Unlock()
		if ch != nil && runs {
			go func() { _, _ = io.WriteString(ch.Stderr(), "\r\ntssh: "+say+"\r\n") }() // ends with the channel
		}
	}
}

// roomEvery is how often a journal that the disk takes nothing more of is tried again.
const roomEvery = 500 * time.Millisecond

// awaitRoom holds everything while the journal cannot be written, under a rule that pauses
// then: nothing is put out that is not in the journal, and nothing taken. It is asked after
// each write that fails, and with nil after the one that does not.
func (c *conn) awaitRoom(err error) bool {
	if err == nil {
		c.full.Store(0)
		c.mon.tell(control.Unkept, &control.UnkeptMsg{Paused: true, Over: true})
		c.tellPaused(false)
		return true
	}
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EFBIG) {
		return false
	}
	if c.full.CompareAndSwap(0, time.Now().UnixNano()) {
		c.mon.tell(control.Unkept, &control.UnkeptMsg{Paused: true, Why: clip(err.Error(), 256)})
		c.tellPaused(true)
	}
	if c.stopping.Load() || time.Since(time.Unix(0, c.full.Load())) > c.grant.Load().Pause {
		return false
	}
	select {
	case <-c.ctx.Done():
		return false
	case <-time.After(roomEvery):
		return true
	}
}
