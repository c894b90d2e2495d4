package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testPolicy = `{
	"tagOwners": {"tag:web": ["alice@example.com"]},
	"acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:22"]}],
	"ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"]}],
	"sshTests": [{"src": "alice@example.com", "dst": ["tag:web"], "accept": ["deploy"], "deny": ["root"]}],
}
`

const testDirectory = `{"users": [{"login": "alice@example.com", "role": "member"}],
"nodes": [{"name": "laptop", "user": "alice@example.com", "addresses": ["100.64.0.1"]},
{"name": "web", "tags": ["tag:web"], "addresses": ["100.64.0.2"], "localUsers": {"root": 0}}]}`

func policyFolder(t testing.TB, policy string) (dir, policyFile, directoryFile string) {
	t.Helper()
	dir = t.TempDir()
	policyFile, directoryFile = filepath.Join(dir, "policy.hujson"), filepath.Join(dir, "directory.json")
	for name, text := range map[string]string{policyFile: policy, directoryFile: testDirectory} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, policyFile, directoryFile
}

func TestPolicyCommand(t *testing.T) {
	dir, p, d := policyFolder(t, testPolicy)
	typo := filepath.Join(dir, "typo.hujson")
	failing := filepath.Join(dir, "failing.hujson")
	open := filepath.Join(dir, "open.hujson")
	wide := filepath.Join(dir, "wide.hujson")
	for name, text := range map[string]string{
		typo:    "{\n\t\"acl\": [],\n\t\"ssh\": [{\"action\": \"accpt\", \"src\": [\"autogroup:member\"], \"dst\": [\"autogroup:self\"], \"users\": [\"root\"]}],\n}\n",
		failing: strings.Replace(testPolicy, `"deny": ["root"]`, `"deny": ["deploy"]`, 1),
		open:    "{} // all of it",
		wide:    strings.NewReplacer(`tag:web:22`, `tag:web:22-30`, `["deploy"]`, `["root"]`, `"accept": ["root"]`, `"accept": ["root"]`, `"deny": ["root"]`, `"deny": []`).Replace(testPolicy),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   []string
		stdin  string
		status int
		stdout string
		stderr string // contained
	}{
		{[]string{"check", p}, "", 0, "", ""},
		{[]string{"check", p, "--directory", d}, "", 0, "", ""},
		{[]string{"check", "--directory=" + d, p}, "", 0, "", ""},
		{[]string{"test", p}, "", 0, "0 tests and 1 sshTests hold\n", ""},
		{[]string{"check", typo}, "", 1, "", typo + `:2:2: unknown key "acl" in the policy file, did you mean "acls"?`},
		{[]string{"check", typo}, "", 1, "", typo + `:3:21: ssh[0]: "accpt" is not a valid action, did you mean "accept"?`},
		{[]string{"test", failing}, "", 1, "", failing + ":5:95: test(s) failed: sshTests[0]: alice@example.com must not log in as deploy on tag:web, and ssh[0] on line 4 says accept"},
		{[]string{"check", open}, "", 0, "", open + ":1:1: warning: THE NETWORK IS OPEN"},
		{[]string{"check", filepath.Join(dir, "none")}, "", 1, "", "no such file"},
		{[]string{"check", p, "--directory", p}, "", 1, "", p + ": policy: directory:"},
		{[]string{"check"}, "", 2, "", "policy check needs a FILE"},
		{[]string{"check", p, p}, "", 2, "", "policy check takes 1 argument, not 2"},
		{[]string{"check", "--json", p}, "", 0, "[]\n", ""},
		{[]string{"test", "--json", p}, "", 0, "{\n  \"sshTests\": 1,\n  \"tests\": 0\n}\n", ""},
		{[]string{"lint", p}, "", 0, "", ""},
		{[]string{"lint", p, "--directory", d}, "", 0, "", ""},
		{[]string{"lint", typo}, "", 1, typo + ":1:1: warning: THE NETWORK IS OPEN: the file has neither acls nor grants, so every node may reach every port of every node; write \"acls\": [] to close it\n" + typo + ":2:2: unknown key \"acl\" in the policy file, did you mean \"acls\"?\n" + typo + ":3:21: ssh[0]: \"accpt\" is not a valid action, did you mean \"accept\"?\n", ""},
		{[]string{"who", p}, "", 2, "", "policy who needs --directory (tsshub policy directory prints the mesh's)"},
		{[]string{"who", p, "--directory", d}, "", 0, "WHO                FROM    AS      ON   HOW     RULE\nalice@example.com  laptop  deploy  web  accept  ssh[0] line 4\n", ""},
		{[]string{"who", p, "--directory", d, "--as", "root"}, "", 0, "nobody\n", ""},
		{[]string{"who", p, "--directory", d, "--as", "root", "--json"}, "", 0, "[]\n", ""},
		{[]string{"who", p, "--directory", d, "--host", "wbe"}, "", 1, "", `"wbe" is no machine of the directory`},
		{[]string{"diff", p, "--directory", d}, "", 2, "", "policy diff takes 2 arguments, not 1"},
		{[]string{"diff", p, failing, "--directory", d}, "", 0, "nobody gains or loses anything\n", ""},
		{[]string{"diff", p, wide, "--directory", d}, "", 0, "- alice@example.com (laptop): login as deploy on web: was accept\n+ alice@example.com (laptop): login as root on web: accept\n+ alice@example.com (laptop): ports of web: 23-30\n", ""},
		{[]string{"diff", p, typo, "--directory", d}, "", 1, "", "did you mean"},
		{[]string{"explain", p, "--directory", d, "laptop", "web"}, "", 1, "", `"web" is neither ACCOUNT@HOST nor HOST:PORT`},
		{[]string{"explain", p, "--directory", d, "laptop", "12@web"}, "", 1, "", `local user "12"`},
		{[]string{"explain", p, "--directory", d, "nobody", "root@web"}, "", 1, "", `"nobody" is no machine, address or login`},
		{[]string{"explain", p, "--directory", d, "laptop", "web:22/sctp"}, "", 1, "", "only /tcp or /udp"},
		{[]string{"explain", p, "--directory", d, "alice@example.com", "root@web"}, "", 0, `deny: no-login: ssh rules reach this host from this source, but none for this account
the person is told: policy does not let alice@example.com log in as root on web

logins (check rules are asked first, the first that matches decides):
  no  ssh[0] line 4: root is root (uid 0), which only "root" written in users lets in

network, TCP port 22 (a login needs this too):
  ==> acls[0] line 3: alice@example.com is alice@example.com, web is tag:web, and the port is among 22
`, ""},
		{[]string{"explain", p, "--directory", d, "100.64.0.1", "web:23/udp"}, "", 0, `deny: no-rule: no acl or grant allows this

network (rules add up, any that matches allows):
  no  acls[0] line 3: the rule is for 22
`, ""},
		{[]string{"eval", "--policy", p}, "", 2, "", "needs --policy and --directory"},
		{[]string{"eval", "--policy", p, "--directory", d, "x"}, "", 2, "", `unexpected argument "x"`},
		{[]string{"frobnicate"}, "", 2, "", `unknown verb "frobnicate"`},
		{[]string{"check", "--what", p}, "", 2, "", "usage:"},
		{nil, "", 2, "", "usage:"},
		{[]string{"check", "-h"}, "", 0, policyUsage, ""},
		{[]string{"eval", "--policy", typo, "--directory", d}, "{}\n", 1, "", "did you mean"},
		{[]string{"eval", "--policy", p, "--directory", d}, "", 0, "", ""},
		{[]string{"eval", "--policy", p, "--directory", d},
			`{"kind":"net","src":"laptop","dst":"web","proto":"tcp","port":22}` + "\n\n" + `{"kind":"net","src":"web","dst":"laptop","proto":"tcp","port":22}` + "\n" +
				strings.Repeat("x", maxQueryLine+10) + "\n" + `{"kind":"tag","actor":"laptop","tag":"tag:web"}`,
			0, `{"verdict":"allow","rule":0,"reason":"acls[0]"}
{"error":"unexpected end of JSON input"}
{"verdict":"deny","rule":-1,"reason":"no-rule: no acl or grant allows this"}
{"error":"the line is longer than 1 MiB"}
{"verdict":"allow","rule":0,"reason":"owner: tagOwners names the actor"}
`, ""},
	} {
		var out, errs bytes.Buffer
		status := policyCommand(c.args, strings.NewReader(c.stdin), &out, &errs)
		if status != c.status || out.String() != c.stdout || !strings.Contains(errs.String(), c.stderr) || c.stderr == "" && errs.Len() > 0 {
			t.Errorf("policy %s:\nstatus %d want %d\nstdout %s\nwant   %s\nstderr %s\nwant   %s", c.args, status, c.status, &out, c.stdout, &errs, c.stderr)
		}
	}
}

