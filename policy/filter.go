package policy

import (
	mathbits "math/bits"
	"net/netip"
	"slices"
)

// Filter is what the policy says about packets to one node: the rules that name it,
// worked out beforehand. It is immutable; any number of goroutines may ask it.
type Filter struct {
	table *netTable
	dst   Identity
	own   []ownAddr // for the node's own addresses
}

// ownAddr is one address of the node and the rules that name it.
type ownAddr struct {
	addr  netip.Addr
	rules bits
}

// FilterFor compiles the filter of one node. A nil policy gives a filter that allows nothing.
func (p *Policy) FilterFor(dst Identity) *Filter {
	f := &Filter{}
	if p == nil || !dst.Valid() {
		return f
	}
	dst.Addrs = slices.Clone(dst.Addrs)
	dst.Routes = slices.Clone(dst.Routes)
	dst.Tags = slices.Clone(dst.Tags)
	f.table, f.dst = p.net, dst
	for i, a := range dst.Addrs {
		dst.Addrs[i] = a.Unmap()
		b := make(bits, p.net.dst.words)
		d := party{id: &f.dst, addr: a.Unmap(), own: true, mesh: true}
		p.net.dst.collect(b, 0, &d)
		f.own = append(f.own, ownAddr{a.Unmap(), b})
	}
	return f
}

// Allow reports whether the first packet of a flow may pass to the node. It does not
// allocate. src is the peer whose key the packet came with; srcAddr and dstAddr are the
// packet's.
func (f *Filter) Allow(src *Identity, srcAddr, dstAddr netip.Addr, proto uint8, port uint16) bool {
	if f.table == nil || src == nil || !src.Valid() || !srcAddr.IsValid() || !dstAddr.IsValid() {
		return false
	}
	s, ok := at(src, srcAddr, false)
	if !ok {
		return false
	}
	dstAddr = dstAddr.Unmap()
	t := f.table
	for i := range f.own {
		if f.own[i].addr == dstAddr {
			return t.allow(&s, &f.dst, f.own[i].rules, proto, port)
		}
	}
	d, ok := at(&f.dst, dstAddr, true)
	return ok && t.find(&s, &d, proto, port) >= 0
}

// allow is find with the dst side known.
func (t *netTable) allow(src *party, dst *Identity, rules bits, proto uint8, port uint16) bool {
	self := src.own && sameOwner(src.id, dst)
	d := party{id: dst, own: true, mesh: true}
	var sb [chunk]uint64
	for base := 0; base < t.src.words; base += chunk {
		s := sb[:min(chunk, t.src.words-base)]
		clear(s)
		t.src.collect(s, base, src)
		for w := range s {
			named := rules[base+w]
			if self {
				named |= t.self[base+w]
			}
			for left := s[w] & named; left != 0; left &= left - 1 {
				r := &t.rules[(base+w)*64+mathbits.TrailingZeros64(left)]
				if anyCovers(r.ports, proto, port) && r.holds(src, &d) {
					return true
				}
			}
		}
	}
	return false
}
