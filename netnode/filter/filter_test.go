package filter

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tssh/policy"
)

// allow lets peers reach TCP 22 and 80, UDP 53, and be pinged.
func allow(src *policy.Identity, _, _ netip.Addr, proto uint8, port uint16) bool {
	if src == nil {
		return false
	}
	switch proto {
	case protoTCP:
		return port == 22 || port == 80
	case protoUDP:
		return port == 53
	case protoICMP4, protoICMP6:
		return port == 0
	}
	return false
}

func rules() *Rules {
	id := &policy.Identity{ID: "n2", Name: "laptop", User: "alice@example.com"}
	return &Rules{Self: []netip.Addr{self4, self6}, Peers: map[netip.Addr]*policy.Identity{peer4: id, peer6: id}, Allow: allow}
}

func TestIn(t *testing.T) {
	ack := func(p []byte) []byte { return p }
	for _, c := range []struct {
		name string
		b    []byte
		want Reason
	}{
		{"syn to 22", tcp(peer4, self4, 4000, 22, tcpSYN), Pass},
		{"syn to 22, v6", tcp(peer6, self6, 4000, 22, tcpSYN), Pass},
		{"syn to 23", tcp(peer4, self4, 4000, 23, tcpSYN), Denied},
		{"syn to 23, v6", tcp(peer6, self6, 4000, 23, tcpSYN), Denied},
		{"syn with odd flags to 23", tcp(peer4, self4, 4000, 23, tcpSYN|tcpFIN), Denied},
		{"no flags to 23", tcp(peer4, self4, 4000, 23, 0), Denied},
		{"established to 22 after a restart", tcp(peer4, self4, 4000, 22, tcpACK), Pass},
		{"ack to 23", tcp(peer4, self4, 4000, 23, tcpACK), NoFlow},
		{"syn+ack to nothing", tcp(peer4, self4, 80, 40000, tcpSYN|tcpACK), NoFlow},
		{"reset to nothing", tcp(peer4, self4, 80, 40000, tcpRST), NoFlow},
		{"udp 53", udp(peer4, self4, 4000, 53), Pass},
		{"udp 54", udp(peer6, self6, 4000, 54), Denied},
		{"ping", echoMessage(peer4, self4, 8, 7), Pass},
		{"ping v6", echoMessage(peer6, self6, 128, 7), Pass},
		{"pong to nothing", echoMessage(peer4, self4, 0, 7), NoFlow},
		{"neighbour solicitation", icmp(peer6, self6, 135, 0, make([]byte, 20)), ICMP},
		{"redirect", icmp(peer4, self4, 5, 0, make([]byte, 28)), ICMP},
		{"icmpv6 over v4", ip(peer4, self4, protoICMP6, make([]byte, 8)), Malformed},
		{"another address of the host", tcp(peer4, lan4, 4000, 22, tcpSYN), NotOurs},
		{"loopback", tcp(peer4, netip.MustParseAddr("127.0.0.1"), 4000, 22, tcpSYN), NotOurs},
		{"multicast", udp(peer4, netip.MustParseAddr("224.0.0.251"), 5353, 5353), NotOurs},
		{"a stranger", tcp(lan4, self4, 4000, 22, tcpSYN), NoPeer},
		{"own address as source", tcp(self4, self4, 4000, 22, tcpSYN), NoPeer},
		{"gre", ip(peer4, self4, 47, make([]byte, 20)), Denied},
		{"empty", nil, Malformed},
		{"short", ack([]byte{0x45}), Malformed},
		{"version 5", append([]byte{0x55}, make([]byte, 60)...), Malformed},
		{"tcp cut off", ip(peer4, self4, protoTCP, make([]byte, 12)), Malformed},
		{"longer than it is", tcp(peer4, self4, 4000, 22, tcpSYN)[:39], Malformed},
		{"with record route", ip4(peer4, self4, protoTCP, 0, 1, []byte{7, 7, 4, 0, 0, 0, 0}, tcp(peer4, self4, 1, 22, tcpSYN)[20:]), Pass},
		{"options hide the port", ip4(peer4, self4, protoTCP, 0, 1, []byte{1, 1, 1, 1}, tcp(peer4, self4, 1, 23, tcpSYN)[20:]), Denied},
		{"loose source route", ip4(peer4, self4, protoTCP, 0, 1, []byte{131, 3, 4}, tcp(peer4, self4, 1, 22, tcpSYN)[20:]), SourceRoute},
		{"strict source route after nops", ip4(peer4, self4, protoTCP, 0, 1, []byte{1, 137, 3, 4}, tcp(peer4, self4, 1, 22, tcpSYN)[20:]), SourceRoute},
		{"option of length 0", ip4(peer4, self4, protoTCP, 0, 1, []byte{7, 0, 0, 0}, tcp(peer4, self4, 1, 22, tcpSYN)[20:]), Malformed},
		{"v6 with destination options", ip6(peer6, self6, 60, append([]byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, tcp(peer6, self6, 1, 22, tcpSYN)[40:]...)), Pass},
		{"v6 options hide the port", ip6(peer6, self6, 60, append([]byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, tcp(peer6, self6, 1, 23, tcpSYN)[40:]...)), Denied},
		{"v6 routing header", ip6(peer6, self6, 43, append([]byte{protoTCP, 0, 0, 0, 0, 0, 0, 0}, tcp(peer6, self6, 1, 22, tcpSYN)[40:]...)), SourceRoute},
		{"v6 endless headers", ip6(peer6, self6, 0, []byte(strings.Repeat("\x00\x00\x01\x04\x00\x00\x00\x00", 20))), Malformed},
		{"v6 header past the end", ip6(peer6, self6, 0, []byte{protoTCP, 9, 1, 4, 0, 0, 0, 0}), Malformed},
		{"v6 authentication header", ip6(peer6, self6, 51, append([]byte{protoTCP, 4, 0, 0, 0, 0, 0, 0}, make([]byte, 40)...)), Malformed},
		{"atomic fragment", ip6(peer6, self6, 44, append([]byte{protoTCP, 0, 0, 0, 0, 0, 0, 1}, tcp(peer6, self6, 1, 22, tcpSYN)[40:]...)), Pass},
		{"tcp fragment", ip4(peer4, self4, protoTCP, 0x2000, 1, nil, tcp(peer4, self4, 1, 22, tcpSYN)[20:]), Fragment},
		{"tcp rest", ip4(peer4, self4, protoTCP, 3, 1, nil, make([]byte, 40)), Fragment},
		{"rest without a beginning", ip4(peer4, self4, protoUDP, 100, 9, nil, make([]byte, 40)), Fragment},
	} {
		f := New()
		f.SetRules(rules())
		if got := f.In(c.b); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if n := f.Drops()[c.want.String()]; c.want != Pass && n != 1 {
			t.Errorf("%s: counted %d times", c.name, n)
		}
	}
}

