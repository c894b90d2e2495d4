package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The oracle answers the same questions as the engine, from the words of the policy,
// rule by rule and selector by selector, without tables. It shares no code with it.

type oracleRule struct {
	Action      string   `json:"action,omitempty"`
	Src         []string `json:"src"`
	Dst         []string `json:"dst"`
	Proto       string   `json:"proto,omitempty"`
	IP          []string `json:"ip,omitempty"`
	Via         []string `json:"via,omitempty"`
	Users       []string `json:"users,omitempty"`
	CheckPeriod string   `json:"checkPeriod,omitempty"`
	AcceptEnv   []string `json:"acceptEnv,omitempty"`
	SrcPosture  []string `json:"srcPosture,omitempty"`
	Hours       []string `json:"hours,omitempty"`
	BreakGlass  bool     `json:"breakGlass,omitempty"`
	Approvers   []string `json:"approvers,omitempty"`
}

type oraclePolicy struct {
	Groups    map[string][]string `json:"groups"`
	Hosts     map[string]string   `json:"hosts"`
	TagOwners map[string][]string `json:"tagOwners"`
	Postures  map[string][]string `json:"postures"`
	ACLs      []oracleRule        `json:"acls"`
	Grants    []oracleRule        `json:"grants"`
	SSH       []oracleRule        `json:"ssh"`
}

// oracleEnd is an identity and the address it is met at.
type oracleEnd struct {
	id   Identity
	addr netip.Addr
}

func (e oracleEnd) own() bool { return slices.Contains(e.id.Addrs, e.addr) }

func (o *oraclePolicy) names(sel string, e oracleEnd) bool {
	id := e.id
	person := e.own() && id.User != "" && !id.External
	switch {
	case sel == "*" || sel == "autogroup:danger-all":
		return true
	case strings.HasPrefix(sel, "group:"):
		return e.own() && id.User != "" && slices.Contains(o.Groups[sel], string(id.User))
	case strings.HasPrefix(sel, "tag:"):
		return e.own() && !id.External && slices.Contains(id.Tags, Tag(sel))
	case sel == "autogroup:member":
		return person
	case sel == "autogroup:tagged":
		return e.own() && len(id.Tags) > 0 && !id.External
	case sel == "autogroup:shared":
		return e.own() && id.External
	case sel == "autogroup:internet":
		return false
	case strings.HasPrefix(sel, "autogroup:"):
		return person && string(id.Role) == strings.TrimPrefix(sel, "autogroup:")
	case strings.HasPrefix(sel, "user:*@"):
		return person && strings.HasSuffix(string(id.User), strings.TrimPrefix(sel, "user:*"))
	case strings.Contains(sel, "@"):
		return e.own() && string(id.User) == sel
	}
	if a, ok := o.Hosts[strings.TrimPrefix(sel, "host:")]; ok {
		sel = a
	}
	if p, err := netip.ParsePrefix(sel); err == nil {
		return p.Contains(e.addr)
	}
	return sel == e.addr.String()
}

func oracleSame(a, b Identity) bool {
	return a.User != "" && a.User == b.User && !a.External && !b.External
}

func (o *oraclePolicy) either(sels []string, src, dst oracleEnd) bool {
	for _, s := range sels {
		if s == "autogroup:self" {
			if src.own() && dst.own() && oracleSame(src.id, dst.id) {
				return true
			}
		} else if o.names(s, dst) {
			return true
		}
	}
	return false
}

func (o *oraclePolicy) any(sels []string, e oracleEnd) bool {
	return slices.ContainsFunc(sels, func(s string) bool { return o.names(s, e) })
}

func (o *oraclePolicy) posture(names []string, id Identity) bool {
	if len(names) == 0 {
		return true
	}
	for _, n := range names {
		all := true
		for _, a := range o.Postures[n] {
			// Only the form "node:os == 'x'" is generated.
			f := strings.Fields(a)
			v, ok := id.Attributes[f[0]]
			all = all && ok && "'"+v+"'" == f[2]
		}
		if all {
			return true
		}
	}
	return false
}

