package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
	"go4.org/netipx"
)

// privatePrefixes is what is not public of the two ranges that autogroup:internet starts from.
var privatePrefixes = [...]string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"}

// internet is the set of autogroup:internet.
func internet() *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(netip.MustParsePrefix("0.0.0.0/0"))
	b.AddPrefix(netip.MustParsePrefix("2000::/3"))
	for _, s := range privatePrefixes {
		b.RemovePrefix(netip.MustParsePrefix(s))
	}
	set, err := b.IPSet()
	if err != nil {
		return new(netipx.IPSet) // cannot be: the ranges are constants
	}
	return set
}

func (f *file) readACLs(v *hujson.Value) {
	for i, e := range f.entries(v, "acls") {
		f.readACL(&e, i)
	}
}

func (f *file) readACL(e *hujson.Value, i int) {
	rule := fmt.Sprintf("acls[%d]", i)
	var action, proto word
	var src, dst []word
	var srcSeen, dstSeen, actionSeen bool
	posture := f.postureX
	readSrc := func(v *hujson.Value) {
		if srcSeen {
			f.errorf(v.StartOffset, "%s: src and users are the same, write one of them", rule)
		}
		src, srcSeen = f.list(v, rule+".src"), true
	}
	readDst := func(v *hujson.Value) {
		if dstSeen {
			f.errorf(v.StartOffset, "%s: dst and ports are the same, write one of them", rule)
		}
		dst, dstSeen = f.list(v, rule+".dst"), true
	}
	before := f.errors
	f.fields(e, rule, true, map[string]func(*hujson.Value){
		"action":     func(v *hujson.Value) { action, actionSeen = f.str(v, rule+".action") },
		"src":        readSrc,
		"users":      readSrc,
		"dst":        readDst,
		"ports":      readDst,
		"proto":      func(v *hujson.Value) { proto, _ = f.str(v, rule+".proto") },
		"srcPosture": func(v *hujson.Value) { posture = f.postureList(v, rule+".srcPosture") },
	})
	if f.errors > before && e.Value.Kind() != '{' {
		return
	}
	switch {
	case !actionSeen:
		f.errorf(e.StartOffset, "%s: action must be specified, \"accept\"", rule)
	case action.text != "accept":
		f.errorf(action.off, "%s: action=%q is not supported%s", rule, action.text, f.hint(action.text, []string{"accept"}))
	}
	num, err := parseProto(proto.text)
	if err != nil {
		f.errorf(proto.off, "%s: %s", rule, err)
	}
	if f.errors == before {
		f.needSides(e, rule, src, dst)
	}
	from := f.netSelectors(rule, "src", src, atNetSrc)
	// Destinations with the same ports make one rule of the table.
	var parts []netRule
	byPorts := map[string]int{}
	for _, w := range dst {
		host, ports, err := splitPorts(w.text)
		if err != nil {
			f.errorf(w.off, "%s: %s", rule, err)
			continue
		}
		specs, err := parsePorts(ports, num)
		if err != nil {
			f.errorf(w.off, "%s: dst=%q: %s", rule, w.text, err)
			continue
		}
		to := f.netSelectors(rule, fmt.Sprintf("dst=%q", host), []word{{host, w.off}}, atNetDst)
		n, ok := byPorts[ports]
		if !ok {
			n = len(parts)
			byPorts[ports] = n
			parts = append(parts, netRule{section: "acls", rule: i, off: e.StartOffset, src: from, ports: specs, posture: posture})
		}
		parts[n].dst = append(parts[n].dst, to...)
	}
	for _, p := range parts {
		f.checkSelf(rule, p.src, p.dst, true)
		f.net = append(f.net, p)
	}
}

// needSides wants both sides written. An empty list would be a rule that never matches,
// which nobody writes on purpose.
func (f *file) needSides(e *hujson.Value, rule string, src, dst []word) {
	if len(src) == 0 {
		f.warnf(e.StartOffset, "%s: src is empty, the rule never matches", rule)
	}
	if len(dst) == 0 {
		f.warnf(e.StartOffset, "%s: dst is empty, the rule never matches", rule)
	}
}

// netSelectors resolves one side of a network rule and warns of what can have no effect.
func (f *file) netSelectors(rule, side string, ws []word, at place) []selector {
	out := f.names.selectors(f.report, rule, side, ws, at)
	for _, s := range out {
		switch s.kind {
		case selAddr:
			f.warnHostBits(s.word, rule)
		case selService:
			f.warnf(s.word.off, "%s: services have no effect here: %q", rule, s.word.text)
		}
	}
	return out
}

