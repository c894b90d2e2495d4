package netnode

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"tssh/netnode/portmap"
)

// TestPortMappingIsTold: what the router gives is told to peers, but not asked for while
// the mesh may be on this machine alone.
func TestPortMappingIsTold(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 64)
	var wg sync.WaitGroup
	wg.Go(func() { // a router that speaks NAT-PMP; ends with the socket
		for b := make([]byte, 1500); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			asked <- struct{}{}
			a := []byte{0, 0x80 | b[1], 0, 1, 0, 0, 0, 9} // PCP: unsupported version
			switch {
			case b[0] == 0 && n == 2:
				a = []byte{0, 0x80, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7}
			case b[0] == 0 && n == 12:
				a = []byte{0, 0x81, 0, 0, 0, 0, 0, 9, b[4], b[5], 0xc3, 0x50, 0, 0, 0x0e, 0x10}
			}
			c.WriteToUDPAddrPort(a, from)
		}
	})
	n := &Node{looks: make(chan struct{}, 1), afar: make(chan struct{})}
	n.ranges.Store(&[]netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")})
	n.mapper = portmap.New(portmap.Config{Inside: 41641, News: n.look, Private: func(netip.Addr) bool { return true },
		Gateway: func() (netip.AddrPort, error) { return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil }})
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { n.mapPort(ctx) })
	defer func() { cancel(); c.Close(); wg.Wait() }()

	local := []netip.AddrPort{netip.MustParseAddrPort("192.168.1.5:41641")}
	if got := n.reachable(local); !slices.Equal(got, local) {
		t.Errorf("before: %v", got)
	}
	if len(asked) > 0 {
		t.Error("asked too early")
	}
	n.isAfar.Do(func() { close(n.afar) })
	select {
	case <-n.looks:
	case <-time.After(30 * time.Second):
		t.Fatal("no news of the mapping")
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.7:50000"), local[0]}
	if got := n.reachable(local); !slices.Equal(got, want) {
		t.Errorf("reachable at %v, want %v", got, want)
	}
}