func TestNothingPassesWithoutRules(t *testing.T) {
	f := New()
	in, out := tcp(peer4, self4, 4000, 22, tcpSYN), tcp(self4, peer4, 22, 4000, tcpSYN)
	if f.In(in) != NoRules || f.Out(out) != NoRules {
		t.Error("packets pass before there is a map")
	}
	r := rules()
	r.Allow = nil
	f.SetRules(r)
	if got := f.In(in); got != Denied {
		t.Errorf("without a policy: %v", got)
	}
	r2 := *r
	r2.AdmitPorts = []uint16{22}
	f.SetRules(&r2)
	if got := f.In(in); got != Pass {
		t.Errorf("admitted port: %v", got)
	}
	if got := f.In(udp(peer4, self4, 1, 22)); got != Denied {
		t.Errorf("an admitted port is TCP's: %v", got)
	}
}

func TestAnswersToOwnFlows(t *testing.T) {
	for _, a := range []struct{ self, peer netip.Addr }{{self4, peer4}, {self6, peer6}} {
		f := New()
		f.SetRules(rules())
		request, reply := byte(8), byte(0)
		if a.self.Is6() {
			request, reply = 128, 129
		}
		syn := tcp(a.self, a.peer, 40000, 443, tcpSYN)
		for _, out := range [][]byte{syn, udp(a.self, a.peer, 40001, 123), echoMessage(a.self, a.peer, request, 7)} {
			if got := f.Out(out); got != Pass {
				t.Fatalf("out: %v", got)
			}
		}
		for name, c := range map[string]struct {
			b    []byte
			want Reason
		}{
			"syn+ack":            {tcp(a.peer, a.self, 443, 40000, tcpSYN|tcpACK), Pass},
			"reset":              {tcp(a.peer, a.self, 443, 40000, tcpRST), Pass},
			"data":               {tcp(a.peer, a.self, 443, 40000, tcpACK), Pass},
			"a new syn":          {tcp(a.peer, a.self, 443, 40000, tcpSYN), Denied},
			"another port":       {tcp(a.peer, a.self, 443, 40002, tcpACK), NoFlow},
			"another service":    {tcp(a.peer, a.self, 444, 40000, tcpACK), NoFlow},
			"udp answer":         {udp(a.peer, a.self, 123, 40001), Pass},
			"udp from elsewhere": {udp(a.peer, a.self, 124, 40001), Denied},
			"pong":               {echoMessage(a.peer, a.self, reply, 7), Pass},
			"another pong":       {echoMessage(a.peer, a.self, reply, 8), NoFlow},
			"error about own":    {unreachable(a.peer, a.self, syn), Pass},
			"error about ssh":    {unreachable(a.peer, a.self, tcp(a.self, a.peer, 22, 5000, tcpACK)), Pass},
			"error about 23":     {unreachable(a.peer, a.self, tcp(a.self, a.peer, 23, 5000, tcpACK)), ICMP},
			"error about others": {unreachable(a.peer, a.self, tcp(a.peer, a.self, 22, 5000, tcpACK)), ICMP},
			"error cut off":      {unreachable(a.peer, a.self, syn[:10]), ICMP},
		} {
			if got := f.In(c.b); got != c.want {
				t.Errorf("%v %s: %v, want %v", a.self, name, got, c.want)
			}
		}
	}
}

