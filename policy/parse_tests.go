package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tailscale/hujson"
)

// netTest is one entry of tests.
type netTest struct {
	what         string
	off          int
	src          selector
	attrs        map[string]string
	protos       []uint8
	accept, deny []netTarget
}

// netTarget is one destination of a test.
type netTarget struct {
	word word
	dst  selector
	port uint16
}

// sshTest is one entry of sshTests.
type sshTest struct {
	what  string
	off   int
	src   selector
	dst   []selector
	attrs map[string]string
	at    time.Time // hours count as open without it
	// Accounts, by what becomes of a login as each.
	accept, check, request, deny []word
}

func (f *file) readTests(v *hujson.Value) {
	for i, e := range f.entries(v, "tests") {
		t := netTest{what: fmt.Sprintf("test(s) failed: tests[%d]", i), off: e.StartOffset}
		before := f.errors
		var src, proto word
		var accept, deny []word
		f.fields(&e, t.what, true, map[string]func(*hujson.Value){
			"src":             func(v *hujson.Value) { src, _ = f.str(v, t.what+".src") },
			"user":            func(v *hujson.Value) { src, _ = f.str(v, t.what+".user") },
			"proto":           func(v *hujson.Value) { proto, _ = f.str(v, t.what+".proto") },
			"accept":          func(v *hujson.Value) { accept = append(accept, f.list(v, t.what+".accept")...) },
			"allow":           func(v *hujson.Value) { accept = append(accept, f.list(v, t.what+".allow")...) },
			"deny":            func(v *hujson.Value) { deny = f.list(v, t.what+".deny") },
			"srcPostureAttrs": func(v *hujson.Value) { t.attrs = f.attributes(v, t.what+".srcPostureAttrs") },
		})
		n, err := parseProto(proto.text)
		switch {
		case err != nil:
			f.errorf(proto.off, "%s: %s", t.what, err)
		case n == 0:
			t.protos = []uint8{protoTCP, protoUDP}
		default:
			t.protos = []uint8{n}
		}
		if src.text == "" && f.errors > before {
			continue // it is there under a wrong key, or in a wrong form
		}
		ok := f.testSource(t.what, src, e.StartOffset, &t.src)
		t.accept = f.targets(t.what, accept, n)
		t.deny = f.targets(t.what, deny, n)
		if len(accept) == 0 && len(deny) == 0 {
			f.errorf(e.StartOffset, "%s: asserts nothing, write accept or deny", t.what)
		}
		if ok {
			f.policy.netTests = append(f.policy.netTests, t)
		}
	}
}

// testSource resolves whom a test is about.
func (f *file) testSource(what string, w word, off int, s *selector) bool {
	if w.text == "" {
		f.errorf(off, "%s: src must be specified", what)
		return false
	}
	sel, ok := f.names.selector(f.report, what, "src", w, atNetSrc)
	if !ok {
		return false
	}
	switch {
	case sel.kind == selLogin, sel.kind == selGroup, sel.kind == selTag:
	case sel.kind == selAddr && len(sel.ranges) == 1 && sel.ranges[0].From() == sel.ranges[0].To() && !strings.Contains(w.text, "/"):
	default:
		f.errorf(w.off, "%s: src contains disallowed element %q, it must be a login, a group, a tag, a host or an address", what, w.text)
		return false
	}
	*s = sel
	return true
}

func (f *file) targets(what string, ws []word, proto uint8) []netTarget {
	var out []netTarget
	for _, w := range ws {
		host, ports, err := splitPorts(w.text)
		if err != nil {
			f.errorf(w.off, "%s: %s", what, err)
			continue
		}
		port, ok := parsePort(ports)
		switch {
		case !ok:
			f.errorf(w.off, "%s: dst=%q: a test needs one port, not %q", what, w.text, ports)
			continue
		case port == 0 && (proto == 0 || hasPorts(proto)):
			f.errorf(w.off, "%s: dst=%q: port 0 is for protocols without ports", what, w.text)
			continue
		}
		s, ok := f.names.selector(f.report, what, "dst", word{host, w.off}, atNetDst)
		if !ok {
			continue
		}
		switch {
		case s.kind == selLogin, s.kind == selGroup, s.kind == selTag, s.kind == selSelf:
		case s.kind == selAddr && len(s.ranges) == 1 && s.ranges[0].From() == s.ranges[0].To() && !strings.Contains(host, "/"):
		default:
			f.errorf(w.off, "%s: dst contains disallowed element %q, it must be one machine", what, host)
			continue
		}
		out = append(out, netTarget{w, s, port})
	}
	return out
}

