package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"go4.org/mem"
	"tailscale.com/types/key"
)

// Key is a WireGuard public key.
type Key = [32]byte

// Server is one relay, as the map names it.
type Server struct {
	ID       string
	Host     string
	Port     uint16
	Addrs    []netip.Addr // in place of looking Host up
	Pin      [32]byte     // Ed25519 key of a relay of ours; zero: not one of ours
	CertHash [32]byte     // SHA-256 of the certificate of another; both zero: the public authorities
	STUN     uint16       // UDP port; 0: none
}

func (s Server) address() string { return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) }

func (s Server) same(t Server) bool {
	return s.Host == t.Host && s.Port == t.Port && s.Pin == t.Pin && s.CertHash == t.CertHash && slices.Equal(s.Addrs, t.Addrs)
}

// ClientConfig is what a Client needs. The funcs must not block.
type ClientConfig struct {
	Private Key // WireGuard private key
	// TLS is how to speak to a server: it must check the server's key before it lets a byte
	// through.
	TLS      func(Server) (*tls.Config, error)
	OnPacket func(from Key, packet []byte) // packet is the callee's only during the call
	OnHome   func(id string)               // the home relay is connected; "": there is none at the moment
	Proxy    func(*url.URL) (*url.URL, error)
	Log      *slog.Logger
}

const (
	linkQueue   = 256              // packets on their way to one relay
	idleLink    = time.Minute      // a relay that is not home is left after this
	pingEvery   = 15 * time.Second // a connection that is silent is asked
	silence     = 25 * time.Second // and given up
	handshake   = 15 * time.Second
	backoffMin  = 250 * time.Millisecond
	backoffMax  = 30 * time.Second
	homePatient = 1500 * time.Millisecond // without the home relay before another becomes it
	homeReview  = 5 * time.Minute
	maxHeard    = 16384 // peers whose relay is remembered
)

// Client is a node's side of all relays. Run does the work.
type Client struct {
	cfg  ClientConfig
	priv key.NodePrivate
	wake chan struct{}

	mu      sync.Mutex // guards what follows
	servers []Server
	links   map[string]*link // by server id
	home    string
	heard   map[Key]string // where a peer's last packet came from
	closed  bool
	reset   bool // dial anew: the network changed
}

// NewClient makes a Client without servers.
func NewClient(c ClientConfig) (*Client, error) {
	if c.TLS == nil || c.OnPacket == nil || c.Private == (Key{}) {
		return nil, errors.New("relay: TLS, OnPacket and Private are needed")
	}
	if c.OnHome == nil {
		c.OnHome = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: c, priv: key.NodePrivateFromRaw32(mem.B(c.Private[:])), wake: make(chan struct{}, 1), links: map[string]*link{}, heard: map[Key]string{}}, nil
}

func (c *Client) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// SetServers sets the relays there are.
func (c *Client) SetServers(s []Server) {
	c.mu.Lock()
	c.servers = slices.Clone(s)
	c.mu.Unlock()
	c.kick()
}

// NetworkChanged has every connection made anew: this computer's addresses are others now.
func (c *Client) NetworkChanged() {
	c.mu.Lock()
	c.reset = true
	c.mu.Unlock()
	c.kick()
}

// Home is the home relay while it is connected, else "".
func (c *Client) Home() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.links[c.home]; l != nil && l.up.Load() {
		return c.home
	}
	return ""
}

// Send passes a packet to a relay: to at, where the peer is at home; when that is not
// known, to where it was last heard, else to the own home relay. It never blocks; false
// means that the packet was dropped.
func (c *Client) Send(to Key, at string, packet []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if at == "" || c.server(at) == nil {
		if at = c.heard[to]; at == "" || c.server(at) == nil {
			at = c.home
		}
	}
	l := c.links[at]
	if l == nil {
		s := c.server(at)
		if s == nil {
			return false
		}
		l = c.addLink(*s)
		c.kick()
	}
	return l.queue(to, packet)
}

// server finds a relay by its id. Callers hold mu.
func (c *Client) server(id string) *Server {
	for i := range c.servers {
		if c.servers[i].ID == id {
			return &c.servers[i]
		}
	}
	return nil
}

func (c *Client) addLink(s Server) *link {
	l := &link{c: c, server: s, out: make(chan outgoing, linkQueue), stop: make(chan struct{})}
	l.used.Store(time.Now().UnixNano())
	c.links[s.ID] = l
	return l
}

