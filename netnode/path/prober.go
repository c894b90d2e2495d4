package path

import (
	"context"
	"crypto/rand"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	tick            = 250 * time.Millisecond
	idleAfter       = 15 * time.Second // without a packet to send: not probed any more
	roundEvery      = 3 * time.Second
	aliveEvery      = 500 * time.Millisecond // the path itself, while there is something to send
	retryEvery      = 500 * time.Millisecond // of a path that did not answer
	suspectAtLeast  = 200 * time.Millisecond // unanswered, see suspect: another path that answers is taken
	suspectAtMost   = time.Second
	deadAfter       = 5 * time.Second // unanswered: no path; from suspect on the relay gets everything too
	callEvery       = 5 * time.Second // while there is no path
	pongWait        = 5 * time.Second
	forgetAfter     = time.Minute // learned addresses that never answered
	pingMemory      = 64
	maxOutstanding  = 256
	probesPerSecond = 64

	// Pings to addresses that never answered: of one peer, and of all.
	blindBurst, blindPerSecond       = 48, 8
	blindBurstAll, blindPerSecondAll = 1024, 256
)

// Run probes until ctx ends. One Run a Bind.
func (b *Bind) Run(ctx context.Context) {
	t := time.NewTimer(tick)
	defer t.Stop()
	for {
		if b.step(time.Now()) {
			t.Reset(tick)
		} else {
			t.Stop() // nobody is awake: only rouse or kick wakes us
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-t.C:
		}
	}
}

func (b *Bind) kick() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// rouse starts probing p, on its first packet after a rest.
func (b *Bind) rouse(p *Peer) {
	if p.awake.Swap(true) {
		return
	}
	b.mu.Lock()
	if !p.gone.Load() {
		b.awake[p] = struct{}{}
	}
	b.mu.Unlock()
	b.kick()
}

// step does what is due for every peer that is awake and reports whether there are any.
func (b *Bind) step(now time.Time) bool {
	b.mu.Lock()
	peers := make([]*Peer, 0, len(b.awake))
	for p := range b.awake {
		if now.Sub(b.start)-time.Duration(p.lastSend.Load()) > idleAfter {
			delete(b.awake, p)
			p.rest()
			continue
		}
		peers = append(peers, p)
	}
	b.mu.Unlock()
	for _, p := range peers {
		p.step(now)
	}
	return len(peers) > 0
}

// rest keeps the path for the next packet, which will have it checked again.
func (p *Peer) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = nil
	p.doubt.Store(false)
	p.nextRound = time.Time{}
	p.rounds = 0
	clear(p.sent)
	for a, c := range p.candidates {
		c.waiting = time.Time{}
		if !c.published && c.lastPong.IsZero() {
			delete(p.candidates, a)
		}
	}
	p.awake.Store(false)
}

type outgoing struct {
	b  []byte
	to netip.AddrPort // unset: by the relay
}

// step sends the pings that are due and gives up a path that is dead.
func (p *Peer) step(now time.Time) {
	p.mu.Lock()
	if !p.loadKeys() {
		p.mu.Unlock()
		return
	}
	for tx, s := range p.sent {
		if now.Sub(s.at) > pongWait {
			delete(p.sent, tx)
		}
	}
	changed := p.choose(now, nil)
	var out []outgoing
	round := !now.Before(p.nextRound)
	if round {
		every := roundEvery
		if p.best.Load() == nil { // 250 ms, 500 ms, ... 3 s
			every = min(tick<<min(p.rounds, 4), roundEvery)
			p.rounds++
		}
		p.nextRound = now.Add(every)
	}
	best := p.bestAddr()
	for a, c := range p.candidates {
		if !c.published && !c.learned.IsZero() && c.lastPong.IsZero() && now.Sub(c.learned) > forgetAfter {
			delete(p.candidates, a)
			continue
		}
		urgent := a == best && (!c.waiting.IsZero() && now.Sub(c.lastPing) >= retryEvery ||
			now.Sub(c.lastPing) >= aliveEvery && now.Sub(p.bind.start)-time.Duration(p.lastSend.Load()) < aliveEvery)
		if round || urgent {
			out = p.ping(out, c, now)
		}
	}
	p.setDoubt(now)
	if p.best.Load() == nil && !now.Before(p.nextCall) {
		if b := p.call(); b != nil {
			p.nextCall = now.Add(callEvery)
			out = append(out, outgoing{b: b})
		}
	}
	p.mu.Unlock()
	p.sendAll(out)
	p.announce(changed)
}

// distrust has the path in use proven anew, and in doubt until then. Callers hold mu.
func (p *Peer) distrust(now time.Time) {
	for _, c := range p.candidates {
		c.waiting = time.Time{}
	}
	if c := p.candidates[p.bestAddr()]; c != nil {
		c.waiting = now.Add(-suspectAtMost)
	}
	p.setDoubt(now)
}

