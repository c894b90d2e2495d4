package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func parseErr(t *testing.T, text string, want string) {
	t.Helper()
	start := time.Now()
	p, problems := Parse("policy", []byte(text))
	if p != nil {
		t.Fatalf("%.60q was accepted", text)
	}
	if !slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning && strings.Contains(p.Error(), want) }) {
		t.Fatalf("%.60q: got %.300v, want %q", text, problems, want)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("%.60q took %v", text, took)
	}
}

// TestHostileText has texts that bring down parsers.
func TestHostileText(t *testing.T) {
	parseErr(t, strings.Repeat("[", 2_000_000), "policy:1:65: nested deeper than 64 levels")
	parseErr(t, `{"acls":`+strings.Repeat("[", 2_000_000), "nested deeper")
	parseErr(t, strings.Repeat(`{"a":`, 1_000_000), "nested deeper")
	parseErr(t, `{"a": "`+strings.Repeat(`\"[`, 1000), "policy:")
	parseErr(t, "{\n\"a\xff\": []}", "policy:2:3: the text is not valid UTF-8")
	parseErr(t, "{\x00}", "policy:1:2: the text has a NUL byte")
	parseErr(t, strings.Repeat(" ", maxText)+"{}", "larger than 16 MiB")
	parseErr(t, "", "policy:1:1: the file is empty")
	parseErr(t, "\xef\xbb\xbf", "the file is empty")
	parseErr(t, "// only this", "the file is empty")
	parseErr(t, "/* never closed", "policy:")
	parseErr(t, `{"acls": [}`, "policy:1:11: syntax")
	parseErr(t, `{"acls": []} {}`, "policy:1:14: syntax")
	parseErr(t, "null", "policy:1:1: a policy file must be an object")
	parseErr(t, `{"ssh": [`+strings.Repeat("{},", 100_000)+`]}`, "action must be specified")
	big := `{"ipsets": {"ipset:big": [` + manyAddresses(50_000) + `], `
	parseErr(t, big+`"ipset:a": [`+strings.Repeat(`"ipset:big",`, 50_000)+`]}}`, "too many addresses in all sets together")
	parseErr(t, big+`}, "acls": [{"action": "accept", "src": [`+strings.Repeat(`"ipset:big",`, 50_000)+`], "dst": ["*:*"]}]}`, "too many rules with too many names")
	parseErr(t, `{"acls": [`+strings.Repeat(`{"action":"accept","src":["tag:nearly"],"dst":["tag:nearby:1"]},`, 20_000)+`], "tagOwners": {`+manyTags(1000)+`}}`, `tag not found`)
	parseErr(t, `{"`+strings.Repeat("a", 1<<20)+`": 1}`, "unknown key")
}

func manyAddresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"10.%d.%d.%d",`, i>>15, i>>7&255, i<<1&255)
	}
	return b.String()
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"tag:near%d": [],`, i)
	}
	return b.String()
}

// TestManyPeopleAndRules: tables out of proportion are refused, not built.
func TestManyPeopleAndRules(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"acls": [`)
	for i := range 70_000 {
		fmt.Fprintf(&b, `{"action":"accept","src":["p%d@x.org"],"dst":["*:1"]},`, i)
	}
	parseErr(t, b.String()+`]}`, "too many rules with too many names")
}

// TestNotes: braces in strings and comments are not nesting, a last comment needs no
// newline, a byte order mark is no matter.
func TestNotes(t *testing.T) {
	for _, text := range []string{
		"\xef\xbb\xbf{\"acls\": []}",
		`{"acls": [], "hosts": {}} // the end`,
		`{"acls": [], /* ` + strings.Repeat("[", 1000) + ` */ "ssh": []}`,
		`{"acls": [], // ` + strings.Repeat("{", 1000) + "\n}",
		`{"groups": {"group:` + strings.Repeat("[", 200) + `": []}, "acls": []}`,
	} {
		if p, problems := Parse("policy", []byte(text)); p == nil {
			t.Errorf("%.50q: %v", text, problems)
		}
	}
}

func TestManyProblemsAreBounded(t *testing.T) {
	_, problems := Parse("policy", []byte(`{"acls": [`+strings.Repeat(`{"a":1},`, 5000)+`]}`))
	if len(problems) != maxProblems+1 {
		t.Fatalf("%d problems", len(problems))
	}
}

func TestPlaceCountsCharacters(t *testing.T) {
	parseErr(t, "{ /* \u00e5\u00e4\u00f6 */ \"nope\": 1}", "policy:1:13: unknown key")
}

