package path

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/conn"
)

// The layout of a call; doc.go has the whole of it.
const (
	callMagic = "tssc"
	callHead  = probeHead + chacha20poly1305.NonceSizeX
	callBody  = 8 + 8 + 1 + maxHome + 1 // boot, number, home relay, number of addresses
	callAddr  = 18
	maxHome   = 32
	maxCall   = callHead + callBody + maxPublished*callAddr + chacha20poly1305.Overhead
	callPause = 500 * time.Millisecond // between two calls from one peer that are taken

	callMemory = 16 // runs of a peer that are remembered
)

func isCall(b []byte) bool {
	return len(b) >= callHead+callBody+chacha20poly1305.Overhead && len(b) <= maxCall && bytes.Equal(b[:4], []byte(callMagic))
}

// call makes a packet that asks the peer to try this node's addresses. Callers hold mu.
func (p *Peer) call() []byte {
	if p.bind.cfg.Relay == nil || !p.loadKeys() {
		return nil
	}
	w := p.bind.own()
	b := make([]byte, callHead, maxCall)
	copy(b, callMagic)
	copy(b[4:], p.keys.outHint[:])
	nonce := b[probeHead:callHead]
	rand.Read(nonce) // never fails
	body := binary.BigEndian.AppendUint64(p.bind.boot[:len(p.bind.boot):len(p.bind.boot)], p.bind.called.Add(1))
	home := [maxHome]byte{}
	body = append(append(body, byte(copy(home[:], w.Home))), home[:]...)
	addrs := w.Addrs[:min(len(w.Addrs), maxPublished)]
	body = append(body, byte(len(addrs)))
	for _, a := range addrs {
		ip := a.Addr().As16()
		body = binary.BigEndian.AppendUint16(append(body, ip[:]...), a.Port())
	}
	return p.keys.out.Seal(b, nonce, body, b[:probeHead])
}

var errCall = errors.New("path: not a call of this peer")

// openCall checks and reads a call.
func (k *pairKeys) openCall(b []byte) (n callNumber, w Where, err error) {
	if !isCall(b) || hint(b[4:probeHead]) != k.inHint {
		return n, w, errCall
	}
	body, err := k.in.Open(nil, b[probeHead:callHead], b[callHead:], b[:probeHead])
	if err != nil {
		return n, w, errCall
	}
	n = callNumber{bootID(body), binary.BigEndian.Uint64(body[8:])}
	length, count := int(body[16]), int(body[callBody-1])
	if length > maxHome || count > maxPublished || len(body) != callBody+count*callAddr {
		return n, w, errCall
	}
	w.Home = string(body[17 : 17+length])
	for rest := body[callBody:]; len(rest) > 0; rest = rest[callAddr:] {
		ip := netip.AddrFrom16([16]byte(rest[:16])).Unmap()
		w.Addrs = append(w.Addrs, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest[16:])))
	}
	return n, w, nil
}

// bootID is a random number of each run of a node, callNumber that of a call: no clock is
// asked, which may be set back.
type bootID [8]byte

type callNumber struct {
	boot bootID
	n    uint64
}

// again reports whether a call was taken before, or one after it of the same run; else it
// is remembered. Of runs that are remembered no call comes twice; one of an older run, which
// somebody kept, costs a few pings once. Callers hold mu.
func (p *Peer) again(c callNumber) bool {
	for i, have := range p.calls {
		if have.boot == c.boot {
			if c.n <= have.n {
				return true
			}
			p.calls = append(append(p.calls[:i], p.calls[i+1:]...), c)
			return false
		}
	}
	if len(p.calls) == callMemory {
		p.calls = append(p.calls[:0], p.calls[1:]...)
	}
	p.calls = append(p.calls, c)
	return false
}

