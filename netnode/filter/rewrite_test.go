package filter

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// checkSums verifies every checksum of a packet made by these tests.
func checkSums(t *testing.T, b []byte) {
	t.Helper()
	p, why := parse(b, false)
	if why != Pass {
		t.Fatalf("not a packet: %v", why)
	}
	if p.src.Is4() && sum(0, b[:p.l4]) != 0xffff {
		t.Error("IPv4 header checksum is wrong")
	}
	l4 := b[p.l4:p.end]
	s := uint32(0)
	if p.proto != protoICMP4 {
		s = pseudo(p.src, p.dst, p.proto, len(l4))
	}
	if got := sum(s, l4); got != 0xffff {
		t.Errorf("checksum of protocol %d is wrong: %04x", p.proto, got)
	}
}

func TestRewrite(t *testing.T) {
	own := func(a netip.Addr) bool { return a == self4 || a == self6 }
	for _, a := range []struct{ self, peer netip.Addr }{{self4, peer4}, {self6, peer6}} {
		r := NewRewriter(nil, 22, 922, own)
		in := tcp(a.peer, a.self, 5000, 22, tcpSYN)
		checkSums(t, in)
		r.inbound(in)
		checkSums(t, in)
		if p, _ := parse(in, false); p.dstPort != 922 || p.srcPort != 5000 {
			t.Errorf("inbound: %d to %d", p.srcPort, p.dstPort)
		}
		out := tcp(a.self, a.peer, 922, 5000, tcpSYN|tcpACK)
		r.outbound(out)
		checkSums(t, out)
		if p, _ := parse(out, false); p.srcPort != 22 || p.dstPort != 5000 {
			t.Errorf("outbound: %d to %d", p.srcPort, p.dstPort)
		}
		// The remote port is nobody's business.
		other := tcp(a.peer, a.self, 22, 80, tcpACK)
		r.inbound(other)
		if p, _ := parse(other, false); p.srcPort != 22 || p.dstPort != 80 {
			t.Errorf("another connection: %d to %d", p.srcPort, p.dstPort)
		}
		// Errors about our packets, with and without the quoted checksum.
		sent := tcp(a.self, a.peer, 22, 5000, tcpACK)
		for _, n := range []int{8, 20} {
			kind, head := byte(3), 20
			if a.self.Is6() {
				kind, head = 1, 40
			}
			e := icmp(a.peer, a.self, kind, 4, append(make([]byte, 4), sent[:head+n]...))
			checkSums(t, e)
			r.inbound(e)
			checkSums(t, e)
			p, _ := parse(e, false)
			q, at, ok := p.quote(e)
			if !ok || q.srcPort != 922 {
				t.Errorf("quoted port %d, %v", q.srcPort, ok)
			}
			if n == 20 {
				inner := e[at+q.l4 : at+q.l4+20]
				if got := sum(pseudo(q.src, q.dst, protoTCP, 20), inner); got != 0xffff {
					t.Errorf("checksum of the quoted packet is wrong: %04x", got)
				}
			}
			back := icmp(a.self, a.peer, kind, 4, append(make([]byte, 4), tcp(a.peer, a.self, 5000, 922, tcpACK)[:head+n]...))
			r.outbound(back)
			checkSums(t, back)
			p, _ = parse(back, false)
			if q, _, ok := p.quote(back); !ok || q.dstPort != 22 {
				t.Errorf("quoted port on the way out %d, %v", q.dstPort, ok)
			}
		}
	}
}

// TestPatchEveryChecksum tries RFC 1624's hard cases, sums of 0 and ffff among them.
func TestPatchEveryChecksum(t *testing.T) {
	for filler := range 1 << 16 {
		b := make([]byte, 6) // port, filler, checksum
		binary.BigEndian.PutUint16(b, 22)
		binary.BigEndian.PutUint16(b[2:], uint16(filler))
		binary.BigEndian.PutUint16(b[4:], ^sum(0, b[:4]))
		setPort(b, b[4:], 922)
		if sum(0, b) != 0xffff {
			t.Fatalf("filler %04x: sum %04x", filler, sum(0, b))
		}
	}
}

func TestHiddenPortIsNotReached(t *testing.T) {
	f := New()
	r := rules()
	r.HiddenPort = 922
	r.AdmitPorts = []uint16{922}
	f.SetRules(r)
	for _, b := range [][]byte{tcp(peer4, self4, 1, 922, tcpSYN), tcp(peer6, self6, 1, 922, tcpACK)} {
		if got := f.In(b); got != HiddenPort {
			t.Errorf("%v", got)
		}
	}
	if got := f.In(unreachable(peer4, self4, tcp(self4, peer4, 922, 1, tcpACK))); got != ICMP {
		t.Errorf("an error about the hidden port: %v", got)
	}
}