// received notes where a peer was heard and hands its packet on.
func (c *Client) received(from Key, at string, packet []byte) {
	c.mu.Lock()
	if c.heard[from] != at {
		if len(c.heard) >= maxHeard {
			clear(c.heard)
		}
		c.heard[from] = at
	}
	c.mu.Unlock()
	c.cfg.OnPacket(from, packet)
}

// Status is one relay and how things stand with it.
type Status struct {
	ID        string
	Host      string
	Connected bool
	Home      bool
	Latency   time.Duration // of the last connection or ping; 0: not known
	Err       string
}

// Status reports on all relays.
func (c *Client) Status() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Status, 0, len(c.servers))
	for _, s := range c.servers {
		st := Status{ID: s.ID, Host: s.address(), Home: s.ID == c.home}
		if l := c.links[s.ID]; l != nil {
			st.Connected, st.Latency = l.up.Load(), time.Duration(l.latency.Load())
			if e := l.problem.Load(); e != nil && !st.Connected {
				st.Err = *e
			}
		}
		out = append(out, st)
	}
	return out
}

// Run keeps the home relay connected until ctx ends. It returns after its last goroutine.
func (c *Client) Run(ctx context.Context) {
	var links sync.WaitGroup
	lastHome := ""
	var lost time.Time // since when the home relay is not connected
	var review time.Time
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		now := time.Now()
		c.mu.Lock()
		if ctx.Err() != nil {
			c.closed = true
			for id, l := range c.links {
				close(l.stop)
				delete(c.links, id)
			}
			c.mu.Unlock()
			links.Wait()
			return
		}
		c.prune(now)
		if l := c.links[c.home]; l != nil && l.up.Load() {
			lost = time.Time{}
		} else if lost.IsZero() {
			lost = now
		}
		if c.server(c.home) == nil || !lost.IsZero() && now.Sub(lost) > homePatient && len(c.servers) > 1 || now.After(review) {
			c.choose(!lost.IsZero() && now.Sub(lost) > homePatient)
			review = now.Add(homeReview)
			if c.home != lastHome {
				lost = now
			}
		}
		for _, l := range c.links {
			if !l.running {
				l.running = true
				links.Go(func() { l.run(ctx) }) // ends with ctx, or with l.stop
			}
		}
		home := ""
		if l := c.links[c.home]; l != nil && l.up.Load() {
			home = c.home
		}
		c.mu.Unlock()
		if home != lastHome {
			lastHome = home
			c.cfg.OnHome(home)
		}
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-tick.C:
		}
	}
}

// prune ends links to relays that are gone, have changed, or have been idle. Callers hold mu.
func (c *Client) prune(now time.Time) {
	for id, l := range c.links {
		s := c.server(id)
		idle := id != c.home && now.Sub(time.Unix(0, l.used.Load())) > idleLink
		if s == nil || !s.same(l.server) || idle || c.reset {
			close(l.stop)
			delete(c.links, id)
		}
	}
	c.reset = false
	if c.home != "" && c.links[c.home] == nil {
		if s := c.server(c.home); s != nil {
			c.addLink(*s)
		}
	}
}

// choose picks the home relay: the quickest of those that answered, and of several about
// as quick the one that it is. lost says that the present one does not do. Callers hold mu.
func (c *Client) choose(lost bool) {
	best := ""
	var bestLatency time.Duration
	for _, s := range c.servers {
		var latency time.Duration
		down := false
		if l := c.links[s.ID]; l != nil {
			latency, down = time.Duration(l.latency.Load()), !l.up.Load() && l.problem.Load() != nil
		}
		if lost && s.ID == c.home || down && best != "" {
			continue
		}
		if latency == 0 {
			latency = time.Second // not known: after those that are, in the order of the map
		}
		if s.ID == c.home {
			latency = latency * 2 / 3
		}
		if best == "" || latency < bestLatency {
			best, bestLatency = s.ID, latency
		}
	}
	if best == "" || best == c.home {
		return
	}
	if c.home != "" {
		c.cfg.Log.Info("home relay", "is", best, "was", c.home)
	}
	c.home = best
	if c.links[best] == nil {
		c.addLink(*c.server(best))
	}
	// The others are measured once, so that the next choice is one.
	for _, s := range c.servers {
		if c.links[s.ID] == nil {
			c.addLink(s)
		}
	}
}

// jitter is a random time below d, at least a quarter of it.
func jitter(d time.Duration) time.Duration { return d/4 + rand.N(d*3/4+1) }

func plainError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

var errSilent = fmt.Errorf("relay: silent for %v", silence)
