package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// anyOther stands for every account that no rule names. It is nobody's name: rules cannot
// write it.
const anyOther LocalUser = "*"

// class is machines of one owner that no rule tells apart, or a person who has none yet.
type class struct {
	id    Identity          // of the first machine
	names []string          // of the machines
	local map[string]uint32 // accounts known there
	src4  party
	src6  party
}

// who is the owner in words.
func (c *class) who() string { return c.id.Who() }

// classes sorts a directory into classes for the given policies.
func classes(d *Directory, policies ...*Policy) []*class {
	var out []*class
	known := map[string]*class{}
	people := map[Login]bool{}
	for i := range d.nodes {
		id := &d.nodes[i]
		if !id.External {
			people[id.User] = true
		}
		key := fmt.Sprint(id.User, id.External, id.Exit, sorted(id.Tags), id.Routes, id.Attributes, d.Nodes[i].LocalUsers)
		for _, p := range policies {
			for _, v4 := range []bool{true, false} {
				end := family(id, v4)
				key += fmt.Sprint(end.addr.IsValid(), p.net.src.of(&end), p.net.dst.of(&end))
			}
		}
		c := known[key]
		if c == nil {
			c = &class{id: *id, local: d.Nodes[i].LocalUsers, src4: family(id, true), src6: family(id, false)}
			known[key] = c
			out = append(out, c)
		}
		c.names = append(c.names, id.Name)
	}
	for _, u := range d.Users {
		if !people[u.Login] {
			id := Identity{ID: string(u.Login), Name: string(u.Login), User: u.Login, Role: d.Role(u.Login)}
			out = append(out, &class{id: id, src4: family(&id, true), src6: family(&id, false)})
		}
	}
	slices.SortStableFunc(out, func(a, b *class) int {
		return cmp.Or(cmp.Compare(a.who(), b.who()), slices.Compare(a.names, b.names))
	})
	return out
}

func sorted(tags []Tag) []Tag { return slices.Sorted(slices.Values(tags)) }

// family is the node at its address of one family. The address is unset when it has none.
func family(id *Identity, v4 bool) party {
	p := party{id: id, own: true, mesh: true}
	for _, a := range id.Addrs {
		if a.Is4() == v4 {
			p.addr = a
			break
		}
	}
	return p
}

// of is the set of rules that name the party.
func (s *side) of(p *party) bits {
	b := make(bits, s.words)
	s.collect(b, 0, p)
	return b
}

// WhoQuery asks who may log in. What is empty is any.
type WhoQuery struct {
	Account string // on the host
	Host    string
	Who     string // a login, or tags with commas between
}

// Access is one login that the policy allows.
type Access struct {
	Who     string   `json:"who"`
	From    []string `json:"from"` // machines; none when the person has not joined any
	Account string   `json:"account"`
	Hosts   []string `json:"hosts"`
	Verdict string   `json:"verdict"` // accept, check or request
	Period  string   `json:"checkPeriod,omitempty"`
	Rule    int      `json:"rule"`
	Line    int      `json:"line"`
	Terms   string   `json:"terms,omitempty"` // what the rule limits, in words
}

// AnyOther is the account of an Access that means every account that no rule names, root
// not among them.
const AnyOther = string(anyOther)

// Who gives all logins that the policy allows between machines of the directory, network
// rules counted. Accounts are those that rules and the directory name; if the others are
// let in too, one Access says so, and those that it covers are not told again.
func Who(p *Policy, d *Directory, q WhoQuery) []Access {
	all := classes(d, p)
	var out []Access
	for _, src := range all {
		if q.Who != "" && q.Who != src.who() {
			continue
		}
		for _, dst := range all {
			hosts := dst.names
			if q.Host != "" {
				if !slices.Contains(hosts, q.Host) {
					continue
				}
				hosts = []string{q.Host}
			}
			for _, r := range logins(p, src, dst, accounts(src, dst, q.Account, p)) {
				a := Access{Who: src.who(), From: src.names, Account: string(r.account), Hosts: hosts, Verdict: r.d.Verdict.String(), Rule: r.d.Rule}
				if r.d.terms != nil {
					a.Terms = r.d.terms.words
				}
				if r.d.Verdict == Check {
					a.Period = r.d.CheckPeriod.String()
				}
				if i := slices.IndexFunc(p.ssh.rules, func(s sshRule) bool { return s.index == r.d.Rule }); i >= 0 {
					a.Line = p.line(p.ssh.rules[i].off)
				}
				out = append(out, a)
			}
		}
	}
	return out
}

