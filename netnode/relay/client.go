package relay

import (
	"context"
	"crypto/tls"
	"errors"
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
	idleLink    = time.Minute             // a relay that is not home is left after this
	homePatient = 1500 * time.Millisecond // without the home relay before another becomes it
	homeReview  = 5 * time.Minute         // how often all are measured
	measureFor  = 5 * time.Second
	firstWait   = 300 * time.Millisecond // after the first that answers, for a quicker one
	maxHeard    = 16384                  // peers whose relay is remembered
	notHereFor  = 5 * time.Second
)

// Client is a node's side of all relays. Run does the work.
type Client struct {
	cfg  ClientConfig
	wake chan struct{}

	mu      sync.Mutex // guards what follows
	priv    key.NodePrivate
	servers []Server
	links   map[string]*link // by server id
	home    string
	heard   map[Key]string           // where a peer's last packet came from
	gone    map[absence]time.Time    // relays that said they do not have a peer
	latency map[string]time.Duration // by server id; also of those that are not connected now
	closed  bool
	reset   bool // dial anew: the network changed
	again   bool // and measure anew
}

// absence is a peer that a relay does not have.
type absence struct {
	peer  Key
	relay string
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
	return &Client{cfg: c, priv: key.NodePrivateFromRaw32(mem.B(c.Private[:])), wake: make(chan struct{}, 1), links: map[string]*link{},
		heard: map[Key]string{}, gone: map[absence]time.Time{}, latency: map[string]time.Duration{}}, nil
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

// SetKey gives the node another WireGuard key, by which relays know it from now on: every
// connection is made anew.
func (c *Client) SetKey(private Key) {
	c.mu.Lock()
	c.priv, c.reset = key.NodePrivateFromRaw32(mem.B(private[:])), true
	c.mu.Unlock()
	c.kick()
}

func (c *Client) key() key.NodePrivate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.priv
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
// known, to where it was last heard, else to the own home relay. When that relay cannot be
// reached, the peer will have moved, and it is looked for at the others. Send never
// blocks; false means that the packet was dropped.
func (c *Client) Send(to Key, at string, packet []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.server(c.pick(to, at))
	if c.closed || s == nil {
		return false
	}
	l := c.links[s.ID]
	if l == nil {
		l = c.addLink(*s)
		c.kick()
	}
	return l.queue(to, packet)
}

// pick says which relay is the way to a peer. Callers hold mu.
func (c *Client) pick(to Key, at string) string {
	now := time.Now()
	usable := func(id string) bool {
		if id == "" || c.server(id) == nil {
			return false
		}
		if l := c.links[id]; l != nil && l.down() {
			return false
		}
		return now.Sub(c.gone[absence{to, id}]) > notHereFor
	}
	first := ""
	for _, id := range []string{at, c.heard[to], c.home} {
		if usable(id) {
			return id
		}
		if first == "" && id != "" && c.server(id) != nil {
			first = id
		}
	}
	// Asking everywhere is for when a relay died, not for a peer that is simply not there.
	if l := c.links[first]; l != nil && l.down() {
		for _, s := range c.servers {
			if usable(s.ID) {
				return s.ID
			}
		}
	}
	return first
}

// notHere notes that a relay does not have a peer.
func (c *Client) notHere(peer Key, at string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.gone) >= maxHeard {
		clear(c.gone)
	}
	c.gone[absence{peer, at}] = time.Now()
	if c.heard[peer] == at {
		delete(c.heard, peer)
	}
}