// checkSelf refuses autogroup:self beside sources that are not people.
func (f *file) checkSelf(rule string, src, dst []selector, star bool) {
	i := slices.IndexFunc(dst, func(s selector) bool { return s.kind == selSelf })
	if i < 0 {
		return
	}
	for _, s := range src {
		if !s.person() && (!star || s.kind != selAny) {
			f.errorf(dst[i].word.off, "%s: autogroup:self can only be used with users, groups, or supported autogroups, not with %q", rule, s.word.text)
			return
		}
	}
}

// reservedApps are the capabilities that the original keeps to itself.
var reservedApps = [...]string{"tailscale.com/cap/funnel", "tailscale.com/cap/ingress", "tailscale.com/cap/relay-target"}

func (f *file) readGrants(v *hujson.Value) {
	for i, e := range f.entries(v, "grants") {
		f.readGrant(&e, i)
	}
}

func (f *file) readGrant(e *hujson.Value, i int) {
	rule := fmt.Sprintf("grants[%d]", i)
	r := netRule{section: "grants", rule: i, off: e.StartOffset, posture: f.postureX}
	var src, dst, ip, via []word
	var apps []member
	before := f.errors
	f.fields(e, rule, false, map[string]func(*hujson.Value){
		"src":        func(v *hujson.Value) { src = f.list(v, rule+".src") },
		"dst":        func(v *hujson.Value) { dst = f.list(v, rule+".dst") },
		"ip":         func(v *hujson.Value) { ip = f.list(v, rule+".ip") },
		"app":        func(v *hujson.Value) { apps = f.members(v, rule+".app", false) },
		"via":        func(v *hujson.Value) { via = f.list(v, rule+".via") },
		"srcPosture": func(v *hujson.Value) { r.posture = f.postureList(v, rule+".srcPosture") },
	})
	if f.errors > before && e.Value.Kind() != '{' {
		return
	}
	if len(ip) == 0 && len(apps) == 0 && f.errors == before {
		f.errorf(e.StartOffset, "%s: ip and app can not both be empty", rule)
	}
	if f.errors == before {
		f.needSides(e, rule, src, dst)
	}
	r.src = f.netSelectors(rule, "src", src, atNetSrc)
	r.dst = f.netSelectors(rule, "dst", dst, atNetDst)
	for _, d := range dst {
		if p, ok := parseAddrOrPrefix(d.text); ok && p.Bits() == 0 {
			f.errorf(d.off, "%s: dst %q: to allow all IP addresses, use \"*\" or \"autogroup:internet\"", rule, d.text)
		}
	}
	f.checkSelf(rule, r.src, r.dst, false)
	if i := slices.IndexFunc(r.dst, func(s selector) bool { return s.kind == selInternet }); i >= 0 && len(apps) > 0 {
		f.errorf(r.dst[i].word.off, "%s: cannot use app grants with autogroup:internet", rule)
	}
	for _, w := range via {
		t, err := ParseTag(w.text)
		if !strings.HasPrefix(w.text, "tag:") {
			f.errorf(w.off, "%s: via can only be a tag", rule)
			continue
		} else if err != nil {
			f.errorf(w.off, "%s: %s", rule, strings.TrimPrefix(err.Error(), "policy: "))
			continue
		}
		if _, ok := f.names.tags[t]; !ok {
			f.errorf(w.off, "%s: tag %q not found%s", rule, w.text, hintKey(f.report, w.text, "", f.names.tags))
			continue
		}
		r.via = append(r.via, t)
	}
	for _, w := range ip {
		specs, err := parseIP(w.text)
		if err != nil {
			f.errorf(w.off, "%s: %s", rule, err)
			continue
		}
		r.ports = append(r.ports, specs...)
	}
	for _, m := range apps {
		if domain, path, ok := strings.Cut(m.key.text, "/"); !ok || path == "" || !strings.Contains(domain, ".") {
			f.errorf(m.key.off, "%s: app %q: capability name must have the form {domain}/{path}", rule, m.key.text)
			continue
		}
		if slices.Contains(reservedApps[:], m.key.text) {
			f.errorf(m.key.off, "%s: app %q: capability name must not be in the tailscale.com domain", rule, m.key.text)
			continue
		}
		f.warnf(m.key.off, "%s: app %q has no effect here and opens no port", rule, m.key.text)
	}
	if len(r.ports) > 0 {
		f.net = append(f.net, r)
	}
}

