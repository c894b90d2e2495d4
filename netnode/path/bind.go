package path

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/conn"

	"tssh/netnode/relay"
)

// relayQueue is how many packets from the relay wait for the device; more are dropped.
const relayQueue = 256

// Config is what a Bind needs.
type Config struct {
	Private *ecdh.PrivateKey // X25519, the node's WireGuard key
	// Relay passes a packet to the relay named home, where the peer is at home; "" when that
	// is not known. It must not block or keep the slice. False, as nil, holds the newest
	// packets until there is a path. What the relay receives goes to Bind.FromRelay.
	Relay func(peer Key, home string, packet []byte) bool
	// OnSTUN gets STUN packets that come to the socket; it must not block or keep the slice.
	OnSTUN func(packet []byte, from netip.AddrPort)
	// Usable says whether an address may be a way to a peer; nil allows all. The mesh's own
	// addresses may not, or the tunnel would run through itself.
	Usable func(netip.Addr) bool
	// OnBroken is called when nothing could be sent for a while: the socket may be at fault,
	// and another one at the same port may do. It must not block.
	OnBroken func()
	// OnPath is called after a peer got a new path, on the goroutine of Run or of the
	// receiver; it must not block.
	OnPath func(peer Key, addr netip.AddrPort)
	// OnInitiation is called before WireGuard gets the first message of a handshake, with the
	// key that it says it is from, so that WireGuard can be told of the peer first. It may
	// block, until stop is closed at the latest.
	OnInitiation func(peer Key, stop <-chan struct{})
	Log          *slog.Logger
}

// Bind is a conn.Bind that finds the paths by itself. Run must be running for that.
type Bind struct {
	cfg    Config
	id     atomic.Pointer[identity] // this node's own keys; changed under mu
	boot   bootID                   // of this run, in calls
	called atomic.Uint64            // calls made
	start  time.Time
	inner  conn.Bind
	wake   chan struct{}
	opens  *rate.Limiter // initiations opened to see whose they are

	mu     sync.Mutex // guards what follows; taken before Peer.mu
	peers  map[Key]*Peer
	hints  map[hint]*Peer
	awake  map[*Peer]struct{}
	closed chan struct{} // of the present Open
	relayq chan relayed
	where  Where // this node's own

	blindMu sync.Mutex // guards blind; the innermost
	blind   budget     // pings to addresses that never answered, of all peers
	health  health     // of the socket
}

// identity is who this node is for its peers.
type identity struct {
	private *ecdh.PrivateKey
	key     Key
}

func newIdentity(private *ecdh.PrivateKey) *identity {
	return &identity{private, Key(private.PublicKey().Bytes())}
}

// SetPrivate gives the node another key. Paths stay: they are addresses. Whether they still
// hold, peers answer once they have heard of the key.
func (b *Bind) SetPrivate(private *ecdh.PrivateKey) {
	b.mu.Lock()
	id := newIdentity(private)
	b.id.Store(id)
	clear(b.hints)
	now := time.Now()
	for k, p := range b.peers {
		b.hints[hintFor(k, id.key)] = p
		p.mu.Lock()
		p.keys, p.nextRound, p.nextCall, p.rounds = nil, time.Time{}, time.Time{}, 0
		clear(p.sent)
		p.distrust(now)
		p.mu.Unlock()
	}
	b.mu.Unlock()
	b.kick()
}

// Where is where a node can be reached.
type Where struct {
	Addrs []netip.AddrPort
	Home  string // the relay it is at home at; "": none
}

type relayed struct {
	peer *Peer
	b    []byte
}

var _ conn.Bind = (*Bind)(nil)

