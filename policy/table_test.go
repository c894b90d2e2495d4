package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

func section(t *testing.T, a *txtar.Archive, name string) (string, bool) {
	t.Helper()
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data), true
		}
	}
	return "", false
}

func archives(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/%s: %v", dir, err)
	}
	return files
}

func testDirectory(t *testing.T) *Directory {
	t.Helper()
	text, err := os.ReadFile("testdata/directory.json")
	if err != nil {
		t.Fatal(err)
	}
	d, err := ReadDirectory(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestTables asks the questions of testdata/tables. A line is a question, "->" and the
// answer; the questions are
//
//	SRC as ACCOUNT on DST            an ssh login, network rules left out
//	SRC as ACCOUNT on DST effective  with network rules
//	SRC as ACCOUNT on DST at TIME    at that time; without it hours count as open
//	SRC as ACCOUNT on DST may KIND [TARGET]   in an open login; the answer is yes or no
//	SRC as ACCOUNT on DST says       what the rule says about its sessions
//	VIEWER watches|joins|ends|deletes SRC as ACCOUNT on DST   a session of SRC; the answer is yes or no
//	SRC to DST PROTO [PORT] [v4|v6]  a flow
//	ACTOR tags TAG
//	NODE routes PREFIX
//
// and the answer is the verdict, then the rule or the code of the reason, then for logins
// what differs from nothing: env=A,B period=P recorder=TAG enforce.
func TestTables(t *testing.T) {
	d := testDirectory(t)
	for _, file := range archives(t, "tables") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, ok := section(t, a, "policy")
			if !ok {
				t.Fatal("a table file needs the section policy")
			}
			askTable(t, a, text, d)
		})
	}
}

// askTable asks what stands in the section table of the policy.
func askTable(t *testing.T, a *txtar.Archive, text string, d *Directory) {
	t.Helper()
	table, ok := section(t, a, "table")
	if !ok {
		t.Fatal("a table file needs the section table")
	}
	p, problems := Parse("policy", []byte(text))
	if p == nil {
		t.Fatal(problems)
	}
	if failed := RunTests(p, d); len(failed) > 0 {
		t.Error(failed)
	}
	if want, ok := section(t, a, "warnings"); ok {
		checkProblems(t, p.Warnings(), want)
	}
	asked := 0
	for n, line := range strings.Split(table, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		question, want, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("table line %d: no ->", n+1)
		}
		asked++
		got := answer(t, p, d, strings.Fields(question))
		if want = strings.Join(strings.Fields(want), " "); got != want {
			t.Errorf("table line %d: %s\n\tgot  %s\n\twant %s", n+1, strings.TrimSpace(question), got, want)
		}
	}
	if asked == 0 {
		t.Error("the table is empty")
	}
}

var asks = map[string]Ask{"pty": AskPTY, "shell": AskShell, "exec": AskExec, "sftp": AskSFTP, "subsystem": AskSubsystem, "forward-local": AskForwardLocal,
	"forward-remote": AskForwardRemote, "forward-unix": AskForwardUnix, "agent": AskAgent, "x11": AskX11}

func may(t *testing.T, p *Policy, d *Directory, src, user, dst, kind, target string) string {
	t.Helper()
	s, ok := d.Node(src)
	h, ok2 := d.Node(dst)
	if !ok || !ok2 || asks[kind] == AskNothing {
		t.Fatalf("no such node or kind: %s %s %s", src, dst, kind)
	}
	if Evaluate(p, Request{Ask: asks[kind], Src: s, Dst: h, User: LocalUser(user), UIDUnknown: true, SSHOnly: true, AnyTime: true, Target: target}).Verdict == Accept {
		return "yes"
	}
	return "no"
}

var over = map[string]Ask{"watches": AskWatch, "joins": AskJoin, "ends": AskEnd, "deletes": AskDelete}

func oversees(t *testing.T, p *Policy, d *Directory, f []string) string {
	t.Helper()
	viewer, ok := d.Node(f[0])
	src, ok2 := d.Node(f[2])
	dst, ok3 := d.Node(f[6])
	if !ok || !ok2 || !ok3 {
		t.Fatalf("no such node: %v", f)
	}
	if Evaluate(p, Request{Ask: over[f[1]], Viewer: viewer, Src: src, Dst: dst, User: LocalUser(f[4]), UIDUnknown: true}).Verdict == Accept {
		return "yes"
	}
	return "no"
}

// says is what the rule of a login says about its sessions, in words.
func says(t *testing.T, p *Policy, d *Directory, q map[string]any) string {
	t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Verdict, Terms string }
	if err := json.Unmarshal(EvalQuery(p, d, line), &out); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.Verdict + " " + out.Terms)
}

