package netnode

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"tssh/netnode/netmap"
)

// SSHPort is where nodes serve SSH.
const SSHPort = 22

// ListenSSH makes the node's SSH listener. Connections come from peers only.
func (n *Node) ListenSSH() (net.Listener, error) {
	l, err := n.net.listenSSH()
	if err != nil {
		return nil, fmt.Errorf("netnode: listen for ssh: %w", err)
	}
	return l, nil
}

// Listen listens for TCP on the mesh: addr is ":PORT" for all of the node's addresses or one
// of them with a port. The policy decides who gets that far.
func (n *Node) Listen(network, addr string) (net.Listener, error) {
	a, err := n.own("tcp", network, addr)
	if err == nil {
		var l net.Listener
		if l, err = n.net.listen(network, a); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("netnode: listen %s %s: %w", network, addr, err)
}

// ListenPacket is Listen for UDP; addr names one of the node's addresses.
func (n *Node) ListenPacket(network, addr string) (net.PacketConn, error) {
	a, err := n.own("udp", network, addr)
	if err == nil {
		var c net.PacketConn
		if c, err = n.net.listenPacket(network, a); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("netnode: listen %s %s: %w", network, addr, err)
}

// own reads an address to listen on.
func (n *Node) own(kind, network, addr string) (netip.AddrPort, error) {
	if network != kind && network != kind+"4" && network != kind+"6" {
		return netip.AddrPort{}, net.UnknownNetworkError(network)
	}
	host, port, err := splitPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" && kind == "tcp" {
		return netip.AddrPortFrom(netip.Addr{}, port), nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a = a.Unmap()
	if v := n.view.Load(); v != nil {
		for _, o := range v.addrs {
			if o == a && fits(network, a) {
				return netip.AddrPortFrom(a, port), nil
			}
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%v is not an address of this node", a)
}

// Dial connects to a peer, given by address or name.
func (n *Node) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := n.dial(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("netnode: dial %s %s: %w", network, addr, err)
	}
	return c, nil
}

func (n *Node) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		if !fits(network, a) || !n.isPeer(a) {
			return nil, fmt.Errorf("%v is not the address of a peer", a)
		}
		return n.net.dial(ctx, network, netip.AddrPortFrom(a, port))
	}
	p, ok := n.Lookup(host)
	if !ok {
		return nil, fmt.Errorf("no host %q in the mesh", host)
	}
	for _, a := range p.Addrs {
		if fits(network, a) {
			return n.net.dial(ctx, network, netip.AddrPortFrom(a, port))
		}
	}
	return nil, fmt.Errorf("host %q has no address for %s", host, network)
}

// Lookup finds a peer by its name, alone or with MESH.internal, or by one of its addresses.
func (n *Node) Lookup(host string) (netmap.Peer, bool) {
	v := n.view.Load()
	if v == nil {
		return netmap.Peer{}, false
	}
	if a, err := netip.ParseAddr(host); err == nil {
		id := v.byAddr[a.Unmap()]
		if id == nil {
			return netmap.Peer{}, false
		}
		host = id.Name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if v.mesh != "" {
		host = strings.TrimSuffix(host, "."+v.mesh+".internal")
	}
	if p := v.byName[host]; p != nil {
		return *p, true
	}
	return netmap.Peer{}, false
}

func splitPort(addr string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: not a number up to 65535", port)
	}
	return host, uint16(p), nil
}

// fits reports whether a is of network's family.
func fits(network string, a netip.Addr) bool {
	switch network[len(network)-1] {
	case '4':
		return a.Is4()
	case '6':
		return a.Is6()
	}
	return true
}