// accounts are the ones worth asking about: those that rules or the host name, root, the
// person's own by localpart, and one for all others.
func accounts(src, dst *class, only string, policies ...*Policy) []LocalUser {
	if only != "" {
		return []LocalUser{LocalUser(only)}
	}
	out := []LocalUser{anyOther, "root"}
	for _, p := range policies {
		for i := range p.ssh.rules {
			out = append(out, p.ssh.rules[i].users.names...)
		}
	}
	for name := range dst.local {
		out = append(out, LocalUser(name))
	}
	if i := strings.LastIndexByte(string(src.id.User), '@'); i > 0 {
		if u, err := ParseLocalUser(string(src.id.User[:i])); err == nil {
			out = append(out, u)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// login is a login that is allowed.
type login struct {
	account LocalUser
	root    bool // uid 0
	d       Decision
}

// logins decides about each account, by the first address family that lets it in. What
// anyOther covers is left out; it never covers root.
func logins(p *Policy, src, dst *class, accounts []LocalUser) []login {
	if len(dst.names) == 0 || !p.ssh.reaches(&src.id, &dst.id) {
		return nil
	}
	var out []login
	var other Decision
	for _, u := range accounts {
		r := Request{Ask: AskLogin, Src: src.id, Dst: dst.id, User: u, UIDUnknown: true, AnyTime: true}
		if uid, known := dst.local[string(u)]; known {
			r.UID, r.UIDUnknown = uid, false
		}
		d := Decision{Rule: -1}
		for _, v4 := range []bool{true, false} {
			s, t := family(&src.id, v4), family(&dst.id, v4)
			if len(src.id.Addrs) > 0 && len(dst.id.Addrs) > 0 && (!s.addr.IsValid() || !t.addr.IsValid()) {
				continue
			}
			r.SrcAddr, r.DstAddr = s.addr, t.addr
			if d = Evaluate(p, r); d.Verdict != Deny {
				break
			}
		}
		if u == anyOther {
			other = d
		}
		if d.Verdict != Deny {
			out = append(out, login{u, !r.UIDUnknown && r.UID == 0 || r.UIDUnknown && u == "root", d})
		}
	}
	return slices.DeleteFunc(out, func(l login) bool {
		return other.Verdict != Deny && l.account != anyOther && !l.root && l.d.Rule == other.Rule && l.d.Verdict == other.Verdict
	})
}

// ports is what may pass between two ends: the ranges of each protocol.
type ports map[uint8][]portSpec

// flows is the union of what the rules allow from src to dst in one address family.
func flows(p *Policy, src, dst *class, v4 bool) ports {
	s, d := src.src4, dst.src4
	if !v4 {
		s, d = src.src6, dst.src6
	}
	if len(dst.names) == 0 || len(src.id.Addrs) > 0 && !s.addr.IsValid() || len(dst.id.Addrs) > 0 && !d.addr.IsValid() {
		return nil
	}
	t := p.net
	sb, db := t.src.of(&s), t.dst.of(&d)
	if sameOwner(&src.id, &dst.id) {
		or(db, t.self)
	}
	out := ports{}
	ping := uint8(protoICMP)
	if !v4 {
		ping = protoICMPv6
	}
	for i := range t.rules {
		if sb[i/64]&db[i/64]&(1<<(i%64)) == 0 || !t.rules[i].holds(&s, &d) {
			continue
		}
		for _, spec := range t.rules[i].ports {
			switch {
			case spec.proto == 0:
				out.add(portSpec{protoTCP, spec.lo, spec.hi})
				out.add(portSpec{protoUDP, spec.lo, spec.hi})
			case hasPorts(spec.proto):
				out.add(spec)
			default:
				out.add(portSpec{spec.proto, 0, 65535})
			}
			out.add(portSpec{ping, 0, 65535})
		}
	}
	return out
}

func (p ports) add(s portSpec) {
	s.lo = max(s.lo, 1) // ports begin at 1; "*" is written as from 0
	p[s.proto] = merge(append(p[s.proto], s))
}

// merge joins what overlaps or touches.
func merge(in []portSpec) []portSpec {
	slices.SortFunc(in, func(a, b portSpec) int { return cmp.Compare(a.lo, b.lo) })
	out := in[:0]
	for _, s := range in {
		if n := len(out) - 1; n >= 0 && int(s.lo) <= int(out[n].hi)+1 {
			out[n].hi = max(out[n].hi, s.hi)
			continue
		}
		out = append(out, s)
	}
	return out
}

// minus is what is in p and not in q.
func (p ports) minus(q ports) ports {
	out := ports{}
	for proto, have := range p {
		for _, s := range have {
			lo := int(s.lo)
			for _, cut := range q[proto] {
				if int(cut.hi) < lo || cut.lo > s.hi {
					continue
				}
				if int(cut.lo) > lo {
					out.add(portSpec{proto, uint16(lo), cut.lo - 1})
				}
				lo = int(cut.hi) + 1
			}
			if lo <= int(s.hi) {
				out.add(portSpec{proto, uint16(lo), s.hi})
			}
		}
	}
	return out
}

// words is the set as a person reads it. Ping goes without saying where anything else does.
func (p ports) words() string {
	protos := make([]uint8, 0, len(p))
	for proto, specs := range p {
		if len(specs) > 0 && !(isICMP(proto) && len(p) > 1) {
			protos = append(protos, proto)
		}
	}
	slices.Sort(protos)
	if slices.Contains(protos, protoTCP) && slices.Equal(rangesOf(p[protoTCP]), rangesOf(p[protoUDP])) {
		var both []portSpec
		for _, s := range p[protoTCP] {
			both = append(both, portSpec{0, s.lo, s.hi})
		}
		out := []string{portWords(both)}
		for _, proto := range protos {
			if proto != protoTCP && proto != protoUDP {
				out = append(out, portWords(p[proto]))
			}
		}
		return strings.Join(out, ", ")
	}
	var out []string
	for _, proto := range protos {
		out = append(out, portWords(p[proto]))
	}
	return strings.Join(out, ", ")
}

func rangesOf(specs []portSpec) [][2]uint16 {
	var out [][2]uint16
	for _, s := range specs {
		out = append(out, [2]uint16{s.lo, s.hi})
	}
	return out
}

func familyWord(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// Change is one difference in effect between two policies.
type Change struct {
	Kind  string   `json:"kind"` // gains, loses or changes
	Who   string   `json:"who"`
	From  []string `json:"from"`
	Hosts []string `json:"hosts"`
	// Account is set when the change is about a login; AnyOther as in Access. Ports otherwise.
	Account string `json:"account,omitempty"`
	Ports   string `json:"ports,omitempty"`
	Family  string `json:"family,omitempty"` // IPv4 or IPv6, when it is only one of them
	Old     string `json:"old,omitempty"`    // of a login
	New     string `json:"new,omitempty"`
}

// Diff tells who gains and loses what when old is replaced by new, in effect on the people
// and machines of the directory, not in the text.
func Diff(old, new *Policy, d *Directory) []Change {
	all := classes(d, old, new)
	var out []Change
	for _, src := range all {
		for _, dst := range all {
			c := Change{Who: src.who(), From: src.names, Hosts: dst.names}
			out = append(out, diffLogins(old, new, src, dst, c)...)
			out = append(out, diffFlows(old, new, src, dst, c)...)
		}
	}
	return out
}

func diffLogins(old, new *Policy, src, dst *class, c Change) (out []Change) {
	if !old.ssh.reaches(&src.id, &dst.id) && !new.ssh.reaches(&src.id, &dst.id) {
		return nil
	}
	ask := accounts(src, dst, "", old, new)
	was, is := rights(old, src, dst, ask), rights(new, src, dst, ask)
	other := [2]string{was[anyOther], is[anyOther]}
	for _, u := range ask {
		a, b := was[u], is[u]
		// Told once, with the accounts that no rule names.
		if a == b || u != anyOther && u != "root" && [2]string{a, b} == other {
			continue
		}
		c := c
		c.Account, c.Old, c.New, c.Kind = string(u), a, b, "changes"
		switch {
		case a == "":
			c.Kind = "gains"
		case b == "":
			c.Kind = "loses"
		}
		out = append(out, c)
	}
	return out
}

// rights is what each account may be logged in to as, in words that differ when the rights do.
func rights(p *Policy, src, dst *class, ask []LocalUser) map[LocalUser]string {
	out := map[LocalUser]string{}
	for _, u := range ask {
		for _, l := range logins(p, src, dst, []LocalUser{u}) {
			out[u] = l.d.words()
		}
	}
	return out
}

// words is all that a decision gives, for people.
func (d Decision) words() string {
	w := d.Verdict.String()
	if d.Verdict == Check {
		w += " every " + shortDuration(d.CheckPeriod)
		if d.CheckPeriod == 0 {
			w = "check every time"
		}
	}
	if len(d.AcceptEnv) > 0 {
		w += ", variables " + strings.Join(d.AcceptEnv, " ")
	}
	if len(d.Recorder) > 0 {
		var tags []string
		for _, t := range d.Recorder {
			tags = append(tags, string(t))
		}
		w += ", recorder " + strings.Join(tags, " ")
		if d.EnforceRecorder {
			w += " enforced"
		}
	}
	if d.terms != nil && d.terms.words != "" {
		w += "; " + d.terms.words
	}
	return w
}

// shortDuration is 12h where String says 12h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func diffFlows(old, new *Policy, src, dst *class, c Change) (out []Change) {
	if len(dst.names) == 0 || !old.reaches(&src.id, &dst.id) && !new.reaches(&src.id, &dst.id) {
		return nil
	}
	var gained, lost [2]string
	for i, v4 := range []bool{true, false} {
		a, b := flows(old, src, dst, v4), flows(new, src, dst, v4)
		gained[i], lost[i] = b.minus(a).words(), a.minus(b).words()
	}
	add := func(kind string, w [2]string) {
		c := c
		c.Kind = kind
		two := len(src.id.Addrs) > 0 && len(dst.id.Addrs) > 0 && hasFamily(src, dst, true) && hasFamily(src, dst, false)
		if w[0] != "" && (w[0] == w[1] || !two || sameButPing(w)) {
			c.Ports = w[0]
			out = append(out, c)
			return
		}
		for i, v4 := range []bool{true, false} {
			if w[i] != "" {
				c := c
				c.Ports = w[i]
				if two {
					c.Family = familyWord(v4)
				}
				out = append(out, c)
			}
		}
	}
	add("gains", gained)
	add("loses", lost)
	return out
}

// sameButPing is for changes that are ping alone, which has another name in each family.
func sameButPing(w [2]string) bool {
	return w[0] == protoWord(protoICMP) && w[1] == protoWord(protoICMPv6)
}

func hasFamily(src, dst *class, v4 bool) bool {
	return slices.ContainsFunc(src.id.Addrs, func(a netip.Addr) bool { return a.Is4() == v4 }) &&
		slices.ContainsFunc(dst.id.Addrs, func(a netip.Addr) bool { return a.Is4() == v4 })
}

// String is the change in one line: + for a gain, - for a loss, ~ for another form of the same right.
func (c Change) String() string {
	mark := map[string]string{"gains": "+", "loses": "-", "changes": "~"}[c.Kind]
	who := mark + " " + plain(c.Who)
	if len(c.From) > 0 {
		who += " (" + Few(c.From) + ")"
	}
	on := Few(c.Hosts)
	if c.Account == "" {
		family := ""
		if c.Family != "" {
			family = ", " + c.Family + " only"
		}
		return fmt.Sprintf("%s: ports of %s: %s%s", who, on, c.Ports, family)
	}
	w := fmt.Sprintf("%s: login as %s on %s", who, AccountWords(c.Account), on)
	switch c.Kind {
	case "gains":
		return w + ": " + c.New
	case "loses":
		return w + ": was " + c.Old
	}
	return fmt.Sprintf("%s: %s -> %s", w, c.Old, c.New)
}

// AccountWords is the account of an Access or a Change for people.
func AccountWords(account string) string {
	if account == AnyOther {
		return "(any but root)"
	}
	return plain(account)
}

// Few is a list of names, shortened when it is long.
func Few(names []string) string {
	const shown = 4
	more := ""
	if len(names) > shown {
		more = fmt.Sprintf(" and %d more", len(names)-shown)
		names = names[:shown]
	}
	return plain(strings.Join(names, ",")) + more
}

// LockedOut names the machines that an administrator can log in to under old, and none
// under new.
func LockedOut(old, new *Policy, d *Directory) []string {
	return lockedOut(old, new, d, func(id *Identity) bool { return id.Role == RoleAdmin || id.Role == RoleOwner })
}

// LockedOutOf names the machines that the person can log in to under old, and not under new.
func LockedOutOf(old, new *Policy, d *Directory, person Login) []string {
	return lockedOut(old, new, d, func(id *Identity) bool { return id.User == person && !id.External })
}

func lockedOut(old, new *Policy, d *Directory, who func(*Identity) bool) []string {
	all := classes(d, old, new)
	var out []string
	for _, dst := range all {
		had, has := false, false
		for _, src := range all {
			if !who(&src.id) {
				continue
			}
			ask := accounts(src, dst, "", old, new)
			had = had || len(logins(old, src, dst, ask)) > 0
			has = has || len(logins(new, src, dst, ask)) > 0
		}
		if had && !has {
			out = append(out, dst.names...)
		}
	}
	slices.Sort(out)
	return out
}
