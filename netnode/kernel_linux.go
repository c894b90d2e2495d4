package netnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"tssh/netnode/filter"
)

const (
	sshTUN = "ssh0" // in the SSH namespace

)

// kernel is the host's side of a node with kernel TUNs.
type kernel struct {
	name   string
	mtu    int
	log    *slog.Logger
	dev    tun.Device
	ns     *os.File // the SSH namespace; nil: the port is rewritten
	isPeer func(netip.Addr) bool

	own atomic.Pointer[[]netip.Addr]

	// owned by configure
	fencedFor []netip.Addr // whom the fence is for
	fencedIn  []netip.Prefix
	users     []uint32 // who may start connections into the mesh; nil: everybody
	fencedTo  []uint32 // users, as the fence has it
	unfenced  bool     // it was said that there is none
}

func newKernel(cfg Config, isPeer func(netip.Addr) bool) (*kernel, error) {
	if err := rootOnly(cfg.RunDir); err != nil {
		return nil, err
	}
	k := &kernel{name: cfg.TUN, mtu: cfg.MTU, log: cfg.Log, isPeer: isPeer}
	k.own.Store(new([]netip.Addr))
	host, err := attachTUN(cfg.TUN, cfg.Log)
	if err != nil {
		return nil, err
	}
	if err := setMTU(cfg.TUN, cfg.MTU); err != nil { // WireGuard asks for it once
		host.Close()
		return nil, err
	}
	var ssh *tunPort
	if !cfg.NoNamespace {
		k.ns, ssh, err = sshNamespace(cfg)
		if errors.Is(err, errNoNamespace) {
			cfg.Log.Warn("ssh shares the host's network namespace, on a rewritten port", "port", hiddenSSHPort, "err", err)
		} else if err != nil {
			host.Close()
			return nil, err
		}
	}
	if ssh == nil {
		k.dev = filter.NewRewriter(host, SSHPort, hiddenSSHPort, k.isOwn)
		return k, nil
	}
	k.dev, err = newSplit(host, ssh, cfg.MTU)
	if err != nil {
		host.Close()
		ssh.Close()
		k.ns.Close()
		return nil, err
	}
	return k, nil
}

// sshNamespace makes or finds the namespace and attaches to the TUN in it.
func sshNamespace(cfg Config) (*os.File, *tunPort, error) {
	ns, err := pinnedNamespace(cfg.RunDir)
	if err != nil {
		return nil, nil, err
	}
	var ssh *tunPort
	err = inNamespace(ns, func() error {
		ssh, err = attachTUN(sshTUN, cfg.Log)
		return err
	})
	if err != nil {
		ns.Close()
		return nil, nil, err
	}
	return ns, ssh, nil
}

func (k *kernel) device() tun.Device { return k.dev }

// Close lets go of the namespace, which stays pinned. The device is closed by WireGuard.
func (k *kernel) Close() error {
	if k.ns == nil {
		return nil
	}
	return k.ns.Close()
}

func (k *kernel) isOwn(a netip.Addr) bool { return slices.Contains(*k.own.Load(), a) }

// hiddenPort is the port that the mesh must not reach, 0 when there is none.
func (k *kernel) hiddenPort() uint16 {
	if k.ns == nil {
		return hiddenSSHPort
	}
	return 0
}

func (k *kernel) configure(addrs []netip.Addr, ranges []netip.Prefix) error {
	k.own.Store(&addrs)
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("netnode: netlink: %w", err)
	}
	defer h.Close()
	k.fence(addrs, ranges)
	err = configureTUN(h, k.name, k.mtu, addrs, ranges, true)
	if k.ns == nil {
		return err
	}
	s, nerr := netlink.NewHandleAt(netns.NsHandle(k.ns.Fd()))
	if nerr != nil {
		return errors.Join(err, fmt.Errorf("netnode: netlink in ssh namespace: %w", nerr))
	}
	defer s.Close()
	return errors.Join(err, linkUp(s, "lo"), configureTUN(s, sshTUN, k.mtu, addrs, ranges, false))
}

