package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// manyRoots is how many people a rule may let in as root before lint asks about it.
const manyRoots = 10

// maxLooks bounds how often lint asks a rule about a pair; it takes some seconds then.
const maxLooks = 20_000_000

// Lint tells what is doubtful in a policy that loads: rules that decide nothing, rules that
// another one hides, root for many, tags that lead to root, names that nothing uses. All
// are warnings at their place in the file. A directory says who and what there is; without
// one the names in the file stand for people and machines.
func Lint(p *Policy, d *Directory, now time.Time) []Problem {
	r := newReport(p.name, p.text)
	l := &linter{report: r, p: p, d: d, real: d != nil, now: now}
	f := newFile(p.name, p.text)
	if v, ok := parseText(f.report, p.text); ok {
		f.readFile(v)
	}
	l.rules = f.net
	if !l.real {
		l.d = p.imagined(f)
	}
	l.all = classes(l.d, p)
	if pairs := len(l.all) * len(l.all); pairs*(len(l.rules)+len(p.ssh.rules)) <= maxLooks {
		l.logins()
		l.flows()
	} else {
		r.warnf(-1, "too many rules for so many people and machines: not looked for rules that decide nothing")
	}
	l.roots()
	l.escalation()
	l.recorders()
	l.unused(f)
	l.untested()
	l.terms()
	return r.sorted()
}

type linter struct {
	*report
	p     *Policy
	d     *Directory
	real  bool // the directory is the mesh's, not made from the file
	rules []netRule
	all   []*class
	now   time.Time
}

// imagined is a directory of everybody that the file names, two machines each, one machine
// for each tag, and a stranger.
func (p *Policy) imagined(f *file) *Directory {
	logins := map[Login]bool{"somebody@else.invalid": true}
	see := func(sels []selector) {
		for _, s := range sels {
			switch s.kind {
			case selLogin:
				logins[s.login] = true
			case selGroup:
				for _, m := range s.group.members[:min(len(s.group.members), 50)] {
					logins[m] = true
				}
			case selDomain:
				logins[Login("somebody@"+s.domain)] = true
			}
		}
	}
	for i := range f.net {
		see(f.net[i].src)
		see(f.net[i].dst)
	}
	for i := range p.ssh.rules {
		see(p.ssh.rules[i].src)
		see(p.ssh.rules[i].dst)
	}
	var users []DirectoryUser
	var nodes []DirectoryNode
	for _, login := range sortedKeys(logins) {
		users = append(users, DirectoryUser{Login: login})
		nodes = append(nodes, DirectoryNode{Name: string(login), User: login}, DirectoryNode{Name: string(login) + " 2", User: login})
	}
	for _, role := range roles {
		login := Login(string(role) + "@role.invalid")
		users = append(users, DirectoryUser{login, role})
		nodes = append(nodes, DirectoryNode{Name: string(login), User: login})
	}
	for _, tag := range sortedKeys(p.names.tags) {
		nodes = append(nodes, DirectoryNode{Name: string(tag), Tags: []Tag{tag}})
	}
	d, err := NewDirectory(users, nodes)
	if err != nil {
		d, _ = NewDirectory(nil, nil) // the names of the file passed the same checks: cannot be
	}
	return d
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// logins looks for ssh rules that never decide.
func (l *linter) logins() {
	n := len(l.p.ssh.rules)
	ends, decides, hidden, noNet := make([]bool, n), make([]bool, n), make([]int, n), make([]bool, n)
	for i := range hidden {
		hidden[i] = -1
	}
	for _, src := range l.all {
		for _, dst := range l.all {
			if len(dst.names) == 0 || !l.p.ssh.reaches(&src.id, &dst.id) {
				continue
			}
			ask := accounts(src, dst, "", l.p)
			for i := range l.p.ssh.rules {
				r := &l.p.ssh.rules[i]
				for _, u := range ask {
					uid0 := u == "root"
					if uid, known := dst.local[string(u)]; known {
						uid0 = uid == 0
					}
					q := asked{account: u, uid0: uid0, anyTime: true}
					s := r.explain(&src.id, &dst.id, &q)
					ends[i] = ends[i] || s.Near()
					if s.Failed != "" {
						continue
					}
					if j := l.before(i, src, dst, &q); j >= 0 {
						hidden[i] = j
						continue
					}
					if len(logins(l.p, src, dst, []LocalUser{u})) > 0 {
						decides[i] = true
					} else {
						noNet[i] = true
					}
				}
			}
		}
	}
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		rule := fmt.Sprintf("ssh[%d]", r.index)
		switch {
		case decides[i]:
		case noNet[i]:
			l.warnf(r.off, "%s lets nobody in: no acl or grant allows TCP port 22 between its src and its dst", rule)
		case hidden[i] >= 0:
			other := &l.p.ssh.rules[hidden[i]]
			why := ""
			if kinds := [...]string{"check", "accept", "request", "break-glass"}; other.rank() < r.rank() {
				why = fmt.Sprintf("; %s rules are asked before %s rules", kinds[other.rank()], kinds[r.rank()])
			}
			l.warnf(r.off, "%s never decides: ssh[%d] on line %d is asked first and has the same logins%s", rule, other.index, l.p.line(other.off), why)
		case ends[i]:
			l.warnf(r.off, "%s never matches: nobody has the posture or the account it asks for", rule)
		case l.real:
			l.warnf(r.off, "%s never matches: the mesh has nobody for its src and its dst", rule)
		}
	}
}