// called takes a call: the addresses in it are tried at once. A repetition does nothing.
func (p *Peer) called(packet []byte, now time.Time) {
	p.mu.Lock()
	if p.gone.Load() || !p.loadKeys() {
		p.mu.Unlock()
		return
	}
	n, w, err := p.keys.openCall(packet)
	if err != nil || now.Sub(p.calledAt) < callPause || p.again(n) {
		p.mu.Unlock()
		return
	}
	p.calledAt = now
	if w.Home != "" {
		p.home.Store(&w.Home)
	}
	var out []outgoing
	for _, a := range w.Addrs {
		if !p.bind.usable(a) {
			continue
		}
		c := p.candidates[a]
		if c == nil {
			if len(p.candidates) >= maxPublished+maxLearned {
				continue
			}
			c = &candidate{addr: a, learned: now}
			p.candidates[a] = c
		}
		out = p.ping(out, c, now)
	}
	// Called back once: both sides have to send for both NATs to let packets in.
	if p.best.Load() == nil && !now.Before(p.nextCall) {
		if b := p.call(); b != nil {
			p.nextCall = now.Add(callEvery)
			out = append(out, outgoing{b: b})
		}
	}
	p.mu.Unlock()
	p.lastSend.Store(int64(now.Sub(p.bind.start)))
	p.bind.rouse(p)
	p.sendAll(out)
}

func (b *Bind) own() Where {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.where
}

// SetOwn says where this node can be reached. Peers that packets go to are told over the
// relay.
func (b *Bind) SetOwn(w Where) {
	b.mu.Lock()
	b.where = w
	awake := make([]*Peer, 0, len(b.awake))
	for p := range b.awake {
		awake = append(awake, p)
	}
	b.mu.Unlock()
	now := time.Now()
	for _, p := range awake {
		p.mu.Lock()
		m := p.call()
		p.nextCall = now.Add(callEvery)
		p.mu.Unlock()
		if m != nil {
			p.sendAll([]outgoing{{b: m}})
		}
	}
}

// SetHome says where a peer is at home.
func (b *Bind) SetHome(k Key, relay string) {
	b.mu.Lock()
	p := b.peers[k]
	b.mu.Unlock()
	if p != nil {
		p.home.Store(&relay)
	}
}

// NetworkChanged has every path that is in use proven anew, at once.
func (b *Bind) NetworkChanged() {
	b.mu.Lock()
	awake := make([]*Peer, 0, len(b.awake))
	for p := range b.awake {
		awake = append(awake, p)
	}
	b.mu.Unlock()
	now := time.Now()
	for _, p := range awake {
		p.mu.Lock()
		if c := p.candidates[p.bestAddr()]; c != nil && c.waiting.IsZero() {
			c.waiting = now.Add(-suspectAtMost) // in doubt from now on
		}
		p.nextRound, p.rounds = time.Time{}, 0
		p.setDoubt(now)
		p.mu.Unlock()
	}
	b.kick()
}

// Awake is how many peers packets go to.
func (b *Bind) Awake() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.awake)
}

// SendRaw sends a packet of another protocol from WireGuard's socket.
func (b *Bind) SendRaw(packet []byte, to netip.AddrPort) error {
	return b.sendTo([][]byte{packet}, &conn.StdNetEndpoint{AddrPort: to})
}

// ErrNoPeer is the error of a ping to somebody who is no peer.
var ErrNoPeer = errors.New("path: no such peer")

// Echo is the answer to a Ping.
type Echo struct {
	Addr netip.AddrPort // the direct path it took; unset: the relay
	RTT  time.Duration
}

// Ping asks a peer for an answer by the way that packets take now, and rouses it.
func (b *Bind) Ping(ctx context.Context, k Key) (Echo, error) {
	b.mu.Lock()
	p := b.peers[k]
	b.mu.Unlock()
	if p == nil {
		return Echo{}, ErrNoPeer
	}
	p.lastSend.Store(int64(time.Since(b.start)))
	b.rouse(p)
	now := time.Now()
	heard := make(chan time.Duration, 1)
	var tx transaction
	rand.Read(tx[:]) // never fails
	p.mu.Lock()
	if !p.loadKeys() {
		p.mu.Unlock()
		return Echo{}, ErrNoPeer
	}
	to := p.bestAddr()
	if len(p.sent) >= maxOutstanding || len(p.echo) >= maxOutstanding {
		p.mu.Unlock()
		return Echo{}, errors.New("path: too many pings at once")
	}
	if p.echo == nil {
		p.echo = map[transaction]chan time.Duration{}
	}
	p.sent[tx], p.echo[tx] = ping{to, now}, heard
	packet := p.keys.seal(probe{kindPing, tx})
	p.mu.Unlock()
	p.sendAll([]outgoing{{packet, to}})
	select {
	case rtt := <-heard:
		return Echo{to, rtt}, nil
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.echo, tx)
		p.mu.Unlock()
		return Echo{}, ctx.Err()
	}
}
