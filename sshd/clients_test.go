package sshd_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tssh/recording"
)

// Stock clients, through a monitor on their ProxyCommand.

func TestStockExec(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	got := r.ssh("", u.Username, `echo out; echo err >&2; exit 7`)
	if got.out != "out\n" || got.err != "err\n" || got.code != 7 {
		t.Errorf("got %+v", got)
	}
	k := r.recordings(1)[0]
	if o, e := k.bytes(1, recording.KindOutput), k.bytes(1, recording.KindStderr); o != "out\n" || e != "err\n" {
		t.Errorf("recorded %q and %q", o, e)
	}
	if want := `{"status":7}`; k.bytes(1, recording.KindExit) != want {
		t.Errorf("exit event %q, not %q", k.bytes(1, recording.KindExit), want)
	}
	if k.end.Cause != "closed" || k.meta.Login != "alice@example.com" || k.meta.LocalUser != u.Username || k.meta.Rule != "ssh[0]" || !strings.HasPrefix(k.meta.Client, "SSH-2.0-OpenSSH") {
		t.Errorf("end %+v meta %+v", k.end, k.meta)
	}
	open, closed := r.audited("session.open"), r.audited("session.close")
	if len(open) != 1 || len(closed) != 1 || open[0].Session != k.id || closed[0].Session != k.id {
		t.Errorf("audit: open %+v close %+v", open, closed)
	}
	if left, _ := filepath.Glob(filepath.Join(r.Dir, "run/conns/*")); len(left) > 0 {
		t.Errorf("state left: %v", left)
	}
}

func TestStockStdin(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	in := make([]byte, recording.BulkBudget) // as much as is kept whole
	rand.Read(in)
	got := r.ssh(string(in), u.Username, "cat; sleep 0.1; echo end >&2")
	if got.out != string(in) || got.err != "end\n" || got.code != 0 {
		t.Errorf("%d bytes came back of %d, stderr %q, status %d", len(got.out), len(in), got.err, got.code)
	}
	k := r.recordings(1)[0]
	if k.bytes(1, recording.KindOutput) != string(in) {
		t.Error("the recording has other bytes")
	}
	if s := k.bytes(1, recording.KindInputSummary); !strings.HasPrefix(s, `{"bytes":1048576,"sha256":"`) {
		t.Errorf("input summary %q", s)
	}
}

func TestStockSignal(t *testing.T) {
	r := newRig(t, usual())
	got := r.ssh("", account(t).Username, `kill -TERM $$`)
	if got.code != 255 { // what ssh makes of exit-signal
		t.Errorf("status %d", got.code)
	}
	if e := r.recordings(1)[0].bytes(1, recording.KindExit); e != `{"status":143,"signal":"TERM"}` {
		t.Errorf("exit event %q", e)
	}
}

// TestStockIdentity looks at the session from inside.
func TestStockIdentity(t *testing.T) {
	needRoot(t)
	r := newRig(t, usual())
	u := account(t)
	got := r.ssh("", u.Username, `grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|SigIgn)' /proc/self/status; ls /proc/self/fd | tr '\n' ' '; echo; umask; pwd; readlink /proc/$PPID/exe || echo hidden; cat /proc/$PPID/environ >/dev/null || echo hidden`)
	gids, err := u.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(gids)
	lines := strings.Split(got.out, "\n")
	id := func(s string) string { return strings.Join([]string{s, s, s, s}, " ") }
	want := []string{"Uid: " + id(u.Uid), "Gid: " + id(u.Gid), "Groups: " + strings.Join(gids, " "), "SigIgn: 0000000000000000",
		"CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapAmb: 0000000000000000",
		"0 1 2 3", "0022", u.HomeDir, "hidden", "hidden", ""}
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestStockEnvironment(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	got := r.run("", "ssh", append(r.options(), "-o", "SendEnv=LC_TEST FOO_A BAR_B LD_PRELOAD_X", "-o", "SetEnv=PATH=/evil BASH_ENV=/evil", u.Username+"@web", "env")...)
	env := map[string]string{}
	for line := range strings.Lines(got.out) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		env[k] = v
	}
	for k, v := range map[string]string{"USER": u.Username, "LOGNAME": u.Username, "HOME": u.HomeDir, "LC_TEST": "héllo", "TSSH_USER": "alice@example.com", "TSSH_NODE": "laptop",
		"SSH_CONNECTION": "100.64.0.2 50022 100.64.0.1 22", "SSH_CLIENT": "100.64.0.2 50022 22"} {
		if env[k] != v {
			t.Errorf("%s is %q, not %q", k, env[k], v)
		}
	}
	if os.Getuid() == 0 && env["FOO_A"] != "yes" {
		t.Error("FOO_A, which the rule lets in, is missing")
	}
	for _, k := range []string{"BAR_B", "LD_PRELOAD_X", "BASH_ENV", "SSH_TTY"} {
		if v, ok := env[k]; ok {
			t.Errorf("%s=%s got in", k, v)
		}
	}
	if strings.Contains(env["PATH"], "evil") || env["TSSH_SESSION"] != r.recordings(1)[0].id {
		t.Errorf("PATH %q, session %q", env["PATH"], env["TSSH_SESSION"])
	}
}

