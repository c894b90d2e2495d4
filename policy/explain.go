package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Trace is a decision and every rule that was looked at for it, in the order of asking.
type Trace struct {
	Verdict string `json:"verdict"` // accept, check, request, deny; of flows: allow, deny
	Reason  string `json:"reason"`
	Say     string `json:"say,omitempty"` // what the person is told
	// At is the time that was asked about; without it hours count as open, and Timed says
	// that this made a difference to a rule that is about both ends.
	At     *time.Time `json:"at,omitempty"`
	Ends   *time.Time `json:"ends,omitempty"` // when the deciding rule stops to count
	Timed  bool       `json:"timed,omitempty"`
	Logins []Step     `json:"logins,omitempty"`
	// Network is about the flow, or about TCP port 22 when a login was asked about.
	Network []Step `json:"network"`
}

// Step is one rule and what it made of the request.
type Step struct {
	Section string `json:"section"`
	Rule    int    `json:"rule"`
	Line    int    `json:"line"` // of the file
	// Failed is the first condition that did not hold: src, dst, posture, users, hours, ports
	// or via. It is empty when the rule matched.
	Failed  string `json:"failed,omitempty"`
	Why     string `json:"why"`
	Decides bool   `json:"decides,omitempty"`
}

// Near reports whether both ends matched, so that the rule is worth a person's look.
func (s Step) Near() bool { return s.Failed != "src" && s.Failed != "dst" }

// Explain decides about a login as Evaluate does, and tells how each rule was judged. It
// reads the file again and goes through it rule by rule, so it is slow, meant for people,
// and independent of the tables that decide.
func Explain(p *Policy, r Request) Trace {
	r.Ask = AskLogin
	d := Evaluate(p, r)
	t := Trace{Verdict: d.Verdict.String(), Reason: d.Reason, Say: d.Sentence(r)}
	if !r.AnyTime && !r.Now.IsZero() {
		t.At = &r.Now
		if !d.Ends.IsZero() {
			ends := d.Ends.In(r.Now.Location())
			t.Ends = &ends
		}
	}
	if p == nil || !r.Src.Valid() || !r.Dst.Valid() {
		return t
	}
	src, ok := at(&r.Src, r.SrcAddr, false)
	if !ok || !src.own {
		return t
	}
	uid0 := r.UID == 0
	if r.UIDUnknown {
		uid0 = r.User == "root"
	}
	for i := range p.ssh.rules {
		rule := &p.ssh.rules[i]
		s := rule.explain(&r.Src, &r.Dst, &asked{account: r.User, uid0: uid0, now: r.Now, anyTime: r.AnyTime, glass: r.BreakGlass})
		s.Line = p.line(rule.off)
		t.Timed = t.Timed || r.AnyTime && s.Near() && rule.terms.timed()
		s.Decides = s.Failed == "" && d.Section == "ssh" && d.Rule == rule.index
		t.Logins = append(t.Logins, s)
	}
	if dst, ok := at(&r.Dst, r.dialled(src.addr), true); ok && !r.SSHOnly {
		t.Network = p.explainNet(&src, &dst, protoTCP, 22)
	}
	return t
}

// ExplainNet is Explain for one flow.
func ExplainNet(p *Policy, r NetRequest) Trace {
	d := EvaluateNet(p, r)
	t := Trace{Verdict: "deny", Reason: d.Reason}
	if d.Allow {
		t.Verdict = "allow"
	}
	if p == nil || !r.Src.Valid() || !r.Dst.Valid() {
		return t
	}
	src, okS := at(&r.Src, r.SrcAddr, false)
	dst, okD := at(&r.Dst, r.DstAddr, true)
	if okS && okD {
		t.Network = p.explainNet(&src, &dst, r.Proto, r.Port)
	}
	return t
}

// line is the line of an offset in the file.
func (p *Policy) line(off int) int {
	line, _ := newReport(p.name, p.text).place(off)
	return line
}

