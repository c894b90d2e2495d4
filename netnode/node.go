package netnode

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"tssh/netnode/filter"
	"tssh/netnode/netmap"
	"tssh/netnode/path"
	"tssh/netnode/portmap"
	"tssh/netnode/relay"
	"tssh/policy"
)

// DefaultMTU fits into every path that carries IPv6, WireGuard's own 80 bytes included.
const DefaultMTU = 1280

// closeTimeout bounds Close.
const closeTimeout = 5 * time.Second

// Config is what a Node needs.
type Config struct {
	PrivateKey netmap.WGPrivate
	// Control is shown to relays, which let in members only; zero: no relay is used.
	Control netmap.ControlKey
	UDPPort int    // 0: the port of the last run, if free, or any
	TUN     string // name of the kernel TUN; empty: userspace
	MTU     int    // of the mesh; 0: DefaultMTU
	RunDir  string // root's, for the pin of the SSH namespace; needed with TUN
	// NoNamespace serves SSH with the port rewrite even where a namespace could be made.
	NoNamespace   bool
	EndpointsFile string // where the addresses of peers are kept for the next start; empty: nowhere
	// LocalUsers says which accounts of this host may start connections into the mesh, given
	// who the node is; nil, or a nil answer: all of them. For kernel TUNs.
	LocalUsers func(self policy.Identity) []uint32
	AdmitPorts []uint16 // TCP ports open to every peer whatever the policy says
	// Loopback adds 127.0.0.1 to the node's own addresses, for meshes on one machine. A node
	// without any other address has it anyway.
	Loopback bool
	// PortMapping has the router of a private network asked to let peers in, when the mesh
	// has relays elsewhere.
	PortMapping bool
	// OnEndpoints gets where this node may be reached, at the start and whenever it changes. It is called on a goroutine of the node and may block.
	OnEndpoints func(netmap.Where)
	Log         *slog.Logger
}

// network is the side of the node where its own packets come from: the kernel's TUNs or
// the stack in this process.
type network interface {
	// configure sets the node's addresses and the mesh's ranges.
	configure(addrs []netip.Addr, ranges []netip.Prefix) error
	listenSSH() (net.Listener, error)
	listen(network string, addr netip.AddrPort) (net.Listener, error)
	listenPacket(network string, addr netip.AddrPort) (net.PacketConn, error)
	dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	Close() error // after the device's, which may have done it all
}

// Node is one node of the mesh.
type Node struct {
	cfg    Config
	log    *slog.Logger
	bind   *path.Bind
	keys   atomic.Pointer[nodeKeys]
	filter *filter.Filter
	gate   *filter.Device
	net    network
	dev    *device.Device
	port   uint16

	stop   context.CancelFunc
	ended  <-chan struct{} // closed by stop
	wg     sync.WaitGroup  // the goroutines of New
	looks  chan struct{}   // seek looks at once
	broken chan struct{}   // seek opens the UDP socket anew
	relays *relay.Client   // nil: none is used
	stun   stunner
	mapper *portmap.Mapper // nil: no router is asked
	afar   chan struct{}   // closed when the mesh is known to be more than this machine
	isAfar sync.Once
	home   atomic.Pointer[string] // relay where this node is at home

	found notices

	kick chan struct{} // the map or a path changed: look at expiry again, save endpoints

	view   atomic.Pointer[view]
	ranges atomic.Pointer[[]netip.Prefix] // the mesh's; never a way to a peer

	admits chan admission
	toward struct { // where the last packet went; the TUN reader's
		dst netip.Addr
		m   *member
	}
	memberMu sync.Mutex // guards members and what is in them; taken after mu, held over IpcSet
	members  map[netmap.WGPublic]*member

	mu        sync.Mutex // guards what follows
	m         *netmap.Map
	endpoints map[string]netmap.Where // published, by node id
	saved     savedState
	rekeyed   map[netmap.WGPublic]netmap.WGPublic // the former keys of peers that were talked to
	next      time.Time                           // when the next peer expires
	ready     bool                                // a map was in force once
	closed    bool
}

