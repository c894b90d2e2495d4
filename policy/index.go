package policy

import (
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// bits is a set of rules, one bit each, in the order in which they are asked.
type bits []uint64

func (b bits) set(i int) { b[i/64] |= 1 << (i % 64) }

// chunk is how many words of rules are combined at a time, on the stack.
const chunk = 32

// party is one end of a request, as the selectors see it.
type party struct {
	id     *Identity
	addr   netip.Addr // invalid when the question is about an identity alone
	own    bool       // addr is the node's own: who the node is counts
	mesh   bool       // "*" means it: an address of the mesh or of an approved route
	public bool       // autogroup:internet means it
}

// side is one side, src or dst, of all rules of a section: for each thing that an end can
// be, the set of rules that name it. An end is looked up by what it is (login, role, tags,
// address), so nodes that come and go change nothing here.
type side struct {
	words    int
	login    map[Login]bits
	domain   map[string]bits
	tag      map[Tag]bits
	role     [len(roles)]bits
	member   bits
	tagged   bits
	shared   bits
	any      bits
	world    bits
	internet bits
	addrs    addrTable
}

// newSide compiles the selectors of n rules; of gives those of rule i.
func newSide(n int, of func(int) []selector) *side {
	s := &side{words: (n + 63) / 64, login: map[Login]bits{}, domain: map[string]bits{}, tag: map[Tag]bits{}}
	put := func(b *bits, i int) {
		if *b == nil {
			*b = make(bits, s.words)
		}
		b.set(i)
	}
	// Logins come in lists: the lists get the bits first, their members afterwards share
	// a list's set as long as they are in one list only.
	type list struct {
		members []Login
		bits    bits
	}
	var lists []*list
	groups := map[*group]*list{}
	var table addrBuilder
	for i := range n {
		var direct []Login
		var ranges []netipx.IPRange
		for _, sel := range of(i) {
			switch sel.kind {
			case selAny:
				put(&s.any, i)
			case selWorld:
				put(&s.world, i)
			case selLogin:
				direct = append(direct, sel.login)
			case selDomain:
				b := s.domain[sel.domain]
				put(&b, i)
				s.domain[sel.domain] = b
			case selGroup:
				l := groups[sel.group]
				if l == nil {
					l = &list{members: sel.group.members}
					groups[sel.group] = l
					lists = append(lists, l)
				}
				put(&l.bits, i)
			case selTag:
				b := s.tag[sel.tag]
				put(&b, i)
				s.tag[sel.tag] = b
			case selAddr, selIPSet:
				ranges = append(ranges, sel.ranges...)
			case selMember:
				put(&s.member, i)
			case selRole:
				put(&s.role[roleIndex(sel.role)], i)
			case selTagged:
				put(&s.tagged, i)
			case selInternet:
				put(&s.internet, i)
			case selShared:
				put(&s.shared, i)
			case selSelf, selService:
				// self is a relation of both sides and kept by the rule; services have no nodes here.
			}
		}
		if len(direct) > 0 {
			l := &list{members: direct}
			put(&l.bits, i)
			lists = append(lists, l)
		}
		if len(ranges) > 0 {
			table.add(i, ranges)
		}
	}
	shared := map[Login]bool{}
	for _, l := range lists {
		for _, m := range l.members {
			b, ok := s.login[m]
			switch {
			case !ok:
				s.login[m], shared[m] = l.bits, true
				continue
			case shared[m]:
				b = slices.Clone(b)
				s.login[m], shared[m] = b, false
			}
			for w, v := range l.bits {
				b[w] |= v
			}
		}
	}
	s.addrs = table.build(s.words)
	return s
}

func or(out, b []uint64) {
	if len(b) < len(out) {
		return
	}
	b = b[:len(out)]
	for i := range out {
		out[i] |= b[i]
	}
}

func (b bits) from(base int) bits {
	if b == nil {
		return nil
	}
	return b[base:]
}

// collect ors into out the rules that name p, from word base on.
func (s *side) collect(out []uint64, base int, p *party) {
	if p.own {
		s.identity(out, base, p.id)
	}
	if p.mesh {
		or(out, s.any.from(base))
	}
	if p.public {
		or(out, s.internet.from(base))
	}
	or(out, s.world.from(base))
	if p.addr.IsValid() && len(s.addrs.starts) > 0 {
		or(out, s.addrs.at(p.addr).from(base))
	}
}

// identity ors into out the rules that name the node by who it is.
func (s *side) identity(out []uint64, base int, id *Identity) {
	if id.External {
		// What another mesh says of its nodes is believed for the login alone.
		or(out, s.shared.from(base))
		if id.User != "" {
			or(out, s.login[id.User].from(base))
		}
		return
	}
	if id.User == "" {
		if s.tagged != nil && len(id.Tags) > 0 {
			or(out, s.tagged.from(base))
		}
		if len(s.tag) > 0 {
			for _, t := range id.Tags {
				or(out, s.tag[t].from(base))
			}
		}
		return
	}
	if len(s.login) > 0 {
		or(out, s.login[id.User].from(base))
	}
	or(out, s.member.from(base))
	if len(s.domain) > 0 {
		or(out, s.domain[domainOf(id.User)].from(base))
	}
	if id.Role != RoleMember && id.Role != "" {
		if i := roleIndex(id.Role); i >= 0 {
			or(out, s.role[i].from(base))
		}
	}
}

// domainOf is what stands after the last @.
func domainOf(l Login) string {
	return string(l[strings.LastIndexByte(string(l), '@')+1:])
}

// addrTable cuts the address space at every bound of every selector; between two bounds
// the same rules apply. IPv4 comes before IPv6.
type addrTable struct {
	starts []netip.Addr
	sets   []bits // sets[i] holds from starts[i] to before starts[i+1]
}

func (t *addrTable) index(a netip.Addr) int {
	lo, hi := 0, len(t.starts)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.starts[mid].Compare(a) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

func (t *addrTable) at(a netip.Addr) bits {
	i := t.index(a)
	if i < 0 {
		return nil
	}
	return t.sets[i]
}

// overlap ors into out the rules that name any address of the prefix.
func (t *addrTable) overlap(out []uint64, base int, p netip.Prefix) {
	r := netipx.RangeOfPrefix(p)
	for i := max(t.index(r.From()), 0); i < len(t.starts) && t.starts[i].Compare(r.To()) <= 0; i++ {
		or(out, t.sets[i].from(base))
	}
}

type addrBuilder struct {
	edges []addrEdge
}

// addrEdge is where a rule begins or ends to name addresses.
type addrEdge struct {
	at   netip.Addr
	rule int
}

// add puts the addresses of one rule in; overlaps within it are merged, so that each of
// its edges turns it on or off.
func (b *addrBuilder) add(rule int, ranges []netipx.IPRange) {
	var set netipx.IPSetBuilder
	for _, r := range ranges {
		set.AddRange(r)
	}
	merged, err := set.IPSet()
	if err != nil {
		return // ranges are valid by construction
	}
	for _, r := range merged.Ranges() {
		b.edges = append(b.edges, addrEdge{r.From(), rule})
		end := r.To().Next()
		if !end.IsValid() && r.To().Is4() {
			end = netip.IPv6Unspecified() // where IPv6 begins, in the order of the table
		}
		if end.IsValid() {
			b.edges = append(b.edges, addrEdge{end, rule})
		}
	}
}

func (b *addrBuilder) build(words int) addrTable {
	var t addrTable
	if len(b.edges) == 0 {
		return t
	}
	slices.SortFunc(b.edges, func(x, y addrEdge) int { return x.at.Compare(y.at) })
	known := map[string]bits{} // equal sets are kept once
	cur := make(bits, words)
	raw := make([]byte, words*8)
	for i := 0; i < len(b.edges); {
		at := b.edges[i].at
		for ; i < len(b.edges) && b.edges[i].at == at; i++ {
			cur[b.edges[i].rule/64] ^= 1 << (b.edges[i].rule % 64)
		}
		for w, v := range cur {
			for n := range 8 {
				raw[w*8+n] = byte(v >> (8 * n))
			}
		}
		set, ok := known[string(raw)]
		if !ok {
			set = slices.Clone(cur)
			known[string(raw)] = set
		}
		t.starts = append(t.starts, at)
		t.sets = append(t.sets, set)
	}
	b.edges = nil
	return t
}