// oracleProto says what a protocol name covers, and whether ports count.
func oracleProto(name string, proto uint8) bool {
	switch name {
	case "":
		return proto == 6 || proto == 17 || proto == 1 || proto == 58
	case "tcp":
		return proto == 6
	case "udp":
		return proto == 17
	case "sctp":
		return proto == 132
	case "icmp":
		return proto == 1
	}
	n, _ := strconv.Atoi(name)
	return int(proto) == n
}

func oraclePorts(ports string, proto uint8, port uint16) bool {
	if proto != 6 && proto != 17 && proto != 132 {
		return true
	}
	for _, part := range strings.Split(ports, ",") {
		lo, hi, found := strings.Cut(part, "-")
		if !found {
			hi = lo
		}
		if part == "*" {
			return true
		}
		l, _ := strconv.Atoi(lo)
		h, _ := strconv.Atoi(hi)
		if l <= int(port) && int(port) <= h {
			return true
		}
	}
	return false
}

func (o *oraclePolicy) net(src, dst oracleEnd, proto uint8, port uint16) string {
	ping := proto == 1 || proto == 58
	if o.ACLs == nil && o.Grants == nil {
		if oracleProto("", proto) {
			return "no-section"
		}
		return "no-rule"
	}
	for i, r := range o.ACLs {
		if !o.any(r.Src, src) || !o.posture(r.SrcPosture, src.id) {
			continue
		}
		for _, d := range r.Dst {
			cut := strings.LastIndex(d, ":")
			host := strings.Trim(d[:cut], "[]")
			if o.either([]string{host}, src, dst) && (ping || oracleProto(r.Proto, proto) && oraclePorts(d[cut+1:], proto, port)) {
				return fmt.Sprintf("acls[%d]", i)
			}
		}
	}
	for i, r := range o.Grants {
		if !o.any(r.Src, src) || !o.either(r.Dst, src, dst) || !o.posture(r.SrcPosture, src.id) {
			continue
		}
		if len(r.Via) > 0 && (dst.own() || dst.id.External || !slices.ContainsFunc(r.Via, func(v string) bool { return slices.Contains(dst.id.Tags, Tag(v)) })) {
			continue
		}
		for _, ip := range r.IP {
			name, ports, ok := strings.Cut(ip, ":")
			if !ok {
				name, ports = "", ip
			}
			if name == "*" {
				name = ""
			}
			if ping || oracleProto(name, proto) && oraclePorts(ports, proto, port) {
				return fmt.Sprintf("grants[%d]", i)
			}
		}
	}
	return "no-rule"
}

// The questions are asked at the beginning of 1970, a Thursday.
const (
	oracleOpen   = "Wed-Thu 22:00-02:00 UTC"
	oracleClosed = "Fri-Wed 00:30-23:00 UTC"
)

func (o *oraclePolicy) ssh(r Request) (verdict string, rule int) {
	src, dst := oracleEnd{r.Src, r.Src.Addrs[0]}, oracleEnd{r.Dst, r.Dst.Addrs[0]}
	for _, kind := range []string{"check", "accept", "request", "glass"} {
		for i, rule := range o.SSH {
			action := kind
			if kind == "glass" {
				action = "accept"
			}
			if rule.Action != action || rule.BreakGlass != (kind == "glass") || r.BreakGlass && kind != "glass" || slices.Contains(rule.Hours, oracleClosed) || !o.any(rule.Src, src) || !o.posture(rule.SrcPosture, r.Src) {
				continue
			}
			reach := false
			for _, d := range rule.Dst {
				if strings.HasPrefix(d, "tag:") || d == "autogroup:tagged" {
					reach = reach || o.names(d, dst)
				} else {
					reach = reach || oracleSame(r.Src, r.Dst)
				}
			}
			if !reach {
				continue
			}
			for _, u := range rule.Users {
				ok := false
				switch {
				case r.UID == 0:
					ok = u == string(r.User) && slices.Contains(rule.Users, "root")
				case u == "autogroup:nonroot":
					ok = true
				case strings.HasPrefix(u, "localpart:*"):
					name, isThere := strings.CutSuffix(string(r.Src.User), strings.TrimPrefix(u, "localpart:*"))
					ok = isThere && name == string(r.User) && !r.Src.External && name != "root"
				default:
					ok = u == string(r.User)
				}
				if !ok {
					continue
				}
				if !r.SSHOnly && slices.Contains([]string{"no-rule"}, o.net(src, dst, 6, 22)) {
					return "deny", -1
				}
				return action, i
			}
		}
	}
	return "deny", -1
}