func (f *file) readIPSets(v *hujson.Value) {
	s := ipsetReader{f: f, what: map[string][]word{}, state: map[string]int{}, done: map[string]*netipx.IPSet{}, size: map[*netipx.IPSet]int{}}
	ms := f.members(v, "ipsets", false)
	for _, m := range ms {
		if rest, ok := strings.CutPrefix(m.key.text, "ipset:"); !ok || rest == "" {
			f.errorf(m.key.off, "ipsets: the name %q must begin with \"ipset:\"", m.key.text)
			continue
		}
		s.what[m.key.text] = f.list(m.value, fmt.Sprintf("ipsets[%q]", m.key.text))
	}
	for _, m := range ms {
		if _, ok := s.what[m.key.text]; ok {
			s.resolve(m.key.text)
		}
	}
}

// ipsetReader resolves sets that name each other.
type ipsetReader struct {
	f      *file
	what   map[string][]word
	state  map[string]int // 1 while being resolved, 2 after
	done   map[string]*netipx.IPSet
	size   map[*netipx.IPSet]int
	depth  int
	ranges int // so far, over all sets
}

const maxIPSetDepth = 100

func (s *ipsetReader) resolve(name string) *netipx.IPSet {
	f := s.f
	if s.state[name] == 2 {
		return s.done[name]
	}
	s.state[name] = 1
	s.depth++
	var b netipx.IPSetBuilder
	ws := s.what[name]
	verbs := slices.ContainsFunc(ws, func(w word) bool { _, _, ok := ipsetVerb(w.text); return ok })
	for _, w := range ws {
		verb, target, ok := ipsetVerb(w.text)
		if !ok {
			if verb, target = "add", w.text; verbs {
				f.errorf(w.off, "ipsets[%q]: %q must begin with add or remove, as other entries do", name, w.text)
				continue
			}
		}
		if s.ranges > maxRanges {
			break
		}
		set, problem := s.target(target)
		if problem != "" {
			f.errorf(w.off, "ipsets[%q]: %s", name, problem)
			continue
		}
		s.ranges += 1 + s.size[set]
		if verb == "add" {
			b.AddSet(set)
		} else {
			b.RemoveSet(set)
		}
	}
	set, err := b.IPSet()
	if err != nil {
		f.errorf(-1, "ipsets[%q]: %s", name, err)
		set = new(netipx.IPSet)
	}
	if s.ranges > maxRanges {
		f.errorf(-1, "ipsets[%q]: too many addresses in all sets together", name)
	}
	s.done[name] = set
	f.names.ipsets[name] = set.Ranges()
	s.size[set] = len(f.names.ipsets[name])
	s.state[name] = 2
	s.depth--
	return set
}

func ipsetVerb(s string) (verb, target string, ok bool) {
	verb, target, ok = strings.Cut(s, " ")
	return verb, strings.TrimSpace(target), ok && (verb == "add" || verb == "remove")
}

func (s *ipsetReader) target(t string) (*netipx.IPSet, string) {
	var b netipx.IPSetBuilder
	switch {
	case t == "autogroup:internet":
		return internet(), ""
	case strings.HasPrefix(t, "ipset:"):
		_, ok := s.what[t]
		switch {
		case !ok:
			return nil, fmt.Sprintf("ipset not found: %q%s", t, hintKey(s.f.report, t, "", s.what))
		case s.state[t] == 1:
			return nil, fmt.Sprintf("%q contains itself", t)
		case s.depth > maxIPSetDepth:
			return nil, "sets inside sets too deep"
		}
		return s.resolve(t), ""
	case strings.HasPrefix(t, "tag:"), strings.HasPrefix(t, "group:"), strings.HasPrefix(t, "autogroup:"), strings.Contains(t, "@"):
		return nil, fmt.Sprintf("%q: sets hold addresses, not tags, people or groups", t)
	}
	name := strings.TrimPrefix(t, "host:")
	if pfx, ok := s.f.names.hosts[name]; ok {
		b.AddPrefix(pfx)
	} else if pfx, ok := parseAddrOrPrefix(t); ok {
		b.AddPrefix(pfx)
	} else if r, err := netipx.ParseIPRange(t); err == nil {
		b.AddRange(r)
	} else {
		return nil, fmt.Sprintf("%q is neither an address, a prefix, a range nor a host%s", t, hintKey(s.f.report, name, "", s.f.names.hosts))
	}
	set, err := b.IPSet()
	if err != nil {
		return nil, err.Error()
	}
	return set, ""
}
