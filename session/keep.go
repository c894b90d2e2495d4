package session

import "tssh/session/control"

// keep obeys the monitor about the recording. It runs on the goroutine that receives its
// messages and so must not wait.
func (c *conn) keep(k control.KeepMsg) {
	if g := c.grant.Load(); k.Drop && g != nil && g.Lossy {
		c.journal.Drop()
	}
	now := c.held.Load()
	switch {
	case k.Held && now == nil:
		gate := make(chan struct{})
		c.held.Store(&gate)
	case !k.Held && now != nil:
		c.held.Store(nil)
		close(*now)
	}
}

// mayFlow waits while output is held back because the recorder does not take the recording.
// It costs one load where it is not.
func (c *conn) mayFlow() {
	for {
		gate := c.held.Load()
		if gate == nil {
			return
		}
		select {
		case <-*gate:
		case <-c.ctx.Done():
			return
		}
	}
}