// world is the identities that random questions are about.
func world() []Identity {
	a := netip.MustParseAddr
	return []Identity{
		{ID: "1", Name: "alice-laptop", User: "alice@example.com", Role: RoleMember, Addrs: []netip.Addr{a("100.64.0.1"), a("fd7a::1")}, Attributes: map[string]string{"node:os": "linux"}},
		{ID: "2", Name: "alice-phone", User: "alice@example.com", Role: RoleMember, Addrs: []netip.Addr{a("100.64.0.2")}, Attributes: map[string]string{"node:os": "ios"}},
		{ID: "3", Name: "bob", User: "bob@example.com", Role: RoleAdmin, Addrs: []netip.Addr{a("100.64.0.3"), a("fd7a::3")}},
		{ID: "4", Name: "root-mail", User: "root@other.org", Role: RoleOwner, Addrs: []netip.Addr{a("100.64.0.4")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}},
		{ID: "5", Name: "web", Tags: []Tag{"tag:web"}, Addrs: []netip.Addr{a("100.64.0.5"), a("fd7a::5")}},
		{ID: "6", Name: "both", Tags: []Tag{"tag:db", "tag:web"}, Addrs: []netip.Addr{a("100.64.0.6")}, Attributes: map[string]string{"node:os": "linux"}},
		{ID: "7", Name: "gw", Tags: []Tag{"tag:gw"}, Addrs: []netip.Addr{a("100.64.0.7")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
		{ID: "8", Name: "guest", User: "bob@example.com", External: true, Addrs: []netip.Addr{a("100.64.0.8")}},
		{ID: "9", Name: "guest-tag", Tags: []Tag{"tag:web"}, External: true, Addrs: []netip.Addr{a("100.64.0.9")}},
	}
}

// generate makes a random policy that is legal.
func generate(r *rand.Rand) *oraclePolicy {
	pick := func(of []string, atMost int) []string {
		out := []string{}
		for range 1 + r.IntN(atMost) {
			out = append(out, of[r.IntN(len(of))])
		}
		return out
	}
	people := []string{"alice@example.com", "bob@example.com", "root@other.org", "group:a", "group:b", "autogroup:member", "autogroup:admin", "autogroup:owner", "user:*@example.com"}
	machines := []string{"tag:web", "tag:db", "tag:gw", "autogroup:tagged"}
	addrs := []string{"100.64.0.1", "100.64.0.4", "100.64.0.0/29", "10.1.0.0/16", "10.1.2.0/24", "srv", "host:net", "fd7a::/64", "fd7a::5", "10.2.0.0/24"}
	src := slices.Concat(people, machines, addrs, []string{"*", "autogroup:shared", "autogroup:danger-all"})
	dst := slices.Concat(people, machines, addrs, []string{"*", "autogroup:internet"})
	ports := []string{"*", "22", "80-443", "22,8080", "1-65535"}
	postures := func() []string {
		if r.IntN(6) == 0 {
			return pick([]string{"posture:linux", "posture:ios"}, 2)
		}
		return nil
	}
	o := &oraclePolicy{
		Groups:    map[string][]string{"group:a": {"alice@example.com"}, "group:b": {"bob@example.com", "root@other.org"}},
		Hosts:     map[string]string{"srv": "100.64.0.5", "net": "10.1.0.0/24"},
		TagOwners: map[string][]string{"tag:web": {}, "tag:db": {}, "tag:gw": {}},
		Postures:  map[string][]string{"posture:linux": {"node:os == 'linux'"}, "posture:ios": {"node:os == 'ios'"}},
		SSH:       []oracleRule{},
	}
	if r.IntN(10) > 0 {
		o.ACLs = []oracleRule{}
	}
	rules := r.IntN(4)
	if r.IntN(20) == 0 {
		rules = 40 + r.IntN(100)
	}
	for range rules {
		rule := oracleRule{Action: "accept", Src: pick(src, 2), SrcPosture: postures()}
		port := ports
		if rule.Proto = []string{"", "", "", "tcp", "udp", "icmp", "sctp", "47"}[r.IntN(8)]; rule.Proto == "icmp" || rule.Proto == "47" {
			port = []string{"*"}
		}
		if r.IntN(5) == 0 {
			rule.Src = pick(append(people, "*"), 2)
			rule.Dst = append(rule.Dst, "autogroup:self:"+port[r.IntN(len(port))])
		}
		for _, d := range pick(dst, 3) {
			if strings.Contains(d, "::") {
				d = "[" + d + "]"
			}
			rule.Dst = append(rule.Dst, d+":"+port[r.IntN(len(port))])
		}
		o.ACLs = append(o.ACLs, rule)
	}
	for range r.IntN(4) {
		rule := oracleRule{Src: pick(src, 2), Dst: pick(dst, 2), IP: pick([]string{"*", "22", "tcp:22", "udp:*", "*:*", "icmp:*", "80-443", "47:*"}, 2), SrcPosture: postures()}
		if r.IntN(5) == 0 {
			rule.Via = pick([]string{"tag:gw", "tag:web"}, 2)
		}
		if r.IntN(5) == 0 {
			rule.Src, rule.Dst = pick(people, 2), append(rule.Dst, "autogroup:self")
		}
		o.Grants = append(o.Grants, rule)
	}
	rules = r.IntN(6)
	if r.IntN(20) == 0 {
		rules = 70 + r.IntN(70)
	}
	for range rules {
		rule := oracleRule{Action: "accept", Src: pick(slices.Concat(people, machines), 2), Dst: pick(machines, 2), SrcPosture: postures(),
			Users: pick([]string{"root", "deploy", "toor", "autogroup:nonroot", "localpart:*@example.com", "localpart:*@other.org"}, 3)}
		if r.IntN(3) == 0 {
			rule.Src, rule.Dst = pick(people, 2), append(rule.Dst, []string{"autogroup:self", "autogroup:member"}[r.IntN(2)])
		}
		if r.IntN(6) == 0 {
			rule.Src, rule.Dst = []string{"alice@example.com"}, []string{"alice@example.com", "tag:db"}
		}
		if r.IntN(3) == 0 {
			rule.Action, rule.CheckPeriod = "check", []string{"", "always", "30m"}[r.IntN(3)]
			rule.Src = pick(people, 2)
			if slices.Contains(rule.Dst, "alice@example.com") {
				rule.Src = []string{"alice@example.com"}
			}
		}
		switch r.IntN(8) {
		case 0:
			rule.Hours = []string{oracleOpen}
		case 1:
			rule.Hours = []string{oracleClosed}
		case 2:
			rule.BreakGlass = rule.Action == "accept"
		case 3:
			if rule.Action == "check" {
				rule.Action, rule.CheckPeriod, rule.Approvers = "request", "", []string{"group:b"}
			}
		}
		if r.IntN(4) == 0 {
			rule.AcceptEnv = []string{"LANG", "LC_*"}
		}
		o.SSH = append(o.SSH, rule)
	}
	return o
}

// text writes the policy; a nil section is left out.
func (o *oraclePolicy) text(tb testing.TB) []byte {
	all := map[string]any{"groups": o.Groups, "hosts": o.Hosts, "tagOwners": o.TagOwners, "postures": o.Postures, "ssh": o.SSH}
	if o.ACLs != nil {
		all["acls"] = o.ACLs
	}
	if o.Grants != nil {
		all["grants"] = o.Grants
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// compare asks engine and oracle everything about one random policy.
func compare(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	o := generate(r)
	text := o.text(t)
	p, problems := Parse("random", text)
	if p == nil {
		t.Fatalf("seed %d: %v\n%s", seed, problems, text)
	}
	ids := world()
	for i := range ids {
		for j := range ids {
			src, dst := ids[i], ids[j]
			filter := p.FilterFor(dst)
			if r.IntN(3) == 0 {
				compareNet(t, r, o, p, filter, src, dst, text)
			}
			for _, u := range []struct {
				name LocalUser
				uid  uint32
			}{{"root", 0}, {"deploy", 1000}, {"toor", 0}, {"alice", 1001}, {"bob", 0}} {
				req := Request{Ask: AskLogin, Src: src, Dst: dst, User: u.name, UID: u.uid, SSHOnly: r.IntN(2) == 0, BreakGlass: r.IntN(8) == 0, Now: time.Unix(0, 0)}
				verdict, rule := o.ssh(req)
				if d := Evaluate(p, req); d.Verdict.String() != verdict || d.Rule != rule {
					t.Fatalf("seed %d: %s as %s on %s (ssh only %v): engine %s %d (%s), oracle %s %d\n%s",
						seed, src.Name, u.name, dst.Name, req.SSHOnly, d.Verdict, d.Rule, d.Reason, verdict, rule, text)
				}
			}
		}
	}
}

func compareNet(t *testing.T, r *rand.Rand, o *oraclePolicy, p *Policy, f *Filter, src, dst Identity, text []byte) {
	t.Helper()
	inside := func(id Identity) netip.Addr {
		if len(id.Routes) > 0 && r.IntN(2) == 0 {
			return id.Routes[0].Addr().Next()
		}
		return id.Addrs[r.IntN(len(id.Addrs))]
	}
	reached := false
	for range 6 {
		s, d := oracleEnd{src, inside(src)}, oracleEnd{dst, inside(dst)}
		proto := []uint8{6, 6, 17, 1, 58, 132, 47}[r.IntN(7)]
		port := []uint16{22, 80, 443, 8080, 9}[r.IntN(5)]
		want := o.net(s, d, proto, port)
		got := EvaluateNet(p, NetRequest{Src: src, Dst: dst, SrcAddr: s.addr, DstAddr: d.addr, Proto: proto, Port: port})
		code, _, _ := strings.Cut(got.Reason, ":")
		if code != want || got.Allow == (want == "no-rule") {
			t.Fatalf("%s(%s) to %s(%s) proto %d port %d: engine %v %s, oracle %s\n%s", src.Name, s.addr, dst.Name, d.addr, proto, port, got.Allow, got.Reason, want, text)
		}
		if f.Allow(&src, s.addr, d.addr, proto, port) != got.Allow {
			t.Fatalf("%s(%s) to %s(%s) proto %d port %d: filter and EvaluateNet differ\n%s", src.Name, s.addr, dst.Name, d.addr, proto, port, text)
		}
		reached = reached || got.Allow
	}
	if reached && !Adjacent(p, src, dst) {
		t.Fatalf("%s reaches %s, and they are not adjacent\n%s", src.Name, dst.Name, text)
	}
}

// randomPolicy is the seed's policy, parsed.
func randomPolicy(t *testing.T, seed uint64) *Policy {
	t.Helper()
	text := generate(rand.New(rand.NewPCG(seed, 1))).text(t)
	p, problems := Parse("random", text)
	if p == nil {
		t.Fatalf("seed %d: %v\n%s", seed, problems, text)
	}
	return p
}

func TestOracle(t *testing.T) {
	n := uint64(600)
	if testing.Short() {
		n = 100
	}
	for seed := range n {
		compare(t, seed)
	}
}

// FuzzEvaluate compares the engine with the oracle on random policies.
func FuzzEvaluate(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed * 7919)
	}
	f.Fuzz(compare)
}