func answer(t *testing.T, p *Policy, d *Directory, f []string) string {
	t.Helper()
	var q map[string]any
	switch {
	case len(f) >= 5 && f[1] == "as" && f[3] == "on":
		q = map[string]any{"kind": "ssh", "src": f[0], "user": f[2], "dst": f[4], "effective": len(f) > 5 && f[5] == "effective"}
		if len(f) == 7 && f[5] == "at" {
			q["time"] = f[6]
		}
		if len(f) == 6 && f[5] == "says" {
			return says(t, p, d, q)
		}
		if len(f) >= 7 && f[5] == "may" {
			return may(t, p, d, f[0], f[2], f[4], f[6], strings.Join(f[7:], " "))
		}
	case len(f) == 7 && over[f[1]] != AskNothing:
		return oversees(t, p, d, f)
	case len(f) >= 4 && f[1] == "to":
		q = map[string]any{"kind": "net", "src": f[0], "dst": f[2], "proto": f[3]}
		for _, w := range f[4:] {
			if fam, ok := strings.CutPrefix(w, "v"); ok {
				q["family"], _ = strconv.Atoi(fam)
			} else {
				q["port"], _ = strconv.Atoi(w)
			}
		}
	case len(f) == 3 && f[1] == "tags":
		q = map[string]any{"kind": "tag", "actor": f[0], "tag": f[2]}
	case len(f) == 3 && f[1] == "routes":
		q = map[string]any{"kind": "route", "node": f[0], "prefix": f[2]}
	default:
		t.Fatalf("question not understood: %v", f)
	}
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Error           string
		Verdict         string
		Rule            int
		Reason          string
		AcceptEnv       []string
		Recorder        []string
		EnforceRecorder bool
		CheckPeriod     string
	}
	raw := EvalQuery(p, d, line)
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	if out.Error != "" {
		return "error " + out.Error
	}
	code := out.Reason
	if i := strings.IndexAny(code, ": "); i >= 0 {
		code = code[:i]
	}
	s := out.Verdict + " " + code
	if _, index, ok := strings.Cut(code, "["); ok && index != fmt.Sprintf("%d]", out.Rule) {
		s += fmt.Sprintf(" but rule %d", out.Rule)
	}
	if len(out.AcceptEnv) > 0 {
		s += " env=" + strings.Join(out.AcceptEnv, ",")
	}
	if out.Verdict == "check" {
		s += " period=" + out.CheckPeriod
	}
	if len(out.Recorder) > 0 {
		s += " recorder=" + strings.Join(out.Recorder, ",")
	}
	if out.EnforceRecorder {
		s += " enforce"
	}
	return s
}

func checkProblems(t *testing.T, problems []Problem, want string) {
	t.Helper()
	var got strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&got, p.Error())
	}
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got.String())); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

var update = flag.Bool("update", false, "write what is found into testdata/errors and testdata/lint")

// TestErrors holds each policy of testdata/errors to exactly the problems written beside
// it: those of Parse, or, when it loads, those of its own tests.
func TestErrors(t *testing.T) {
	d := testDirectory(t)
	for _, file := range archives(t, "errors") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := section(t, a, "policy")
			askRefused(t, file, a, text, d)
		})
	}
}

// askRefused holds a policy to the problems of the section problems.
func askRefused(t *testing.T, file string, a *txtar.Archive, text string, d *Directory) {
	t.Helper()
	want, ok := section(t, a, "problems")
	if !ok || strings.TrimSpace(want) == "" && !*update {
		t.Fatal("an error file needs the section problems")
	}
	p, problems := Parse("policy", []byte(text))
	if p != nil {
		problems = RunTests(p, d)
	}
	if *update {
		writeProblems(t, file, a, problems)
		return
	}
	failed := false
	for _, q := range problems {
		failed = failed || !q.Warning
	}
	if !failed {
		t.Error("no error at all")
	}
	checkProblems(t, problems, want)
}

func writeProblems(t *testing.T, file string, a *txtar.Archive, problems []Problem) {
	t.Helper()
	var b bytes.Buffer
	for _, p := range problems {
		fmt.Fprintln(&b, p.Error())
	}
	writeSection(t, file, a, "problems", b.String())
}

func writeSection(t *testing.T, file string, a *txtar.Archive, name, text string) {
	t.Helper()
	for i := range a.Files {
		if a.Files[i].Name == name {
			a.Files[i].Data = []byte(text)
		}
	}
	if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}
