package path

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// TestFamiliesKeepAddressesApart sends to both families in turn: each datagram must come
// to where it was sent, also after the sockets were opened anew.
func TestFamiliesKeepAddressesApart(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one buffer for all
	six, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine")
	}
	defer six.Close()
	four, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	f := newFamilies()
	for range 2 {
		if _, _, err := f.Open(0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Open(0); err == nil {
			t.Error("opened twice")
		}
		// What stays of this address (it does not leave the machine) must not get into another.
		_ = f.Send([][]byte{[]byte("hello")}, &conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort("[ff01::5]:9")})
		for range 10 {
			for _, c := range []net.PacketConn{four, six} {
				to := netip.MustParseAddrPort(c.LocalAddr().String())
				if err := f.Send([][]byte{[]byte("hello")}, &conn.StdNetEndpoint{AddrPort: to}); err != nil {
					t.Fatalf("to %v: %v", to, err)
				}
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, _, err := c.ReadFrom(make([]byte, 100)); err != nil {
					t.Fatalf("what was sent to %v does not come: %v", to, err)
				}
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