func TestStockRefused(t *testing.T) {
	root := "root"
	if os.Getuid() != 0 {
		root = "daemon" // another account, which this monitor cannot become
	}
	for _, c := range []struct{ name, policy, user, words string }{
		{"root", usual(), root, ""},
		{"check", policyCheck, account(t).Username, "sign in again"},
		{"no section", policyNoSSH, account(t).Username, ""},
		{"no policy", "{", account(t).Username, ""},
		{"no account", usual(), "no-such-account", ""},
		{"number", usual(), "0", "not a name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.policy)
			got := r.run("", "ssh", append([]string{"-o", "LogLevel=INFO", "-l", c.user}, append(r.options(), "web", "id")...)...)
			if got.code != 255 || got.out != "" || !strings.Contains(got.err, "tssh: ") || !strings.Contains(got.err, c.words) {
				t.Errorf("got %+v", got)
			}
			if hint := "tssh: hint: tssh why " + c.user + "@web"; strings.Contains(got.err, hint) != strings.Contains(got.err, "policy does not let") {
				t.Errorf("the next step: %q", got.err)
			}
			if strings.Contains(got.err, "assword") {
				t.Errorf("the person was asked for a password: %q", got.err)
			}
			a := r.audited("session.refuse")
			if len(a) != 1 || a[0].LocalUser != c.user || len(r.audited("session.open")) != 0 {
				t.Errorf("audit %+v", r.audit())
			}
		})
	}
}

func TestStockRootAllowed(t *testing.T) {
	needRoot(t)
	r := newRig(t, policyRoot)
	if got := r.ssh("", "root", "id -u"); got.out != "0\n" || got.code != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestStockTransfers copies both ways with every stock tool, and looks for each file in
// the recording.
func TestStockTransfers(t *testing.T) {
	u := account(t)
	dir := t.TempDir()
	data := make([]byte, 1<<20+17)
	rand.Read(data)
	sum := sha256.Sum256(data)
	local := filepath.Join(dir, "local")
	if err := os.WriteFile(local, data, 0o640); err != nil {
		t.Fatal(err)
	}
	far := filepath.Join(u.HomeDir, "tssh-test-copy")
	t.Cleanup(func() { os.Remove(far) })
	back := filepath.Join(dir, "back")
	for _, c := range []struct {
		name     string
		up, down func(r *rig) result
		files    bool // known one by one
	}{
		{"scp", func(r *rig) result {
			return r.run("", "scp", append(r.options(), "-p", local, u.Username+"@web:tssh-test-copy")...)
		},
			func(r *rig) result {
				return r.run("", "scp", append(r.options(), u.Username+"@web:tssh-test-copy", back)...)
			}, true},
		{"scp -O", func(r *rig) result {
			return r.run("", "scp", append(r.options(), "-O", local, u.Username+"@web:tssh-test-copy")...)
		},
			func(r *rig) result {
				return r.run("", "scp", append(r.options(), "-O", u.Username+"@web:tssh-test-copy", back)...)
			}, true},
		{"sftp", func(r *rig) result {
			return r.run("put "+local+" tssh-test-copy\n", "sftp", append(append([]string{"-b", "-"}, r.options()...), u.Username+"@web")...)
		},
			func(r *rig) result {
				return r.run("get tssh-test-copy "+back+"\n", "sftp", append(append([]string{"-b", "-"}, r.options()...), u.Username+"@web")...)
			}, true},
		{"rsync", func(r *rig) result {
			return r.run("", "rsync", "-e", shell(append([]string{"ssh"}, r.options()...)), local, u.Username+"@web:tssh-test-copy")
		},
			func(r *rig) result {
				return r.run("", "rsync", "-e", shell(append([]string{"ssh"}, r.options()...)), u.Username+"@web:tssh-test-copy", back)
			}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, usual())
			os.Remove(far)
			os.Remove(back)
			if got := c.up(r); got.code != 0 {
				t.Fatalf("up: %+v", got)
			}
			if b, err := os.ReadFile(far); err != nil || !bytes.Equal(b, data) {
				t.Fatalf("up: other bytes (%v)", err)
			}
			if got := c.down(r); got.code != 0 {
				t.Fatalf("down: %+v", got)
			}
			if b, err := os.ReadFile(back); err != nil || !bytes.Equal(b, data) {
				t.Fatalf("down: other bytes (%v)", err)
			}
			var ops []string
			for _, k := range r.recordings(2) {
				for _, f := range k.files(t) {
					if f.Path == far && f.SHA256 == hex.EncodeToString(sum[:]) && f.Bytes == int64(len(data)) && f.Error == "" {
						ops = append(ops, f.Op)
					}
				}
				if c.files && c.name != "scp -O" && len(k.bytes(1, recording.KindOutput)) != 0 {
					t.Error("bytes of sftp in the recording")
				}
			}
			if slices.Sort(ops); c.files && !slices.Equal(ops, []string{"get", "put"}) {
				t.Errorf("file events with the right sum: %v", ops)
			}
		})
	}
}