// before gives a rule that takes the login away from rule i at all times, or -1. One that
// counts at some times only does not, nor does any from a rule for when the glass is broken.
func (l *linter) before(i int, src, dst *class, q *asked) int {
	if l.p.ssh.rules[i].terms.BreakGlass {
		return -1
	}
	for j := range l.p.ssh.rules[:i] {
		r := &l.p.ssh.rules[j]
		if !r.terms.timed() && r.explain(&src.id, &dst.id, q).Failed == "" {
			return j
		}
	}
	return -1
}

// maxPairs bounds how many pairs of people and machines NoWay looks at.
const maxPairs = 250_000

// NoWay warns of ssh rules whose logins no network rule lets through to TCP port 22, on the
// people and machines of the directory: the login needs both, and each alone looks right.
func NoWay(p *Policy, d *Directory) []Problem {
	r := newReport(p.name, p.text)
	all := classes(d, p)
	named, through := make([]bool, len(p.ssh.rules)), make([]bool, len(p.ssh.rules))
	looked := 0
	for _, src := range all {
		for _, dst := range all {
			if len(dst.names) == 0 || len(src.names) == 0 || !p.ssh.reaches(&src.id, &dst.id) {
				continue
			}
			if looked++; looked > maxPairs {
				return nil
			}
			open := src.src4.addr.IsValid() && dst.src4.addr.IsValid() && p.net.find(&src.src4, &dst.src4, protoTCP, 22) >= 0 ||
				src.src6.addr.IsValid() && dst.src6.addr.IsValid() && p.net.find(&src.src6, &dst.src6, protoTCP, 22) >= 0
			from := party{id: &src.id, own: true, mesh: true}
			to := party{id: &dst.id, own: true, mesh: true}
			for i := range p.ssh.rules {
				rule := &p.ssh.rules[i]
				if through[i] {
					continue
				}
				_, ok := namedBy(rule.src, &from)
				_, tagged := namedBy(tagsOf(rule.dst), &to)
				if ok && (tagged || rule.own && sameOwner(&src.id, &dst.id)) {
					named[i], through[i] = true, open
				}
			}
		}
	}
	for i := range p.ssh.rules {
		if named[i] && !through[i] {
			r.warnf(p.ssh.rules[i].off, "ssh[%d] lets nobody in: no acl or grant allows TCP port 22 between its src and its dst", p.ssh.rules[i].index)
		}
	}
	return r.sorted()
}

// flows looks for network rules that allow nothing, or nothing that an earlier one does not.
func (l *linter) flows() {
	type seen struct {
		off            int
		matches, alone bool
	}
	var order []string
	found := map[string]*seen{}
	for i := range l.rules {
		r := &l.rules[i]
		if r.section == "" {
			return
		}
		key := fmt.Sprintf("%s[%d]", r.section, r.rule)
		if found[key] == nil {
			found[key] = &seen{off: r.off}
			order = append(order, key)
		}
		f := found[key]
		if f.alone || slices.ContainsFunc(r.dst, func(s selector) bool { return s.kind == selInternet }) || l.addresses(r) && !l.real {
			f.matches, f.alone = true, true // about the world outside, which no directory holds
			continue
		}
		for _, src := range l.all {
			for _, dst := range l.all {
				if len(dst.names) == 0 || f.alone {
					continue
				}
				l.flow(i, src, dst, &f.matches, &f.alone)
			}
		}
	}
	for _, key := range order {
		switch f := found[key]; {
		case !f.matches && l.real:
			l.warnf(f.off, "%s never matches: the mesh has nothing for its src and its dst", key)
		case f.matches && !f.alone:
			l.warnf(f.off, "%s adds nothing: rules before it allow all that it does", key)
		}
	}
}

// addresses reports whether the rule names networks, which may lie behind any machine.
func (l *linter) addresses(r *netRule) bool {
	byAddr := func(s selector) bool { return s.kind == selAddr || s.kind == selIPSet || s.kind == selShared }
	return slices.ContainsFunc(r.src, byAddr) || slices.ContainsFunc(r.dst, byAddr) || len(r.via) > 0
}

