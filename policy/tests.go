package policy

import (
	"fmt"
	"maps"
	"strings"
)

// RunTests runs the tests and sshTests of the file and gives what failed. They are about
// identities: a login or a tag needs no machine. The directory, which may be nil, adds
// roles and the machines that tests name by address.
func RunTests(p *Policy, d *Directory) []Problem {
	if p == nil {
		return nil
	}
	r := newReport(p.name, p.text)
	t := tester{p: p, d: d, report: r}
	if d != nil {
		for _, w := range p.names.domains {
			if !d.hasDomain(w.text) {
				r.errorf(w.off, "%s is not associated with this Tailnet and cannot be used in user:*@<domain> expressions: nobody here has a login of that domain", w.text)
			}
		}
	}
	for i := range p.netTests {
		t.net(&p.netTests[i])
	}
	for i := range p.sshTests {
		t.ssh(&p.sshTests[i])
	}
	return r.sorted()
}

type tester struct {
	*report
	p *Policy
	d *Directory
}

// subject is one party of a test and the name it has there.
type subject struct {
	party
	name string
}

// subjects gives whom a selector of a test stands for.
func (t *tester) subjects(s selector, attrs map[string]string, dst bool) []subject {
	person := func(l Login) subject {
		id := &Identity{ID: "test", Name: string(l), User: l, Role: t.d.Role(l), Attributes: attrs}
		return subject{party{id: id, own: true, mesh: true}, string(l)}
	}
	switch s.kind {
	case selLogin:
		return []subject{person(s.login)}
	case selGroup:
		out := make([]subject, 0, len(s.group.members))
		for _, l := range s.group.members {
			out = append(out, person(l))
		}
		return out
	case selTag:
		id := &Identity{ID: "test", Name: string(s.tag), Tags: []Tag{s.tag}, Attributes: attrs}
		return []subject{{party{id: id, own: true, mesh: true}, string(s.tag)}}
	case selAddr:
		var out []subject
		for _, p := range t.d.parties(s.addr(), dst) {
			id := Identity{}
			if p.id != nil {
				id = *p.id
			}
			if attrs != nil {
				merged := maps.Clone(attrs)
				for k, v := range id.Attributes {
					if _, given := merged[k]; !given {
						merged[k] = v
					}
				}
				id.Attributes = merged
			}
			p.id = &id
			out = append(out, subject{p, s.word.text})
		}
		return out
	}
	return nil
}

func (t *tester) net(test *netTest) {
	srcs := t.subjects(test.src, test.attrs, false)
	if len(srcs) == 0 {
		t.warnf(test.off, "%s: %q has no members, the test says nothing", test.what, test.src.word.text)
	}
	for _, src := range srcs {
		for _, target := range test.accept {
			if !t.reached(src, target, test.protos) {
				t.errorf(target.word.off, "%s: %s must reach %s, and no rule allows it", test.what, src.name, target.word.text)
			}
		}
		for _, target := range test.deny {
			if t.reachedAny(src, target, test.protos) {
				t.errorf(target.word.off, "%s: %s must not reach %s, and %s allows it", test.what, src.name, target.word.text, t.why(src, target, test.protos))
			}
		}
	}
}

// dsts gives the ends of a destination; self is another device of the source's person.
func (t *tester) dsts(src subject, target netTarget) []subject {
	if target.dst.kind == selSelf {
		if src.id == nil || src.id.User == "" {
			return nil
		}
		return []subject{{party{id: src.id, own: true, mesh: true}, src.name}}
	}
	return t.subjects(target.dst, nil, true)
}

// reached reports whether the source reaches every end of the destination. Of several
// routers for one address any is enough.
func (t *tester) reached(src subject, target netTarget, protos []uint8) bool {
	dsts := t.dsts(src, target)
	if target.dst.kind == selAddr {
		return t.reachedAny(src, target, protos)
	}
	for _, d := range dsts {
		if !t.allows(src, d, protos, target.port) {
			return false
		}
	}
	return len(dsts) > 0
}

func (t *tester) reachedAny(src subject, target netTarget, protos []uint8) bool {
	for _, d := range t.dsts(src, target) {
		if t.allows(src, d, protos, target.port) {
			return true
		}
	}
	return false
}

func (t *tester) allows(src, dst subject, protos []uint8, port uint16) bool {
	for _, n := range protos {
		if t.p.net.find(&src.party, &dst.party, n, port) >= 0 {
			return true
		}
	}
	return false
}

func (t *tester) why(src subject, target netTarget, protos []uint8) string {
	for _, d := range t.dsts(src, target) {
		for _, n := range protos {
			if dec := t.p.decideNet(&src.party, &d.party, n, target.port); dec.Allow {
				return strings.TrimSuffix(dec.Reason, ":")
			}
		}
	}
	return "a rule"
}

func (t *tester) ssh(test *sshTest) {
	srcs := t.subjects(test.src, test.attrs, false)
	if len(srcs) == 0 {
		t.warnf(test.off, "%s: %q has no members, the test says nothing", test.what, test.src.word.text)
	}
	for _, src := range srcs {
		if test.src.kind == selAddr && !t.machine(test, test.src, src) {
			continue
		}
		for _, d := range test.dst {
			for _, dst := range t.subjects(d, nil, true) {
				if d.kind == selAddr && !t.machine(test, d, dst) {
					continue
				}
				t.logins(test, src, dst)
			}
		}
	}
}

// machine wants an address to be a machine's: ssh rules know no addresses.
func (t *tester) machine(test *sshTest, s selector, who subject) bool {
	if who.own {
		return true
	}
	if t.d == nil {
		t.warnf(s.word.off, "%s: whose address %q is cannot be known without a directory, not tested", test.what, s.word.text)
	} else {
		t.errorf(s.word.off, "%s: %q is no machine of the directory", test.what, s.word.text)
	}
	return false
}

func (t *tester) logins(test *sshTest, src, dst subject) {
	want := func(ws []word, want Verdict, must string) {
		for _, w := range ws {
			r := Request{Ask: AskLogin, Src: *src.id, Dst: *dst.id, User: LocalUser(w.text), UIDUnknown: true, SSHOnly: true, AnyTime: test.at.IsZero(), Now: test.at}
			d := Evaluate(t.p, r)
			if d.Verdict == want {
				continue
			}
			found := "no ssh rule allows it"
			if d.Verdict != Deny {
				found = fmt.Sprintf("%s says %s", d.Reason, d.Verdict)
			}
			t.errorf(w.off, "%s: %s must %s as %s on %s, and %s", test.what, src.name, must, w.text, dst.name, found)
		}
	}
	want(test.accept, Accept, "log in without a check")
	want(test.check, Check, "be checked before logging in")
	want(test.request, Approval, "need approval to log in")
	want(test.deny, Deny, "not log in")
}

// TestCount is how many entries tests and sshTests have.
func (p *Policy) TestCount() (net, ssh int) { return len(p.netTests), len(p.sshTests) }
