package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
	"go4.org/netipx"
)

// file reads one policy file. Sections that define names are read before those that use them.
type file struct {
	*report
	names    *names
	postures map[string]*posture
	policy   *Policy
	net      []netRule
	ssh      []sshRule
	postureX []*posture // defaultSrcPosture
}

// sections are the keys of the file, in the order in which they are read. Those without a
// reader are known and have no effect on a mesh for SSH.
var sections = []struct {
	key  string
	read func(*file, *hujson.Value)
}{
	{"groups", (*file).readGroups},
	{"hosts", (*file).readHosts},
	{"ipsets", (*file).readIPSets},
	{"tagOwners", (*file).readTagOwners},
	{"postures", (*file).readPostures},
	{"defaultSrcPosture", (*file).readDefaultPosture},
	{"acls", (*file).readACLs},
	{"grants", (*file).readGrants},
	{"ssh", (*file).readSSH},
	{"autoApprovers", (*file).readApprovers},
	{"nodeAttrs", (*file).readNodeAttrs},
	{"tests", (*file).readTests},
	{"sshTests", (*file).readSSHTests},
	{"sealRecordingsTo", (*file).readSeal},
	{"derpMap", nil},
	{"disableIPv4", nil},
	{"OneCGNATRoute", nil},
	{"randomizeClientPort", nil},
	{"attrConfig", nil},
}

func newFile(name string, text []byte) *file {
	f := &file{
		report:   newReport(name, text),
		names:    &names{groups: map[string]*group{}, hosts: map[string]netip.Prefix{}, tags: map[Tag]int{}, ipsets: map[string][]netipx.IPRange{}},
		postures: map[string]*posture{},
		policy:   &Policy{name: name, text: slices.Clone(text)},
	}
	f.policy.names = f.names
	return f
}

// Parse reads and compiles a policy file; name is what its problems are told under. When
// anything is wrong the policy is nil and the problems are all there are, warnings
// included. Otherwise there are no problems, and warnings are the policy's.
func Parse(name string, text []byte) (*Policy, []Problem) {
	f := newFile(name, text)
	if v, ok := parseText(f.report, text); ok {
		f.readFile(v)
	}
	if f.errors == 0 {
		f.fits()
	}
	if f.errors > 0 {
		return nil, f.sorted()
	}
	f.policy.net = newNetTable(f.net)
	f.policy.ssh = newSSHTable(f.ssh)
	f.policy.warnings = f.sorted()
	return f.policy, nil
}

// Bounds on what a policy may become. A policy of ten thousand nodes needs a few MiB.
const (
	maxRanges   = 2_000_000 // of addresses, over all rules, or over all ipsets
	maxCompiled = 512 << 20 // bytes of tables
)

// fits refuses a file whose tables would be out of all proportion to its text.
func (f *file) fits() {
	for _, t := range []struct {
		section string
		rules   int
		src     func(int) []selector
		dst     func(int) []selector
	}{
		{"acls and grants", len(f.net), func(i int) []selector { return f.net[i].src }, func(i int) []selector { return f.net[i].dst }},
		{"ssh", len(f.ssh), func(i int) []selector { return f.ssh[i].src }, func(i int) []selector { return f.ssh[i].dst }},
	} {
		sets, ranges := 0, 0
		groups := map[*group]bool{}
		for i := range t.rules {
			for _, s := range slices.Concat(t.src(i), t.dst(i)) {
				sets++
				ranges += len(s.ranges)
				if s.kind == selGroup && !groups[s.group] {
					groups[s.group] = true
					sets += len(s.group.members)
				}
			}
		}
		words := (t.rules + 63) / 64
		if ranges > maxRanges || (sets+2*ranges)*words*8 > maxCompiled {
			f.errorf(-1, "%s: too many rules with too many names and addresses", t.section)
		}
	}
}

