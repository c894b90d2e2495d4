package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shape is a policy and directory made up for benchmarks; it says what it is made of.
type shape struct {
	people, groups, tags, rules, sshRules, nodes int
}

var large = shape{people: 1000, groups: 500, tags: 200, rules: 2000, sshRules: 200, nodes: 10000}

func (s shape) String() string {
	return fmt.Sprintf("nodes=%d,people=%d,groups=%d,tags=%d,rules=%d,ssh=%d", s.nodes, s.people, s.groups, s.tags, s.rules, s.sshRules)
}

func (s shape) policy() []byte {
	var b bytes.Buffer
	b.WriteString("{\n\"groups\": {\n")
	for g := range s.groups {
		fmt.Fprintf(&b, "\"group:g%d\": [", g)
		for m := range 10 {
			fmt.Fprintf(&b, "\"p%d@example.com\",", (g*7+m*31)%s.people)
		}
		b.WriteString("],\n")
	}
	b.WriteString("},\n\"tagOwners\": {\n")
	for t := range s.tags {
		fmt.Fprintf(&b, "\"tag:t%d\": [\"group:g%d\"],\n", t, t%s.groups)
	}
	b.WriteString("},\n\"acls\": [\n")
	for r := range s.rules {
		fmt.Fprintf(&b, "{\"action\":\"accept\",\"src\":[\"group:g%d\",\"p%d@example.com\"],\"dst\":[\"tag:t%d:22\",\"10.%d.%d.0/24:443\"]},\n",
			(r*13)%s.groups, (r*17)%s.people, (r*3)%s.tags, r/250, r%250)
	}
	b.WriteString("],\n\"ssh\": [\n")
	for r := range s.sshRules {
		fmt.Fprintf(&b, "{\"action\":\"accept\",\"src\":[\"group:g%d\"],\"dst\":[\"tag:t%d\"],\"users\":[\"autogroup:nonroot\",\"u%d\"]},\n",
			(r*13)%s.groups, (r*3)%s.tags, r)
	}
	b.WriteString("]}\n")
	return b.Bytes()
}

func (s shape) node(i int) Identity {
	id := Identity{ID: fmt.Sprint(i), Name: fmt.Sprintf("n%d", i), Addrs: []netip.Addr{
		netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}),
		netip.AddrFrom16([16]byte{0xfd, 0x7a, 14: byte(i >> 8), 15: byte(i)}),
	}}
	if i%10 == 0 {
		id.User, id.Role = Login(fmt.Sprintf("p%d@example.com", i/10%s.people)), RoleMember
	} else {
		id.Tags = []Tag{Tag(fmt.Sprintf("tag:t%d", i%s.tags))}
	}
	return id
}

func BenchmarkParse(b *testing.B) {
	b.Run(large.String(), func(b *testing.B) {
		text := large.policy()
		b.ReportAllocs()
		cpu(b, func() { mustParse(b, text) })
	})
}

// used gives the processor time of the process so far. On a machine that others use, too,
// it says more than the clock on the wall.
func used(tb testing.TB) time.Duration {
	tb.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// cpu reports the processor time of an operation beside the time that passed.
func cpu(b *testing.B, run func()) {
	b.Helper()
	before, n := used(b), 0
	for b.Loop() {
		run()
		n++
	}
	b.ReportMetric(float64((used(b)-before).Nanoseconds())/float64(n), "cpu-ns/op")
}

func BenchmarkEvaluate(b *testing.B) {
	p := mustParse(b, large.policy())
	ids := make([]Identity, large.nodes)
	for i := range ids {
		ids[i] = large.node(i)
	}
	for _, kind := range []string{"accept", "deny"} {
		var reqs []Request
		for i := 0; len(reqs) < 1000; i++ {
			r := Request{Ask: AskLogin, Src: ids[i*10%len(ids)], Dst: ids[(i*7+1)%len(ids)], User: "deploy", UID: 1000}
			if (Evaluate(p, r).Verdict == Accept) == (kind == "accept") {
				reqs = append(reqs, r)
			}
		}
		b.Run(kind+"/"+large.String(), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			cpu(b, func() {
				Evaluate(p, reqs[i%len(reqs)])
				i++
			})
		})
	}
}

func BenchmarkFilter(b *testing.B) {
	p := mustParse(b, large.policy())
	dst := large.node(1)
	f := p.FilterFor(dst)
	src := make([]Identity, 1000)
	for i := range src {
		src[i] = large.node(i * 10)
	}
	b.Run(large.String(), func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		cpu(b, func() {
			s := &src[i%len(src)]
			f.Allow(s, s.Addrs[0], dst.Addrs[0], protoTCP, 22)
			i++
		})
	})
}