func TestOut(t *testing.T) {
	f := New()
	f.SetRules(rules())
	for name, c := range map[string]struct {
		b    []byte
		want Reason
	}{
		"ordinary":                 {tcp(self4, peer4, 1, 2, tcpSYN), Pass},
		"forwarded by the host":    {tcp(lan4, peer4, 1, 2, tcpSYN), Spoofed},
		"to nobody":                {tcp(self4, netip.MustParseAddr("100.64.0.99"), 1, 2, tcpSYN), NoPeer},
		"router solicitation":      {icmp(self6, netip.MustParseAddr("ff02::2"), 133, 0, make([]byte, 4)), NoPeer},
		"from link-local":          {icmp(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::2"), 133, 0, make([]byte, 4)), NoPeer},
		"rest of a large datagram": {ip4(self4, peer4, protoUDP, 100, 9, nil, make([]byte, 40)), Pass},
	} {
		if got := f.Out(c.b); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestRevocation takes rights away from flows that are open.
func TestRevocation(t *testing.T) {
	f := New()
	f.SetRules(rules())
	ssh, dns := tcp(peer4, self4, 4000, 22, tcpACK), udp(peer4, self4, 4000, 53)
	if f.In(ssh) != Pass || f.In(dns) != Pass {
		t.Fatal("not open")
	}
	none := rules()
	none.Allow = func(*policy.Identity, netip.Addr, netip.Addr, uint8, uint16) bool { return false }
	f.SetRules(none)
	// The services go on sending, as services do.
	f.Out(tcp(self4, peer4, 22, 4000, tcpACK))
	f.Out(udp(self4, peer4, 53, 4000))
	if got := f.In(ssh); got != NoFlow {
		t.Errorf("tcp goes on after revocation: %v", got)
	}
	if got := f.In(dns); got != Denied {
		t.Errorf("udp goes on after revocation: %v", got)
	}
	gone := rules()
	delete(gone.Peers, peer4)
	f.SetRules(gone)
	if got := f.In(ssh); got != NoPeer {
		t.Errorf("a removed peer: %v", got)
	}
}

func TestConnectionsFromBefore(t *testing.T) {
	f := New()
	f.SetRules(rules())
	f.Begun([]Connection{{netip.AddrPortFrom(self4, 40000), netip.AddrPortFrom(peer4, 443)}})
	answer := func(port uint16) []byte { return tcp(peer4, self4, 443, port, tcpACK) }
	if got := f.In(answer(40000)); got != Pass {
		t.Errorf("a connection from before: %v", got)
	}
	f.Out(tcp(self4, peer4, 8080, 443, tcpACK))
	if got := f.In(answer(8080)); got != NoFlow {
		t.Errorf("one nobody told of: %v", got)
	}
	if got := f.In(tcp(peer4, self4, 444, 40000, tcpACK)); got != NoFlow {
		t.Errorf("another port of the peer's: %v", got)
	}
	if got := f.In(tcp(peer4, self4, 443, 40000, tcpSYN)); got == Pass {
		t.Error("a new connection passed as an answer")
	}
}

func TestFragments(t *testing.T) {
	f := New()
	f.SetRules(rules())
	now := time.Now()
	f.now = func() time.Time { return now }
	long := udpSegment(peer4, self4, 4000, 53, strings.Repeat("x", 64))
	first := ip4(peer4, self4, protoUDP, 0x2000, 5, nil, long[:32])
	rest := ip4(peer4, self4, protoUDP, 4, 5, nil, long[32:])
	denied := ip4(peer4, self4, protoUDP, 0x2000, 6, nil, udpSegment(peer4, self4, 1, 54, "x"))
	for _, c := range []struct {
		name string
		b    []byte
		want Reason
	}{
		{"rest first", rest, Fragment},
		{"first", first, Pass},
		{"rest", rest, Pass},
		{"a header too short", ip4(peer4, self4, protoUDP, 0x2000, 7, nil, long[:4]), Malformed},
		{"first of a denied one", denied, Denied},
		{"rest of a denied one", ip4(peer4, self4, protoUDP, 4, 6, nil, long[32:]), Fragment},
		{"ping in pieces", ip4(peer4, self4, protoICMP4, 0x2000, 8, nil, echoMessage(peer4, self4, 8, 1)[20:]), Pass},
		{"rest of it", ip4(peer4, self4, protoICMP4, 4, 8, nil, make([]byte, 8)), Pass},
		{"v6 first", ip6(peer6, self6, 44, append([]byte{protoUDP, 0, 0, 1, 0, 0, 0, 9}, long[:32]...)), Pass},
		{"v6 rest", ip6(peer6, self6, 44, append([]byte{protoUDP, 0, 0, 32, 0, 0, 0, 9}, long[32:]...)), Pass},
		{"v6 rest of another", ip6(peer6, self6, 44, append([]byte{protoUDP, 0, 0, 32, 0, 0, 0, 10}, long[32:]...)), Fragment},
	} {
		if got := f.In(c.b); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	now = now.Add(time.Minute)
	if got := f.In(rest); got != Fragment {
		t.Errorf("rest a minute later: %v", got)
	}
}

func TestTablesAreBoundedAndForget(t *testing.T) {
	f := New()
	f.SetRules(rules())
	now := time.Now()
	f.now = func() time.Time { return now }
	for i := range 5000 {
		f.In(udp(peer4, self4, uint16(i+1), 53))
	}
	if n := f.begunBy(peer4).len(); n > maxInFlows {
		t.Errorf("%d flows of one peer", n)
	}
	for i := range maxOutFlows + 1000 {
		f.out.put(flowKey{local: self4, peer: peer4, localPort: uint16(i), peerPort: uint16(i >> 16), proto: protoUDP}, now.UnixNano())
	}
	if n := f.out.len(); n > maxOutFlows {
		t.Errorf("%d flows begun", n)
	}
	f.Out(udp(self4, peer4, 40001, 123))
	if got := f.In(udp(peer4, self4, 123, 40001)); got != Pass {
		t.Errorf("a new flow in a full table: %v", got)
	}
	now = now.Add(flowLife + time.Second)
	if got := f.In(udp(peer4, self4, 123, 40001)); got != Denied {
		t.Errorf("an old flow: %v", got)
	}
	gone := rules()
	clear(gone.Peers)
	f.SetRules(gone)
	if f.begunBy(peer4) != nil {
		t.Error("flows of a removed peer are kept")
	}
}

func TestBelongsTo(t *testing.T) {
	for _, a := range []struct{ self, peer netip.Addr }{{self4, peer4}, {self6, peer6}} {
		for name, c := range map[string]struct {
			b    []byte
			want bool
		}{
			"tcp 22":           {tcp(a.peer, a.self, 5000, 22, tcpSYN), true},
			"tcp from 22":      {tcp(a.peer, a.self, 22, 5000, tcpSYN), false},
			"tcp 2222":         {tcp(a.peer, a.self, 5000, 2222, tcpSYN), false},
			"udp 22":           {udp(a.peer, a.self, 5000, 22), false},
			"error about 22":   {unreachable(a.peer, a.self, tcp(a.self, a.peer, 22, 5000, tcpACK)), true},
			"error about 5000": {unreachable(a.peer, a.self, tcp(a.self, a.peer, 5000, 22, tcpACK)), false},
			"error about udp":  {unreachable(a.peer, a.self, udp(a.self, a.peer, 22, 5000)), false},
			"rubbish":          {[]byte{0x45, 0}, false},
		} {
			if got := BelongsTo(c.b, 22); got != c.want {
				t.Errorf("%v %s: %v", a.self, name, got)
			}
		}
	}
}

// FuzzPackets wants no panic, and that what passes is a packet to our address that a slow
// reading of the header agrees with.
func FuzzPackets(f *testing.F) {
	for _, b := range [][]byte{
		tcp(peer4, self4, 1, 22, tcpSYN), tcp(peer6, self6, 1, 22, tcpSYN), udp(peer4, self4, 1, 53), echoMessage(peer6, self6, 128, 1),
		unreachable(peer4, self4, tcp(self4, peer4, 22, 1, tcpACK)), unreachable(peer6, self6, tcp(self6, peer6, 22, 1, tcpACK)),
		ip4(peer4, self4, protoUDP, 0x2000, 5, nil, make([]byte, 32)),
		ip6(peer6, self6, 60, append([]byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, tcp(peer6, self6, 1, 22, tcpSYN)[40:]...)),
		ip6(peer6, self6, 44, append([]byte{protoUDP, 0, 0, 1, 0, 0, 0, 9}, make([]byte, 32)...)),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		flt := New()
		flt.SetRules(rules())
		if flt.In(b) == Pass {
			dst := netip.Addr{}
			switch {
			case len(b) >= 20 && b[0]>>4 == 4:
				dst = netip.AddrFrom4([4]byte(b[16:20]))
			case len(b) >= 40 && b[0]>>4 == 6:
				dst = netip.AddrFrom16([16]byte(b[24:40]))
			}
			if dst != self4 && dst != self6 {
				t.Fatalf("passed a packet for %v", dst)
			}
		}
		flt.Out(b)
		BelongsTo(b, 22)
		NewRewriter(nil, 22, 922, func(netip.Addr) bool { return true }).inbound(append([]byte(nil), b...))
		NewRewriter(nil, 22, 922, func(netip.Addr) bool { return true }).outbound(append([]byte(nil), b...))
	})
}

func BenchmarkIn(b *testing.B) {
	f := New()
	f.SetRules(rules())
	p := tcp(peer4, self4, 4000, 22, tcpACK)
	b.ReportAllocs()
	for b.Loop() {
		if f.In(p) != Pass {
			b.Fatal()
		}
	}
}