// flow asks whether rule i matches the pair, and whether it allows something that no rule
// before it does.
func (l *linter) flow(i int, src, dst *class, matches, alone *bool) {
	for _, v4 := range []bool{true, false} {
		s, d := src.src4, dst.src4
		if !v4 {
			s, d = src.src6, dst.src6
		}
		if len(src.id.Addrs) > 0 && !s.addr.IsValid() || len(dst.id.Addrs) > 0 && !d.addr.IsValid() {
			continue
		}
		for _, spec := range l.rules[i].ports {
			proto := spec.proto
			if proto == 0 {
				proto = protoTCP
			}
			// Its first port, its last, and the ones beside what earlier rules have.
			for _, port := range l.edges(i, spec) {
				if l.rules[i].explain(&s, &d, proto, port).Failed != "" {
					continue
				}
				*matches = true
				if l.p.net.find(&s, &d, proto, port) == i {
					*alone = true
					return
				}
			}
		}
		// Networks behind the machines are not asked about one by one.
		if len(dst.id.Routes) > 0 || len(src.id.Routes) > 0 || dst.id.Exit {
			*matches, *alone = true, true
		}
	}
}

// edges are the ports at which what rule i allows in spec can begin to be its own.
func (l *linter) edges(i int, spec portSpec) []uint16 {
	out := []uint16{max(spec.lo, 1), spec.hi}
	for j := range l.rules[:i] {
		for _, s := range l.rules[j].ports {
			if s.hi < 65535 && s.hi+1 >= spec.lo && s.hi+1 <= spec.hi {
				out = append(out, s.hi+1)
			}
			if s.lo > 1 && s.lo-1 >= spec.lo && s.lo-1 <= spec.hi {
				out = append(out, s.lo-1)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// roots looks for rules that let many in as root.
func (l *linter) roots() {
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		if !r.users.root || r.check || r.request || r.terms.BreakGlass || r.own && len(tagsOf(r.dst)) == 0 {
			continue // one's own devices are one's own
		}
		for _, s := range r.src {
			n := 0
			switch s.kind {
			case selGroup:
				n = len(s.group.members)
			case selMember, selDomain:
				l.warnf(s.word.off, "ssh[%d] makes everybody in %s root, without a check", r.index, s.word.text)
			case selTagged:
				l.warnf(s.word.off, "ssh[%d] makes every tagged machine root", r.index)
			}
			if n > manyRoots {
				l.warnf(s.word.off, "ssh[%d] makes the %d people of %s root, without a check", r.index, n, s.word.text)
			}
		}
	}
}

// escalation looks for tags by which their owners become root: who may put a tag on a
// machine has whatever the tag may.
func (l *linter) escalation() {
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		if !r.users.root {
			continue
		}
		for _, s := range r.src {
			if s.kind != selTag {
				continue
			}
			owner := l.p.tagOwners[l.p.names.tags[s.tag]]
			var more []string
			for _, o := range owner.who {
				if (o.kind == selMember || o.kind == selGroup || o.kind == selLogin) && !slices.ContainsFunc(r.src, func(x selector) bool { return x.word.text == o.word.text }) {
					more = append(more, o.word.text)
				}
			}
			if len(more) > 0 {
				l.warnf(s.word.off, "ssh[%d]: %s may put %s on a machine of their own and is root there by it", r.index, strings.Join(more[:min(len(more), maxNamed)], ", "), s.tag)
			}
		}
	}
}

// unused tells names that are defined and used nowhere, groups without members and, with a
// directory, logins that the mesh does not have.
func (l *linter) unused(f *file) {
	l.strangers(f)
	text := string(l.p.text)
	used := func(quoted string) bool { return strings.Count(text, quoted) > 1 }
	for _, name := range sortedKeys(l.p.names.groups) {
		g := l.p.names.groups[name]
		switch {
		case len(g.members) == 0:
			l.warnf(g.off, "%s has no members", name)
		case !used(name):
			l.warnf(g.off, "%s is used nowhere", name)
		}
		if !l.real {
			continue
		}
		for _, m := range g.members {
			if _, ok := l.d.roles[m]; !ok {
				l.warnf(g.off, "%s: the mesh has nobody called %s", name, m)
			}
		}
	}
	for _, t := range l.p.tagOwners {
		if !used(string(t.tag)) {
			off := strings.Index(text, string(t.tag))
			l.warnf(off, "%s is used nowhere", t.tag)
		}
	}
	for _, name := range slices.Concat(sortedKeys(l.p.names.ipsets), sortedKeys(f.postures)) {
		if !used(name) {
			l.warnf(strings.Index(text, name), "%s is used nowhere", name)
		}
	}
	for _, name := range sortedKeys(l.p.names.hosts) {
		if !used(name) {
			l.warnf(strings.Index(text, `"`+name+`"`), "hosts: %q is used nowhere", name)
		}
	}
}

// untested asks for a test where root is at stake.
func (l *linter) untested() {
	told := map[string]bool{}
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		if !r.users.root || len(tagsOf(r.dst)) == 0 {
			continue
		}
		for _, s := range tagsOf(r.dst) {
			tested := slices.ContainsFunc(l.p.sshTests, func(t sshTest) bool {
				return slices.ContainsFunc(t.dst, func(d selector) bool { return d.word.text == s.word.text }) &&
					slices.ContainsFunc(t.deny, func(w word) bool { return w.text == "root" })
			})
			if !tested && !told[s.word.text] {
				told[s.word.text] = true
				l.warnf(s.word.off, "ssh[%d] gives root on %s, and no entry of sshTests says who must not have it", r.index, s.word.text)
			}
		}
	}
}
