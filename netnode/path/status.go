package path

import (
	"net/netip"
	"time"
)

// usable reports whether a can be the address of a node's socket on another machine or,
// for nodes that share one, on this.
func (b *Bind) usable(a netip.AddrPort) bool {
	ip := a.Addr()
	if !a.IsValid() || a.Port() == 0 || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() ||
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	return b.cfg.Usable == nil || b.cfg.Usable(ip)
}

// SetEndpoints sets the addresses that k published; those learned from probes stay. Only
// the first maxPublished usable ones count.
func (b *Bind) SetEndpoints(k Key, addrs []netip.AddrPort) {
	b.mu.Lock()
	p := b.peers[k]
	b.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	for a, c := range p.candidates {
		c.published = false
		if c.learned.IsZero() && c.lastPong.IsZero() {
			delete(p.candidates, a)
		}
	}
	n := 0
	for _, a := range addrs {
		a = unmap(a)
		if n == maxPublished || !b.usable(a) {
			continue
		}
		n++
		if c := p.candidates[a]; c != nil {
			c.published = true
			continue
		}
		p.candidates[a] = &candidate{addr: a, published: true}
		p.nextRound, p.rounds = time.Time{}, 0
	}
	// What once answered and is published no more goes when there is too much of it.
	for a, c := range p.candidates {
		if len(p.candidates) <= maxPublished+maxLearned {
			break
		}
		if !c.published && a != p.bestAddr() {
			delete(p.candidates, a)
		}
	}
	p.mu.Unlock()
	b.kick()
}

// Path is the way to a peer. Addr is unset when there is none.
type Path struct {
	Addr     netip.AddrPort
	Relay    string // the relay in use while there is no Addr: where the peer is at home, "" if that is not known
	Relayed  bool   // packets go by the relay, and come
	RTT      time.Duration
	LastPong time.Time
	Known    int // addresses known for the peer
}

// Path reports the way to k.
func (b *Bind) Path(k Key) Path {
	b.mu.Lock()
	p := b.peers[k]
	b.mu.Unlock()
	if p == nil {
		return Path{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Path{Addr: p.bestAddr(), Known: len(p.candidates)}
	if h := p.home.Load(); h != nil {
		s.Relay = *h
	}
	s.Relayed = !s.Addr.IsValid() && p.viaRelay.Load()
	if c := p.candidates[s.Addr]; c != nil {
		s.RTT, s.LastPong = c.rtt, c.lastPong
	}
	return s
}

// Working lists the addresses of k that answered, the path first: what is worth keeping
// for the next start.
func (b *Bind) Working(k Key) []netip.AddrPort {
	b.mu.Lock()
	p := b.peers[k]
	b.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []netip.AddrPort
	best := p.bestAddr()
	if best.IsValid() {
		out = append(out, best)
	}
	for a, c := range p.candidates {
		if a != best && !c.lastPong.IsZero() {
			out = append(out, a)
		}
	}
	return out
}
