package policy

import (
	"fmt"
	mathbits "math/bits"
	"net/netip"
	"slices"
)

// NetRequest asks whether a packet may pass: the first one of a flow, from Src to Dst.
// An address that is not the node's own must lie in one of its approved routes; then who
// the node is does not count, only the address. Unset addresses mean the node's first.
type NetRequest struct {
	Src, Dst         Identity
	SrcAddr, DstAddr netip.Addr
	Proto            uint8 // IP protocol number
	Port             uint16
}

// NetDecision is the answer to a NetRequest. The zero NetDecision denies.
type NetDecision struct {
	Allow   bool
	Section string // "acls", "grants", or "" when the file has neither
	Rule    int    // index in the section, -1 when none decided
	Reason  string
}

// netRule is one rule, or the part of an acl whose destinations have the same ports.
type netRule struct {
	section string
	rule    int
	off     int        // of the rule in the text
	src     []selector // until compiled
	dst     []selector // until compiled
	ports   []portSpec
	posture []*posture // any of them; empty: none is needed
	via     []Tag
	self    bool // one dst is autogroup:self
	reason  string
}

// netTable is all network rules, acls before grants, in file order.
type netTable struct {
	rules    []netRule
	src, dst *side
	self     bits // rules with autogroup:self as a dst
}

func newNetTable(rules []netRule) *netTable {
	t := &netTable{rules: rules}
	t.src = newSide(len(rules), func(i int) []selector { return rules[i].src })
	t.dst = newSide(len(rules), func(i int) []selector { return rules[i].dst })
	t.self = make(bits, t.src.words)
	for i := range rules {
		for _, d := range rules[i].dst {
			rules[i].self = rules[i].self || d.kind == selSelf
		}
		if rules[i].self {
			t.self.set(i)
		}
		if r := &rules[i]; r.section == "" {
			r.reason = "no-section: the policy has neither acls nor grants, which allows all"
		} else {
			r.reason = fmt.Sprintf("%s[%d]", r.section, r.rule)
		}
		rules[i].src, rules[i].dst = nil, nil // long lists are not held twice
	}
	return t
}

// sameOwner reports whether both are devices of one person of this mesh.
func sameOwner(a, b *Identity) bool {
	return a.User != "" && a.User == b.User && len(a.Tags) == 0 && len(b.Tags) == 0 && !a.External && !b.External
}

// find gives the index of the first rule that allows the traffic, or -1. It does not allocate.
func (t *netTable) find(src, dst *party, proto uint8, port uint16) int {
	self := src.own && dst.own && sameOwner(src.id, dst.id)
	var sb, db [chunk]uint64
	for base := 0; base < t.src.words; base += chunk {
		n := min(chunk, t.src.words-base)
		d := db[:n]
		clear(d)
		t.dst.collect(d, base, dst)
		if self {
			or(d, t.self.from(base))
		}
		s := sb[:n]
		clear(s)
		t.src.collect(s, base, src)
		for w := range s {
			for left := s[w] & d[w]; left != 0; left &= left - 1 {
				i := (base+w)*64 + mathbits.TrailingZeros64(left)
				if r := &t.rules[i]; anyCovers(r.ports, proto, port) && r.holds(src, dst) {
					return i
				}
			}
		}
	}
	return -1
}

// holds checks what is neither src, dst nor ports.
func (r *netRule) holds(src, dst *party) bool {
	if len(r.posture) > 0 && (src.id == nil || !anyPosture(r.posture, src.id.Attributes)) {
		return false
	}
	if len(r.via) == 0 {
		return true
	}
	// via chooses the routers of a route; it gives nothing to the node's own addresses.
	if dst.own || dst.id == nil || dst.id.External {
		return false
	}
	return slices.ContainsFunc(r.via, func(t Tag) bool { return slices.Contains(dst.id.Tags, t) })
}

// at makes the party for an address of a node. It is false when the address is neither
// the node's own nor in its approved routes.
func at(id *Identity, addr netip.Addr, dst bool) (party, bool) {
	addr = addr.Unmap()
	if !addr.IsValid() && len(id.Addrs) > 0 {
		addr = id.Addrs[0].Unmap()
	}
	p := party{id: id, addr: addr, mesh: true}
	if !addr.IsValid() || len(id.Addrs) == 0 || slices.Contains(id.Addrs, addr) {
		p.own = true
		return p, true
	}
	for _, r := range id.Routes {
		if r.Contains(addr) {
			return p, true
		}
	}
	return p, dst && id.Exit
}

