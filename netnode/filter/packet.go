package filter

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers that are looked into.
const (
	protoICMP4 = 1
	protoTCP   = 6
	protoUDP   = 17
	protoICMP6 = 58
	protoSCTP  = 132
)

const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10
)

// maxExtensions bounds the chain of IPv6 extension headers; real packets have one or two.
const maxExtensions = 6

// packet is what the filter needs to know of an IP packet.
type packet struct {
	src, dst         netip.Addr
	proto            uint8
	srcPort, dstPort uint16 // of TCP, UDP, SCTP; the identifier in both for echo
	flags            uint8  // of TCP
	icmpType         uint8
	l4               int // where the transport header begins
	end              int // where the packet ends
	fragment         bool
	first            bool // the first fragment, or no fragment
	offset           int  // of a fragment, in bytes
	id               uint32
}

// parse reads b, which must hold a whole IP packet. quoted allows it to be cut off after
// eight bytes of the transport header, as ICMP errors quote packets.
func parse(b []byte, quoted bool) (p packet, why Reason) {
	if len(b) == 0 {
		return p, Malformed
	}
	switch b[0] >> 4 {
	case 4:
		why = p.parse4(b, quoted)
	case 6:
		why = p.parse6(b, quoted)
	default:
		return p, Malformed
	}
	if why != Pass || !p.first {
		return p, why
	}
	return p, p.transport(b, quoted)
}

func (p *packet) parse4(b []byte, quoted bool) Reason {
	if len(b) < 20 {
		return Malformed
	}
	head := int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || head > len(b) || total < head {
		return Malformed
	}
	if total > len(b) {
		if !quoted {
			return Malformed
		}
		total = len(b)
	}
	for o := b[20:head]; len(o) > 0; { // options
		switch o[0] {
		case 0: // end of list
			o = nil
			continue
		case 1: // no operation
			o = o[1:]
			continue
		case 131, 137: // loose and strict source route, RFC 791
			return SourceRoute
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return Malformed
		}
		o = o[o[1]:]
	}
	p.src = netip.AddrFrom4([4]byte(b[12:16]))
	p.dst = netip.AddrFrom4([4]byte(b[16:20]))
	p.proto = b[9]
	p.id = uint32(binary.BigEndian.Uint16(b[4:]))
	frag := binary.BigEndian.Uint16(b[6:])
	p.offset = int(frag&0x1fff) * 8
	p.fragment = frag&0x3fff != 0 // offset, or more to come
	p.first = p.offset == 0
	p.l4, p.end = head, total
	return Pass
}

func (p *packet) parse6(b []byte, quoted bool) Reason {
	if len(b) < 40 {
		return Malformed
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		if !quoted {
			return Malformed
		}
		total = len(b)
	}
	p.src = netip.AddrFrom16([16]byte(b[8:24]))
	p.dst = netip.AddrFrom16([16]byte(b[24:40]))
	p.first = true
	next, at := b[6], 40
	for n := 0; ; n++ {
		switch next {
		case 0, 60: // hop-by-hop and destination options, RFC 8200
			if n == maxExtensions || at+8 > total {
				return Malformed
			}
			size := 8 + int(b[at+1])*8
			if at+size > total {
				return Malformed
			}
			next, at = b[at], at+size
			continue
		case 43: // routing
			return SourceRoute
		case 44: // fragment
			if n == maxExtensions || at+8 > total || p.fragment {
				return Malformed
			}
			off := binary.BigEndian.Uint16(b[at+2:])
			p.offset = int(off &^ 7)
			p.fragment = off&^6 != 0
			p.first = p.offset == 0
			p.id = binary.BigEndian.Uint32(b[at+4:])
			next, at = b[at], at+8
			if !p.first { // what follows is in the middle of something
				p.proto, p.l4, p.end = next, at, total
				return Pass
			}
			continue
		case 51, 135, 139, 140: // authentication, mobility, HIP, shim6: not in a mesh
			return Malformed
		}
		p.proto, p.l4, p.end = next, at, total
		return Pass
	}
}

// transport reads ports, flags and types.
func (p *packet) transport(b []byte, quoted bool) Reason {
	t := b[p.l4:p.end]
	need := 8
	switch p.proto {
	case protoTCP:
		if !quoted {
			need = 20
		}
	case protoUDP, protoSCTP, protoICMP4, protoICMP6:
	default:
		return Pass
	}
	if len(t) < need {
		return Malformed
	}
	switch p.proto {
	case protoTCP, protoUDP, protoSCTP:
		p.srcPort, p.dstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		if p.proto == protoTCP && len(t) > 13 {
			p.flags = t[13]
		}
	case protoICMP4, protoICMP6:
		if (p.proto == protoICMP4) != p.src.Is4() {
			return Malformed
		}
		p.icmpType = t[0]
		if p.echo() != 0 {
			p.srcPort = binary.BigEndian.Uint16(t[4:])
			p.dstPort = p.srcPort
		}
	}
	return Pass
}

const (
	echoRequest = 1
	echoReply   = 2
)

// echo says whether an ICMP packet is an echo request, a reply, or neither (0).
func (p *packet) echo() int {
	switch {
	case p.proto == protoICMP4 && p.icmpType == 8, p.proto == protoICMP6 && p.icmpType == 128:
		return echoRequest
	case p.proto == protoICMP4 && p.icmpType == 0, p.proto == protoICMP6 && p.icmpType == 129:
		return echoReply
	}
	return 0
}

// icmpError reports whether the packet is an ICMP error, which quotes the packet it is about.
func (p *packet) icmpError() bool {
	switch p.proto {
	case protoICMP4:
		return p.icmpType == 3 || p.icmpType == 11 || p.icmpType == 12
	case protoICMP6:
		return p.icmpType >= 1 && p.icmpType <= 4
	}
	return false
}

// quote parses the packet that an ICMP error is about; at is where it begins in b.
func (p *packet) quote(b []byte) (q packet, at int, ok bool) {
	if !p.first || p.fragment || !p.icmpError() {
		return q, 0, false
	}
	at = p.l4 + 8
	q, why := parse(b[at:p.end], true)
	return q, at, why == Pass && q.first
}

// BelongsTo reports whether b, an IP packet to the node, is TCP for the given port, or an
// ICMP error about a TCP packet that was sent from that port: what a second network
// stack that serves only that port has to see. What cannot be read belongs to the first.
func BelongsTo(b []byte, port uint16) bool {
	p, why := parse(b, false)
	if why != Pass || !p.first {
		return false
	}
	if p.proto == protoTCP {
		return p.dstPort == port
	}
	q, _, ok := p.quote(b)
	return ok && q.proto == protoTCP && q.srcPort == port
}
