package replay

import (
	"testing"

	"tssh/policy"
	"tssh/recording"
)

// TestRulesAboutOwnDevicesAndRoles: which rule a session is of is found by the owner of its host
// and by the role of its person, as they are in the recording.
func TestRulesAboutOwnDevicesAndRoles(t *testing.T) {
	p, problems := policy.Parse("test", []byte(`{"tagOwners": {"tag:web": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["deploy"], "watch": ["bob@example.com"]},
		{"action": "accept", "src": ["autogroup:admin"], "dst": ["tag:web"], "users": ["deploy"], "watch": ["bob@example.com"]}]}`))
	if p == nil {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		name        string
		change      func(*recording.Meta)
		bob, admins bool
	}{
		{"own device", func(m *recording.Meta) { m.HostUser = "alice@example.com" }, true, false},
		{"another's device", func(m *recording.Meta) { m.HostUser = "carol@example.com" }, false, true},
		{"a recording that does not say whose", func(m *recording.Meta) {}, false, true},
		{"an administrator", func(m *recording.Meta) { m.HostTags, m.Role = []string{"tag:web"}, "admin" }, true, false},
		{"a member", func(m *recording.Meta) { m.HostTags, m.Role = []string{"tag:web"}, "member" }, false, true},
		{"a recording that does not say the role", func(m *recording.Meta) { m.HostTags = []string{"tag:web"} }, false, true},
	} {
		w := newWorld(t)
		w.policy = p
		m := meta("alice@example.com", "deploy", "web", w.now)
		c.change(&m)
		w.keep(m, ran("x"))
		for from, want := range map[string]bool{fromBob: c.bob, fromRoot: c.admins, fromAlice: true} {
			if got := w.ids(from, "") == "x"; got != want {
				t.Errorf("%s, to %s: shown %v", c.name, from, got)
			}
		}
	}
}