// EvaluateNet decides about one flow. A nil policy denies.
func EvaluateNet(p *Policy, r NetRequest) NetDecision {
	none := NetDecision{Rule: -1}
	if p == nil {
		none.Reason = "no-policy: there is no policy yet"
		return none
	}
	if !r.Src.Valid() || !r.Dst.Valid() {
		none.Reason = "no-identity: an end of the connection is not a node of this mesh"
		return none
	}
	src, ok := at(&r.Src, r.SrcAddr, false)
	if !ok {
		none.Reason = "no-identity: the source address is neither the node's own nor in its approved routes"
		return none
	}
	dst, ok := at(&r.Dst, r.DstAddr, true)
	if !ok {
		none.Reason = "no-route: the destination address is neither the node's own nor in its approved routes"
		return none
	}
	return p.decideNet(&src, &dst, r.Proto, r.Port)
}

func (p *Policy) decideNet(src, dst *party, proto uint8, port uint16) NetDecision {
	if i := p.net.find(src, dst, proto, port); i >= 0 {
		r := &p.net.rules[i]
		return NetDecision{true, r.section, r.rule, r.reason}
	}
	return NetDecision{Rule: -1, Reason: "no-rule: no acl or grant allows this"}
}

// Adjacent reports whether a may reach b or b may reach a, by any network rule, at any
// port, or both are one person's: whether each should know of the other.
//
// A login that an ssh rule allows and no network rule lets through is not enough, as in the
// original: there is no way to the port, so all that knowing of each other would bring is
// handshakes, and names and endpoints in the hands of those who can do nothing with them.
// That such a rule lets nobody in is told to who can mend it: NoWay and Lint.
func Adjacent(p *Policy, a, b Identity) bool {
	if p == nil || !a.Valid() || !b.Valid() {
		return false
	}
	return sameOwner(&a, &b) || p.reaches(&a, &b) || p.reaches(&b, &a)
}

func (p *Policy) reaches(src, dst *Identity) bool {
	t := p.net
	self := sameOwner(src, dst)
	var sb, db [chunk]uint64
	for base := 0; base < t.src.words; base += chunk {
		n := min(chunk, t.src.words-base)
		s, d := sb[:n], db[:n]
		clear(s)
		clear(d)
		t.src.node(s, base, src)
		t.dst.node(d, base, dst)
		if self {
			or(d, t.self.from(base))
		}
		for w := range s {
			for left := s[w] & d[w]; left != 0; left &= left - 1 {
				i := mathbits.TrailingZeros64(left)
				r := &t.rules[(base+w)*64+i]
				if len(r.via) > 0 && !t.serves(r, base+w, i, dst) {
					continue
				}
				if len(r.posture) == 0 || anyPosture(r.posture, src.Attributes) {
					return true
				}
			}
		}
	}
	return false
}

// serves reports whether the node is one of the routers that a rule with via chooses, for
// something that the rule names. The rule is bit i of a word.
func (t *netTable) serves(r *netRule, word, i int, dst *Identity) bool {
	if dst.External || len(dst.Routes) == 0 && !dst.Exit || !slices.ContainsFunc(r.via, func(v Tag) bool { return slices.Contains(dst.Tags, v) }) {
		return false
	}
	var b [1]uint64
	t.dst.behind(b[:], word, dst)
	return b[0]&(1<<i) != 0
}

// node ors into out every rule that names the node, one of its addresses, or something
// behind it.
func (s *side) node(out []uint64, base int, id *Identity) {
	s.identity(out, base, id)
	for _, a := range id.Addrs {
		if len(s.addrs.starts) > 0 {
			or(out, s.addrs.at(a.Unmap()).from(base))
		}
	}
	s.behind(out, base, id)
}

// behind ors into out every rule that names something in the node's routes, or everything.
func (s *side) behind(out []uint64, base int, id *Identity) {
	or(out, s.any.from(base))
	or(out, s.world.from(base))
	if id.Exit {
		or(out, s.internet.from(base))
	}
	if len(s.addrs.starts) == 0 {
		return
	}
	for _, r := range id.Routes {
		s.addrs.overlap(out, base, r)
	}
}
