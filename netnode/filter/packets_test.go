package filter

import (
	"encoding/binary"
	"net/netip"
)

// The packets of these tests are made with gVisor's and the RFCs' layouts by hand, so that
// the parser is not tested with itself.

var (
	self4 = netip.MustParseAddr("100.64.0.1")
	self6 = netip.MustParseAddr("fd7a::1")
	peer4 = netip.MustParseAddr("100.64.0.2")
	peer6 = netip.MustParseAddr("fd7a::2")
	lan4  = netip.MustParseAddr("192.168.1.1")
)

func ip(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() {
		return ip4(src, dst, proto, 0, 1, nil, payload)
	}
	return ip6(src, dst, proto, payload)
}

// ip4 makes an IPv4 packet; frag is the field with flags and offset.
func ip4(src, dst netip.Addr, proto byte, frag, id uint16, options, payload []byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := make([]byte, 20, 20+len(options)+len(payload))
	b[0] = 0x45 + byte(len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], frag)
	b[8], b[9] = 64, proto
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b))
	return append(b, payload...)
}

func ip6(src, dst netip.Addr, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// sum is the ones' complement sum of RFC 1071.
func sum(s uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func pseudo(src, dst netip.Addr, proto byte, n int) uint32 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	return uint32(sum(uint32(proto)+uint32(n), b))
}

func tcp(src, dst netip.Addr, sport, dport uint16, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[16:], ^sum(pseudo(src, dst, protoTCP, len(b)), b))
	return ip(src, dst, protoTCP, b)
}

func udpSegment(src, dst netip.Addr, sport, dport uint16, payload string) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[6:], ^sum(pseudo(src, dst, protoUDP, len(b)), b))
	return b
}

func udp(src, dst netip.Addr, sport, dport uint16) []byte {
	return ip(src, dst, protoUDP, udpSegment(src, dst, sport, dport, "hello"))
}

// icmp makes a message of the family's ICMP; rest begins after the checksum.
func icmp(src, dst netip.Addr, kind, code byte, rest []byte) []byte {
	b := append([]byte{kind, code, 0, 0}, rest...)
	proto := byte(protoICMP4)
	s := uint32(0)
	if src.Is6() {
		proto = protoICMP6
		s = pseudo(src, dst, protoICMP6, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], ^sum(s, b))
	return ip(src, dst, proto, b)
}

func echoMessage(src, dst netip.Addr, kind byte, id uint16) []byte {
	rest := make([]byte, 8)
	binary.BigEndian.PutUint16(rest, id)
	return icmp(src, dst, kind, 0, rest)
}

// unreachable is an ICMP error of src's to dst about quoted, cut as RFC 792 allows.
func unreachable(src, dst netip.Addr, quoted []byte) []byte {
	kind, head := byte(3), 20
	if src.Is6() {
		kind, head = 1, 40
	}
	return icmp(src, dst, kind, 4, append(make([]byte, 4), quoted[:min(len(quoted), head+8)]...))
}