func (f *file) readSSHTests(v *hujson.Value) {
	for i, e := range f.entries(v, "sshTests") {
		t := sshTest{what: fmt.Sprintf("test(s) failed: sshTests[%d]", i), off: e.StartOffset}
		before := f.errors
		var src word
		var dst []word
		f.fields(&e, t.what, true, map[string]func(*hujson.Value){
			"src":             func(v *hujson.Value) { src, _ = f.str(v, t.what+".src") },
			"dst":             func(v *hujson.Value) { dst = f.list(v, t.what+".dst") },
			"accept":          func(v *hujson.Value) { t.accept = f.list(v, t.what+".accept") },
			"check":           func(v *hujson.Value) { t.check = f.list(v, t.what+".check") },
			"request":         func(v *hujson.Value) { t.request = f.list(v, t.what+".request") },
			"at":              func(v *hujson.Value) { t.at = f.time(v, t.what+".at") },
			"deny":            func(v *hujson.Value) { t.deny = f.list(v, t.what+".deny") },
			"srcPostureAttrs": func(v *hujson.Value) { t.attrs = f.attributes(v, t.what+".srcPostureAttrs") },
		})
		if src.text == "" && f.errors > before {
			continue // it is there under a wrong key, or in a wrong form
		}
		ok := f.testSource(t.what, src, e.StartOffset, &t.src)
		if len(dst) == 0 {
			f.errorf(e.StartOffset, "%s: dst must be specified", t.what)
		}
		for _, w := range dst {
			if s, ok := f.sshTestTarget(t.what, w); ok {
				t.dst = append(t.dst, s)
			}
		}
		if len(t.accept)+len(t.check)+len(t.request)+len(t.deny) == 0 {
			f.errorf(e.StartOffset, "%s: asserts nothing, write accept, check, request or deny", t.what)
		}
		for _, ws := range [][]word{t.accept, t.check, t.request, t.deny} {
			for _, w := range ws {
				if _, err := ParseLocalUser(w.text); err != nil {
					f.errorf(w.off, "%s: login %q is not the name of an account", t.what, w.text)
					ok = false
				}
			}
		}
		if ok {
			f.policy.sshTests = append(f.policy.sshTests, t)
		}
	}
}

func (f *file) sshTestTarget(what string, w word) (selector, bool) {
	disallowed := func() (selector, bool) {
		f.errorf(w.off, "%s: SSH tests dst contains disallowed element %q, it must be a tag, a login, a host or an address", what, w.text)
		return selector{}, false
	}
	if strings.HasPrefix(w.text, "tag:") {
		if _, ok := f.names.tags[Tag(w.text)]; !ok {
			f.errorf(w.off, "%s: SSH tests dst contains unknown tag %q%s", what, w.text, hintKey(f.report, w.text, "", f.names.tags))
			return selector{}, false
		}
	}
	if strings.Contains(w.text, "/") {
		return disallowed()
	}
	s, problem := f.names.resolve(f.report, "dst", w, atNetDst|atSSHDst)
	if problem != "" {
		f.errorf(w.off, "%s: %s", what, problem)
		return s, false
	}
	switch {
	case s.kind == selTag, s.kind == selLogin:
	case s.kind == selAddr && len(s.ranges) == 1 && s.ranges[0].From() == s.ranges[0].To():
	default:
		return disallowed()
	}
	return s, true
}

// attributes reads an object of posture attributes. Numbers and booleans are as their text.
func (f *file) attributes(v *hujson.Value, what string) map[string]string {
	out := map[string]string{}
	for _, m := range f.members(v, what, false) {
		if s, ok := literalString(m.value.Value); ok {
			out[m.key.text] = s
			continue
		}
		l, ok := m.value.Value.(hujson.Literal)
		if !ok || l.Kind() == 'n' {
			f.errorf(m.value.StartOffset, "%s[%q] must be a string, a number, or true or false", what, m.key.text)
			continue
		}
		out[m.key.text] = string(l)
	}
	return out
}

// addr is the one address of a selector that names one.
func (s selector) addr() netip.Addr { return s.ranges[0].From() }