// measured notes how far a relay is.
func (c *Client) measured(id string, d time.Duration) {
	c.mu.Lock()
	first := c.latency[id] == 0
	if c.server(id) != nil {
		c.latency[id] = d
	}
	c.mu.Unlock()
	if first {
		c.kick()
	}
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
	if len(c.gone) > 0 {
		delete(c.gone, absence{from, at})
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
		st := Status{ID: s.ID, Host: s.address(), Home: s.ID == c.home, Latency: c.latency[s.ID]}
		if l := c.links[s.ID]; l != nil {
			st.Connected = l.up.Load()
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
	said := ""
	var h housing
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
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
		now := time.Now()
		c.prune(now)
		c.settle(&h, now)
		for id, l := range c.links {
			l.home.Store(id == c.home)
			if !l.running {
				l.running = true
				links.Go(func() { l.run(ctx) }) // ends with ctx, or with l.stop
			}
		}
		home := said
		switch l := c.links[c.home]; {
		case l != nil && l.up.Load():
			home = c.home
		case c.home == "" || l == nil || l.silent.Load() || !h.lost.IsZero() && now.Sub(h.lost) > homePatient:
			home = ""
		}
		c.mu.Unlock()
		if home != said {
			said = home
			c.cfg.OnHome(home)
		}
		wait := tick.C
		if !h.first.IsZero() && c.Home() == "" {
			wait = time.After(firstWait / 3)
		}
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-wait:
		}
	}
}

// housing is what Run remembers about where to be at home.
//
//	none --first answer, and a moment--> home --lost, or a much nearer one--> another
type housing struct {
	lost   time.Time // since when the home relay is not connected
	first  time.Time // when the first relay answered, while there is no home
	review time.Time // when all are measured again
	decide time.Time // when the measuring is over; zero: none is going on
}

// settle looks at where this node is at home. Callers hold mu.
func (c *Client) settle(h *housing, now time.Time) {
	if c.home != "" && c.server(c.home) == nil {
		c.home = "" // no relay of the mesh any more
	}
	if c.home == "" {
		answered, open := 0, 0
		for _, s := range c.servers {
			l := c.links[s.ID]
			if l == nil {
				l = c.addLink(s)
			}
			switch {
			case l.up.Load() && c.latency[s.ID] != 0:
				answered++
			case !l.down():
				open++
			}
		}
		if answered > 0 && h.first.IsZero() {
			h.first = now
		}
		if answered > 0 && (open == 0 || now.Sub(h.first) >= firstWait) {
			c.choose(false)
			*h = housing{review: now.Add(jitter(homeReview))}
		}
		return
	}
	if c.again {
		h.review, c.again = now, false
	}
	l := c.links[c.home]
	switch {
	case l.up.Load():
		h.lost = time.Time{}
	case h.lost.IsZero():
		h.lost = now
	}
	switch {
	case !h.lost.IsZero() && len(c.servers) > 1 && (l.silent.Load() || now.Sub(h.lost) > homePatient):
		for _, s := range c.servers {
			if c.links[s.ID] == nil {
				c.addLink(s)
			}
		}
		if c.choose(true) {
			h.lost = time.Time{}
		}
	case !h.decide.IsZero() && now.After(h.decide):
		c.choose(false)
		h.decide, h.review = time.Time{}, now.Add(jitter(homeReview))
	case h.decide.IsZero() && now.After(h.review) && len(c.servers) > 1:
		for _, s := range c.servers {
			if c.links[s.ID] == nil {
				c.addLink(s)
			}
		}
		h.decide = now.Add(measureFor)
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
	c.again = c.again || c.reset
	c.reset = false
	if c.home != "" && c.links[c.home] == nil {
		if s := c.server(c.home); s != nil {
			c.addLink(*s)
		}
	}
}

// choose picks the home relay among those that are connected: the nearest. One that is
// home stays it unless another is nearer by a third and by 10 ms: to move costs all peers a
// message. lost says that the present one does not do. Callers hold mu.
func (c *Client) choose(lost bool) (moved bool) {
	best := ""
	var nearest time.Duration
	for _, s := range c.servers {
		l := c.links[s.ID]
		if l == nil || !l.up.Load() || lost && s.ID == c.home {
			continue
		}
		d := c.latency[s.ID]
		if d == 0 {
			d = time.Second // not known yet: after those that are, in the order of the map
		}
		if s.ID == c.home {
			d = min(d*2/3, d-10*time.Millisecond)
		}
		if best == "" || d < nearest {
			best, nearest = s.ID, d
		}
	}
	if best == "" || best == c.home {
		return false
	}
	c.cfg.Log.Info("home relay", "is", best, "was", c.home)
	c.home = best
	return true
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

// errSilent is the end of a connection that is still there and carries nothing.
var errSilent = errors.New("relay: it is silent")
