package localapi

import (
	"fmt"
	"io"
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

	mu   sync.Mutex
	open map[int]int // by uid
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
			refuse(c)
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

// refuse answers without having read anything; the answer fits the socket's buffer, so
// the accept loop does not wait.
func refuse(c *net.UnixConn) {
	body := fmt.Sprintf(`{"code":%q,"error":"too many open connections to this node (%d)"}`, CodeLimit, maxCalls)
	c.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(c, fmt.Sprintf("HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	c.Close()
}
