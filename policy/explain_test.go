package policy

import (
	"strings"
	"testing"
)

// TestExplainAgrees holds the slow way through the file to the tables, on random policies:
// the first step that matches is the one that decides.
func TestExplainAgrees(t *testing.T) {
	for seed := range uint64(12) {
		o := randomPolicy(t, seed)
		ids := world()
		for i := range ids {
			for j := range ids {
				for _, u := range []struct {
					name LocalUser
					uid  uint32
				}{{"root", 0}, {"deploy", 1000}, {"toor", 0}, {"alice", 1001}} {
					agreeLogin(t, o, Request{Ask: AskLogin, Src: ids[i], Dst: ids[j], User: u.name, UID: u.uid})
				}
				for _, port := range []uint16{22, 443} {
					agreeNet(t, o, NetRequest{Src: ids[i], Dst: ids[j], Proto: protoTCP, Port: port})
				}
			}
		}
	}
}

func first(steps []Step) (section string, rule int, ok bool) {
	for _, s := range steps {
		if s.Failed == "" {
			return s.Section, s.Rule, true
		}
	}
	return "", -1, false
}

func agreeLogin(t *testing.T, p *Policy, r Request) {
	t.Helper()
	d, trace := Evaluate(p, r), Explain(p, r)
	_, login, _ := first(trace.Logins)
	_, _, net := first(trace.Network)
	want := login
	if !net {
		want = -1
	}
	decides := -1
	for _, s := range trace.Logins {
		if s.Decides {
			decides = s.Rule
		}
	}
	if d.Rule != want || decides != want || trace.Verdict != d.Verdict.String() {
		t.Fatalf("%s as %s on %s: decision %s %d (%s); the trace matches login %d, network %v, decides %d\n%s", r.Src.Name, r.User, r.Dst.Name, d.Verdict, d.Rule, d.Reason, login, net, decides, p.text)
	}
}

func agreeNet(t *testing.T, p *Policy, r NetRequest) {
	t.Helper()
	d, trace := EvaluateNet(p, r), ExplainNet(p, r)
	section, rule, ok := first(trace.Network)
	if ok != d.Allow || ok && (section != d.Section || rule != d.Rule) {
		t.Fatalf("%s to %s port %d: decision %v %s; the trace matches %s[%d]\n%s", r.Src.Name, r.Dst.Name, r.Port, d.Allow, d.Reason, section, rule, p.text)
	}
}

// TestExplainWords is what an administrator reads.
func TestExplainWords(t *testing.T) {
	p, problems := Parse("policy.hujson", []byte(`{
	"groups": {"group:ops": ["alice@example.com"]},
	"tagOwners": {"tag:web": [], "tag:db": []},
	"postures": {"posture:linux": ["node:os == 'linux'"]},
	"acls": [{"action": "accept", "src": ["group:ops"], "dst": ["tag:web:22,80", "tag:db:5432"]}],
	"ssh": [
		{"action": "accept", "src": ["group:ops"], "dst": ["tag:db"], "users": ["autogroup:nonroot"]},
		{"action": "accept", "src": ["group:ops"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]},
		{"action": "accept", "src": ["group:ops"], "dst": ["tag:web"], "users": ["deploy"], "srcPosture": ["posture:linux"]},
		{"action": "check", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["root"]},
	]}`))
	if p == nil {
		t.Fatal(problems)
	}
	alice := Identity{ID: "1", Name: "laptop", User: "alice@example.com", Attributes: map[string]string{"node:os": "macos"}}
	web := Identity{ID: "2", Name: "web1", Tags: []Tag{"tag:web"}}
	trace := Explain(p, Request{Src: alice, Dst: web, User: "root"})
	got := map[int]string{}
	for _, s := range trace.Logins {
		got[s.Rule] = s.Failed + ": " + s.Why
		if s.Line != 7+s.Rule {
			t.Errorf("ssh[%d] is on line %d", s.Rule, s.Line)
		}
	}
	for rule, want := range map[int]string{
		0: "dst: the host tag:web is not tag:db",
		1: `users: root is root (uid 0), which only "root" written in users lets in`,
		2: `posture: posture:linux: node:os is "macos"`,
		3: "src: the source alice@example.com is not bob@example.com",
	} {
		if got[rule] != want {
			t.Errorf("ssh[%d]: %q, want %q", rule, got[rule], want)
		}
	}
	if trace.Logins[0].Rule != 3 {
		t.Errorf("the check rule is not asked first: %+v", trace.Logins)
	}
	net := ExplainNet(p, NetRequest{Src: alice, Dst: web, Proto: protoTCP, Port: 5432})
	if len(net.Network) != 1 || net.Network[0].Failed != "ports" || !strings.Contains(net.Network[0].Why, "22, 80") || net.Network[0].Line != 5 {
		t.Errorf("the nearest part of the acl is not told: %+v", net.Network)
	}
}