// explain goes through the conditions in the order of find.
func (r *sshRule) explain(src, dst *Identity, q *asked) Step {
	s := Step{Section: "ssh", Rule: r.index}
	from := party{id: src, own: true, mesh: true}
	to := party{id: dst, own: true, mesh: true}
	hit, ok := namedBy(r.src, &from)
	if !ok {
		s.Failed, s.Why = "src", notNamed("the source", src.Who(), r.src)
		return s
	}
	toHit, ok := namedBy(tagsOf(r.dst), &to)
	switch {
	case ok:
	case r.own && sameOwner(src, dst):
		toHit = "one person's devices"
	case r.own && src.User != "" && dst.User != "":
		s.Failed, s.Why = "dst", "the host is another person's device, and nobody logs in there"
		return s
	default:
		s.Failed, s.Why = "dst", notNamed("the host", dst.Who(), r.dst)
		return s
	}
	if why := missingPosture(r.posture, src); why != "" {
		s.Failed, s.Why = "posture", why
		return s
	}
	if !r.users.match(q.account, q.uid0, src) {
		s.Failed, s.Why = "users", r.users.explain(q.account, q.uid0, src)
		return s
	}
	if _, ok := r.terms.holds(q.now); !ok && !q.anyTime {
		s.Failed, s.Why = "hours", "the rule does not count at this time: "+r.terms.times()
		return s
	}
	if q.glass && !r.terms.BreakGlass {
		s.Failed, s.Why = "breakGlass", "the rule is not one for when recorder or hub are away"
		return s
	}
	s.Why = fmt.Sprintf("%s is %s, %s is %s, and users has the account", plain(src.Who()), hit, plain(dst.Name), toHit)
	if r.terms.words != "" {
		s.Why += "; " + r.terms.words
	}
	return s
}

// explain says why the account is not let in.
func (u *users) explain(account LocalUser, uid0 bool, src *Identity) string {
	named := slices.Contains(u.names, account)
	who := plain(string(account))
	switch {
	case uid0 && u.root && !named:
		return who + " has uid 0, so users must have both \"root\" and its own name"
	case uid0 && named:
		return who + " has uid 0, so users must have \"root\" beside its own name"
	case uid0:
		return who + " is root (uid 0), which only \"root\" written in users lets in"
	case len(u.domains) > 0 && src.User == "":
		return who + " is not in users; localpart: needs a person, and the source is a tagged machine"
	case len(u.domains) > 0:
		return who + " is not in users; localpart: lets " + plain(string(src.User)) + " in as the part before the @ only, and only from its domains"
	}
	return who + " is not in users"
}

// missingPosture says which assertion did not hold, "" when the posture is shown or none is asked for.
func missingPosture(ps []*posture, src *Identity) string {
	if len(ps) == 0 || src != nil && anyPosture(ps, src.Attributes) {
		return ""
	}
	if src == nil {
		return "the source is no node, so it shows no posture"
	}
	var out []string
	for _, p := range ps {
		for i := range p.assertions {
			if a := &p.assertions[i]; !a.holds(src.Attributes) {
				have := "not set"
				if v, ok := src.Attributes[a.attribute]; ok {
					have = fmt.Sprintf("%q", plain(v))
				}
				out = append(out, fmt.Sprintf("%s: %s is %s", p.name, a.attribute, have))
				break
			}
		}
	}
	if len(out) == 0 {
		return "the posture has no assertions and never holds"
	}
	return strings.Join(out, "; ")
}

