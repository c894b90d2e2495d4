package path

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// intercept takes a packet that is not WireGuard's, on a receiver's goroutine. b is the
// caller's again when it returns.
func (b *Bind) intercept(packet []byte, from *conn.StdNetEndpoint) {
	h, ok := probeHint(packet)
	if !ok {
		return
	}
	b.mu.Lock()
	p := b.hints[h]
	b.mu.Unlock()
	if p == nil {
		return
	}
	p.probed(packet, from, time.Now())
}

// probed takes a probe; from is nil when it came by the relay.
func (p *Peer) probed(packet []byte, from *conn.StdNetEndpoint, now time.Time) {
	p.mu.Lock()
	if p.gone.Load() || !p.loadKeys() {
		p.mu.Unlock()
		return
	}
	m, err := p.keys.open(packet)
	if err != nil {
		p.mu.Unlock()
		return
	}
	var answer []byte
	var out []outgoing
	changed := false
	switch m.kind {
	case kindPing:
		if p.repeated(m.tx) || !p.mayAnswer(now) {
			break
		}
		answer = p.keys.seal(probe{kindPong, m.tx})
		if from != nil {
			out = p.learn(unmap(from.AddrPort), now)
		}
	case kindPong:
		changed = p.pong(m.tx, now)
		p.setDoubt(now)
	}
	p.mu.Unlock()
	if len(out) > 0 { // a new address: watch what answers for a while
		p.lastSend.Store(int64(now.Sub(p.bind.start)))
		p.bind.rouse(p)
	}
	if answer != nil && from == nil {
		p.relay([][]byte{answer})
	} else if answer != nil {
		// Back by the way it came, from the address it was sent to.
		if err := p.bind.sendTo([][]byte{answer}, from); err != nil {
			p.bind.cfg.Log.Debug("probe not answered", "addr", from.DstToString(), "err", err)
		}
	}
	p.sendAll(out)
	p.announce(changed)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// repeated remembers tx and reports whether it was there. Callers hold mu.
func (p *Peer) repeated(tx transaction) bool {
	for _, s := range p.seen {
		if s == tx {
			return true
		}
	}
	p.seen[p.seenNext] = tx
	p.seenNext = (p.seenNext + 1) % pingMemory
	return false
}

// mayAnswer counts pongs. Callers hold mu.
func (p *Peer) mayAnswer(now time.Time) bool {
	if now.Sub(p.answeredAt) >= time.Second {
		p.answeredAt, p.answered = now, 0
	}
	p.answered++
	return p.answered <= probesPerSecond
}

// learn notes an address that an authentic ping came from. A new one is pinged at once,
// with all others: the peer may have moved. Callers hold mu.
func (p *Peer) learn(a netip.AddrPort, now time.Time) (out []outgoing) {
	if !p.bind.usable(a) {
		return nil
	}
	if c := p.candidates[a]; c != nil {
		if c.learned.IsZero() || !c.lastPong.IsZero() {
			c.learned = now
		}
		if c.lastPong.IsZero() && now.Sub(c.lastPing) >= retryEvery {
			out = p.ping(out, c, now)
		}
		return out
	}
	var oldest *candidate
	n := 0
	for _, c := range p.candidates {
		if c.published || c.learned.IsZero() {
			continue
		}
		n++
		if c.addr != p.bestAddr() && (oldest == nil || c.lastPong.Before(oldest.lastPong) ||
			c.lastPong.Equal(oldest.lastPong) && c.learned.Before(oldest.learned)) {
			oldest = c
		}
	}
	if n >= maxLearned {
		if oldest == nil {
			return nil
		}
		delete(p.candidates, oldest.addr)
	}
	p.candidates[a] = &candidate{addr: a, learned: now}
	for _, c := range p.candidates {
		out = p.ping(out, c, now)
	}
	p.nextRound = now.Add(roundEvery)
	if p.best.Load() == nil {
		p.nextRound = now.Add(retryEvery)
	}
	return out
}

// pong credits an answer to the address that was asked. Callers hold mu.
func (p *Peer) pong(tx transaction, now time.Time) bool {
	s, ok := p.sent[tx]
	if !ok || now.Sub(s.at) > pongWait {
		return false
	}
	delete(p.sent, tx)
	if heard := p.echo[tx]; heard != nil {
		heard <- now.Sub(s.at) // has room for it
		delete(p.echo, tx)
	}
	c := p.candidates[s.to]
	if c == nil {
		return false
	}
	rtt := now.Sub(s.at)
	if c.rtt == 0 || rtt < c.rtt {
		c.rtt = rtt
	} else {
		c.rtt += (rtt - c.rtt) / 4
	}
	var first *candidate
	if c.lastPong.IsZero() {
		first = c
	}
	c.lastPong = now
	c.waiting = time.Time{}
	return p.choose(now, first)
}