func (f *file) readFile(v *hujson.Value) {
	if v.Value.Kind() != '{' {
		f.errorf(v.StartOffset, "a policy file must be an object, not %s", kindName(v))
		return
	}
	found := map[string]*hujson.Value{}
	known := map[string]func(*hujson.Value){}
	for _, s := range sections {
		known[s.key] = func(v *hujson.Value) {
			if !isNull(v) {
				found[s.key] = v
			}
		}
	}
	f.fields(v, "the policy file", false, known)
	for _, s := range sections {
		v := found[s.key]
		switch {
		case v == nil:
		case s.read == nil:
			f.warnf(v.StartOffset, "%q has no effect here", s.key)
		default:
			s.read(f, v)
		}
	}
	if found["acls"] == nil && found["grants"] == nil {
		any := []selector{{kind: selAny}}
		f.net = []netRule{{rule: -1, src: any, dst: any, ports: []portSpec{allPorts}}}
		f.warnf(v.StartOffset, "THE NETWORK IS OPEN: the file has neither acls nor grants, so every node may reach every port of every node; write \"acls\": [] to close it")
	}
	if found["ssh"] == nil {
		f.warnf(v.StartOffset, "the file has no ssh section, so nobody may log in anywhere")
	}
}

func (f *file) readGroups(v *hujson.Value) {
	for _, m := range f.members(v, "groups", false) {
		g := &group{name: m.key.text, off: m.key.off}
		if rest, ok := strings.CutPrefix(g.name, "group:"); !ok || rest == "" {
			f.errorf(m.key.off, "groups: the name %q must begin with \"group:\"", g.name)
			f.names.groups["group:"+g.name] = g // its uses are not wrong, too
			continue
		}
		f.names.groups[g.name] = g
		for _, w := range f.list(m.value, fmt.Sprintf("groups[%q]", g.name)) {
			if strings.HasPrefix(w.text, "group:") {
				f.errorf(w.off, "groups[%q]: %q: group members cannot be recursive", g.name, w.text)
				continue
			}
			l, err := ParseLogin(w.text)
			if err != nil || strings.Contains(w.text, "*") || strings.HasPrefix(w.text, "autogroup:") || strings.HasPrefix(w.text, "tag:") || strings.HasPrefix(w.text, "user:") {
				f.errorf(w.off, "groups[%q]: %q: members of groups are logins, as user@domain", g.name, w.text)
				continue
			}
			if slices.Contains(g.members[:min(len(g.members), 100)], l) {
				f.warnf(w.off, "groups[%q]: %q is named twice", g.name, w.text)
				continue
			}
			g.members = append(g.members, l)
		}
	}
}

func (f *file) readHosts(v *hujson.Value) {
	for _, m := range f.members(v, "hosts", false) {
		name := m.key.text
		if _, isAddr := parseAddrOrPrefix(name); name == "" || isAddr || strings.ContainsAny(name, ":@*/[] ,") {
			f.errorf(m.key.off, "hosts: %q cannot be the name of a host", name)
			continue
		}
		w, ok := f.str(m.value, fmt.Sprintf("hosts[%q]", name))
		if !ok {
			if isNull(m.value) {
				f.errorf(m.value.StartOffset, "hosts[%q] must be an address or a prefix", name)
			}
			continue
		}
		pfx, ok := parseAddrOrPrefix(w.text)
		if !ok {
			f.errorf(w.off, "hosts[%q]: %q is neither an address nor a prefix", name, w.text)
			f.names.hosts[name] = netip.PrefixFrom(netip.IPv4Unspecified(), 32) // its uses are not wrong, too
			continue
		}
		f.warnHostBits(w, fmt.Sprintf("hosts[%q]", name))
		f.names.hosts[name] = pfx
	}
}

// warnHostBits warns of 10.0.0.5/24, which names the whole network.
func (f *file) warnHostBits(w word, what string) {
	if p, err := netip.ParsePrefix(w.text); err == nil && p != p.Masked() {
		f.warnf(w.off, "%s: %q has host bits set, it means %s", what, w.text, p.Masked())
	}
}

func (f *file) readTagOwners(v *hujson.Value) {
	ms := f.members(v, "tagOwners", false)
	var ok []member
	for _, m := range ms {
		t, err := ParseTag(m.key.text)
		if err != nil {
			f.errorf(m.key.off, "tagOwners[%q]: %s", m.key.text, strings.TrimPrefix(err.Error(), "policy: "))
			continue
		}
		f.names.tags[t] = len(ok)
		ok = append(ok, m)
	}
	// Tags may own tags, in circles too, so all are known before owners are read.
	for _, m := range ok {
		what := fmt.Sprintf("tagOwners[%q]", m.key.text)
		who := f.names.selectors(f.report, what, "owner", f.list(m.value, what), atOwner)
		f.policy.tagOwners = append(f.policy.tagOwners, tagOwner{Tag(m.key.text), who})
	}
}