// New makes the device and starts it. Nothing is reachable before SetMap.
func New(cfg Config) (*Node, error) {
	if cfg.PrivateKey.IsZero() {
		return nil, errors.New("netnode: no private key")
	}
	if cfg.UDPPort < 0 || cfg.UDPPort > 65535 {
		return nil, fmt.Errorf("netnode: UDP port %d: not a port", cfg.UDPPort)
	}
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.MTU < 1280 || cfg.MTU > 65535 {
		return nil, fmt.Errorf("netnode: MTU %d: IPv6 needs 1280 at least", cfg.MTU)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	raw := cfg.PrivateKey.Bytes()
	priv, err := ecdh.X25519().NewPrivateKey(raw[:])
	if err != nil {
		return nil, fmt.Errorf("netnode: private key: %w", err)
	}
	n := &Node{cfg: cfg, log: cfg.Log, kick: make(chan struct{}, 1),
		admits: make(chan admission), members: map[netmap.WGPublic]*member{}, endpoints: map[string]netmap.Where{}, looks: make(chan struct{}, 1), broken: make(chan struct{}, 1), afar: make(chan struct{})}
	n.keys.Store(&nodeKeys{cfg.PrivateKey, cfg.Control})
	n.ranges.Store(new([]netip.Prefix))
	n.saved = loadEndpoints(cfg.EndpointsFile, cfg.Log)

	var inner tun.Device
	if cfg.TUN == "" {
		u, err := newUserspace(cfg.MTU)
		if err != nil {
			return nil, err
		}
		n.net, inner = u, u
	} else {
		k, err := newKernel(cfg, n.isPeer)
		if err != nil {
			return nil, err
		}
		n.net, inner = k, k.device()
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.ended = cancel, ctx.Done()
	n.filter = filter.New()
	n.gate = filter.Wrap(inner, n.filter)
	n.gate.Toward(n.leaving)
	pc := path.Config{Private: priv, Usable: n.outside, OnSTUN: n.stun.answer, Log: cfg.Log,
		OnBroken:     n.resocket,
		OnPath:       func(path.Key, netip.AddrPort) { n.nudge() }, // to keep it for the next start
		OnInitiation: n.initiated}
	if n.relays, err = n.newRelays(); err != nil {
		n.gate.Close()
		return nil, err
	}
	if n.relays != nil {
		pc.Relay = n.sendRelay
	}
	n.bind, err = path.New(pc)
	if err != nil {
		n.gate.Close()
		return nil, err
	}
	n.stun.send, n.stun.news = n.bind.SendRaw, n.look
	n.stun.sent, n.stun.mapped = map[[12]byte]question{}, map[netip.AddrPort]mapping{}
	n.dev = device.NewDevice(n.gate, n.bind, &device.Logger{
		Verbosef: func(string, ...any) {},
		Errorf:   func(f string, args ...any) { cfg.Log.Warn("wireguard", "says", fmt.Sprintf(f, args...)) },
	})
	n.dev.DisableSomeRoamingForBrokenMobileSemantics()
	if err := n.up(); err != nil {
		n.closeDevice()
		return nil, err
	}
	n.wg.Go(func() { n.bind.Run(ctx) })
	n.wg.Go(func() { n.keepMembers(ctx) })
	n.wg.Go(func() { n.run(ctx) })
	if cfg.PortMapping {
		n.mapper = portmap.New(portmap.Config{Inside: n.port, News: n.look, Log: cfg.Log})
		n.wg.Go(func() { n.mapPort(ctx) })
	}
	n.wg.Go(func() { n.seek(ctx) })
	if n.relays != nil {
		n.wg.Go(func() { n.relays.Run(ctx) })
	}
	return n, nil
}

// up gives the device its key and port, and starts it.
func (n *Node) up() error {
	try := []int{n.cfg.UDPPort}
	if n.cfg.UDPPort == 0 && n.saved.Port != 0 {
		try = []int{n.saved.Port, 0}
	}
	var err error
	for _, port := range try {
		err = n.dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", n.cfg.PrivateKey.Hex(), port))
		if err == nil {
			err = n.dev.Up()
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("netnode: UDP port %d: %w", n.cfg.UDPPort, err)
	}
	got, err := n.dev.IpcGet()
	if err != nil {
		return fmt.Errorf("netnode: read device: %w", err)
	}
	for line := range strings.Lines(got) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "listen_port="); ok {
			p, err := strconv.ParseUint(v, 10, 16)
			if err != nil {
				return fmt.Errorf("netnode: listen port %q: %w", v, err)
			}
			n.port = uint16(p)
		}
	}
	return nil
}

// nudge has run look again.
func (n *Node) nudge() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// outside reports whether a may be an address outside the mesh.
func (n *Node) outside(a netip.Addr) bool {
	for _, r := range *n.ranges.Load() {
		if r.Contains(a) {
			return false
		}
	}
	return true
}

// Port is the UDP port the node uses.
func (n *Node) Port() uint16 { return n.port }

// WhoIs says which peer has exactly the address a. The node's own addresses are nobody's.
func (n *Node) WhoIs(a netip.Addr) (policy.Identity, bool) {
	if v := n.view.Load(); v != nil {
		if id := v.byAddr[a.Unmap()]; id != nil {
			return *id, true
		}
	}
	return policy.Identity{}, false
}

func (n *Node) isPeer(a netip.Addr) bool {
	_, ok := n.WhoIs(a)
	return ok
}

// Close stops the device; it takes closeTimeout at most. Kernel TUNs and the SSH
// namespace stay, and so do connections accepted there.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	n.saveEndpoints()
	n.stop()
	err := n.closeDevice()
	n.wg.Wait()
	if err == nil {
		err = n.net.Close()
	}
	return err
}

// Done is closed when the device is gone: after Close, or because somebody removed the TUN.
func (n *Node) Done() <-chan struct{} { return n.dev.Wait() }

func (n *Node) closeDevice() error {
	done := make(chan struct{})
	go func() { // ends when the device has closed, or with the process
		n.dev.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("netnode: device not closed after %v", closeTimeout)
	}
}
