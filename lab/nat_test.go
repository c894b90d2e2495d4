package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// reflector answers every datagram with the address it came from and what it said, as STUN does.
func reflector(t *testing.T, h *Host, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	c, err := h.ListenPacket("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() { // ends when the socket is closed
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo([]byte(from.String()+" "+string(b[:n])), from)
		}
	}()
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// prober is a UDP socket of a host that asks reflectors how it looks to them.
type prober struct {
	net.PacketConn
	*testing.T
}

func probe(t *testing.T, h *Host, port uint16) prober {
	t.Helper()
	c, err := h.ListenPacket("udp", netip.AddrPortFrom(h.Addr, port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return prober{c, t}
}

// send sends words once; hear is what comes within the time, "" for nothing.
func (p prober) send(to netip.AddrPort, words string) {
	p.Helper()
	if _, err := p.WriteTo([]byte(words), net.UDPAddrFromAddrPort(to)); err != nil {
		p.Fatal(err)
	}
}

func (p prober) hear(limit time.Duration) string {
	p.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, 1500)
	n, _, err := p.ReadFrom(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		p.Fatal(err)
	}
	return string(b[:n])
}

// seen is how the socket looks to a reflector; the zero AddrPort when nothing comes back. It
// asks again for a while: a new interface takes a second or so to carry its first packet.
func (p prober) seen(by netip.AddrPort) netip.AddrPort {
	p.Helper()
	for i := range 12 {
		ask := fmt.Sprintf("who %d", i)
		p.send(by, ask)
		for {
			s := p.hear(500 * time.Millisecond)
			if s == "" {
				break
			}
			if a, said, _ := strings.Cut(s, " "); said == ask {
				return netip.MustParseAddrPort(a)
			}
		}
	}
	return netip.AddrPort{}
}

// hears reports whether these words come in before there is silence.
func (p prober) hears(words string) bool {
	for s := p.hear(silence); s != ""; s = p.hear(silence) {
		if s == words {
			return true
		}
	}
	return false
}

const silence = 300 * time.Millisecond // how long nothing must come, for "does not come"

// aLab is a lab of the test's own.
func aLab(t *testing.T) *Lab {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // accounts have their homes below it
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := New(dir, bin, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// must is for set-up: what fails ends the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestRecipesAreWhatTheySay proves the kind of every router the other tests stand on,
// with plain sockets: RFC 4787's mapping (does the outside port depend on the destination)
// and filtering (who may answer).
func TestRecipesAreWhatTheySay(t *testing.T) {
	l := aLab(t)
	one, two := must(l.AddHost("one"))(t), must(l.AddHost("two"))(t)
	at := []netip.AddrPort{ // two ports of one machine, and another machine
		reflector(t, one, netip.AddrPortFrom(one.Addr, 3478)), reflector(t, one, netip.AddrPortFrom(one.Addr, 3479)), reflector(t, two, netip.AddrPortFrom(two.Addr, 3478)),
	}
	// Everything is made first, then the recipes are asked at the same time.
	type set struct {
		r    *Router
		a, b *Host
	}
	made := map[string]set{}
	for name, how := range map[string]Routing{
		"eim":   {},
		"sym":   {NAT: AddressAndPortDependent},
		"cafe":  {Isolate: true},
		"443":   {OnlyTCP443: true},
		"short": {UDPTimeout: 1},
		"six":   {IPv6: true, NoIPv4: true},
	} {
		r := must(l.AddRouter(name, how))(t)
		made[name] = set{r, must(r.AddHost(name + "-a"))(t), must(r.AddHost(name + "-b"))(t)}
	}
	outer := must(l.AddRouter("outer", Routing{}))(t)
	inner := must(outer.AddRouter("inner", Routing{NAT: AddressAndPortDependent}))(t)
	twice := must(inner.AddHost("twice"))(t)

	filtered := func(t *testing.T, p prober, outside netip.AddrPort) {
		t.Helper()
		for _, from := range []*Host{one, two} { // another port of who was sent to, another machine
			probe(t, from, 0).send(outside, "unasked")
		}
		if p.hears("unasked") {
			t.Errorf("something came in to %v from somebody it was not sent to", outside)
		}
	}
	reach := func(t *testing.T, a, b *Host, want bool) {
		t.Helper()
		pa, pb := probe(t, a, 5000), probe(t, b, 5000)
		var got bool
		for range 6 {
			pa.send(netip.AddrPortFrom(b.Addr, 5000), "hello")
			if pb.hear(silence) == "hello" {
				got = true
				break
			}
		}
		if got != want {
			t.Errorf("neighbours reach each other: %v, want %v", got, want)
		}
	}

	t.Run("all", func(t *testing.T) {
		t.Run("endpoint-independent mapping, address and port dependent filtering", func(t *testing.T) {
			t.Parallel()
			s := made["eim"]
			p := probe(t, s.a, 41641)
			want := netip.AddrPortFrom(s.r.WAN, 41641)
			for _, d := range at {
				if got := p.seen(d); got != want {
					t.Errorf("%v sees %v, not %v", d, got, want)
				}
			}
			filtered(t, p, want)
			// The packet that came too early must not have cost the port.
			early := probe(t, two, 6000)
			early.send(want, "early")
			p.send(netip.AddrPortFrom(two.Addr, 6000), "late")
			if s := early.hear(2 * time.Second); s != "late" {
				t.Fatalf("two hears %q", s)
			}
			early.send(want, "answer")
			if s := p.hear(2 * time.Second); s != "answer" {
				t.Errorf("after a packet that came too early the answer is %q: another port was taken", s)
			}
			// Where Linux is not endpoint-independent: a neighbour with the same port.
			if got := probe(t, s.b, 41641).seen(at[0]); got == want || got.Addr() != want.Addr() {
				t.Errorf("a second host with the same port looks like %v", got)
			}
			reach(t, s.a, s.b, true)
			if err := s.r.Rebind(23456); err != nil {
				t.Fatal(err)
			}
			for _, d := range at {
				if got := p.seen(d); got != netip.AddrPortFrom(s.r.WAN, 23456) {
					t.Errorf("rebound: %v sees %v", d, got)
				}
			}
		})
		t.Run("address and port dependent mapping", func(t *testing.T) {
			t.Parallel()
			s := made["sym"]
			p := probe(t, s.a, 41641)
			ports := map[uint16]bool{}
			for _, d := range at {
				got := p.seen(d)
				if got.Addr() != s.r.WAN {
					t.Fatalf("%v sees %v", d, got)
				}
				if again := p.seen(d); again != got {
					t.Errorf("%v sees %v, then %v", d, got, again)
				}
				ports[got.Port()] = true
				filtered(t, p, got)
			}
			if len(ports) != len(at) || ports[41641] {
				t.Errorf("%d destinations see the ports %v", len(at), ports)
			}
		})
		t.Run("client isolation", func(t *testing.T) {
			t.Parallel()
			s := made["cafe"]
			if got := probe(t, s.a, 41641).seen(at[0]); got.Addr() != s.r.WAN {
				t.Errorf("the outside sees %v", got)
			}
			reach(t, s.a, s.b, false)
		})
		t.Run("only TCP 443", func(t *testing.T) {
			t.Parallel()
			s := made["443"]
			if got := probe(t, s.a, 41641).seen(at[0]); got.IsValid() {
				t.Errorf("UDP goes out, as %v", got)
			}
			for _, port := range []string{"443", "8443"} {
				r := s.a.Run("bash", "-c", "timeout 2 bash -c '</dev/tcp/"+one.Addr.String()+"/"+port+"'")
				if refused := strings.Contains(r.Stderr, "refused"); refused != (port == "443") {
					t.Errorf("TCP %s goes out: %v", port, refused)
				}
			}
			if err := s.r.BlockUDP(false); err != nil {
				t.Fatal(err)
			}
			if got := probe(t, s.a, 41642).seen(at[0]); !got.IsValid() {
				t.Error("UDP does not go out after all")
			}
		})
		t.Run("short timeout", func(t *testing.T) {
			t.Parallel()
			s := made["short"]
			p, from := probe(t, s.a, 41641), probe(t, one, 7000)
			p.send(netip.AddrPortFrom(one.Addr, 7000), "open")
			if got := from.hear(2 * time.Second); got != "open" {
				t.Fatalf("one hears %q", got)
			}
			outside := netip.AddrPortFrom(s.r.WAN, 41641)
			from.send(outside, "in time")
			if got := p.hear(2 * time.Second); got != "in time" {
				t.Errorf("in time: %q", got)
			}
			// Linux drops an entry up to a second late or so; nothing may keep it for longer.
			err := Until(15*time.Second, func() error {
				time.Sleep(3 * time.Second)
				from.send(outside, "late")
				if got := p.hear(silence); got != "" {
					return fmt.Errorf("%q came in after a pause of three seconds", got)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		t.Run("IPv6 only", func(t *testing.T) {
			t.Parallel()
			s := made["six"]
			by := reflector(t, one, netip.AddrPortFrom(one.Addr6, 3478))
			p := probe(t, s.a, 41641)
			own := netip.AddrPortFrom(s.a.Addr, 41641)
			if got := p.seen(by); got != own || !got.Addr().Is6() {
				t.Errorf("%v is seen as %v", own, got)
			}
			c := must(two.ListenPacket("udp", netip.AddrPortFrom(two.Addr6, 0).String()))(t)
			defer c.Close()
			prober{c, t}.send(own, "unasked")
			if p.hears("unasked") {
				t.Error("something came in unasked")
			}
			if r := s.a.Run("ip", "-4", "addr", "show", "dev", "eth0"); strings.Contains(r.Stdout, "inet ") {
				t.Errorf("there is IPv4: %v", r)
			}
		})
		t.Run("two NATs", func(t *testing.T) {
			t.Parallel()
			p := probe(t, twice, 41641)
			ports := map[uint16]bool{}
			for _, d := range at {
				got := p.seen(d)
				if got.Addr() != outer.WAN {
					t.Errorf("%v sees %v, not an address of the outer router", d, got)
				}
				ports[got.Port()] = true
			}
			if len(ports) != len(at) {
				t.Errorf("the inner router's kind does not show: %v", ports)
			}
			if strings.HasPrefix(inner.WAN.String(), "198.") {
				t.Errorf("the inner router is outside: %v", inner.WAN)
			}
		})
	})

	// A host that moves has another address there, and the old one is gone.
	before := made["eim"].b.Addr
	h := made["eim"].b
	if err := h.MoveTo(made["sym"].r); err != nil {
		t.Fatal(err)
	}
	if got := probe(t, h, 8000).seen(at[0]); got.Addr() != made["sym"].r.WAN {
		t.Errorf("moved from %v, seen as %v", before, got)
	}
	moved := h.Addr
	if err := h.Readdress(); err != nil {
		t.Fatal(err)
	}
	if got := probe(t, h, 8000).seen(at[2]); h.Addr == moved || got.Addr() != made["sym"].r.WAN {
		t.Errorf("address %v before, %v after, seen as %v", moved, h.Addr, got)
	}
}

// TestWire measures what a Wire is asked for: delay both ways, and a share of frames lost.
func TestWire(t *testing.T) {
	l := aLab(t)
	a, b := must(l.AddHost("a"))(t), must(l.AddHost("b"))(t)
	w := must(a.Lengthen(Line{Delay: 40 * time.Millisecond}))(t)
	by := reflector(t, b, netip.AddrPortFrom(b.Addr, 3478))
	p := probe(t, a, 9000)
	if !p.seen(by).IsValid() {
		t.Fatal("nothing gets through")
	}
	begin := time.Now()
	if !p.seen(by).IsValid() {
		t.Fatal("nothing gets through any more")
	}
	if took := time.Since(begin); took < 80*time.Millisecond {
		t.Errorf("there and back took %v, want two delays of 40 ms", took)
	} else {
		t.Logf("there and back: %v for 2 x 40 ms", took)
	}
	w.Set(Line{Loss: 0.25})
	const n = 400
	var wg sync.WaitGroup
	back := 0
	wg.Go(func() {
		for p.hear(3*time.Second) != "" {
			back++
		}
	})
	for range n {
		p.send(by, "who?")
		time.Sleep(200 * time.Microsecond) // so that no socket buffer overflows
	}
	wg.Wait()
	if share := float64(back) / n; share < 0.40 || share > 0.72 { // 0.75 * 0.75 = 0.56
		t.Errorf("%d of %d came back with a quarter lost each way", back, n)
	} else {
		t.Logf("%d of %d came back with a quarter lost each way, %d frames dropped", back, n, w.Dropped.Load())
	}
}