func (f *file) readApprovers(v *hujson.Value) {
	f.fields(v, "autoApprovers", false, map[string]func(*hujson.Value){
		"routes": func(v *hujson.Value) {
			for _, m := range f.members(v, "autoApprovers.routes", false) {
				what := fmt.Sprintf("autoApprovers.routes[%q]", m.key.text)
				pfx, err := netip.ParsePrefix(m.key.text)
				if err != nil {
					f.errorf(m.key.off, "%s: the key must be a prefix, as 10.0.0.0/24", what)
					continue
				}
				f.warnHostBits(m.key, what)
				who := f.names.selectors(f.report, what, "approver", f.list(m.value, what), atApprover)
				f.policy.approvers = append(f.policy.approvers, approver{pfx.Masked(), who, m.key.off})
			}
		},
		"exitNode": func(v *hujson.Value) {
			what := "autoApprovers.exitNode"
			f.policy.exit = &approver{who: f.names.selectors(f.report, what, "approver", f.list(v, what), atApprover), off: v.StartOffset}
		},
		"services": func(v *hujson.Value) {
			for _, m := range f.members(v, "autoApprovers.services", false) {
				what := fmt.Sprintf("autoApprovers.services[%q]", m.key.text)
				if !strings.HasPrefix(m.key.text, "svc:") && !strings.HasPrefix(m.key.text, "tag:") {
					f.errorf(m.key.off, "%s: the key must be a service, as svc:name", what)
				}
				f.names.selectors(f.report, what, "approver", f.list(m.value, what), atApprover)
			}
			f.warnf(v.StartOffset, "\"autoApprovers.services\" has no effect here")
		},
	})
}

func (f *file) readNodeAttrs(v *hujson.Value) {
	for i, e := range f.entries(v, "nodeAttrs") {
		what := fmt.Sprintf("nodeAttrs[%d]", i)
		f.fields(&e, what, false, map[string]func(*hujson.Value){
			"target": func(v *hujson.Value) {
				f.names.selectors(f.report, what, "target", f.list(v, what+".target"), atTarget)
			},
			"attr":   func(v *hujson.Value) { f.list(v, what+".attr") },
			"app":    func(v *hujson.Value) { f.members(v, what+".app", false) },
			"ipPool": func(v *hujson.Value) { f.list(v, what+".ipPool") },
		})
	}
	f.warnf(v.StartOffset, "\"nodeAttrs\" has no effect here")
}

func (f *file) readPostures(v *hujson.Value) {
	for _, m := range f.members(v, "postures", false) {
		what := fmt.Sprintf("postures[%q]", m.key.text)
		if rest, ok := strings.CutPrefix(m.key.text, "posture:"); !ok || rest == "" {
			f.errorf(m.key.off, "%s: the name must begin with \"posture:\"", what)
			continue
		}
		p := &posture{name: m.key.text}
		f.postures[p.name] = p
		ws := f.list(m.value, what)
		if len(ws) == 0 {
			f.warnf(m.value.StartOffset, "%s has no assertions and therefore never holds", what)
		}
		for _, w := range ws {
			a, err := parseAssertion(w.text)
			if err != nil {
				f.errorf(w.off, "%s: %s", what, err)
				continue
			}
			if !strings.HasPrefix(a.attribute, "node:") {
				f.warnf(w.off, "%s: nodes here do not tell %q, so it counts as not set", what, a.attribute)
			}
			p.assertions = append(p.assertions, a)
		}
	}
}

func (f *file) readDefaultPosture(v *hujson.Value) {
	f.postureX = f.postureList(v, "defaultSrcPosture")
}

// postureList reads srcPosture: names of postures, any of which is enough.
func (f *file) postureList(v *hujson.Value, what string) []*posture {
	var out []*posture
	for _, w := range f.list(v, what) {
		p := f.postures[w.text]
		if p == nil {
			f.errorf(w.off, "%s: posture not found: %q%s", what, w.text, hintKey(f.report, w.text, "", f.postures))
			continue
		}
		out = append(out, p)
	}
	return out
}
