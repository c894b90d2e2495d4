package launch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParsePasswd(t *testing.T) {
	for line, want := range map[string]Account{
		"deploy:x:1001:1002:D:/home/deploy:/bin/bash": {Name: "deploy", UID: 1001, GID: 1002, Home: "/home/deploy", Shell: "/bin/bash"},
		"a:x:1:2:::": {Name: "a", UID: 1, GID: 2, Home: "/", Shell: "/bin/sh"},
	} {
		if got, err := parsePasswd(line); err != nil || got.Name != want.Name || got.UID != want.UID || got.GID != want.GID || got.Home != want.Home || got.Shell != want.Shell {
			t.Errorf("%s: %+v %v", line, got, err)
		}
	}
	for _, line := range []string{"", "a:x:0", "a:x::0::/:/bin/sh", "a:x:-1:0::/:/bin/sh", "a:x:4294967295:0::/:/bin/sh", "a:x:4294967296:0::/:/bin/sh", "a:x:+1:0::/:/bin/sh", "a:x:00x:0::/:/bin/sh",
		":x:0:0::/:/bin/sh", "a:x:1:1::/:bin/sh", "a:x:1:1::/:/bin/sh:more", "a:x:1:1::/\r:/bin/sh"} {
		if got, err := parsePasswd(line); !errors.Is(err, ErrLookup) {
			t.Errorf("%q: %+v %v", line, got, err)
		}
	}
}

