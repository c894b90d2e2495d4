package policy

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Policy is one policy file, parsed and compiled. It never changes; any number of
// goroutines may ask it.
type Policy struct {
	name      string
	text      []byte
	warnings  []Problem
	names     *names
	net       *netTable
	ssh       *sshTable
	hasSSH    bool
	tagOwners []tagOwner
	approvers []approver
	exit      *approver // of exit nodes; nil when none is written
	netTests  []netTest
	sshTests  []sshTest
	sealTo    []string
	sealAt    int
}

// Text is the file as it was parsed.
func (p *Policy) Text() []byte { return slices.Clone(p.text) }

// Warnings is what is doubtful in the file but does not keep it from loading.
func (p *Policy) Warnings() []Problem { return slices.Clone(p.warnings) }

// Evaluate decides about a request. It is pure: equal arguments give equal decisions. A nil policy, the zero
// Request, and anything not understood deny.
func Evaluate(p *Policy, r Request) Decision {
	no := func(reason, say string) Decision { return Decision{Rule: -1, Reason: reason, Say: say} }
	switch {
	case p == nil:
		return no("no-policy: there is no policy yet", "this host has no policy yet, so nobody may log in")
	case !r.Src.Valid():
		return no("no-identity: the source is not a node of this mesh", "this mesh does not know who you are")
	case !r.Dst.Valid():
		return no("no-identity: the destination is not a node of this mesh", "this host is not a node of a mesh")
	case r.Ask >= AskWatch && r.Ask <= AskDelete:
		return p.over(&r)
	case r.Ask == AskNothing || r.Ask > AskDelete:
		return no("no-ask: the request asks for nothing that is known", "this is not offered")
	}
	d := p.login(&r)
	if d.Verdict == Deny || r.Ask == AskLogin {
		return d
	}
	if ok, say := d.Allows(r.Ask, r.Target); !ok {
		return Decision{Rule: d.Rule, Section: d.Section, Reason: "not-permitted: " + d.Reason + " has the login, and does not permit what is asked", Say: say}
	}
	return d
}

// login decides whether Src may be in on Dst as User. It does not allocate.
func (p *Policy) login(r *Request) Decision {
	src, ok := at(&r.Src, r.SrcAddr, false)
	if !ok || !src.own {
		return Decision{Rule: -1, Reason: "no-identity: the source address is not the node's own", Say: "this mesh does not know who you are"}
	}
	if r.User == "" {
		return Decision{Rule: -1, Reason: "no-login: no account was named", lacks: lacksRule}
	}
	if !p.hasSSH {
		return Decision{Rule: -1, Reason: "no-section: the policy has no ssh section, so nobody may log in", lacks: lacksRule}
	}
	uid0 := r.UID == 0
	if r.UIDUnknown {
		uid0 = r.User == "root"
	}
	i, missing := p.ssh.find(&r.Src, &r.Dst, &asked{account: r.User, uid0: uid0, now: r.Now, anyTime: r.AnyTime, glass: r.BreakGlass})
	if i < 0 {
		switch missing {
		case missUser:
			return Decision{Rule: -1, Reason: "no-login: ssh rules reach this host from this source, but none for this account", lacks: lacksRule}
		case missHours:
			return Decision{Rule: -1, Reason: "no-hours: ssh rules would allow this, but not at this time", lacks: lacksTime}
		case missPosture:
			return Decision{Rule: -1, Reason: "no-posture: ssh rules would allow this, but the source does not show the posture they ask for", lacks: lacksRule}
		}
		return Decision{Rule: -1, Reason: "no-rule: no ssh rule has this source and this destination", lacks: lacksRule}
	}
	rule := &p.ssh.rules[i]
	if !r.SSHOnly {
		dst, ok := at(&r.Dst, r.dialled(src.addr), true)
		if !ok || p.net.find(&src, &dst, protoTCP, 22) < 0 {
			return Decision{Rule: -1, Reason: rule.noWay, lacks: lacksNetwork}
		}
	}
	d := Decision{
		Verdict: Accept, Rule: rule.index, Section: "ssh", Reason: rule.reason,
		AcceptEnv: rule.acceptEnv, Recorder: rule.recorder, EnforceRecorder: rule.enforceRecorder,
	}
	d.terms = rule.terms
	d.Ends, _ = rule.terms.holds(r.Now)
	switch {
	case rule.request:
		d.Verdict = Approval
		d.Say = "this login needs somebody to approve it, which this host cannot ask for yet"
	case rule.check:
		d.Verdict, d.CheckPeriod = Check, rule.period
		d.Say = "this login needs a check, which this host cannot do yet"
	}
	return d
}

