package filter

import (
	"encoding/binary"
	"net/netip"

	"golang.zx2c4.com/wireguard/tun"
)

// Rewriter is a tun.Device that shows the kernel one TCP port as another: what peers send
// to Public arrives at Hidden, and what leaves from Hidden comes from Public. It is meant
// to stand between Device and the TUN, so that the filter judges the ports peers use.
type Rewriter struct {
	tun.Device
	public, hidden uint16
	own            func(netip.Addr) bool
}

// NewRewriter makes one; own says whether an address is the node's own.
func NewRewriter(dev tun.Device, public, hidden uint16, own func(netip.Addr) bool) *Rewriter {
	return &Rewriter{dev, public, hidden, own}
}

// Write rewrites in place: the buffers are WireGuard's and it is done with them.
func (r *Rewriter) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		r.inbound(b[offset:])
	}
	return r.Device.Write(bufs, offset)
}

func (r *Rewriter) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := r.Device.Read(bufs, sizes, offset)
	for i := range n {
		r.outbound(bufs[i][offset : offset+sizes[i]])
	}
	return n, err
}

// inbound changes destination port public to hidden, and in ICMP errors the source port of
// the packet they quote. Fragments of TCP do not get here.
func (r *Rewriter) inbound(b []byte) {
	p, why := parse(b, false)
	if why != Pass || !p.first || p.fragment || !r.own(p.dst) {
		return
	}
	if p.proto == protoTCP && p.dstPort == r.public {
		setPort(b[p.l4+2:], b[p.l4+16:], r.hidden)
		return
	}
	if q, at, ok := p.quote(b); ok && q.proto == protoTCP && q.srcPort == r.public && r.own(q.src) {
		r.setQuoted(b, &p, &q, at+q.l4, r.hidden)
	}
}

// outbound is the way back.
func (r *Rewriter) outbound(b []byte) {
	p, why := parse(b, false)
	if why != Pass || !p.first || p.fragment || !r.own(p.src) {
		return
	}
	if p.proto == protoTCP && p.srcPort == r.hidden {
		setPort(b[p.l4:], b[p.l4+16:], r.public)
		return
	}
	if q, at, ok := p.quote(b); ok && q.proto == protoTCP && q.dstPort == r.hidden && r.own(q.dst) {
		r.setQuoted(b, &p, &q, at+q.l4+2, r.public)
	}
}

// setQuoted changes a port in the packet that an ICMP error quotes. The error's checksum
// covers that port, and the quoted checksum too if it is there, which changes as well; the
// two changes are both made good in the error's.
func (r *Rewriter) setQuoted(b []byte, p, q *packet, port int, v uint16) {
	outer := b[p.l4+2:]
	quotedSum := p.l4 + 8 + q.l4 + 16
	if quotedSum+2 <= p.end {
		old := binary.BigEndian.Uint16(b[quotedSum:])
		setPort(b[port:], b[quotedSum:], v) // the quoted one is made good for the port
		patch(outer, old, binary.BigEndian.Uint16(b[quotedSum:]))
		patch(outer, r.other(v), v)
		return
	}
	setPort(b[port:], outer, v)
}

// other is the port that v replaces.
func (r *Rewriter) other(v uint16) uint16 {
	if v == r.public {
		return r.hidden
	}
	return r.public
}

// setPort puts v at the start of port and mends the checksum at the start of sum.
func setPort(port, sum []byte, v uint16) {
	patch(sum, binary.BigEndian.Uint16(port), v)
	binary.BigEndian.PutUint16(port, v)
}

// patch mends a checksum for a 16-bit field that went from old to new: RFC 1624, equation 3.
func patch(sum []byte, old, new uint16) {
	s := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^old) + uint32(new)
	s = s>>16 + s&0xffff
	s += s >> 16
	binary.BigEndian.PutUint16(sum, ^uint16(s))
}