// TestPolicyIsItsOwn: what the caller does with its bytes afterwards changes nothing.
func TestPolicyIsItsOwn(t *testing.T) {
	text := []byte(`{"acls": [{"action": "accept", "src": ["a@x.org"], "dst": ["b@x.org:1"]}]}`)
	was := bytes.Clone(text)
	p := mustParse(t, text)
	clear(text)
	if !bytes.Equal(p.Text(), was) {
		t.Error("Text follows the caller's bytes")
	}
	clear(p.Text())
	if !bytes.Equal(p.Text(), was) {
		t.Error("Text gives the policy's own bytes away")
	}
	a, b := Identity{ID: "1", User: "a@x.org"}, Identity{ID: "2", User: "b@x.org"}
	if !EvaluateNet(p, NetRequest{Src: a, Dst: b, Proto: protoTCP, Port: 1}).Allow {
		t.Error("rules follow the caller's bytes")
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"asl", "acls"}, {"ACLs", "acls"}, {"tagowner", "tagOwners"}, {"sshtest", "sshTests"}, {"xyzzy", ""}, {"q", ""},
	} {
		if got := nearest(c.word, []string{"acls", "grants", "sshTests", "tagOwners"}); got != c.want {
			t.Errorf("nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"acls": []}`, `{"acls": [{"action":"accept","src":["*"],"dst":["*:*"]}]} // x`,
		`{"groups":{"group:a":["a@x.org"]},"ssh":[{"action":"check","src":["group:a"],"dst":["autogroup:self"],"users":["root","localpart:*@x.org"],"checkPeriod":"1h"}]}`,
		`{"ipsets":{"ipset:a":["add 10.0.0.0/8","remove 10.0.0.1-10.0.0.9"],"ipset:b":["ipset:a","ipset:b"]}}`,
		`{"postures":{"posture:a":["node:os IN ['a','b']","node:v >= '1.2.3'"]},"defaultSrcPosture":["posture:a"]}`,
		`{"tagOwners":{"tag:a":["tag:b"],"tag:b":["tag:a"]},"autoApprovers":{"routes":{"10.0.0.0/8":["tag:a"]},"exitNode":["tag:b"]}}`,
		`{"tagOwners":{"tag:a":[]},"acls":[],"ssh":[{"action":"accept","src":["a@x.org"],"dst":["tag:a"],"users":["x"],"permit":{"pty":true,"sftp":"read","forwardLocal":["*.a:1-2,3","[fd00::]/8:*"],"forwardUnix":["/a/*"]},"hours":["Mon-Fri 22:00-06:00 Europe/Oslo"],"until":"2027-01-31T18:00:00+01:00","record":"off","watch":[]},{"action":"request","src":["a@x.org"],"dst":["tag:a"],"users":["y"],"approvers":["a@x.org"],"commands":["a * 'b c' ..."]}]}`,
		`{"grants":[{"src":["user:*@x.org"],"dst":["[fd00::]/8"],"ip":["tcp:22","80-90"],"via":["tag:a"]}]}`,
		`{"tests":[{"src":"a@x.org","accept":["1.2.3.4:5"]}],"sshTests":[{"src":"a@x.org","dst":["a@x.org"],"deny":["root"]}]}`,
		"{\"a\xff", "[[[[", `{"acls":[{"dst":["]:","[]:1","[:1",":"]}]}`, "/*", `"`, "\\",
	} {
		f.Add([]byte(seed))
	}
	d, err := NewDirectory([]DirectoryUser{{Login: "a@x.org"}}, []DirectoryNode{{Name: "n", User: "a@x.org"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, problems := Parse("fuzz", text)
		if (p == nil) != (len(problems) > 0) {
			t.Fatalf("policy %v with %d problems", p != nil, len(problems))
		}
		for _, q := range problems {
			if !q.Warning && q.Line > bytes.Count(text, []byte("\n"))+1 {
				t.Fatalf("%v is outside of the text", q)
			}
		}
		if p == nil {
			return
		}
		RunTests(p, d)
		for _, a := range world() {
			for _, b := range world() {
				dec := Evaluate(p, Request{Ask: AskLogin, Src: a, Dst: b, User: "root"})
				if dec.Verdict == Accept && (dec.Rule < 0 || dec.Section != "ssh") {
					t.Fatalf("accepted without a rule: %+v", dec)
				}
				EvaluateNet(p, NetRequest{Src: a, Dst: b, Proto: protoTCP, Port: 22})
				Adjacent(p, a, b)
			}
		}
	})
}

func FuzzQuery(f *testing.F) {
	p, problems := Parse("p", []byte(`{"tagOwners":{"tag:a":[]},"ssh":[{"action":"accept","src":["a@x.org"],"dst":["tag:a"],"users":["root"],"acceptEnv":["A\"*"]}]}`))
	if p == nil {
		f.Fatal(problems)
	}
	d, err := NewDirectory(nil, []DirectoryNode{{Name: "n", User: "a@x.org"}, {Name: "a", Tags: []Tag{"tag:a"}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"kind":"ssh","src":"n","dst":"a","user":"root","effective":true}`, `{"kind":"net","src":"n","dst":"1.2.3.4","proto":"gre","family":4}`,
		`{"kind":"tag","actor":"a@x.org","tag":"tag:a"}`, `{"kind":"route","node":"a","prefix":"10.0.0.0/8"}`, `{"kind":"\u0001<"}`, `[`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		out := EvalQuery(p, d, line)
		if !validAnswer(out) {
			t.Fatalf("%q gave %q", line, out)
		}
	})
}

func mustParse(tb testing.TB, text []byte) *Policy {
	tb.Helper()
	p, problems := Parse("policy.hujson", text)
	if p == nil {
		tb.Fatal(problems)
	}
	return p
}
