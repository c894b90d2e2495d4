package netnode

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tssh/netnode/relay"
)

const (
	stunBusy   = 25 * time.Second // while packets go to a peer: a NAT forgets after 30 s
	stunQuiet  = 10 * time.Minute
	stunAnswer = 5 * time.Second // later answers count for nothing
	stunStale  = 3 * stunBusy    // without an answer a mapping is not told any more, when asked
	maxSTUN    = 64              // questions under way
)

// stunner asks the relays how this node's socket looks from outside.
type stunner struct {
	send func(packet []byte, to netip.AddrPort) error
	news func() // there is something new; must not block

	mu      sync.Mutex // guards what follows
	servers []relay.Server
	sent    map[[12]byte]question
	mapped  map[netip.AddrPort]mapping // by the address asked
	asked   time.Time
}

type question struct {
	to netip.AddrPort
	id string
	at time.Time
}

// mapping is what one server saw.
type mapping struct {
	relay string
	addr  netip.AddrPort
	rtt   time.Duration
	at    time.Time
}

func (s *stunner) setServers(rs []relay.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.EqualFunc(s.servers, rs, func(a, b relay.Server) bool {
		return a.ID == b.ID && a.Host == b.Host && a.STUN == b.STUN && slices.Equal(a.Addrs, b.Addrs)
	}) {
		s.servers, s.asked = rs, time.Time{}
	}
}

// due reports whether it is time to ask again. busy: packets go to some peer.
func (s *stunner) due(now time.Time, busy bool) bool {
	every := stunQuiet
	if busy {
		every = stunBusy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.servers) > 0 && now.Sub(s.asked) >= every
}

// forget is for a network that changed.
func (s *stunner) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.mapped)
	s.asked = time.Time{}
}

// ask sends a question to each relay, in each address family that it has.
func (s *stunner) ask(ctx context.Context) {
	now := time.Now()
	s.mu.Lock()
	s.asked = now
	servers := s.servers
	for tx, q := range s.sent {
		if now.Sub(q.at) > stunAnswer {
			delete(s.sent, tx)
		}
	}
	for to, m := range s.mapped {
		if now.Sub(m.at) > stunStale {
			delete(s.mapped, to)
		}
	}
	s.mu.Unlock()
	for _, r := range servers {
		if r.STUN == 0 {
			continue
		}
		for _, a := range firstOfEach(lookup(ctx, r)) {
			to := netip.AddrPortFrom(a, r.STUN)
			var tx [12]byte
			rand.Read(tx[:]) // never fails
			s.mu.Lock()
			room := len(s.sent) < maxSTUN
			if room {
				s.sent[tx] = question{to, r.ID, time.Now()}
			}
			s.mu.Unlock()
			if room {
				_ = s.send(relay.STUNRequest(tx), to) // one that is lost is asked again
			}
		}
	}
}

func lookup(ctx context.Context, r relay.Server) []netip.Addr {
	if len(r.Addrs) > 0 {
		return r.Addrs
	}
	if a, err := netip.ParseAddr(r.Host); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", r.Host)
	if err != nil {
		return nil // the relay itself says in its status that it is not reached
	}
	return found
}

// firstOfEach is the first IPv4 and the first IPv6 address.
func firstOfEach(as []netip.Addr) (out []netip.Addr) {
	var four, six bool
	for _, a := range as {
		a = a.Unmap()
		if a.Is4() && !four {
			four, out = true, append(out, a)
		}
		if a.Is6() && !six {
			six, out = true, append(out, a)
		}
	}
	return out
}

// answer takes a packet from WireGuard's socket.
func (s *stunner) answer(packet []byte, from netip.AddrPort) {
	tx, addr, err := relay.ParseSTUNResponse(packet)
	if err != nil {
		return
	}
	s.mu.Lock()
	q, ok := s.sent[tx]
	if !ok || q.to != from || time.Since(q.at) > stunAnswer {
		s.mu.Unlock()
		return
	}
	delete(s.sent, tx)
	old := s.mapped[q.to]
	s.mapped[q.to] = mapping{q.id, addr, time.Since(q.at), time.Now()}
	s.mu.Unlock()
	if old.addr != addr {
		s.news()
	}
}

// seen are the mappings, the quickest server's first.
func (s *stunner) seen() []mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]mapping, 0, len(s.mapped))
	for _, m := range s.mapped {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b mapping) int { return int(a.rtt - b.rtt) })
	return out
}

// Kinds of NAT, by how a socket is mapped (RFC 4787, 4.1).
const (
	NATNone        = "none"
	NATIndependent = "endpoint-independent" // one mapping for all
	NATDependent   = "address-dependent"    // another one for each destination: direct paths need the other side's help
	NATUnknown     = "unknown"              // no answer, or only one server to ask
)

// Netcheck is what the node finds out about its network.
type Netcheck struct {
	UDP     bool // some server answered
	IPv4    bool // this computer has such an address
	IPv6    bool
	Mapped  []netip.AddrPort
	NAT     string
	Latency map[string]time.Duration // of STUN, by relay
	Router  string                   // the protocol by which the router lets peers in: "none", "pcp", "nat-pmp"
}

// Netcheck reports what is known, after asking anew when ask is set.
func (n *Node) Netcheck(ctx context.Context, ask bool) Netcheck {
	if ask && n.relays != nil {
		n.stun.forget()
		n.stun.ask(ctx)
		wait := time.NewTimer(time.Second) // an answer that takes longer is no good path
		defer wait.Stop()
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
	}
	c := netcheck(n.stun.seen(), n.candidates())
	if p := n.portMapping(); p.Outside.IsValid() {
		c.Router = p.Protocol
	}
	return c
}

func netcheck(seen []mapping, local []netip.AddrPort) Netcheck {
	c := Netcheck{NAT: NATUnknown, Router: "none", Latency: map[string]time.Duration{}}
	for _, a := range local {
		if !a.Addr().IsLoopback() {
			c.IPv4 = c.IPv4 || a.Addr().Is4()
			c.IPv6 = c.IPv6 || a.Addr().Is6()
		}
	}
	var four []netip.AddrPort
	for _, m := range seen {
		c.UDP = true
		if !slices.Contains(c.Mapped, m.addr) {
			c.Mapped = append(c.Mapped, m.addr)
		}
		if l, ok := c.Latency[m.relay]; !ok || m.rtt < l {
			c.Latency[m.relay] = m.rtt
		}
		if m.addr.Addr().Is4() {
			four = append(four, m.addr)
		}
	}
	switch {
	case len(four) > 0 && slices.Contains(local, four[0]), len(four) == 0 && len(c.Mapped) > 0 && slices.Contains(local, c.Mapped[0]):
		c.NAT = NATNone
	case len(four) > 1 && slices.ContainsFunc(four, func(a netip.AddrPort) bool { return a != four[0] }):
		c.NAT = NATDependent
	case len(four) > 1:
		c.NAT = NATIndependent
	}
	return c
}