// TestLookup compares the host's name service with the files, where both know root.
func TestLookup(t *testing.T) {
	ctx := context.Background()
	byService, err := Accounts{}.Lookup(ctx, "root")
	if err != nil || byService.UID != 0 || !slices.Contains(byService.Groups, 0) {
		t.Fatalf("%+v %v", byService, err)
	}
	for _, name := range []string{"no-such-account", "daemon:x:0", "roo"} {
		if a, err := (Accounts{}).Lookup(ctx, name); !errors.Is(err, ErrNoAccount) {
			t.Errorf("%q: %+v %v", name, a, err)
		}
	}
	dir := t.TempDir()
	write(t, dir, "passwd", "root:x:0:0:root:/root:/bin/bash\nx:x:1000:100::/home/x:/bin/zsh\n")
	write(t, dir, "group", "root:x:0:\nusers:x:100:\nwheel:x:10:a,x\nother:x:11:xx\n")
	files := Accounts{Root: dir}
	a, err := files.Lookup(ctx, "x")
	if err != nil || !slices.Equal(a.Groups, []uint32{10, 100}) || a.Shell != "/bin/zsh" {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := files.Lookup(ctx, "xx"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("xx: %v", err)
	}
	write(t, dir, "group", "wheel:x:ten:x\n")
	if _, err := files.Lookup(ctx, "x"); !errors.Is(err, ErrLookup) {
		t.Errorf("a group that is no number: %v", err)
	}
	if _, err := (Accounts{Root: filepath.Join(dir, "none")}).Lookup(ctx, "x"); !errors.Is(err, ErrLookup) {
		t.Errorf("no files: %v", err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestUsable(t *testing.T) {
	now := time.Unix(20000*86400, 0)
	for line, want := range map[string]string{
		"a:!:19000:0:99999:7:::":      "",
		"a:*:19000:0:99999:7::20001:": "",
		"a:x:19000:0:99999:7::19999:": "expired on 2024-10-03",
		"a:x:19000:0:90:7:30::":       "too old",
		"a:x:19990:0:90:7:30::":       "",
		"a:x:0:0:90:7:30::":           "", // to be changed at the next login with a password
		"broken":                      "",
	} {
		var a Account
		a.Name, a.UID = "a", 1000
		a.expires, a.stale = parseShadow(line, now)
		if got := a.usable(t.TempDir(), now); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
	dir := t.TempDir()
	write(t, dir, "nologin", "back at noon\n")
	if got := (Account{UID: 1000}).usable(dir, now); !strings.Contains(got, "back at noon") {
		t.Errorf("nologin: %q", got)
	}
	if got := (Account{UID: 0}).usable(dir, now); got != "" {
		t.Errorf("nologin kept root out: %q", got)
	}
}

func TestAcceptEnv(t *testing.T) {
	patterns := []string{"*"}
	for _, c := range []struct {
		name, value string
		patterns    []string
		want        bool
	}{
		{"LANG", "de_DE.UTF-8", nil, true}, {"LC_ALL", "C", nil, true}, {"LANG", "/tmp/evil", patterns, false}, {"LC_X", "-x", patterns, false}, {"COLORTERM", "truecolor", nil, true},
		{"GIT_PROTOCOL", "version=2", nil, true}, {"FOO", "1", nil, false}, {"FOO", "1", []string{"F*"}, true}, {"FOO", "1", []string{"F?"}, false}, {"FOO", "1", []string{"*O?"}, true},
		{"FOO", "a\x00b", patterns, false}, {"FOO BAR", "", patterns, false}, {"1FOO", "", patterns, false}, {"", "", patterns, false}, {"FOO", strings.Repeat("x", 1<<20), patterns, false},
		{"LD_PRELOAD", "x", patterns, false}, {"ld_preload", "x", patterns, false}, {"LD_ANYTHING", "x", patterns, false}, {"BASH_ENV", "x", patterns, false}, {"BASH_FUNC_ls%%", "x", patterns, false}, {"ENV", "x", patterns, false},
		{"GLIBC_TUNABLES", "x", patterns, false}, {"PATH", "x", patterns, false}, {"SSH_CONNECTION", "x", patterns, false}, {"TSSH_USER", "root", patterns, false}, {"PYTHONSTARTUP", "x", patterns, false},
		{"IFS", "x", patterns, false}, {"LOCPATH", "x", patterns, false}, {"HOME", "/", patterns, false},
	} {
		if got := AcceptEnv(c.name, c.value, c.patterns); got != c.want {
			t.Errorf("%s=%.20q with %v: %v", c.name, c.value, c.patterns, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	env := Environment(EnvFacts{Account: Account{Name: "a", UID: 1, Home: "/h", Shell: "/s"}, RemoteAddr: "fd7a::2 5", LocalAddr: "fd7a::1 22", Person: "p", Node: "n", Session: "s",
		TTY: "/dev/pts/1", Term: "xterm", Client: []string{"USER=root", "LANG=C", "X=a\x00b"}})
	for _, want := range []string{"USER=a", "SSH_CLIENT=fd7a::2 5 22", "SSH_CONNECTION=fd7a::2 5 fd7a::1 22", "SSH_TTY=/dev/pts/1", "TERM=xterm", "LANG=C", "TSSH_SESSION=s", "MAIL=/var/mail/a"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %v", want, env)
		}
	}
	seen := map[string]bool{}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if seen[name] || strings.ContainsRune(e, 0) {
			t.Errorf("twice, or with a zero: %q", e)
		}
		seen[name] = true
	}
}

func TestProveTask(t *testing.T) {
	good := "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t8 9 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n"
	acc := Account{Name: "x", UID: 7, GID: 8, Groups: []uint32{9, 8}}
	if err := proveTask(good, acc); err != nil {
		t.Error(err)
	}
	for _, c := range [][2]string{{"7\t7\t7\t7", "7\t7\t0\t7"}, {"7\t7\t7\t7", "7\t7\t7\t0"}, {"8\t8\t8\t8", "8\t0\t8\t8"}, {"8 9 ", "8 9 0"}, {"8 9 ", "8"}, {"CapInh:\t0", "CapInh:\t1"}, {"CapAmb:\t0", "CapAmb:\t1"},
		{"CapEff:\t0000000000000000\n", ""}, {"Uid:", "Nid:"}} {
		if bad := strings.Replace(good, c[0], c[1], 1); proveTask(bad, acc) == nil {
			t.Errorf("%q for %q was taken", c[1], c[0])
		}
	}
}

func TestLogins(t *testing.T) {
	dir := t.TempDir()
	w := &Logins{Utmp: filepath.Join(dir, "utmp"), Wtmp: filepath.Join(dir, "wtmp")}
	now := time.Unix(1700000000, 5000)
	one := Login{User: "alice", Line: "pts/3", Host: "laptop", Addr: netip.MustParseAddr("100.64.0.2"), PID: 77}
	if err := w.Open(one, now); err != nil {
		t.Fatal(err)
	}
	if e, _ := os.ReadDir(dir); len(e) != 0 {
		t.Fatal("files that were absent were made")
	}
	for _, f := range []string{w.Utmp, w.Wtmp} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	two := one
	two.Line, two.User = "pts/123", strings.Repeat("long", 20)
	for _, l := range []Login{one, two} {
		if err := w.Open(l, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(one, now); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(w.Utmp)
	if err != nil || len(b) != 2*utmpSize || binary.LittleEndian.Uint16(b) != utmpDead || binary.LittleEndian.Uint16(b[utmpSize:]) != utmpUser {
		t.Fatalf("utmp of %d bytes: %v", len(b), err)
	}
	if w, err := os.ReadFile(w.Wtmp); err != nil || len(w) != 3*utmpSize {
		t.Errorf("wtmp of %d bytes: %v", len(w), err)
	}
	if who, err := exec.LookPath("who"); err == nil { // the judge of the format
		out, err := exec.Command(who, w.Utmp).Output()
		if err != nil || !bytes.Contains(out, []byte("pts/123")) || bytes.Contains(out, []byte("pts/3 ")) || !bytes.Contains(out, []byte("(laptop)")) {
			t.Errorf("who says %q (%v)", out, err)
		}
	}
	// A lock that somebody holds for ever holds nobody up.
	f, err := os.OpenFile(w.Utmp, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if err := w.Open(one, now); err == nil {
		t.Error("a locked utmp was written")
	}
}

func TestTerminal(t *testing.T) {
	m, s, name, err := OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	defer s.Close()
	st, err := os.Stat(name)
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("%s: %v %v", name, st, err)
	}
	if _, err := s.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	if err := m.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := m.Read(b); err != nil || string(b[:n]) != "x\r\n" {
		t.Errorf("%q %v", b[:n], err)
	}
}

func FuzzPasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash")
	f.Add("a:x:+1:4294967296:::")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := parsePasswd(line)
		if err == nil && (a.Name == "" || a.UID == 1<<32-1 || a.GID == 1<<32-1 || !strings.HasPrefix(a.Home, "/") || !strings.HasPrefix(a.Shell, "/") || strings.ContainsAny(a.Name, ":\n\x00") && strings.Count(line, "\n") == 0) {
			t.Errorf("%q was read as %+v", line, a)
		}
		parseShadow(line, time.Unix(0, 0))
	})
}