func BenchmarkQuery(b *testing.B) {
	p := mustParse(b, large.policy())
	var nodes []DirectoryNode
	for i := range large.nodes {
		id := large.node(i)
		nodes = append(nodes, DirectoryNode{Name: id.Name, User: id.User, Tags: id.Tags, Addresses: id.Addrs})
	}
	d, err := NewDirectory(nil, nodes)
	if err != nil {
		b.Fatal(err)
	}
	line := []byte(`{"kind":"ssh","src":"n10","dst":"n39","user":"root","effective":true}`)
	var buf []byte
	for b.Loop() {
		buf = AppendQuery(buf[:0], p, d, line)
	}
}

// BenchmarkShapes are policies of a bad shape: what they cost to load and to hold.
func BenchmarkShapes(b *testing.B) {
	var self, wide, long, one bytes.Buffer
	self.WriteString(`{"acls":[`)
	for i := range 2000 {
		fmt.Fprintf(&self, `{"action":"accept","src":["p%d@example.com"],"dst":["autogroup:self:%d"]},`, i, i+1)
	}
	self.WriteString(`]}`)
	wide.WriteString(`{"acls":[`)
	for i := range 2000 {
		fmt.Fprintf(&wide, `{"action":"accept","src":["%d.0.0.0/8","::/0"],"dst":["0.0.0.0/0:%d"]},`, i%200+1, i+1)
	}
	wide.WriteString(`]}`)
	long.WriteString(`{"acls":[{"action":"accept","src":[`)
	for i := range 200000 {
		fmt.Fprintf(&long, `"10.%d.%d.%d",`, i>>16, i>>8&255, i&255)
	}
	long.WriteString(`],"dst":["*:*"]}]}`)
	one.WriteString(`{"groups":{"group:all":[`)
	for i := range 1000 {
		fmt.Fprintf(&one, `"p%d@example.com",`, i)
	}
	one.WriteString(`]},"acls":[`)
	for i := range 2000 {
		fmt.Fprintf(&one, `{"action":"accept","src":["group:all"],"dst":["100.64.%d.%d:22"]},`, i>>8, i&255)
	}
	one.WriteString(`]}`)
	for _, c := range []struct {
		name string
		text []byte
	}{
		{"self-in-2000-rules", self.Bytes()}, {"wide-cidrs-in-2000-rules", wide.Bytes()},
		{"200000-addresses-in-one-list", long.Bytes()}, {"one-group-of-1000-in-2000-rules", one.Bytes()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var p *Policy
			for b.Loop() {
				p = mustParse(b, c.text)
			}
			src, dst := large.node(10), large.node(1)
			start := time.Now()
			const asked = 10000
			for range asked {
				EvaluateNet(p, NetRequest{Src: src, Dst: dst, Proto: protoTCP, Port: 65535})
			}
			b.ReportMetric(float64(time.Since(start).Nanoseconds())/asked, "ns/decision")
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			runtime.KeepAlive(p)
			p = nil
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(before.HeapAlloc-after.HeapAlloc)/(1<<20), "MiB-held")
		})
	}
}

// BenchmarkSessions decides again about a thousand open sessions, as a host does when the
// policy changed.
func BenchmarkSessions(b *testing.B) {
	p := mustParse(b, large.policy())
	reqs := make([]Request, 1000)
	for i := range reqs {
		reqs[i] = Request{Ask: AskLogin, Src: large.node(i * 10), Dst: large.node(i*7 + 1), User: "deploy", UID: 1000}
	}
	b.Run("sessions=1000,"+large.String(), func(b *testing.B) {
		cpu(b, func() {
			for i := range reqs {
				Evaluate(p, reqs[i])
			}
		})
	})
}

// BenchmarkJoin is what a node that was never seen costs: its first decision.
func BenchmarkJoin(b *testing.B) {
	p := mustParse(b, large.policy())
	ids := make([]Identity, large.nodes)
	for i := range ids {
		ids[i] = large.node(i)
	}
	b.Run(large.String(), func(b *testing.B) {
		i := 0
		cpu(b, func() {
			i++
			Adjacent(p, ids[i%len(ids)], ids[(i*7+1)%len(ids)])
		})
	})
}

// BenchmarkAllPairs is who can log in where as root, over the whole mesh.
func BenchmarkAllPairs(b *testing.B) {
	p := mustParse(b, large.policy())
	var users []DirectoryUser
	var nodes []DirectoryNode
	for i := range large.people {
		users = append(users, DirectoryUser{Login: Login(fmt.Sprintf("p%d@example.com", i)), Role: RoleMember})
	}
	for i := range large.nodes {
		n := large.node(i)
		nodes = append(nodes, DirectoryNode{Name: n.Name, User: n.User, Tags: n.Tags, Addresses: n.Addrs})
	}
	d, err := NewDirectory(users, nodes)
	if err != nil {
		b.Fatal(err)
	}
	b.Run(large.String(), func(b *testing.B) {
		cpu(b, func() { Who(p, d, WhoQuery{Account: "deploy"}) })
	})
}
