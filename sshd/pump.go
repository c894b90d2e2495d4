package sshd

import (
	"io"
	"net"
	"sync"
)

// pump carries bytes between a connection that is not the kernel's and the socket pair
// of its process, each direction closing by itself.
type pump struct {
	outer, inner net.Conn
	once         sync.Once
	done         chan struct{} // both directions are over and both ends closed
}

func startPump(outer, inner net.Conn) *pump {
	p := &pump{outer: outer, inner: inner, done: make(chan struct{})}
	out := make(chan struct{})
	go func() { // ends when the process closed its end, or with abort
		defer close(out)
		_, _ = io.Copy(outer, inner)
		closeWrite(outer)
	}()
	go func() { // ends when the client closed, or with abort
		_, _ = io.Copy(inner, outer)
		closeWrite(inner)
	}()
	go func() { // ends with the first
		<-out
		p.abort()
		close(p.done)
	}()
	return p
}

// abort closes both ends.
func (p *pump) abort() {
	p.once.Do(func() {
		p.inner.Close()
		p.outer.Close()
	})
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
