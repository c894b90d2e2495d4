package localapi

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// callers accepts connections and notes whose they are. One local user who opens connection
// after connection runs into a limit of their own and takes nothing from the others.
type callers struct {
	*net.UnixListener
	log *slog.Logger

	mu       sync.Mutex
	open     map[int]int // by uid
	refusing int
}

// callConn is a connection with the kernel's word on who made it.
type callConn struct {
	*net.UnixConn
	uid     int
	release func()
}

func (c *callConn) Close() error {
	c.release()
	return c.UnixConn.Close()
}

func (l *callers) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err != nil {
			l.log.Warn("local caller without credentials", "err", err)
			c.Close()
			continue
		}
		if !l.take(uid) {
			l.log.Warn("local caller has too many connections", "uid", uid, "limit", maxCalls)
			l.refuse(c)
			continue
		}
		return &callConn{UnixConn: c, uid: uid, release: sync.OnceFunc(func() { l.give(uid) })}, nil
	}
}

func (l *callers) take(uid int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid] >= maxCalls {
		return false
	}
	l.open[uid]++
	return true
}

func (l *callers) give(uid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] <= 0 {
		delete(l.open, uid)
	}
}

// refuse answers one call. The few refusals at a time read the request first, since a
// client that is still writing would miss an answer; the rest are just closed. It does not
// wait; each ends within a second.
func (l *callers) refuse(c *net.UnixConn) {
	l.mu.Lock()
	busy := l.refusing >= maxRefusing
	if !busy {
		l.refusing++
	}
	l.mu.Unlock()
	if busy {
		c.Close()
		return
	}
	go func() {
		defer func() {
			c.Close()
			l.mu.Lock()
			l.refusing--
			l.mu.Unlock()
		}()
		c.SetDeadline(time.Now().Add(time.Second))
		c.Read(make([]byte, maxHeader))
		body := fmt.Sprintf(`{"code":%q,"error":"too many open connections to this node (%d)"}`, CodeLimit, maxCalls)
		fmt.Fprintf(c, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}()
}
