//go:build linux

package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/session"
)

// The test binary is the daemon's hidden commands, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "conn" {
		os.Exit(session.Main(os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == "inetd" {
		os.Exit(dispatch(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func TestParseIdentity(t *testing.T) {
	addr := netip.MustParseAddr("100.64.0.2")
	for text, want := range map[string]policy.Identity{
		"alice@example.com":             {ID: "n-client", Name: "client", User: "alice@example.com"},
		"alice@example.com,name=laptop": {ID: "n-laptop", Name: "laptop", User: "alice@example.com"},
		"web,tag:web,tag:prod":          {ID: "n-web", Name: "web", Tags: []policy.Tag{"tag:web", "tag:prod"}},
	} {
		got, err := parseIdentity(text, addr)
		if err != nil || got.ID != want.ID || got.Name != want.Name || got.User != want.User || !slices.Equal(got.Tags, want.Tags) || !slices.Equal(got.Addrs, []netip.Addr{addr}) {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "web", "alice@example.com,tag:web", "tag:", "@"} {
		if got, err := parseIdentity(text, addr); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

// TestInetd logs in with the stock client as who runs the test, and finds the audit log
// and the recording where they are said to be.
func TestInetd(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pol := filepath.Join(dir, "policy")
	text := `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],
		"ssh":[{"action":"accept","src":["alice@example.com"],"dst":["tag:web"],"users":["` + me.Username + `"]}]}`
	if err := os.WriteFile(pol, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	ssh := func(identity string) (string, string, error) {
		proxy := strings.Join([]string{exe, "inetd", "--identity", identity, "--self", "web,tag:web", "--policy", pol, "--state", state}, " ")
		cmd := exec.Command("ssh", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ProxyCommand="+proxy, "-l", me.Username, "web", "echo in")
		var out, errw bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errw
		err := cmd.Run()
		return out.String(), errw.String(), err
	}
	if out, errs, err := ssh("alice@example.com,name=laptop"); out != "in\n" || err != nil {
		t.Fatalf("%q %q %v", out, errs, err)
	}
	if out, errs, err := ssh("bob@example.com"); out != "" || err == nil || !strings.Contains(errs, "tssh: ") {
		t.Errorf("%q %q %v", out, errs, err)
	}
	logs, err := filepath.Glob(filepath.Join(state, "*", "audit", "*.jsonl"))
	if err != nil || len(logs) != 2 {
		t.Fatalf("%v %v", logs, err)
	}
	var kinds []string
	for _, name := range logs {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.Verify(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
		b, _ := os.ReadFile(name)
		for _, k := range []string{"session.open", "session.refuse"} {
			if bytes.Contains(b, []byte(k)) {
				kinds = append(kinds, k)
			}
		}
	}
	if slices.Sort(kinds); !slices.Equal(kinds, []string{"session.open", "session.refuse"}) {
		t.Errorf("audited %v", kinds)
	}
}