// New makes a Bind without peers.
func New(cfg Config) (*Bind, error) {
	if cfg.Private == nil {
		return nil, fmt.Errorf("path: no private key")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bind{
		cfg: cfg, start: time.Now(),
		inner: newFamilies(), wake: make(chan struct{}, 1),
		peers: map[Key]*Peer{}, hints: map[hint]*Peer{}, awake: map[*Peer]struct{}{},
		relayq: make(chan relayed, relayQueue),
		opens:  rate.NewLimiter(initiationsPerSecond, initiationsPerSecond),
	}
	b.id.Store(newIdentity(cfg.Private))
	rand.Read(b.boot[:]) // never fails
	return b, nil
}

// AddPeer makes the endpoint of k, before WireGuard is told of it. A second call does nothing.
func (b *Bind) AddPeer(k Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers[k] != nil {
		return
	}
	p := newPeer(b, k)
	b.peers[k] = p
	b.hints[hintFor(k, b.id.Load().key)] = p
}

// Inherit gives k what is known of the ways to former, the key that k's node had before.
// The path in use is so until it turns out that it does not answer; meanwhile the relay
// gets everything, too.
func (b *Bind) Inherit(k, former Key) {
	b.mu.Lock()
	p, old := b.peers[k], b.peers[former]
	b.mu.Unlock()
	if p == nil || old == nil {
		return
	}
	old.mu.Lock()
	candidates := map[netip.AddrPort]*candidate{}
	for a, c := range old.candidates {
		candidates[a] = &candidate{addr: a, published: c.published, learned: c.learned, lastPong: c.lastPong, rtt: c.rtt}
	}
	best, sent := old.best.Load(), old.lastSend.Load()
	old.mu.Unlock()
	p.mu.Lock()
	p.candidates = candidates
	p.best.Store(best)
	p.lastSend.Store(sent)
	p.home.Store(old.home.Load())
	p.viaRelay.Store(old.viaRelay.Load())
	p.distrust(time.Now())
	p.mu.Unlock()
	b.rouse(p)
}

// RemovePeer forgets k and its paths; its endpoint sends nothing more.
func (b *Bind) RemovePeer(k Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[k]
	if p == nil {
		return
	}
	p.gone.Store(true)
	p.best.Store(nil)
	delete(b.peers, k)
	delete(b.hints, hintFor(k, b.id.Load().key))
	delete(b.awake, p)
}

// Open is conn.Bind's. Each receiver takes what is not WireGuard out of the batch; one
// more delivers what came over the relay.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := b.inner.Open(port)
	if err != nil {
		return nil, 0, err
	}
	closed := make(chan struct{})
	b.mu.Lock()
	b.closed = closed
	b.mu.Unlock()
	for i, fn := range fns {
		fns[i] = b.sieve(fn, closed)
	}
	return append(fns, b.receiveRelayed(closed)), actual, nil
}

func (b *Bind) sieve(fn conn.ReceiveFunc, closed <-chan struct{}) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := fn(bufs, sizes, eps)
		for i := range n {
			if sizes[i] == 0 || isWireGuard(bufs[i][:sizes[i]]) {
				if isInitiation(bufs[i][:sizes[i]]) {
					b.foresee(bufs[i][:sizes[i]], closed)
				}
				continue
			}
			// The device skips empty packets, so the batch keeps its shape.
			if ep, ok := eps[i].(*conn.StdNetEndpoint); ok {
				if relay.IsSTUN(bufs[i][:sizes[i]]) {
					if b.cfg.OnSTUN != nil {
						b.cfg.OnSTUN(bufs[i][:sizes[i]], unmap(ep.AddrPort))
					}
				} else {
					b.intercept(bufs[i][:sizes[i]], ep)
				}
			}
			sizes[i] = 0
		}
		return n, err
	}
}

func isWireGuard(p []byte) bool {
	return len(p) >= 4 && p[0] >= 1 && p[0] <= 4 && p[1] == 0 && p[2] == 0 && p[3] == 0
}

func (b *Bind) receiveRelayed(closed chan struct{}) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case r := <-b.relayq:
			sizes[0] = copy(bufs[0], r.b)
			eps[0] = r.peer
			return 1, nil
		case <-closed:
			return 0, net.ErrClosed
		}
	}
}

// FromRelay delivers a packet that the relay says is from k. It keeps no slice, never
// blocks, and drops what is not WireGuard or from nobody known. Whether it really is from
// k is for WireGuard to find out.
func (b *Bind) FromRelay(k Key, packet []byte) {
	b.mu.Lock()
	p := b.peers[k]
	b.mu.Unlock()
	if p == nil || len(packet) > 1<<16-1 {
		return
	}
	if !isWireGuard(packet) {
		if _, ok := probeHint(packet); ok {
			p.probed(packet, nil, time.Now())
		} else if isCall(packet) {
			p.called(packet, time.Now())
		}
		return
	}
	p.viaRelay.Store(true)
	if isInitiation(packet) && b.cfg.OnInitiation != nil {
		b.cfg.OnInitiation(k, nil)
	}
	select {
	case b.relayq <- relayed{p, append([]byte(nil), packet...)}:
	default:
	}
}

// Close is conn.Bind's; the device may Open again.
func (b *Bind) Close() error {
	b.mu.Lock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	b.mu.Unlock()
	return b.inner.Close()
}

// SetMark is conn.Bind's.
func (b *Bind) SetMark(mark uint32) error { return b.inner.SetMark(mark) }

// BatchSize is that of the sockets beneath.
func (b *Bind) BatchSize() int { return b.inner.BatchSize() }

// Send is conn.Bind's. Answers to a received packet (cookies) go back to its address, all
// else over the peer's path.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	switch e := ep.(type) {
	case *Peer:
		return e.send(bufs)
	case *conn.StdNetEndpoint:
		return b.sendTo(bufs, e)
	}
	return conn.ErrWrongEndpointType
}

// ParseEndpoint finds the endpoint of a peer by its public key in hex.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	k, err := hex.DecodeString(s)
	if err != nil || len(k) != 32 {
		return nil, fmt.Errorf("path: endpoint %q is not a public key in hex", s)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[Key(k)]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("path: endpoint %q: no such peer", s)
}