// explainNet goes through acls and grants. The selectors are read from the file again:
// the tables keep only what decides quickly.
func (p *Policy) explainNet(src, dst *party, proto uint8, port uint16) []Step {
	rules := p.netRules()
	decides := p.net.find(src, dst, proto, port)
	var out []Step
	for i := range rules {
		r := &rules[i]
		s := r.explain(src, dst, proto, port)
		s.Line = p.line(r.off)
		s.Decides = i == decides
		// The parts of one acl are told as one: the best of them.
		if n := len(out) - 1; n >= 0 && out[n].Section == s.Section && out[n].Rule == s.Rule {
			if farther(out[n], s) {
				out[n] = s
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

var conditions = []string{"src", "dst", "via", "posture", "ports", ""}

// farther reports whether b got farther than a before it failed.
func farther(a, b Step) bool {
	if a.Decides != b.Decides {
		return b.Decides
	}
	return slices.Index(conditions, b.Failed) > slices.Index(conditions, a.Failed)
}

func (r *netRule) explain(src, dst *party, proto uint8, port uint16) Step {
	s := Step{Section: r.section, Rule: r.rule}
	whose := func(p *party) string {
		if p.own && p.id != nil {
			return p.id.Who()
		}
		return p.addr.String()
	}
	hit, ok := namedBy(r.src, src)
	if !ok {
		s.Failed, s.Why = "src", notNamed("the source", whose(src), r.src)
		return s
	}
	toHit, ok := namedBy(r.dst, dst)
	if !ok && src.own && dst.own && sameOwner(src.id, dst.id) && slices.ContainsFunc(r.dst, func(s selector) bool { return s.kind == selSelf }) {
		toHit, ok = "autogroup:self", true
	}
	if !ok {
		s.Failed, s.Why = "dst", notNamed("the destination", whose(dst), r.dst)
		return s
	}
	if !(&netRule{via: r.via}).holds(src, dst) {
		s.Failed, s.Why = "via", "via serves routes behind nodes with one of its tags, never a node's own addresses"
		return s
	}
	if why := missingPosture(r.posture, src.id); why != "" {
		s.Failed, s.Why = "posture", why
		return s
	}
	if !anyCovers(r.ports, proto, port) {
		s.Failed, s.Why = "ports", "the rule is for "+portWords(r.ports)
		return s
	}
	end := whose(dst)
	if dst.own && dst.id != nil {
		end = dst.id.Name
	}
	s.Why = fmt.Sprintf("%s is %s, %s is %s, and the port is among %s", plain(whose(src)), hit, plain(end), toHit, portWords(r.ports))
	return s
}

// netRules are the rules as the file has them, selectors and all, in the order of the table.
func (p *Policy) netRules() []netRule {
	f := newFile(p.name, p.text)
	if v, ok := parseText(f.report, p.text); ok {
		f.readFile(v)
	}
	return f.net
}

// namedBy gives the first selector that names the party.
func namedBy(sels []selector, p *party) (string, bool) {
	for i := range sels {
		if sels[i].names(p) {
			if sels[i].word.text == "" { // of the rule that stands for no section at all
				return "*", true
			}
			return sels[i].word.text, true
		}
	}
	return "", false
}

// names reports whether the selector alone names the party: the plain meaning of what side
// keeps in tables. autogroup:self is a relation of both ends and not answered here.
func (s *selector) names(p *party) bool {
	id := p.id
	node := p.own && id != nil
	person := node && !id.External && id.User != ""
	switch s.kind {
	case selAny:
		return p.mesh
	case selWorld:
		return true
	case selLogin:
		return node && id.User == s.login
	case selGroup:
		return node && id.User != "" && slices.Contains(s.group.members, id.User)
	case selDomain:
		return person && domainOf(id.User) == s.domain
	case selMember:
		return person
	case selRole:
		return person && id.Role == s.role
	case selTag:
		return node && !id.External && slices.Contains(id.Tags, s.tag)
	case selTagged:
		return node && !id.External && len(id.Tags) > 0
	case selShared:
		return node && id.External
	case selInternet:
		return p.public
	case selAddr, selIPSet:
		for _, r := range s.ranges {
			if p.addr.IsValid() && r.Contains(p.addr) {
				return true
			}
		}
	}
	return false
}

// maxNamed bounds how much of a long list a sentence shows.
const maxNamed = 5

func notNamed(end, who string, sels []selector) string {
	var list []string
	for _, s := range sels {
		list = append(list, s.word.text)
	}
	more := ""
	if len(list) > maxNamed {
		more = fmt.Sprintf(" and %d more", len(list)-maxNamed)
		list = list[:maxNamed]
	}
	return fmt.Sprintf("%s %s is not %s%s", end, plain(who), strings.Join(list, ", "), more)
}
