package netnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nic = 1
	// stackQueue is how many packets of the stack wait for WireGuard; more are lost, as in
	// a device queue. It holds a whole send window of small packets.
	stackQueue = 8192
)

// userspace is a TCP/IP stack in this process, as a tun.Device and as a network.
type userspace struct {
	stack  *stack.Stack
	link   *channel.Endpoint
	mtu    int
	events chan tun.Event
	ctx    context.Context // of the device's life: Read waits on it
	cancel context.CancelFunc
	close  sync.Once

	mu    sync.Mutex
	addrs []netip.Addr
}

func newUserspace(mtu int) (*userspace, error) {
	u := &userspace{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			HandleLocal:        true,
		}),
		link:   channel.New(stackQueue, uint32(mtu), ""),
		mtu:    mtu,
		events: make(chan tun.Event),
	}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	// RACK and cubic stalled transfers (gvisor issue 11632); these did not.
	sack, rack, reno := tcpip.TCPSACKEnabled(true), tcpip.TCPRecovery(0), tcpip.CongestionControlOption("reno")
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rx := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	tx := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 6 << 20}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &rack, &reno, &moderate, &rx, &tx} {
		if err := u.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return nil, fmt.Errorf("netnode: set up stack: %v", err)
		}
	}
	if err := u.stack.CreateNIC(nic, u.link); err != nil {
		return nil, fmt.Errorf("netnode: set up stack: %v", err)
	}
	u.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return u, nil
}

func (u *userspace) configure(addrs []netip.Addr, _ []netip.Prefix) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, a := range u.addrs {
		if !slices.Contains(addrs, a) {
			if err := u.stack.RemoveAddress(nic, tcpip.AddrFromSlice(a.AsSlice())); err != nil {
				errs = append(errs, fmt.Errorf("remove %v: %v", a, err))
			}
		}
	}
	for _, a := range addrs {
		if slices.Contains(u.addrs, a) {
			continue
		}
		pa := tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
		if err := u.stack.AddProtocolAddress(nic, pa, stack.AddressProperties{}); err != nil {
			errs = append(errs, fmt.Errorf("add %v: %v", a, err))
		}
	}
	u.addrs = slices.Clone(addrs)
	return errors.Join(errs...)
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// full is a in the stack's terms; an unset address is the wildcard of both families.
func full(a netip.AddrPort) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	f := tcpip.FullAddress{NIC: nic, Port: a.Port()}
	if !a.Addr().IsValid() {
		return f, ipv6.ProtocolNumber
	}
	f.Addr = tcpip.AddrFromSlice(a.Addr().AsSlice())
	return f, protocolOf(a.Addr())
}

func (u *userspace) dial(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	f, proto := full(a)
	if network[:3] == "udp" {
		c, err := gonet.DialUDP(u.stack, nil, &f, proto)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	c, err := gonet.DialContextTCP(ctx, u.stack, f, proto)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (u *userspace) listenPacket(_ string, a netip.AddrPort) (net.PacketConn, error) {
	f, proto := full(a)
	c, err := gonet.DialUDP(u.stack, &f, nil, proto)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (u *userspace) listenSSH() (net.Listener, error) {
	return u.listen("tcp", netip.AddrPortFrom(netip.Addr{}, SSHPort))
}

// What follows is tun.Device.

func (u *userspace) File() *os.File           { return nil }
func (u *userspace) MTU() (int, error)        { return u.mtu, nil }
func (u *userspace) Name() (string, error)    { return "userspace", nil }
func (u *userspace) Events() <-chan tun.Event { return u.events }
func (u *userspace) BatchSize() int           { return conn.IdealBatchSize }

// Read waits for one packet of the stack and takes as many more as are there.
func (u *userspace) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	pkt := u.link.ReadContext(u.ctx)
	if pkt == nil {
		return 0, os.ErrClosed
	}
	n := 0
	for pkt != nil {
		view := pkt.ToView()
		pkt.DecRef()
		size, err := view.Read(bufs[n][offset:])
		view.Release()
		if err != nil {
			return n, nil // an empty packet: nothing to send
		}
		sizes[n] = size
		if n++; n == len(bufs) {
			break
		}
		pkt = u.link.Read()
	}
	return n, nil
}

// Write gives packets to the stack, which keeps copies.
func (u *userspace) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		b = b[offset:]
		if len(b) == 0 {
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
		if b[0]>>4 == 4 {
			u.link.InjectInbound(header.IPv4ProtocolNumber, pkt)
		} else {
			u.link.InjectInbound(header.IPv6ProtocolNumber, pkt)
		}
		pkt.DecRef()
	}
	return len(bufs), nil
}

// Close ends Read, every connection and the stack's goroutines.
func (u *userspace) Close() error {
	u.close.Do(func() {
		u.cancel()
		close(u.events)
		u.stack.RemoveNIC(nic)
		u.link.Close()
		u.stack.Destroy()
	})
	return nil
}