// setDoubt has the relay carry what the path may be losing. Callers hold mu.
func (p *Peer) setDoubt(now time.Time) {
	c := p.candidates[p.bestAddr()]
	p.doubt.Store(c != nil && !c.waiting.IsZero() && now.Sub(c.waiting) > c.suspect())
}

func (p *Peer) sendAll(out []outgoing) {
	for _, o := range out {
		if !o.to.IsValid() {
			p.relay([][]byte{o.b}) // one that is lost is sent again
			continue
		}
		if err := p.bind.sendTo([][]byte{o.b}, &conn.StdNetEndpoint{AddrPort: o.to}); err != nil {
			p.bind.cfg.Log.Debug("probe not sent", "addr", o.to.String(), "err", err)
		}
	}
}

// loadKeys derives the pair's keys at first need. Callers hold mu.
func (p *Peer) loadKeys() bool {
	if p.keys == nil {
		id := p.bind.id.Load()
		k, err := newPairKeys(id.private, id.key, p.key)
		if err != nil {
			p.bind.cfg.Log.Warn("peer's key is of no use", "peer", p.text[:8], "err", err)
			p.gone.Store(true)
			return false
		}
		p.keys = k
	}
	return true
}

// ping adds a ping to c. Callers hold mu.
func (p *Peer) ping(out []outgoing, c *candidate, now time.Time) []outgoing {
	if len(p.sent) >= maxOutstanding {
		return out
	}
	// Where nobody has answered yet, nobody may live: a peer that names addresses cannot have
	// this node send much to them, nor can many peers together.
	if c.lastPong.IsZero() && !(p.blind.take(now, blindBurst, blindPerSecond) && p.bind.blindAll(now)) {
		return out
	}
	var tx transaction
	rand.Read(tx[:]) // never fails
	p.sent[tx] = ping{c.addr, now}
	c.lastPing = now
	if c.waiting.IsZero() {
		c.waiting = now
	}
	return append(out, outgoing{p.keys.seal(probe{kindPing, tx}), c.addr})
}

func (p *Peer) bestAddr() netip.AddrPort {
	if ep := p.best.Load(); ep != nil {
		return ep.AddrPort
	}
	return netip.AddrPort{}
}

// suspect is how long an answer may be late before another path is better.
func (c *candidate) suspect() time.Duration {
	return min(max(4*c.rtt+100*time.Millisecond, suspectAtLeast), suspectAtMost)
}

// cost is the round trip, less for IPv6 because there is mostly no NAT that may forget the path.
func (c *candidate) cost() time.Duration {
	if c.addr.Addr().Is6() {
		return c.rtt - c.rtt/4
	}
	return c.rtt
}

// choose sets the best path by what answered, and reports whether there is a new one.
// first is an address that answered for the first time now, or nil: if the present path,
// asked at the same moment, has not answered, the peer has probably moved, and the answer
// to its handshake must not go the old way. Callers hold mu.
func (p *Peer) choose(now time.Time, first *candidate) (changed bool) {
	if p.gone.Load() {
		return false
	}
	unanswered := func(c *candidate) time.Duration {
		if c.waiting.IsZero() {
			return 0
		}
		return now.Sub(c.waiting)
	}
	cur := p.candidates[p.bestAddr()]
	var top *candidate
	for _, c := range p.candidates {
		if c.lastPong.IsZero() || now.Sub(c.lastPong) > 2*roundEvery || unanswered(c) > c.suspect() {
			continue
		}
		if top == nil || c.cost() < top.cost() {
			top = c
		}
	}
	switch {
	case top == nil:
		if p.best.Load() != nil && (cur == nil || unanswered(cur) > deadAfter) {
			p.best.Store(nil)
			p.nextRound, p.rounds = time.Time{}, 0
			p.bind.cfg.Log.Debug("path dead", "peer", p.text[:8])
		}
		return false
	case top == cur:
		return false
	case first != nil && cur != nil && !cur.waiting.IsZero():
		top = first
	case cur != nil && now.Sub(cur.lastPong) <= 2*roundEvery && unanswered(cur) <= cur.suspect() && cur.cost() < top.cost()+top.cost()/4+2*time.Millisecond:
		return false // near equals: stay
	}
	p.best.Store(&conn.StdNetEndpoint{AddrPort: top.addr})
	p.rounds = 0
	p.bind.cfg.Log.Debug("path", "peer", p.text[:8], "addr", top.addr.String(), "rtt", top.rtt)
	return true
}

// announce sends what waited for a path. Callers do not hold mu.
func (p *Peer) announce(changed bool) {
	if !changed {
		return
	}
	ep := p.best.Load()
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	if ep == nil {
		return
	}
	for _, b := range held {
		if err := p.bind.sendTo([][]byte{b}, ep); err != nil {
			break
		}
	}
	if f := p.bind.cfg.OnPath; f != nil {
		f(p.key, ep.AddrPort)
	}
}