// TestPolicyEvalAnswersAtOnce: a program may wait for each answer before it asks on.
func TestPolicyEvalAnswersAtOnce(t *testing.T) {
	_, p, d := policyFolder(t, testPolicy)
	questions, ask := io.Pipe()
	hear, answers := io.Pipe()
	done := make(chan int, 1)
	go func() { // ends with the pipe of questions
		done <- policyCommand([]string{"eval", "--policy", p, "--directory", d}, questions, answers, io.Discard)
		answers.Close()
	}()
	heard := make(chan string)
	go func() { // ends with the pipe of answers
		buf := make([]byte, 4096)
		for {
			n, err := hear.Read(buf)
			if n > 0 {
				heard <- string(buf[:n])
			}
			if err != nil {
				close(heard)
				return
			}
		}
	}()
	for range 3 {
		fmt.Fprintln(ask, `{"kind":"ssh","src":"laptop","dst":"web","user":"deploy","effective":true}`)
		select {
		case s := <-heard:
			if !strings.HasPrefix(s, `{"verdict":"accept"`) {
				t.Fatal(s)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no answer while the next question waits for it")
		}
	}
	ask.Close()
	if status := <-done; status != 0 {
		t.Errorf("status %d", status)
	}
	for range heard {
		t.Error("more answers than questions")
	}
}

func BenchmarkPolicyEval(b *testing.B) {
	_, p, d := policyFolder(b, testPolicy)
	const lines = 100_000
	in := strings.Repeat(`{"kind":"ssh","src":"laptop","dst":"web","user":"root","effective":true}`+"\n"+`{"kind":"net","src":"laptop","dst":"web","proto":"tcp","port":22,"family":4}`+"\n", lines/2)
	for b.Loop() {
		if status := policyCommand([]string{"eval", "--policy", p, "--directory", d}, strings.NewReader(in), io.Discard, io.Discard); status != 0 {
			b.Fatal(status)
		}
	}
	b.ReportMetric(float64(lines*b.N)/b.Elapsed().Seconds(), "queries/s")
}