// lack is what a denied login misses, for Sentence.
type lack uint8

const (
	lacksNothing lack = iota
	lacksRule
	lacksTime
	lacksNetwork
)

// Sentence is what the person who asked r is told of the decision: Say, or of a login
// that is denied a sentence with their own name in it. It is made here, and not with each
// decision, since most are never told to anybody.
func (d Decision) Sentence(r Request) string {
	switch {
	case d.Say != "" || d.Verdict != Deny || d.lacks == lacksNothing:
		return d.Say
	case d.lacks == lacksNetwork:
		return "no network rule lets you reach port 22 of " + plain(r.Dst.Name)
	}
	say := "policy does not let " + plain(r.Src.Who()) + " log in as " + plain(string(r.User)) + " on " + plain(r.Dst.Name)
	if d.lacks == lacksTime {
		say += " at this time"
	}
	return say
}

// over decides who may watch, join or end a session: the person whose it is, and those
// whom the rule of the session names. Where it names nobody, that is the roles whose duty
// it is. The rule is the one that has the login now, at whatever time of the day. Deleting
// is different: nobody deletes what was recorded of themselves, and without a list nobody
// does here at all (an administrator does, on the hub itself).
func (p *Policy) over(r *Request) Decision {
	v := &r.Viewer
	no := func(reason string) Decision {
		say := "policy does not let you see this recording"
		switch r.Ask {
		case AskJoin:
			say = "policy does not let you join this session"
		case AskEnd:
			say = "policy does not let you end this session"
		case AskDelete:
			say = "policy does not let you delete this recording"
		}
		return Decision{Rule: -1, Reason: reason, Say: say}
	}
	switch {
	case !v.Valid() || v.External:
		return Decision{Rule: -1, Reason: "no-identity: the viewer is not a node of this mesh", Say: "this mesh does not know who you are"}
	case v.User == "":
		return no("not-yours: tagged machines may not do this")
	}
	list, rule := p.overseers(r)
	named := rule != nil && rule.terms.ShowWatchers
	if v.User == r.Src.User && !r.Src.External {
		if r.Ask == AskDelete {
			return Decision{Rule: -1, Reason: "own: nobody deletes the recordings of their own sessions", Say: "nobody may delete the recordings of their own sessions"}
		}
		return Decision{Verdict: Accept, Rule: -1, Reason: "own: the viewer's own session", Named: named}
	}
	if list != nil {
		if _, ok := namedBy(list, &party{id: v, own: true, mesh: true}); ok {
			return Decision{Verdict: Accept, Rule: rule.index, Section: "ssh", Reason: rule.reason + " names the viewer", Named: named}
		}
		return no("not-named: " + rule.reason + " names others")
	}
	duty := v.Role == RoleAdmin || v.Role == RoleOwner || v.Role == RoleAuditor && r.Ask == AskWatch
	if duty && r.Ask != AskJoin && r.Ask != AskDelete {
		return Decision{Verdict: Accept, Rule: -1, Reason: "role: the viewer is " + string(v.Role), Named: named}
	}
	return no("not-yours: another person's session")
}

// overseers is the list that the rule of the session has, nil when it has none, and the
// rule, nil when there is none any more.
func (p *Policy) overseers(r *Request) ([]selector, *sshRule) {
	i, _ := p.ssh.find(&r.Src, &r.Dst, &asked{account: r.User, uid0: r.UID == 0 && !r.UIDUnknown || r.UIDUnknown && r.User == "root", always: true})
	if i < 0 {
		return nil, nil
	}
	rule := &p.ssh.rules[i]
	switch r.Ask {
	case AskWatch:
		return rule.terms.watch, rule
	case AskJoin:
		return rule.terms.join, rule
	case AskDelete:
		return rule.terms.del, rule
	}
	return rule.terms.end, rule
}

// dialled is the address of Dst that counts: the one given, or the first of the family
// that the connection has.
func (r *Request) dialled(src netip.Addr) netip.Addr {
	if r.DstAddr.IsValid() || !src.IsValid() {
		return r.DstAddr
	}
	for _, a := range r.Dst.Addrs {
		if a.Unmap().Is4() == src.Is4() {
			return a
		}
	}
	return r.DstAddr
}

// plain makes a name safe to show: one line, nothing that acts on a terminal.
func plain(s string) string {
	clean := func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return '?'
		}
		return c
	}
	if strings.IndexFunc(s, func(c rune) bool { return clean(c) != c }) < 0 {
		return s
	}
	return strings.Map(clean, s)
}