func shell(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, "'"+strings.ReplaceAll(w, "'", "'\\''")+"'")
	}
	return strings.Join(q, " ")
}

// TestStockSFTPCommands goes through the operations of a session, one of whose
// directories has an entry that cannot be looked at.
func TestStockSFTPCommands(t *testing.T) {
	u := account(t)
	r := newRig(t, usual())
	work := filepath.Join(u.HomeDir, "tssh-test-dir")
	t.Cleanup(func() { os.RemoveAll(work) })
	batch := `mkdir tssh-test-dir
cd tssh-test-dir
put /etc/passwd a
ln -s a link
ln a hard
rename a b
chmod 600 b
ls -l
ls -l nothere
df .
rm hard
rm link
mkdir sub
rmdir sub
`
	got := r.run(strings.ReplaceAll(batch, "ls -l nothere", "-ls -l nothere"), "sftp", append(append([]string{"-b", "-"}, r.options()...), u.Username+"@web")...)
	if got.code != 0 || !strings.Contains(got.out, "link") || !strings.Contains(got.err, "not found") {
		t.Fatalf("got %+v", got)
	}
	if st, err := os.Stat(filepath.Join(work, "b")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("b: %v %v", st, err)
	}
	var seen []string
	for _, f := range r.recordings(1)[0].files(t) {
		if f.Op != "stat" && f.Op != "list" && f.Op != "realpath" {
			seen = append(seen, f.Op+" "+strings.TrimPrefix(f.Path, work)+" "+strings.TrimPrefix(f.Target, work))
		}
	}
	want := []string{"mkdir  ", "put /a ", "symlink /link a", "link /a /hard", "rename /a /b", "setstat /b ", "statvfs /. ", "remove /hard ", "remove /link ", "mkdir /sub ", "rmdir /sub "}
	if !slices.Equal(seen, want) {
		t.Errorf("events\n%q\nnot\n%q", seen, want)
	}
}

// TestStockLimits: programs get the limit of open files that the daemon was started with,
// not the one a Go program takes for itself.
func TestStockLimits(t *testing.T) {
	r := newRig(t, usual())
	words := shell(append(append([]string{"ssh"}, r.options()...), account(t).Username+"@web", "ulimit -Sn; ulimit -Sc"))
	got := r.run("", "sh", "-c", "ulimit -Sn 777; ulimit -Sc 0; exec "+words)
	if got.out != "777\n0\n" {
		t.Errorf("got %+v", got)
	}
}

