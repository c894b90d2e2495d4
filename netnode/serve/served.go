package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"tssh/policy"
)

// served is one port. open and close are called with Server.change held.
//
//	made --open--> listening --close--> closed --reopen--> listening
//	                 |  ^
//	          gone   v  | open, every retryEvery
//	               problem
type served struct {
	Port
	s  *Server
	wg sync.WaitGroup // the accept loop and every connection

	mu       sync.Mutex
	closed   bool
	l        net.Listener
	at       []netip.Addr // the node's addresses when l was made
	problem  string
	firewall string
	conns    map[*conn]bool
	perPeer  map[string]int // by node id
	total    uint64
	refused  uint64
}

// conn is one connection of a peer.
type conn struct {
	net.Conn
	id            policy.Identity
	remote, local netip.AddrPort
	once          sync.Once
	gone          chan struct{} // closed by Close
}

func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		close(c.gone)
	})
	return err
}

// CloseWrite ends our direction.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

func newServed(s *Server, p Port) *served {
	return &served{Port: p, s: s, conns: map[*conn]bool{}, perPeer: map[string]int{}}
}

func (p *served) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := Status{Port: p.Port, Open: len(p.conns), Total: p.total, Refused: p.refused, Problem: p.problem}
	switch {
	case st.Problem != "":
	case p.l == nil:
		st.Problem = "this node is not up"
	default:
		st.Problem = p.firewall
	}
	return st
}

// open listens, if it does not yet or the node has other addresses by now.
func (p *served) open() error {
	m := p.s.up()
	if m == nil {
		return errors.New("this node is not up")
	}
	self, _ := m.Self()
	firewall := ""
	if p.s.cfg.Firewall != nil {
		firewall = p.s.cfg.Firewall(p.Port.Port)
	}
	p.mu.Lock()
	p.firewall = firewall
	have, same := p.l, slices.Equal(p.at, self.Addrs)
	p.mu.Unlock()
	if have != nil && same {
		return nil
	}
	if have != nil {
		have.Close()
	}
	var l net.Listener
	err := p.s.check(p.Port, self)
	if err == nil {
		l, err = m.Listen("tcp", ":"+strconv.Itoa(int(p.Port.Port)))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.l, p.problem = nil, ""
	if err != nil {
		if p.problem = taken(p.Port, err).Error(); !inUse(err) {
			p.problem = bare(err).Error()
		}
		return err
	}
	if p.closed {
		l.Close()
		return net.ErrClosed
	}
	p.l, p.at = l, slices.Clone(self.Addrs)
	p.wg.Go(func() { p.accept(m, l) }) // ends when l is closed
	return nil
}

func (p *served) reopen() {
	p.mu.Lock()
	p.closed = false
	p.mu.Unlock()
	p.open() // its status says when that fails
}

// close ends the listener and all connections and waits for them.
func (p *served) close() {
	p.mu.Lock()
	l := p.l
	p.closed, p.l, p.at = true, nil, nil
	var all []*conn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	if l != nil {
		l.Close()
	}
	for _, c := range all {
		c.Close()
	}
	p.wg.Wait()
	p.mu.Lock()
	p.closed = false
	p.mu.Unlock()
}

func (p *served) accept(m *Mesh, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			p.s.log.Warn("served port", "port", p.Port.Port, "err", err)
			time.Sleep(100 * time.Millisecond) // out of file descriptors, mostly
			continue
		}
		if x := p.take(m, c); x != nil {
			p.wg.Go(func() { // ends with the connection, which close ends
				defer p.give(x)
				p.serve(m, x)
			})
		}
	}
}

// take admits a connection, nil if it must not be.
func (p *served) take(m *Mesh, c net.Conn) *conn {
	x := &conn{Conn: c, remote: addrPort(c.RemoteAddr()), local: addrPort(c.LocalAddr()), gone: make(chan struct{})}
	var ok bool
	x.id, ok = m.Admits(x.remote, x.local)
	p.mu.Lock()
	why := ""
	switch {
	case p.closed:
		why = "closed"
	case !ok:
		why = "not allowed"
	case len(p.conns) >= maxConns, p.perPeer[x.id.ID] >= maxConnsOfPeer:
		why = "too many connections"
	default:
		p.conns[x] = true
		p.perPeer[x.id.ID]++
		p.total++
	}
	if why != "" {
		p.refused++
	}
	p.mu.Unlock()
	if why == "" {
		return x
	}
	p.s.log.Info("connection to a served port refused", "port", p.Port.Port, "remote", x.remote, "node", x.id.Name, "why", why)
	reset(c)
	return nil
}

func (p *served) give(x *conn) {
	x.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, x)
	if p.perPeer[x.id.ID]--; p.perPeer[x.id.ID] <= 0 {
		delete(p.perPeer, x.id.ID)
	}
}

// recheck ends the connections of those who may not connect any more, or are somebody else now.
func (p *served) recheck() {
	m := p.s.up()
	p.mu.Lock()
	var all []*conn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		if m != nil {
			if id, ok := m.Admits(c.remote, c.local); ok && id.ID == c.id.ID && id.Name == c.id.Name && id.User == c.id.User && slices.Equal(id.Tags, c.id.Tags) {
				continue
			}
		}
		p.s.log.Info("connection to a served port ended: the right to it is gone", "port", p.Port.Port, "node", c.id.Name)
		reset(c)
	}
}

// reset closes without waiting for what was not sent.
func reset(c net.Conn) {
	under := c
	if x, ok := c.(*conn); ok {
		under = x.Conn
	}
	if t, ok := under.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// dialTime bounds a connection to a program on this very computer.
const dialTime = 5 * time.Second

// dial reaches the local program, which may listen on either loopback address.
func (p *served) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var first error
	for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		c, err := p.s.cfg.Dial(ctx, p.UID, netip.AddrPortFrom(a, p.Target))
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (p *served) serve(m *Mesh, x *conn) {
	if !p.TCP {
		p.serveHTTP(m, x)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	far, err := p.dial(ctx)
	if err != nil {
		p.s.log.Info("served program does not answer", "port", p.Port.Port, "target", p.Target, "err", err)
		reset(x)
		return
	}
	join(x, far)
}

// join copies both ways until both directions have ended. The end of one is passed on as a
// half-close; an error in one ends both.
func join(x *conn, far net.Conn) {
	defer far.Close()
	done := make(chan struct{})
	defer close(done)
	go func() { // ends with the connection
		select {
		case <-x.gone:
			far.Close()
		case <-done:
		}
	}()
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		_, err := io.Copy(dst, src)
		if h, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
			h.CloseWrite()
			return
		}
		x.Close()
		far.Close()
	}
	wg.Go(func() { one(far, x) })
	wg.Go(func() { one(x, far) })
	wg.Wait()
}
