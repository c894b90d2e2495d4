package portmap

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestGateway looks for the router in a network namespace of its own.
func TestGateway(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	done := make(chan struct{})
	go func() { // its thread stays in the namespace and ends with it
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if a, err := gateway(); !errors.Is(err, errNoGateway) {
			t.Errorf("without a network: %v, %v", a, err)
		}
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "router"}
		addr, _ := netlink.ParseAddr("192.168.77.2/24")
		if err := errors.Join(netlink.LinkAdd(link), netlink.AddrAdd(link, addr), netlink.LinkSetUp(link), netlink.LinkSetUp(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "router"}})); err != nil {
			t.Errorf("link: %v", err)
			return
		}
		if a, err := gateway(); !errors.Is(err, errNoGateway) {
			t.Errorf("without a default route: %v, %v", a, err)
		}
		for _, c := range []struct {
			via, want string
			metric    int
		}{{"192.168.77.9", "192.168.77.9", 600}, {"192.168.77.1", "192.168.77.1", 100}, {"192.168.77.5", "192.168.77.1", 200}} {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: net.ParseIP(c.via), Priority: c.metric}); err != nil {
				t.Errorf("route: %v", err)
				return
			}
			if a, err := gateway(); err != nil || a != netip.MustParseAddr(c.want) {
				t.Errorf("with %s, metric %d: %v, %v, want %s", c.via, c.metric, a, err, c.want)
			}
		}
	}()
	<-done
}
