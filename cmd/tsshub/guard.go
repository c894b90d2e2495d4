package main

import (
	"net"
	"net/netip"
	"sync"
)

// Connections that may be open at once. Who they are is known only after a handshake,
// so one address must not be able to take them all; many nodes may still sit behind
// one address.
const (
	maxConns        = 20000
	maxConnsAddress = 2000
)

// guard is a listener that hangs up on those who open too many connections.
type guard struct {
	net.Listener

	mu    sync.Mutex
	total int
	by    map[netip.Addr]int
}

func newGuard(l net.Listener) *guard { return &guard{Listener: l, by: map[netip.Addr]int{}} }

func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var from netip.Addr
		if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			from = ap.Addr().Unmap()
		}
		if !g.enter(from) {
			c.Close()
			continue
		}
		return &guarded{Conn: c, leave: sync.OnceFunc(func() { g.leave(from) })}, nil
	}
}

func (g *guard) enter(from netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= maxConns || g.by[from] >= maxConnsAddress {
		return false
	}
	g.total++
	g.by[from]++
	return true
}

func (g *guard) leave(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.by[from]--; g.by[from] == 0 {
		delete(g.by, from)
	}
}

type guarded struct {
	net.Conn
	leave func()
}

func (c *guarded) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}
