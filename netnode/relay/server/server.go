// Package server is a relay: DERP over the TLS port of a hub, for members of the mesh only.
// See package relay for what a relay is and whom it trusts; only tsshub links this.
//
//	TLS connection (control key proven) --Member--> node and its WireGuard key
//	      |  GET /derp                                     |
//	      v                                                v
//	  admission: the key claimed in DERP's handshake is that one --> derpserver
//	      ^
//	      +-- twice a second: is it a member still? if not, the connection is closed
package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/types/key"

	"tssh/netnode/relay"
)

// Config is what a Server needs.
type Config struct {
	// Member says which node sent a request, by the control key that its connection proved,
	// and what the node's WireGuard key is.
	Member func(*http.Request) (node string, wg relay.Key, ok bool)
	// Still says whether a node is a member and has that key.
	Still func(node string, wg relay.Key) bool
	// BytesPerSecond bounds what one connection may send; 0: DefaultRate.
	BytesPerSecond uint64
	MaxClients     int // connections at once; 0: 10,000
	Log            *slog.Logger
}

// DefaultRate is 32 MiB a second for each node: enough for work, not for one to have it all.
const DefaultRate = 32 << 20

const (
	defaultClients = 10_000
	perNode        = 4 // connections of one node at once
	recheck        = 500 * time.Millisecond
)

// Server carries packets between members.
type Server struct {
	c    Config
	derp *derpserver.Server

	mu     sync.Mutex // guards what follows
	conns  map[*client]struct{}
	byNode map[string]int
	closed bool
	wg     sync.WaitGroup
}

type client struct {
	node string
	wg   relay.Key
	nc   net.Conn
}

// New makes a Server. Run must be running for it to let go of former members.
func New(c Config) (*Server, error) {
	if c.Member == nil || c.Still == nil {
		return nil, errors.New("relay: Member and Still are needed")
	}
	if c.BytesPerSecond == 0 {
		c.BytesPerSecond = DefaultRate
	}
	if c.MaxClients == 0 {
		c.MaxClients = defaultClients
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{c: c, conns: map[*client]struct{}{}, byNode: map[string]int{}}
	// A key of its own for each run: clients trust the TLS key, and this one through it.
	s.derp = derpserver.New(key.NewNode(), func(format string, args ...any) {})
	s.derp.UpdateRateLimits(derpserver.RateConfig{PerClientRateLimitBytesPerSec: c.BytesPerSecond, PerClientRateBurstBytes: 2 * c.BytesPerSecond})
	return s, nil
}

// Run closes the connections of those who are no members any more, until ctx ends; then
// all of them, and waits.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.closed = true
			for c := range s.conns {
				c.nc.Close()
			}
			s.mu.Unlock()
			s.wg.Wait()
			return s.derp.Close()
		case <-tick.C:
			s.check()
		}
	}
}

func (s *Server) check() {
	s.mu.Lock()
	all := make([]*client, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		if !s.c.Still(c.node, c.wg) {
			s.c.Log.Info("no member any more, cut off", "node", c.node)
			c.nc.Close()
		}
	}
}

// Clients is how many connections there are.
func (s *Server) Clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// enter counts a connection in, unless there are too many.
func (s *Server) enter(c *client) (words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return "the relay is about to stop"
	case len(s.conns) >= s.c.MaxClients:
		return "the relay is full"
	case s.byNode[c.node] >= perNode:
		return "this node has too many connections to the relay"
	}
	s.byNode[c.node]++
	s.wg.Add(1)
	return ""
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.byNode[c.node]--; s.byNode[c.node] == 0 {
		delete(s.byNode, c.node)
	}
	s.wg.Done()
}

// ServeHTTP is GET /derp.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node, wg, ok := s.c.Member(r)
	if !ok {
		http.Error(w, "this relay is for members of its mesh", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet || r.Header.Get("Upgrade") != "DERP" {
		http.Error(w, "DERP requires connection upgrade", http.StatusUpgradeRequired)
		return
	}
	c := &client{node: node, wg: wg}
	if words := s.enter(c); words != "" {
		http.Error(w, words, http.StatusServiceUnavailable)
		return
	}
	defer s.leave(c)
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection cannot be upgraded", http.StatusInternalServerError)
		return
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return
	}
	if _, err := io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n"); err != nil {
		return
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return
	}
	c.nc = nc
	s.mu.Lock()
	s.conns[c] = struct{}{}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return
	}
	from := &admission{r: rw.Reader, want: wg}
	s.derp.Accept(r.Context(), nc, bufio.NewReadWriter(bufio.NewReaderSize(from, 8<<10), bufio.NewWriterSize(nc, 8<<10)), nc.RemoteAddr().String())
}

// admission reads what a client sends, and lets it through only if the key that it claims
// in its first frame is the one that its node has.
type admission struct {
	r    io.Reader
	want relay.Key
	head []byte // of the first frame, until it was handed on
	done bool
}

const frameHead = 1 + 4 // type and length

var errNotItsKey = errors.New("relay: the key claimed is not this member's")

func (a *admission) Read(p []byte) (int, error) {
	if !a.done {
		a.done = true
		a.head = make([]byte, frameHead+len(a.want))
		if n, err := io.ReadFull(a.r, a.head); err != nil {
			a.head = a.head[:n]
			return 0, err
		}
		if relay.Key(a.head[frameHead:]) != a.want {
			a.head = nil
			return 0, errNotItsKey
		}
	}
	if len(a.head) > 0 {
		n := copy(p, a.head)
		a.head = a.head[n:]
		return n, nil
	}
	return a.r.Read(p)
}
