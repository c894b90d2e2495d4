package path

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	maxHeld      = 8 // packets kept while a peer has no path
	maxHeldBytes = 2048
	maxPublished = 16 // addresses taken from what a peer published
	maxLearned   = 8  // addresses learned from its pings
)

// Peer is the Endpoint of one node. WireGuard keeps it as long as it knows the peer; the
// way its packets go changes inside.
type Peer struct {
	key  Key
	text string
	bind *Bind

	best     atomic.Pointer[conn.StdNetEndpoint] // nil: no path
	lastSend atomic.Int64                        // nanoseconds since bind.start
	awake    atomic.Bool                         // in bind.awake: being probed
	gone     atomic.Bool                         // removed: sends nothing more
	doubt    atomic.Bool                         // the path does not answer: the relay gets everything, too
	viaRelay atomic.Bool                         // the last packet that came, came by the relay
	home     atomic.Pointer[string]              // the relay where the peer is at home

	mu         sync.Mutex // guards what follows; taken after Bind.mu, never the other way
	keys       *pairKeys
	candidates map[netip.AddrPort]*candidate
	sent       map[transaction]ping
	seen       [pingMemory]transaction // the last pings answered, a ring
	seenNext   int
	answered   int // pongs sent in the second that began at answeredAt
	answeredAt time.Time
	held       [][]byte
	nextRound  time.Time
	rounds     int          // without a path since the last one
	nextCall   time.Time    // when it may be called over the relay again
	calls      []callNumber // the last ones from it that were taken, of each of its last runs
	calledAt   time.Time
	blind      budget                             // pings to addresses that never answered
	echo       map[transaction]chan time.Duration // pings by a person, see Bind.Ping
}

// candidate is an address the peer may be reached at.
type candidate struct {
	addr      netip.AddrPort
	published bool
	learned   time.Time // last authentic ping from it, zero when none
	lastPong  time.Time
	rtt       time.Duration
	waiting   time.Time // when the oldest unanswered ping went out, zero when none
	lastPing  time.Time
}

type ping struct {
	to netip.AddrPort
	at time.Time
}

var _ conn.Endpoint = (*Peer)(nil)

func newPeer(b *Bind, k Key) *Peer {
	return &Peer{key: k, text: hex.EncodeToString(k[:]), bind: b,
		candidates: map[netip.AddrPort]*candidate{}, sent: map[transaction]ping{}}
}

// Key is the peer's public key.
func (p *Peer) Key() Key { return p.key }

// ClearSrc does nothing: a path never holds a source address, so none goes stale.
func (p *Peer) ClearSrc() {}

// SrcToString is empty, for the same reason.
func (p *Peer) SrcToString() string { return "" }

// SrcIP is unset, for the same reason.
func (p *Peer) SrcIP() netip.Addr { return netip.Addr{} }

// DstToString is what ParseEndpoint reads.
func (p *Peer) DstToString() string { return p.text }

// DstToBytes binds WireGuard's cookies; only packets that came over the relay use it.
func (p *Peer) DstToBytes() []byte { return p.key[:] }

// DstIP is a stand-in of the peer's own for packets without an address, so that
// WireGuard's rate limit does not put all of them into one bucket.
func (p *Peer) DstIP() netip.Addr {
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:], p.key[:15])
	return netip.AddrFrom16(a)
}

// send never blocks and never fails: what has no way now is held or dropped, as UDP would.
func (p *Peer) send(bufs [][]byte) error {
	if p.gone.Load() {
		return nil
	}
	p.lastSend.Store(int64(time.Since(p.bind.start)))
	if !p.awake.Load() {
		p.bind.rouse(p)
	}
	ep := p.best.Load()
	if ep == nil {
		p.divert(bufs)
		return nil
	}
	if p.doubt.Load() {
		p.relay(bufs) // twice is not too often for WireGuard
	}
	err := p.bind.sendTo(bufs, ep)
	var gso conn.ErrUDPGSODisabled
	switch {
	case err == nil:
	case errors.As(err, &gso): // sent again without GSO; the device logs it
		return err
	case errors.Is(err, net.ErrClosed):
		return err
	case errors.Is(err, syscall.EMSGSIZE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EAGAIN):
	default:
		p.lost(ep, err)
		p.divert(bufs)
	}
	return nil
}

// divert gives packets to the relay, or keeps copies of the newest for the moment a path
// is found: above all the handshake, which WireGuard would repeat only five seconds later.
func (p *Peer) divert(bufs [][]byte) {
	if p.relay(bufs) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range bufs {
		if len(b) > maxHeldBytes {
			continue
		}
		if len(p.held) == maxHeld {
			p.held = append(p.held[:0], p.held[1:]...)
		}
		p.held = append(p.held, append([]byte(nil), b...))
	}
}

// relay gives packets to the relay; false when there is none at the moment.
func (p *Peer) relay(bufs [][]byte) bool {
	send := p.bind.cfg.Relay
	if send == nil {
		return false
	}
	home := ""
	if h := p.home.Load(); h != nil {
		home = *h
	}
	all := true
	for _, b := range bufs {
		all = send(p.key, home, b) && all
	}
	return all
}

// lost ends the path ep after a send error.
func (p *Peer) lost(ep *conn.StdNetEndpoint, err error) {
	if !p.best.CompareAndSwap(ep, nil) {
		return
	}
	p.bind.cfg.Log.Debug("path lost", "peer", p.text[:8], "addr", ep.AddrPort.String(), "err", err)
	p.mu.Lock()
	if c := p.candidates[ep.AddrPort]; c != nil {
		c.lastPong = time.Time{}
	}
	p.nextRound = time.Time{}
	p.mu.Unlock()
	p.bind.kick()
}
