package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

func validAnswer(out []byte) bool {
	var v map[string]any
	return json.Unmarshal(out, &v) == nil && !bytes.ContainsRune(out, '\n') && (v["error"] != nil || v["verdict"] != nil)
}

const smallPolicy = `{
	"tagOwners": {"tag:web": [], "tag:rec": []},
	"acls": [{"action": "accept", "src": ["*"], "dst": ["tag:web:22"]}],
	"ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"]},
		{"action": "check", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["deploy"]},
	],
}`

var (
	alice = Identity{ID: "1", Name: "laptop", User: "alice@example.com", Role: RoleMember, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}}
	bob   = Identity{ID: "2", Name: "phone", User: "bob@example.com", Role: RoleMember, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.2")}}
	web   = Identity{ID: "3", Name: "web", Tags: []Tag{"tag:web"}, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.3")}}
)

// TestFailClosed: whatever is missing denies, with a sentence.
func TestFailClosed(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	good := Request{Ask: AskLogin, Src: alice, SrcAddr: alice.Addrs[0], Dst: web, User: "deploy", UID: 1000}
	if d := Evaluate(p, good); d.Verdict != Accept || d.Section != "ssh" || d.Rule != 0 || d.Say != "" {
		t.Fatalf("the good request: %+v", d)
	}
	for name, bad := range map[string]func(*Request){
		"nothing asked":     func(r *Request) { r.Ask = AskNothing },
		"unknown ask":       func(r *Request) { r.Ask = 200 },
		"nobody":            func(r *Request) { r.Src = Identity{} },
		"no owner":          func(r *Request) { r.Src.User = "" },
		"owner and tags":    func(r *Request) { r.Src.Tags = []Tag{"tag:web"} },
		"no host":           func(r *Request) { r.Dst = Identity{} },
		"another's address": func(r *Request) { r.SrcAddr = bob.Addrs[0] },
		"routed address": func(r *Request) {
			r.Src.Routes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			r.SrcAddr = netip.MustParseAddr("10.0.0.1")
		},
		"no account":          func(r *Request) { r.User = "" },
		"other account":       func(r *Request) { r.User = "root"; r.UID = 0 },
		"account is uid 0":    func(r *Request) { r.UID = 0 },
		"host of another":     func(r *Request) { r.Dst = bob },
		"destination address": func(r *Request) { r.DstAddr = bob.Addrs[0] },
	} {
		r := good
		bad(&r)
		if d := Evaluate(p, r); d.Verdict != Deny || d.Sentence(r) == "" || d.Reason == "" || d.Rule != -1 {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := Evaluate(nil, good); d.Verdict != Deny || d.Say == "" {
		t.Errorf("no policy: %+v", d)
	}
	if (Decision{}).Verdict != Deny || (NetDecision{}).Allow {
		t.Error("a zero decision allows")
	}
	if EvaluateNet(nil, NetRequest{Src: alice, Dst: web, Proto: protoTCP, Port: 22}).Allow || EvaluateNet(p, NetRequest{Proto: protoTCP, Port: 22}).Allow {
		t.Error("a flow without policy or identity is allowed")
	}
	var none *Policy
	if f := none.FilterFor(web); f.Allow(&alice, alice.Addrs[0], web.Addrs[0], protoTCP, 22) {
		t.Error("the filter of no policy allows")
	}
	f := p.FilterFor(web)
	if !f.Allow(&alice, alice.Addrs[0], web.Addrs[0], protoTCP, 22) {
		t.Error("the filter denies what is allowed")
	}
	if f.Allow(nil, alice.Addrs[0], web.Addrs[0], protoTCP, 22) || f.Allow(&Identity{}, alice.Addrs[0], web.Addrs[0], protoTCP, 22) ||
		f.Allow(&alice, bob.Addrs[0], web.Addrs[0], protoTCP, 22) || f.Allow(&alice, alice.Addrs[0], bob.Addrs[0], protoTCP, 22) ||
		f.Allow(&alice, netip.Addr{}, web.Addrs[0], protoTCP, 22) || f.Allow(&alice, alice.Addrs[0], netip.Addr{}, protoTCP, 22) {
		t.Error("the filter allows without identity or with an address of another")
	}
	if Adjacent(nil, alice, web) || Adjacent(p, alice, bob) || !Adjacent(p, alice, web) || !Adjacent(p, web, alice) || !Adjacent(p, alice, alice) {
		t.Error("Adjacent is wrong")
	}
	if none.MayTag(alice, "tag:web") || none.RouteApproved(web, netip.MustParsePrefix("10.0.0.0/8")) {
		t.Error("no policy lets tag or route")
	}
}

// TestSay: the sentences for people, which name nobody else.
func TestSay(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	closed := mustParse(t, []byte(`{"tagOwners": {"tag:web": []}, "acls": [], "ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"]}]}`))
	for _, c := range []struct {
		p    *Policy
		r    Request
		want string
	}{
		{p, Request{Ask: AskLogin, Src: alice, Dst: web, User: "root"}, "policy does not let alice@example.com log in as root on web"},
		{p, Request{Ask: AskLogin, Src: web, Dst: web, User: "root"}, "policy does not let tag:web log in as root on web"},
		{closed, Request{Ask: AskLogin, Src: alice, Dst: web, User: "deploy", UID: 1}, "no network rule lets you reach port 22 of web"},
		{p, Request{Ask: AskLogin, Src: bob, Dst: web, User: "deploy", UID: 1}, "this login needs a check, which this host cannot do yet"},
		{p, Request{Ask: AskX11, Src: alice, Dst: web, User: "deploy", UID: 1}, "X11 forwarding is not allowed in this login"},
		{nil, Request{Ask: AskLogin, Src: alice, Dst: web, User: "deploy", UID: 1}, "this host has no policy yet, so nobody may log in"},
		{p, Request{Ask: AskLogin, Src: alice, Dst: web, User: "a\x1b[31m\xff\u202e"}, "policy does not let alice@example.com log in as a?[31m?? on web"},
	} {
		d := Evaluate(c.p, c.r)
		if say := d.Sentence(c.r); say != c.want || d.Verdict == Accept {
			t.Errorf("%v %s: %v %q, want %q", c.r.Ask, c.r.User, d.Verdict, say, c.want)
		}
	}
}

// TestDecisionsDoNotAllocate: a host decides for whoever knocks, as often as they do.
func TestDecisionsDoNotAllocate(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	for _, r := range []Request{
		{Ask: AskLogin, Src: alice, Dst: web, User: "deploy", UID: 1000}, {Ask: AskLogin, Src: alice, Dst: web, User: "root"},
		{Ask: AskLogin, Src: web, Dst: alice, User: "root"}, {Ask: AskLogin, Src: bob, Dst: web, User: "deploy", UID: 1000}, {Ask: AskPTY, Src: alice, Dst: web, User: "deploy", UID: 1000},
	} {
		if n := testing.AllocsPerRun(100, func() { Evaluate(p, r) }); n != 0 {
			t.Errorf("%s as %s on %s: %v allocations", r.Src.Name, r.User, r.Dst.Name, n)
		}
	}
}

// TestAsks: what an open login may do, and that nothing is allowed without the login.
func TestAsks(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	for ask := AskLogin; ask < AskWatch; ask++ {
		want := ask != AskSubsystem && ask != AskX11
		target := map[Ask]string{AskExec: "x", AskSFTP: "write", AskForwardLocal: "db:5432", AskForwardRemote: "localhost:0", AskForwardUnix: "/run/x"}[ask]
		r := Request{Ask: ask, Src: alice, Dst: web, User: "deploy", UID: 1000, Target: target}
		d := Evaluate(p, r)
		if (d.Verdict == Accept) != want || d.Rule != 0 || !want && !strings.Contains(d.Say, "is not") {
			t.Errorf("ask %d: %+v", ask, d)
		}
		r.User = "root"
		if d := Evaluate(p, r); d.Verdict != Deny || !strings.HasPrefix(d.Sentence(r), "policy does not let") {
			t.Errorf("ask %d without a login: %+v", ask, d)
		}
		r.Src, r.User = bob, "deploy"
		if d := Evaluate(p, r); d.Verdict == Accept {
			t.Errorf("ask %d with a login that needs a check: %+v", ask, d)
		}
	}
}

func TestWatch(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	with := func(r Role) Identity { i := bob; i.Role = r; return i }
	guest := alice
	guest.External = true
	machine := web
	for _, c := range []struct {
		name   string
		viewer Identity
		want   bool
	}{
		{"own", alice, true}, {"another's", bob, false}, {"admin", with(RoleAdmin), true}, {"owner", with(RoleOwner), true},
		{"auditor", with(RoleAuditor), true}, {"it-admin", with(RoleITAdmin), false}, {"network-admin", with(RoleNetworkAdmin), false},
		{"nobody", Identity{}, false}, {"another mesh's alice", guest, false}, {"machine", machine, false},
	} {
		d := Evaluate(p, Request{Ask: AskWatch, Src: alice, Dst: web, User: "deploy", Viewer: c.viewer})
		if (d.Verdict == Accept) != c.want || (d.Say == "") != c.want {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	if d := Evaluate(p, Request{Ask: AskWatch, Src: web, Dst: web, Viewer: web}); d.Verdict != Deny {
		t.Errorf("a machine watches: %+v", d)
	}
	if d := Evaluate(nil, Request{Ask: AskWatch, Src: alice, Dst: web, Viewer: alice}); d.Verdict != Deny {
		t.Errorf("without a policy: %+v", d)
	}
}

// TestManyRules crosses the bounds of words and chunks: each rule is found where it stands.
func TestManyRules(t *testing.T) {
	const n = 64*chunk*2 + 70
	var b strings.Builder
	b.WriteString(`{"tagOwners": {"tag:web": []}, "acls": [`)
	for i := range n {
		fmt.Fprintf(&b, `{"action": "accept", "src": ["p%d@example.com", "100.64.0.1"], "dst": ["tag:web:%d"]},`, i%50, i+1)
	}
	b.WriteString(`], "ssh": [`)
	for i := range n {
		fmt.Fprintf(&b, `{"action": "accept", "src": ["p%d@example.com"], "dst": ["tag:web"], "users": ["u%d"]},`, i%50, i)
	}
	b.WriteString(`]}`)
	p := mustParse(t, []byte(b.String()))
	f := p.FilterFor(web)
	for i := range n {
		src := Identity{ID: "x", User: Login(fmt.Sprintf("p%d@example.com", i%50)), Addrs: []netip.Addr{netip.MustParseAddr("100.64.9.9")}}
		port := uint16(i + 1)
		if d := EvaluateNet(p, NetRequest{Src: src, Dst: web, Proto: protoTCP, Port: port}); d.Rule != i {
			t.Fatalf("net rule %d: %+v", i, d)
		}
		if !f.Allow(&src, src.Addrs[0], web.Addrs[0], protoTCP, port) || f.Allow(&bob, bob.Addrs[0], web.Addrs[0], protoTCP, port) {
			t.Fatalf("filter, rule %d", i)
		}
		if d := EvaluateNet(p, NetRequest{Src: alice, Dst: web, Proto: protoTCP, Port: port}); d.Rule != i {
			t.Fatalf("net rule %d by address: %+v", i, d)
		}
		if d := Evaluate(p, Request{Ask: AskLogin, SSHOnly: true, Src: src, Dst: web, User: LocalUser(fmt.Sprintf("u%d", i)), UID: 5}); d.Rule != i {
			t.Fatalf("ssh rule %d: %+v", i, d)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	f := p.FilterFor(web)
	src := alice
	if n := testing.AllocsPerRun(100, func() { f.Allow(&src, src.Addrs[0], web.Addrs[0], protoTCP, 22) }); n != 0 {
		t.Errorf("Filter.Allow allocates %v times", n)
	}
	r := Request{Ask: AskShell, Src: alice, SrcAddr: alice.Addrs[0], Dst: web, User: "deploy", UID: 1000}
	if n := testing.AllocsPerRun(100, func() { Evaluate(p, r) }); n != 0 {
		t.Errorf("Evaluate allocates %v times", n)
	}
	q := NetRequest{Src: alice, Dst: web, Proto: protoTCP, Port: 22}
	if n := testing.AllocsPerRun(100, func() { EvaluateNet(p, q) }); n != 0 {
		t.Errorf("EvaluateNet allocates %v times", n)
	}
}

// TestTogether asks one policy from many goroutines; the race detector listens.
func TestTogether(t *testing.T) {
	p := mustParse(t, []byte(smallPolicy))
	f := p.FilterFor(web)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				Evaluate(p, Request{Ask: AskLogin, Src: alice, Dst: web, User: "deploy", UID: 1})
				f.Allow(&alice, alice.Addrs[0], web.Addrs[0], protoTCP, 22)
				Adjacent(p, alice, web)
				p.FilterFor(alice)
			}
		})
	}
	wg.Wait()
}

// TestAdjacentNeedsNetwork: an ssh rule without a network rule makes nobody known to anybody,
// and NoWay tells who wrote it.
func TestAdjacentNeedsNetwork(t *testing.T) {
	text := `{"tagOwners": {"tag:web": []}, "acls": [{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web:PORT"]}], "ssh": [
	{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"]},
	{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["deploy"]},
	{"action": "accept", "src": ["carol@example.com"], "dst": ["tag:web"], "users": ["deploy"]}]}`
	d, err := ReadDirectory([]byte(`{"nodes": [{"name": "a", "user": "alice@example.com", "addresses": ["100.64.0.1"]},
		{"name": "b", "user": "bob@example.com", "addresses": ["100.64.0.2"]}, {"name": "w", "tags": ["tag:web"], "addresses": ["100.64.0.3"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := d.Node("a")
	b, _ := d.Node("b")
	w, _ := d.Node("w")
	for port, want := range map[string][]string{"22": {"ssh[0]"}, "80": {"ssh[0]", "ssh[1]"}} {
		p := mustParse(t, []byte(strings.Replace(text, "PORT", port, 1)))
		if Adjacent(p, a, w) || !Adjacent(p, b, w) {
			t.Errorf("port %s: the ssh rule alone makes them known, or the network rule does not", port)
		}
		var got []string
		for _, q := range NoWay(p, d) {
			rule, _, _ := strings.Cut(q.Words, " lets nobody in: ")
			got = append(got, rule)
		}
		if !slices.Equal(got, want) {
			t.Errorf("port %s: %v, not %v", port, got, want)
		}
	}
}

// TestAdjacentVia: of the routers of a route only those know the source that via chooses.
func TestAdjacentVia(t *testing.T) {
	pfx := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	src := Identity{ID: "a", Tags: []Tag{"tag:a"}, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.5")}}
	const via = `,"via":["tag:r"]`
	for _, c := range []struct {
		dst, via string
		router   Identity
		want     bool
	}{
		{"10.0.0.0/8", via, Identity{Tags: []Tag{"tag:r"}, Routes: pfx("10.33.0.0/16")}, true},
		{"10.0.0.0/8", via, Identity{Tags: []Tag{"tag:s", "tag:r"}, Routes: pfx("192.168.1.0/24", "10.33.0.0/16")}, true},
		{"10.0.0.0/8", via, Identity{Tags: []Tag{"tag:s"}, Routes: pfx("10.44.0.0/16")}, false},
		{"10.0.0.0/8", via, Identity{Tags: []Tag{"tag:r"}, Routes: pfx("192.168.1.0/24")}, false},
		{"10.0.0.0/8", via, Identity{Tags: []Tag{"tag:r"}}, false},
		{"10.0.0.0/8", "", Identity{Tags: []Tag{"tag:s"}, Routes: pfx("10.44.0.0/16")}, true},
		{"100.64.0.9", via, Identity{Tags: []Tag{"tag:r"}, Routes: pfx("10.33.0.0/16")}, false}, // its own address
		{"100.64.0.9", "", Identity{Tags: []Tag{"tag:r"}}, true},
		{"tag:r", via, Identity{Tags: []Tag{"tag:r"}, Routes: pfx("10.33.0.0/16")}, false},
		{"*", via, Identity{Tags: []Tag{"tag:r"}, Routes: pfx("10.33.0.0/16")}, true},
		{"*", via, Identity{Tags: []Tag{"tag:r"}}, false},
		{"autogroup:internet", via, Identity{Tags: []Tag{"tag:r"}, Exit: true}, true},
		{"autogroup:internet", via, Identity{Tags: []Tag{"tag:s"}, Exit: true}, false},
	} {
		text := `{"tagOwners":{"tag:a":[],"tag:r":[],"tag:s":[]},"grants":[{"src":["tag:a"],"dst":["` + c.dst + `"],"ip":["*"]` + c.via + `}]}`
		p, problems := Parse("via", []byte(text))
		if p == nil {
			t.Fatal(problems)
		}
		c.router.ID, c.router.Addrs = "r", []netip.Addr{netip.MustParseAddr("100.64.0.9")}
		if got := Adjacent(p, src, c.router); got != c.want {
			t.Errorf("%s%s, %v with %v: adjacent is %v", c.dst, c.via, c.router.Tags, c.router.Routes, got)
		}
	}
}

func TestReadDirectory(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{`, "unexpected end"},
		{`{"users":[{"login":"x"}]}`, "not of the form"},
		{`{"users":[{"login":"a@x.org","role":"king"}]}`, "unknown role"},
		{`{"users":[{"login":"a@x.org"},{"login":"a@x.org"}]}`, "twice"},
		{`{"nodes":[{"name":"n"}]}`, "either a user or tags"},
		{`{"nodes":[{"name":"n","user":"a@x.org","tags":["tag:a"]}]}`, "either a user or tags"},
		{`{"nodes":[{"name":"n","tags":["a"]}]}`, "not of the form tag:name"},
		{`{"nodes":[{"name":"n","user":"a"}]}`, "not of the form"},
		{`{"nodes":[{"name":"n","user":"a@x.org"},{"name":"n","user":"a@x.org"}]}`, "twice"},
		{`{"nodes":[{"name":"n","user":"a@x.org","addresses":["1.2.3.4","1.2.3.4"]}]}`, "cannot be its own"},
		{`{"nodes":[{"name":"n","user":"a@x.org","addresses":["fe80::1%eth0"]}]}`, "cannot be its own"},
	} {
		if _, err := ReadDirectory([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
	d, err := ReadDirectory([]byte(`{"users":[{"login":"a@x.org","role":"admin"}],"nodes":[{"name":"n","user":"a@x.org"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := d.Node("n"); !ok || n.Role != RoleAdmin || !n.Valid() || d.Role("b@x.org") != RoleMember {
		t.Errorf("node %+v", n)
	}
}

// TestQueryForm holds the exact bytes of answers that other programs read.
func TestQueryForm(t *testing.T) {
	p := mustParse(t, []byte(`{"tagOwners": {"tag:web": [], "tag:rec": []}, "acls": [],
"ssh": [{"action": "check", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["x"], "acceptEnv": ["A", "B_*"], "recorder": ["tag:rec"], "enforceRecorder": true}]}`))
	d, err := NewDirectory(nil, []DirectoryNode{{Name: "laptop", User: "alice@example.com"}, {Name: "web", Tags: []Tag{"tag:web"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ line, want string }{
		{`{"kind":"ssh","src":"laptop","dst":"web","user":"x"}`,
			`{"verdict":"check","rule":0,"reason":"ssh[0] on line 2","acceptEnv":["A","B_*"],"recorder":["tag:rec"],"enforceRecorder":true,"checkPeriod":"12h0m0s"}`},
		{`{"kind":"ssh","src":"web","dst":"web","user":"x"}`,
			`{"verdict":"deny","rule":-1,"reason":"no-rule: no ssh rule has this source and this destination","acceptEnv":[],"recorder":[],"enforceRecorder":false,"checkPeriod":"0s"}`},
		{`{"kind":"net","src":"laptop","dst":"web","proto":"tcp","port":22}`, `{"verdict":"deny","rule":-1,"reason":"no-rule: no acl or grant allows this"}`},
		{`{"kind":"tag","actor":"alice@example.com","tag":"tag:web"}`, `{"verdict":"deny","rule":-1,"reason":"not-owner: the actor does not own this tag"}`},
		{`{"kind":"x"}`, `{"error":"unknown kind \"x\", it is ssh, net, tag or route"}`},
		{`{"kind":"ssh","src":"nope","dst":"web","user":"x"}`, `{"error":"src \"nope\" is neither a node of the directory nor an address"}`},
		{`{"kind":"ssh","src":"laptop","dst":"web"}`, `{"error":"user is missing"}`},
		{`{"kind":"net","src":"laptop","dst":"web","port":70000}`, `{"error":"port 70000 is out of range"}`},
		{`{"kind":"net","src":"laptop","dst":"web","port":1,"family":5}`, `{"error":"family 5 is neither 4 nor 6"}`},
		{`nonsense`, `{"error":"invalid character 'o' in literal null (expecting 'u')"}`},
	} {
		if got := string(EvalQuery(p, d, []byte(c.line))); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.line, got, c.want)
		}
	}
}

// TestSame: a session goes on under a new policy only when what it was given at its
// beginning is still so.
func TestSame(t *testing.T) {
	decide := func(rule string) Decision {
		t.Helper()
		p := mustParse(t, []byte(`{"tagOwners": {"tag:web": [], "tag:rec": [], "tag:rec2": []}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
			"ssh": [{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["x"]}, `+rule+`]}`))
		return Evaluate(p, Request{Ask: AskLogin, Src: alice, SrcAddr: alice.Addrs[0], Dst: web, User: "deploy", UID: 1000})
	}
	const rule = `"src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "acceptEnv": ["A"]`
	d := decide(`{"action": "accept", ` + rule + `, "recorder": ["tag:rec"]}`)
	if d.Verdict != Accept || !d.Same(Recalled("ssh", 7, d.Key())) || !Recalled("ssh", 7, d.Key()).Same(d) {
		t.Errorf("a rule that only moved is not the same: %+v", d)
	}
	for _, same := range []string{`"permit": {"shell": true}`, `"sessionLimit": "1h"`, `"hours": ["Mon-Sun 00:00-24:00 UTC"]`, `"loginMessage": "hi"`, `"watch": []`, `"showWatchers": true`, `"showRecording": true`, `"sessionsAtOnce": 1`} {
		r := `{"action": "accept", ` + rule + `, "recorder": ["tag:rec"], ` + same + `}`
		if e := Evaluate(mustParse(t, []byte(`{"tagOwners": {"tag:web": [], "tag:rec": []}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "ssh": [`+r+`]}`)),
			Request{Ask: AskLogin, Src: alice, SrcAddr: alice.Addrs[0], Dst: web, User: "deploy", UID: 1000, AnyTime: true}); !d.Same(e) {
			t.Errorf("%s: another decision, %+v", same, e)
		}
	}
	for name, other := range map[string]string{
		"verdict":     `{"action": "check", ` + rule + `, "recorder": ["tag:rec"]}`,
		"env":         `{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "acceptEnv": ["A", "B"], "recorder": ["tag:rec"]}`,
		"recorder":    `{"action": "accept", ` + rule + `, "recorder": ["tag:rec2"]}`,
		"no recorder": `{"action": "accept", ` + rule + `}`,
		"enforced":    `{"action": "accept", ` + rule + `, "recorder": ["tag:rec"], "enforceRecorder": true}`,
		"command":     `{"action": "accept", ` + rule + `, "recorder": ["tag:rec"], "command": "date"}`,
		"input":       `{"action": "accept", ` + rule + `, "recorder": ["tag:rec"], "recordInput": true}`,
	} {
		if e := decide(other); d.Same(e) || e.Same(d) {
			t.Errorf("%s: still the same", name)
		}
	}
}
