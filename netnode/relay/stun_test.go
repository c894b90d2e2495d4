package relay

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestSTUNVectors are the sample messages of RFC 5769.
func TestSTUNVectors(t *testing.T) {
	const v4 = "\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae" +
		"\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20" +
		"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43" +
		"\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96"
	const v6 = "\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae" +
		"\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20" +
		"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9" +
		"\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c"
	for msg, want := range map[string]string{v4: "192.0.2.1:32853", v6: "[2001:db8:1234:5678:11:2233:4455:6677]:32853"} {
		tx, got, err := ParseSTUNResponse([]byte(msg))
		if err != nil || got.String() != want || string(tx[:]) != msg[8:20] {
			t.Errorf("%v %v, want %s", got, err, want)
		}
	}
}

func listenSTUN(t *testing.T, addr string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Skip(err) // no IPv6 on this machine
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ServeSTUN(ctx, pc) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServeSTUN: %v", err)
		}
	})
	return pc.LocalAddr().String()
}

func TestSTUNServer(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			addr := listenSTUN(t, host)
			c, err := net.Dial("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var tx [12]byte
			rand.Read(tx[:])
			// Garbage, an indication and a truncated request get no answer; the request after them does.
			for _, b := range [][]byte{[]byte("hello"), append([]byte{0, 0x11}, STUNRequest(tx)[2:]...), STUNRequest(tx)[:19], append(STUNRequest(tx), 1, 2, 3, 4), STUNRequest(tx)} {
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, 1500)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got, mapped, err := ParseSTUNResponse(buf[:n])
			if err != nil || got != tx || mapped != netip.MustParseAddrPort(c.LocalAddr().String()) {
				t.Errorf("%v %v, want %s", mapped, err, c.LocalAddr())
			}
			c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := c.Read(buf); err == nil {
				t.Errorf("one more answer: %x", buf[:n])
			}
		})
	}
}

// TestSTUNWithStockClients asks with coturn's client, which sends attributes of its own,
// and with stun-client's, which is one of RFC 3489.
func TestSTUNWithStockClients(t *testing.T) {
	host, port, err := net.SplitHostPort(listenSTUN(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		cmd  []string
		pkg  string
	}{
		{"UDP reflexive addr: 127.0.0.1:", []string{"turnutils_stunclient", "-p", port, host}, "coturn"},
		{"MappedAddress = 127.0.0.1:", []string{"stun", net.JoinHostPort(host, port), "1", "-v"}, "stun-client"},
	} {
		t.Run(c.cmd[0], func(t *testing.T) {
			client, err := exec.LookPath(c.cmd[0])
			if err != nil {
				t.Skipf("not here (Debian: %s)", c.pkg)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, client, c.cmd[1:]...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func FuzzSTUN(f *testing.F) {
	f.Add(STUNRequest([12]byte{1}))
	f.Add(stunAnswer(STUNRequest([12]byte{2}), netip.MustParseAddrPort("192.0.2.1:7")))
	f.Add(stunAnswer(STUNRequest([12]byte{3}), netip.MustParseAddrPort("[2001:db8::1]:7")))
	f.Fuzz(func(t *testing.T, b []byte) {
		tx, a, err := ParseSTUNResponse(b)
		if err == nil && (!a.IsValid() || a.Port() == 0 || string(tx[:]) != string(b[8:20])) {
			t.Errorf("%v", a)
		}
		if isBinding(b) {
			out := stunAnswer(b, netip.MustParseAddrPort("[2001:db8::1]:7"))
			if len(out) > 3*len(b) || string(out[4:20]) != string(b[4:20]) || isBinding(out) {
				t.Errorf("%x is answered with %x", b, out)
			}
		}
	})
}