// fence keeps out what comes for the mesh addresses by another way than the mesh. A kernel
// that cannot is said once: our own listener is out of reach all the same.
func (k *kernel) fence(addrs []netip.Addr, ranges []netip.Prefix) {
	if slices.Equal(addrs, k.fencedFor) && slices.Equal(ranges, k.fencedIn) && slices.Equal(k.users, k.fencedTo) && (k.users == nil) == (k.fencedTo == nil) && !k.unfenced {
		return
	}
	err := setFence(k.name, addrs, ranges, k.users)
	if err != nil && !k.unfenced {
		k.log.Warn("packets from the LAN for this host's mesh addresses are not kept from its services", "err", err)
	}
	k.fencedIn = slices.Clone(ranges)
	k.fencedFor, k.fencedTo, k.unfenced = slices.Clone(addrs), slices.Clone(k.users), err != nil
}

// restrict says who may start connections into the mesh; configure puts it in force.
func (k *kernel) restrict(users []uint32) { k.users = users }

// stopped counts what the fence kept out, and in.
func (k *kernel) stopped() map[string]uint64 {
	return map[string]uint64{DropLAN: fenced(k.name, "lan"), DropUsers: fenced(k.name, "own"), DropForwarded: fenced(k.name, "through")}
}

func (k *kernel) listenSSH() (net.Listener, error) {
	if k.ns != nil {
		var l *net.TCPListener
		err := inNamespace(k.ns, func() (err error) {
			l, err = listenKernel(SSHPort, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	link, err := net.InterfaceByName(k.name)
	if err != nil {
		return nil, err
	}
	l, err := listenKernel(hiddenSSHPort, func(fd int) error { return onlyThrough(fd, k.name, link.Index) })
	if err != nil {
		return nil, err
	}
	return &guarded{l, k.isPeer, k.log}, nil
}

func (k *kernel) listen(network string, a netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	if a.Addr().IsValid() {
		return lc.Listen(context.Background(), network, a.String())
	}
	var all []net.Listener
	port := a.Port()
	for _, own := range *k.own.Load() {
		if !fits(network, own) {
			continue
		}
		l, err := lc.Listen(context.Background(), network, netip.AddrPortFrom(own, port).String())
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		port = uint16(l.Addr().(*net.TCPAddr).Port) // one port for all, if 0 was asked for
		all = append(all, l)
	}
	switch len(all) {
	case 0:
		return nil, errors.New("this node has no mesh address yet")
	case 1:
		return all[0], nil
	}
	return joinListeners(all), nil
}

func (k *kernel) listenPacket(network string, a netip.AddrPort) (net.PacketConn, error) {
	return net.ListenPacket(network, a.String())
}

func (k *kernel) dial(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: surviving}
	return d.DialContext(ctx, network, a.String())
}

// begun lists the TCP connections that this host opened from the given addresses and
// that are still there: they belong to programs that outlived the daemon. One whose local
// port is listened on was opened by the peer, and needs no memory.
func (k *kernel) begun(own []netip.Addr) []filter.Connection {
	type socket struct{ local, peer netip.AddrPort }
	var open []socket
	listening := map[uint16]bool{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.SocketDiagTCP(family)
		if err != nil {
			k.log.Warn("connections from before the start are not taken up", "err", err)
			return nil
		}
		for _, s := range list {
			if s.State == netlink.TCP_LISTEN {
				listening[s.ID.SourcePort] = true
				continue
			}
			local, ok1 := netip.AddrFromSlice(s.ID.Source)
			peer, ok2 := netip.AddrFromSlice(s.ID.Destination)
			if ok1 && ok2 && slices.Contains(own, local.Unmap()) {
				open = append(open, socket{netip.AddrPortFrom(local.Unmap(), s.ID.SourcePort), netip.AddrPortFrom(peer.Unmap(), s.ID.DestinationPort)})
			}
		}
	}
	var out []filter.Connection
	for _, s := range open {
		if !listening[s.local.Port()] {
			out = append(out, filter.Connection{Local: s.local, Peer: s.peer})
		}
	}
	return out
}
