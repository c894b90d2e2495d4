package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// worldDirectory is world as a directory.
func worldDirectory(t *testing.T) *Directory {
	t.Helper()
	var users []DirectoryUser
	var nodes []DirectoryNode
	roles := map[Login]Role{}
	for _, id := range world() {
		if id.User != "" && !id.External {
			roles[id.User] = id.Role
		}
		nodes = append(nodes, DirectoryNode{Name: id.Name, User: id.User, Tags: id.Tags, Addresses: id.Addrs, Routes: id.Routes, External: id.External, Attributes: id.Attributes})
	}
	for _, l := range sortedKeys(roles) {
		users = append(users, DirectoryUser{l, roles[l]})
	}
	users = append(users, DirectoryUser{Login: "newcomer@example.com"})
	d, err := NewDirectory(users, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDiffIsComplete compares every login between every two machines under two random
// policies with what Diff says of them, both ways.
func TestDiffIsComplete(t *testing.T) {
	d := worldDirectory(t)
	r := rand.New(rand.NewPCG(7, 7))
	for seed := range uint64(60) {
		old, new := randomPolicy(t, 2*seed), randomPolicy(t, 2*seed+1)
		changes := map[string]Change{}
		for _, c := range Diff(old, new, d) {
			if c.Account == "" {
				continue
			}
			for _, from := range c.From {
				for _, host := range c.Hosts {
					key := fmt.Sprint(from, " ", host, " ", c.Account)
					if _, twice := changes[key]; twice {
						t.Fatalf("seed %d: %s is told twice", seed, key)
					}
					changes[key] = c
				}
			}
		}
		all := classes(d, old, new)
		for _, src := range all {
			for _, dst := range all {
				for _, u := range []LocalUser{"root", "deploy", "alice", "bob", "toor", "zed"} {
					a, b := rights(old, src, dst, []LocalUser{u})[u], rights(new, src, dst, []LocalUser{u})[u]
					for _, from := range src.names {
						for _, host := range dst.names {
							c, told := changes[fmt.Sprint(from, " ", host, " ", u)]
							if !told && u != "root" {
								c, told = changes[fmt.Sprint(from, " ", host, " ", AnyOther)]
							}
							if told != (a != b) && (a != b || c.Account == string(u)) || a != b && (c.Old != a || c.New != b) {
								t.Fatalf("seed %d: %s as %s on %s was %q and is %q; told %v %+v", seed, from, u, host, a, b, told, c)
							}
						}
					}
				}
				// What flows says is what the engine decides.
				for _, v4 := range []bool{true, false} {
					have := flows(new, src, dst, v4)
					if len(dst.names) == 0 || len(src.names) == 0 {
						continue
					}
					s, e := family(&src.id, v4), family(&dst.id, v4)
					if !s.addr.IsValid() || !e.addr.IsValid() {
						continue
					}
					for range 4 {
						proto := []uint8{protoTCP, protoUDP, protoSCTP, 47}[r.IntN(4)]
						port := []uint16{1, 22, 80, 443, 444, 8080, 65535}[r.IntN(7)]
						want := EvaluateNet(new, NetRequest{Src: src.id, Dst: dst.id, SrcAddr: s.addr, DstAddr: e.addr, Proto: proto, Port: port}).Allow
						if got := anyCovers(have[proto], proto, port); got != want {
							t.Fatalf("seed %d: %s to %s proto %d port %d: flows %v, engine %v", seed, src.id.Name, dst.id.Name, proto, port, got, want)
						}
					}
				}
			}
		}
	}
}

func TestPortSets(t *testing.T) {
	set := func(s string) ports {
		specs, err := parsePorts(s, protoTCP)
		if err != nil {
			t.Fatal(err)
		}
		p := ports{}
		for _, x := range specs {
			p.add(x)
		}
		return p
	}
	for _, c := range []struct{ a, b, want string }{
		{"22,80-443", "100-200", "tcp 22, tcp 80-99, tcp 201-443"},
		{"22,23,24", "*", ""},
		{"*", "22", "tcp 1-21, tcp 23-65535"},
		{"80-443", "1-80,443-500", "tcp 81-442"},
		{"22,23,24-30", "40", "tcp 22-30"},
		{"*", "40", "tcp 1-39, tcp 41-65535"},
	} {
		if got := set(c.a).minus(set(c.b)).words(); got != c.want {
			t.Errorf("%s without %s: %q, want %q", c.a, c.b, got, c.want)
		}
	}
	both := ports{}
	both.add(portSpec{protoTCP, 53, 53})
	both.add(portSpec{protoUDP, 53, 53})
	both.add(portSpec{protoICMP, 0, 65535})
	if got := both.words(); got != "53" {
		t.Errorf("tcp and udp 53: %q", got)
	}
}

const teamPolicy = `{
	"groups": {"group:ops": ["alice@example.com"], "group:dev": ["bob@example.com"]},
	"tagOwners": {"tag:web": ["group:ops"], "tag:db": ["group:ops"]},
	"acls": [
		{"action": "accept", "src": ["group:ops"], "dst": ["tag:web:*", "tag:db:22"]},
		{"action": "accept", "src": ["group:dev"], "dst": ["tag:web:80,443"]},
	],
	"ssh": [
		{"action": "check", "src": ["group:ops"], "dst": ["tag:db"], "users": ["root"], "checkPeriod": "30m"},
		{"action": "accept", "src": ["group:ops"], "dst": ["tag:web"], "users": ["root", "autogroup:nonroot"]},
		{"action": "accept", "src": ["group:dev"], "dst": ["tag:web"], "users": ["deploy"]},
	],
}`

func teamDirectory(t *testing.T) *Directory {
	t.Helper()
	d, err := ReadDirectory([]byte(`{"users": [{"login": "alice@example.com", "role": "admin"}, {"login": "bob@example.com"}],
	"nodes": [
		{"name": "laptop", "user": "alice@example.com", "addresses": ["100.64.0.1", "fd7a::1"]},
		{"name": "phone", "user": "bob@example.com", "addresses": ["100.64.0.2", "fd7a::2"]},
		{"name": "web1", "tags": ["tag:web"], "addresses": ["100.64.0.3", "fd7a::3"]},
		{"name": "web2", "tags": ["tag:web"], "addresses": ["100.64.0.4", "fd7a::4"]},
		{"name": "db", "tags": ["tag:db"], "addresses": ["100.64.0.5", "fd7a::5"], "localUsers": {"root": 0, "toor": 0}}
	]}`))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func team(t *testing.T, replace ...string) *Policy {
	t.Helper()
	p, problems := Parse("team.hujson", []byte(strings.NewReplacer(replace...).Replace(teamPolicy)))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

func TestWho(t *testing.T) {
	p, d := team(t), teamDirectory(t)
	show := func(q WhoQuery) (out []string) {
		for _, a := range Who(p, d, q) {
			out = append(out, fmt.Sprintf("%s from %v as %s on %v: %s %s ssh[%d] line %d", a.Who, a.From, a.Account, a.Hosts, a.Verdict, a.Period, a.Rule, a.Line))
		}
		return out
	}
	// bob has a rule for deploy and no network rule for port 22.
	want := []string{
		"alice@example.com from [laptop] as root on [db]: check 30m0s ssh[0] line 9",
		"alice@example.com from [laptop] as * on [web1 web2]: accept  ssh[1] line 10",
		"alice@example.com from [laptop] as root on [web1 web2]: accept  ssh[1] line 10",
	}
	got := show(WhoQuery{})
	// root has another meaning than the others and is always told.
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := show(WhoQuery{Account: "root", Host: "web2"}); !slices.Equal(got, []string{"alice@example.com from [laptop] as root on [web2]: accept  ssh[1] line 10"}) {
		t.Errorf("root on web2: %q", got)
	}
	if got := show(WhoQuery{Who: "bob@example.com"}); got != nil {
		t.Errorf("bob: %q", got)
	}
}

func TestDiff(t *testing.T) {
	d := teamDirectory(t)
	show := func(a, b *Policy) (out []string) {
		for _, c := range Diff(a, b, d) {
			out = append(out, fmt.Sprintf("%s %s on %v: %s%s%s [%s] [%s]", c.Who, c.Kind, c.Hosts, c.Account, c.Ports, c.Family, c.Old, c.New))
		}
		return out
	}
	if got := show(team(t), team(t, "// no", "")); got != nil {
		t.Errorf("the same policy: %q", got)
	}
	for _, c := range []struct {
		name    string
		replace []string
		want    []string
	}{
		{"dev may reach ssh", []string{"80,443", "22,80-90"}, []string{
			"bob@example.com gains on [web1 web2]: deploy [] [accept]",
			"bob@example.com gains on [web1 web2]: 22, 81-90 [] []",
			"bob@example.com loses on [web1 web2]: 443 [] []",
		}},
		{"check no more", []string{`{"action": "check", "src": ["group:ops"], "dst": ["tag:db"], "users": ["root"], "checkPeriod": "30m"}`, `{"action": "accept", "src": ["group:ops"], "dst": ["tag:db"], "users": ["root"]}`}, []string{
			"alice@example.com changes on [db]: root [check every 30m] [accept]",
		}},
		{"nonroot goes", []string{`"root", "autogroup:nonroot"`, `"root", "deploy"`}, []string{
			"alice@example.com loses on [web1 web2]: * [accept] []",
		}},
		{"v6 only", []string{`"tag:db:22"`, `"tag:db:22", "[fd7a::5]:5432"`}, []string{
			"alice@example.com gains on [db]: 5432IPv6 [] []",
		}},
	} {
		got := show(team(t), team(t, c.replace...))
		if c.name == "nonroot goes" {
			got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "deploy") })
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestLockedOut(t *testing.T) {
	d := teamDirectory(t)
	if got := LockedOut(team(t), team(t), d); got != nil {
		t.Errorf("the same policy locks out of %v", got)
	}
	// bob, who is no administrator, still gets in on the web machines.
	next := team(t, `"group:ops": ["alice@example.com"]`, `"group:ops": []`, `80,443`, `22`)
	if got := LockedOut(team(t), next, d); !slices.Equal(got, []string{"db", "web1", "web2"}) {
		t.Errorf("locks out of %v", got)
	}
}
