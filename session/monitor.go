package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"tssh/session/control"
)

// errAway means that nobody is at the other end of the control socket.
var errAway = errors.New("this host's tssh daemon is not running at the moment; try again shortly")

// callTime bounds the wait for an answer of the monitor. A login may make it look an
// account up in a directory that is slow.
const callTime = 25 * time.Second

// maxUntold bounds what is kept to be told to the next monitor.
const maxUntold = 4096

// monitor is conn's end of the control socket, across monitors.
type monitor struct {
	onRevoke func(control.RevokeMsg)
	onKeep   func(control.KeepMsg)
	onNotice func(line string)
	onLost   func() // the socket closed; called once for each, on the receiving goroutine

	mu     sync.Mutex
	c      *control.Conn // nil while there is no monitor
	next   uint64
	wait   map[uint64]chan reply
	back   chan struct{} // closed when a monitor is there again; nil while one is
	untold []uint32      // channels that went while nobody listened
	closed bool
}

type reply struct {
	m    control.Message
	file *os.File
}

func newMonitor(c *control.Conn) *monitor {
	return &monitor{c: c, wait: map[uint64]chan reply{}}
}

// listen receives until the socket closes. One goroutine for each socket.
func (m *monitor) listen(c *control.Conn) {
	for {
		msg, file, err := c.Receive()
		if err != nil {
			break
		}
		switch body := msg.Body.(type) {
		case *control.RevokeMsg:
			m.onRevoke(*body)
		case *control.KeepMsg:
			m.onKeep(*body)
		case *control.NoticeMsg:
			m.onNotice(body.Line)
		case *control.PingMsg:
			m.tell(control.Pong, &control.PongMsg{})
		default:
			m.mu.Lock()
			ch := m.wait[msg.N]
			delete(m.wait, msg.N)
			m.mu.Unlock()
			if ch == nil {
				if file != nil {
					file.Close()
				}
				continue // an answer that nobody waits for any more
			}
			ch <- reply{msg, file}
		}
	}
	c.Close()
	m.mu.Lock()
	m.c = nil
	if m.back == nil {
		m.back = make(chan struct{})
	}
	for n, ch := range m.wait {
		close(ch)
		delete(m.wait, n)
	}
	closed := m.closed
	m.mu.Unlock()
	if !closed {
		m.onLost()
	}
}

// call asks and waits for the answer.
func (m *monitor) call(t control.Type, body any) (any, *os.File, error) {
	ch := make(chan reply, 1)
	m.mu.Lock()
	c := m.c
	if c == nil {
		m.mu.Unlock()
		return nil, nil, errAway
	}
	m.next++
	n := m.next
	m.wait[n] = ch
	m.mu.Unlock()
	if err := c.Send(control.Message{Type: t, N: n, Body: body}, nil); err != nil {
		m.mu.Lock()
		delete(m.wait, n)
		m.mu.Unlock()
		return nil, nil, err
	}
	timer := time.NewTimer(callTime)
	defer timer.Stop()
	select {
	case r, ok := <-ch:
		if !ok {
			return nil, nil, errAway
		}
		return r.m.Body, r.file, nil
	case <-timer.C:
		m.mu.Lock()
		delete(m.wait, n)
		m.mu.Unlock()
		return nil, nil, fmt.Errorf("monitor: no answer to %s: %w", t, os.ErrDeadlineExceeded)
	}
}

// tell sends without an answer; a word lost with its monitor is not repeated, but for
// channels that closed.
func (m *monitor) tell(t control.Type, body any) {
	m.mu.Lock()
	c := m.c
	m.next++
	n := m.next
	if g, ok := body.(*control.GoneMsg); ok && c == nil && len(m.untold) < maxUntold {
		m.untold = append(m.untold, g.Channel)
	}
	m.mu.Unlock()
	if c != nil {
		_ = c.Send(control.Message{Type: t, N: n, Body: body}, nil) // a dead socket shows in listen
	}
}

// here reports whether there is a monitor now.
func (m *monitor) here() bool { return m.present(0) }

// wait for a monitor, at most d.
func (m *monitor) present(d time.Duration) bool {
	m.mu.Lock()
	back := m.back
	m.mu.Unlock()
	if back == nil {
		return true
	}
	select {
	case <-back:
		return true
	case <-time.After(d):
		return false
	}
}

// errRefused means that a monitor answered and does not want this connection.
type errRefused struct{ say string }

func (e errRefused) Error() string { return e.say }

// resume looks for a new monitor until ctx ends, and then listens to it on its own
// goroutine, which ends with that monitor.
func (m *monitor) resume(ctx context.Context, socket string, msg control.ResumeMsg) error {
	for {
		c, err := dialMonitor(ctx, socket, msg)
		var no errRefused
		if errors.As(err, &no) {
			return no
		}
		if err == nil {
			m.mu.Lock()
			m.c = c
			close(m.back)
			m.back = nil
			untold := m.untold
			m.untold = nil
			m.mu.Unlock()
			for _, ch := range untold {
				m.tell(control.Gone, &control.GoneMsg{Channel: ch})
			}
			go m.listen(c)
			return nil
		}
		// 100-300 ms: soon, and a thousand connections do not knock at once.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100*time.Millisecond + rand.N(200*time.Millisecond)):
		}
	}
}

func dialMonitor(ctx context.Context, socket string, msg control.ResumeMsg) (*control.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	nc, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, err
	}
	if err := nc.SetDeadline(time.Now().Add(callTime)); err != nil {
		nc.Close()
		return nil, err
	}
	c, err := control.FromNet(nc, false)
	if err != nil {
		return nil, err
	}
	if err := c.Send(control.Message{Type: control.Resume, N: 0, Body: &msg}, nil); err != nil {
		c.Close()
		return nil, err
	}
	got, _, err := c.Receive()
	if err != nil {
		c.Close()
		return nil, err
	}
	r, ok := got.Body.(*control.ResumedMsg)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("monitor: %s instead of resumed", got.Type)
	}
	if !r.OK {
		c.Close()
		return nil, errRefused{r.Say}
	}
	return c, nc.SetDeadline(time.Time{})
}

// close says goodbye for good.
func (m *monitor) close(cause, text string) {
	m.mu.Lock()
	m.closed = true
	c := m.c
	m.mu.Unlock()
	if c != nil {
		m.tell(control.Done, &control.DoneMsg{Cause: cause, Text: text})
		c.Close()
	}
}