// TestStockPTY runs a command on a terminal whose size and modes come from a real one.
func TestStockPTY(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	script := shell(append(append([]string{"ssh"}, r.options()...), "-tt", u.Username+"@web", `stty size; stty -a | tr ';' '\n' | grep -c -e '-ixon'; tty; stat -c %U "$(tty)"; echo "$TERM $SSH_TTY"`))
	got := r.run("", "script", "-qec", "stty rows 33 cols 111 -ixon; TERM=xterm-256color "+script, "/dev/null")
	lines := strings.Split(strings.ReplaceAll(strings.ReplaceAll(got.out, "\r", ""), "^@", ""), "\n") // ^@ is script's own end of input
	if len(lines) < 5 {
		t.Fatalf("got %+v", got)
	}
	want := []string{"33 111", "1", lines[2], u.Username, "xterm-256color " + lines[2]}
	if !slices.Equal(lines[:5], want) || !strings.HasPrefix(lines[2], "/dev/pts/") {
		t.Errorf("got %q, want %q", lines, want)
	}
	k := r.recordings(1)[0]
	if o := k.bytes(1, recording.KindOpen); !strings.Contains(o, `"cols":111,"rows":33`) || !strings.Contains(o, `"term":"xterm-256color"`) {
		t.Errorf("open event %s", o)
	}
	if os.Getuid() == 0 {
		b, err := os.ReadFile(filepath.Join(r.Dir, "wtmp"))
		if err != nil || len(b) != 2*384 || !bytes.Contains(b[:384], []byte(u.Username)) || bytes.Contains(b[384:], []byte(u.Username)) {
			t.Errorf("wtmp has %d bytes (%v)", len(b), err)
		}
	}
}

// TestStockUnserved asks for what the rule does not have, and for a subsystem that nobody
// has: what does not depend on it goes on.
func TestStockUnserved(t *testing.T) {
	r := newRig(t, permitting(`{"exec":true}`))
	u := account(t)
	for _, args := range [][]string{{"-R", "0:127.0.0.1:1"}, {"-A"}} {
		if got := r.run("", "ssh", append(append(r.options(), args...), u.Username+"@web", "echo fine")...); got.out != "fine\n" || got.code != 0 {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if got := r.run("x", "ssh", append(r.options(), "-W", "127.0.0.1:1", u.Username+"@web")...); got.code != 255 {
		t.Errorf("-W: %+v", got)
	}
	if got := r.run("", "ssh", append(r.options(), "-s", u.Username+"@web", "netconf")...); got.code == 0 {
		t.Errorf("-s netconf: %+v", got)
	}
	var notes []string
	for _, k := range r.recordings(4) {
		notes = append(notes, k.notes("refused")...)
		for _, f := range k.forwards() {
			notes = append(notes, f.State+" "+f.Type+" "+f.Target)
		}
	}
	all := strings.Join(notes, "\n")
	for _, w := range []string{"refused remote-listen localhost:0", "refused local 127.0.0.1:1", "subsystem netconf"} {
		if !strings.Contains(all, w) {
			t.Errorf("no note of %q in %q", w, all)
		}
	}
}

func TestNologin(t *testing.T) {
	needRoot(t)
	u := account(t)
	t.Cleanup(func() { _ = exec.Command("usermod", "-s", "/bin/bash", "-e", "", u.Username).Run() })
	set := func(args ...string) {
		if out, err := exec.Command("usermod", append(args, u.Username)...).CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
	}
	set("-s", "/usr/sbin/nologin")
	r := newRig(t, usual())
	if got := r.ssh("", u.Username, "id"); got.code != 1 || !strings.Contains(got.out, "not available") {
		t.Errorf("nologin shell: %+v", got)
	}
	if got := r.run("ls\n", "sftp", append(append([]string{"-b", "-"}, r.options()...), u.Username+"@web")...); got.code == 0 {
		t.Errorf("sftp with a nologin shell: %+v", got)
	}
	set("-s", "/bin/bash", "-e", "2020-01-01")
	if got := r.run("", "ssh", append([]string{"-o", "LogLevel=INFO"}, append(r.options(), u.Username+"@web", "id")...)...); got.code != 255 || !strings.Contains(got.err, "expired on 2020-01-01") {
		t.Errorf("expired: %+v", got)
	}
}
