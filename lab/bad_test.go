package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree is everything below dir: names, modes and contents. A folder that is not there is empty.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, i.Mode(), p)
		if i.Mode().IsRegular() {
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%q\n", text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBadStarts starts tsshd with one mistake at a time: one line that says what to do, a
// state folder that is as it was, and a second try with the mistake mended that works.
func TestBadStarts(t *testing.T) {
	m := ownMesh(t)
	h, err := m.lab.AddHost("spare")
	if err != nil {
		t.Fatal(err)
	}
	token := func(extra ...string) string {
		t.Helper()
		tok, err := m.hub.Token("tag:web", extra...)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	// A second mesh, for its token and for a folder that belongs to it.
	other, err := m.lab.StartHub(h, basePolicy, "--mesh", "other")
	if err != nil {
		t.Fatal(err)
	}
	if r := other.Admin("user", "add", "alice@example.com"); r.Status != 0 {
		t.Fatal(r)
	}
	otherToken, err := other.Token("tag:web")
	if err != nil {
		t.Fatal(err)
	}
	swap := func(s, from, to string) string { return strings.Replace(s, from, to, 1) }
	pinAt := func(s string) int { return strings.LastIndexByte(s, '#') + 5 }

	n := 0
	for _, c := range []struct {
		name    string
		token   func() string
		args    []string                  // beside the usual
		prefix  []string                  // runs tsshd
		before  func(state string) func() // makes the mistake, gives what takes it away
		want    string
		hint    string
		another bool // the mended try is for the other mesh
	}{
		{name: "wrong key", token: func() string {
			tok := token()
			i := strings.LastIndexByte(tok, '/') + 1
			return tok[:i] + strings.Repeat("A", 43) + tok[i+43:]
		},
			want: "does not know", hint: "tsshub key create"},
		{name: "expired key", token: func() string { tok := token("--expiry", "1s"); time.Sleep(1100 * time.Millisecond); return tok }, want: "expired on", hint: "tsshub key create"},
		{name: "wrong pin", token: func() string {
			tok := []byte(token())
			if i := pinAt(string(tok)); tok[i] == 'A' {
				tok[i] = 'B'
			} else {
				tok[i] = 'A'
			}
			return string(tok)
		}, want: "is not the hub that this token is from", hint: "token"},
		{name: "hub not reachable", token: func() string { return swap(token(), ":8443/", ":8444/") }, want: "cannot be reached", hint: "8444"},
		{name: "not a token", token: func() string { return "hunter2" }, want: "token", hint: "tsshub key create"},
		{name: "no token", token: func() string { return "" }, want: "the join token is empty", hint: "tsshub key create"},
		{name: "reserved name", token: func() string { return token() }, args: []string{"--hostname", "status"}, want: "reserved", hint: "--hostname"},
		{name: "name taken", token: func() string { return token() }, args: []string{"--hostname", "web"}, want: "another node is called web", hint: "--hostname"},
		{name: "UDP port taken", token: func() string { return token() }, before: func(string) func() {
			p, err := h.Start("port", "perl", "-e", `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 41641, Proto => "udp") or die; $| = 1; print "bound\n"; sleep 300`)
			if err == nil {
				err = p.until(10*time.Second, func() error {
					if !strings.Contains(p.Tail(100), "bound") {
						return errors.New("not bound")
					}
					return nil
				})
			}
			if err != nil {
				t.Fatal(err)
			}
			return p.Stop
		}, want: "UDP port 41641 is taken by another program", hint: "--udp-port"},
		{name: "no root for --tun", token: func() string { return token() }, prefix: []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, want: "--tun needs root", hint: "--userspace"},
		{name: "a port that is none", token: func() string { return token() }, args: []string{"--udp-port", "70000"}, want: "--udp-port 70000 is not a port"},
		{name: "another mesh's folder", token: func() string { return token() }, before: func(state string) func() {
			first, err := joinOnce(h, state, otherToken, "elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			first.Stop()
			return func() { os.RemoveAll(state) }
		}, want: "belongs to the mesh other, the join token to another one", hint: "--state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n++
			state := h.Path(fmt.Sprintf("state-%d", n))
			mend := func() {}
			if c.before != nil {
				mend = c.before(state)
			}
			was := tree(t, state)
			file := h.Path("token")
			if err := os.WriteFile(file, []byte(c.token()+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"tsshd", "run", "--state", state, "--socket", h.Path("k.sock"), "--tun", "tssh0", "--hostname", fmt.Sprintf("spare%d", n), "--join-file", file}, c.args...)
			args = append(append([]string{}, c.prefix...), args...)
			r := h.Run(args[0], args[1:]...)
			lines := strings.Split(strings.TrimSpace(r.Stderr), "\n")
			if r.Status <= 0 || len(lines) > 2 || !strings.HasPrefix(lines[0], "tsshd: error: ") || !strings.Contains(lines[0], c.want) || !strings.Contains(r.Stderr, c.hint) {
				t.Errorf("want %q and a hint with %q: %v", c.want, c.hint, r)
			}
			if is := tree(t, state); is != was {
				t.Errorf("the state folder changed\nbefore:\n%s\nafter:\n%s", was, is)
			}
			mend()
			p, err := joinOnce(h, state, token(), fmt.Sprintf("spare%d", n))
			if err != nil {
				t.Fatalf("mended, it does not work: %v", err)
			}
			if c.name == "wrong key" { // while one runs: a second on the same device, and on the same folder
				for _, second := range []struct{ state, want, hint string }{
					{h.Path("state-second"), "tssh0", "--tun"},
					{state, "uses the state folder", "--state"},
				} {
					was := tree(t, second.state)
					if err := os.WriteFile(file, []byte(token()+"\n"), 0o644); err != nil {
						t.Fatal(err)
					}
					r := h.Run("tsshd", "run", "--state", second.state, "--socket", h.Path("k2.sock"), "--tun", "tssh0", "--udp-port", "0", "--hostname", "second", "--join-file", file)
					if r.Status != 1 || !strings.Contains(r.Stderr, "tsshd: error: ") || !strings.Contains(r.Stderr, second.want) || !strings.Contains(r.Stderr, second.hint) {
						t.Errorf("beside a running one, want %q: %v", second.want, r)
					}
					if tree(t, second.state) != was {
						t.Errorf("%s: the state folder changed", second.want)
					}
				}
			}
			p.Stop()
			if r := m.hub.Admin("node", "remove", fmt.Sprintf("spare%d", n)); r.Status != 0 {
				t.Error(r)
			}
		})
	}
	if r := m.laptop.Tssh("deploy@nosuch", "true"); r.Status != 255 || !strings.Contains(r.Stderr, `no host called "nosuch"`) || !strings.HasSuffix(strings.TrimSpace(r.Stderr), "]") {
		t.Errorf("a host that is not there: %v", r)
	}
	if r := m.hub.Host.Run("tsshub", "serve", "--state", m.hub.Host.Path("hub2"), "--listen", m.hub.Host.Addr.String()+":8443"); r.Status != 1 || !strings.Contains(r.Stderr, "already in use") || tree(t, m.hub.Host.Path("hub2")) != "" {
		t.Errorf("a second hub on the port: %v", r)
	}
}

// joinOnce starts a tsshd that joins, and waits until it is on the mesh.
func joinOnce(h *Host, state, token, name string) (*Proc, error) {
	file := h.Path("token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return nil, err
	}
	p, err := h.Start("tsshd", "tsshd", "run", "--state", state, "--socket", h.Path("k.sock"), "--tun", "tssh0", "--hostname", name, "--join-file", file)
	if err != nil {
		return nil, err
	}
	return p, p.until(30*time.Second, func() error {
		r := h.Run("tssh", "--socket", h.Path("k.sock"), "status", "--json")
		if r.Status != 0 || !strings.Contains(r.Stdout, `"state": "running"`) {
			return errors.New(r.String())
		}
		return nil
	})
}

// TestDiskFullWhileRecording fills the disk that recordings are on: the session ends with
// words, a new one is refused, and with room again all is as before.
func TestDiskFullWhileRecording(t *testing.T) {
	m := ownMesh(t)
	h, err := m.lab.AddHost("small", Account{"deploy", deployUID})
	if err != nil {
		t.Fatal(err)
	}
	node, err := m.hub.Join(h, "tag:web", "--spool-free", "1048576")
	if err != nil {
		t.Fatal(err)
	}
	st, err := node.Status()
	if err != nil {
		t.Fatal(err)
	}
	addr := "deploy@" + st.Self.Addrs[0].String()
	node.Proc.Stop()
	if r := h.Run("mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", filepath.Join(node.State, "spool")); r.Status != 0 {
		t.Fatal(r)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	work := func() Result { return m.stock("ssh", addr, "id -un") }
	if err := Until(20*time.Second, func() error {
		if r := work(); r.Status != 0 || r.Stdout != "deploy\n" {
			return errors.New(r.String())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	m.hub.Proc.Stop() // nobody takes recordings, so the spool only grows
	// On a terminal: without one, what is beyond the first MiB would only be counted.
	r := m.stock("ssh", "-tt", addr, "head -c 60000000 /dev/urandom | base64; echo whole")
	if r.Status == 0 || bytes.Contains([]byte(r.Stdout), []byte("whole")) || !strings.Contains(r.Stderr, "cannot be recorded any more") {
		t.Errorf("the session went on without a recording: status %d, %d bytes, %q", r.Status, len(r.Stdout), r.Stderr)
	}
	full := work()
	if full.Status != 255 || !strings.Contains(full.Stderr, "cannot record sessions at the moment") {
		t.Errorf("a session without room for its recording: %v", full)
	}
	t.Logf("words when full: %s", strings.TrimSpace(full.Stderr))
	if r := h.Run("mount", "-o", "remount,size=200m", filepath.Join(node.State, "spool")); r.Status != 0 {
		t.Fatal(r)
	}
	if err := Until(20*time.Second, func() error {
		if r := work(); r.Status != 0 {
			return errors.New(r.String())
		}
		return nil
	}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := m.hub.Start(); err != nil {
		t.Fatal(err)
	}
	node.Proc.Stop()
	h.Run("umount", filepath.Join(node.State, "spool"))
	if r := m.hub.Admin("node", "remove", "small"); r.Status != 0 {
		t.Error(r)
	}
}

// TestUninstallLeavesNothing compares the host before the first join and after uninstall.
func TestUninstallLeavesNothing(t *testing.T) {
	m := theMesh(t)
	h, err := m.lab.AddHost("leaver")
	if err != nil {
		t.Fatal(err)
	}
	look := func() string {
		t.Helper()
		var all strings.Builder
		for _, c := range [][]string{{"ip", "-o", "link"}, {"ip", "rule"}, {"ip", "-6", "rule"}, {"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"}, {"cat", "/proc/mounts"}, {"find", "/run"}} {
			r := h.Run(c[0], c[1:]...)
			if r.Status != 0 {
				t.Fatal(r)
			}
			all.WriteString(strings.Join(c, " ") + "\n")
			for line := range strings.Lines(r.Stdout) {
				// eth0 is still getting its addresses; namespaces with names are those of other tests
				if !strings.Contains(line, "eth0") && !strings.Contains(line, " /run/netns") {
					all.WriteString(line)
				}
			}
		}
		return all.String()
	}
	was := look()
	token, err := m.hub.Token("tag:web")
	if err != nil {
		t.Fatal(err)
	}
	state := h.Path("state")
	p, err := joinOnce(h, state, token, "leaver")
	if err != nil {
		t.Fatal(err)
	}
	if look() == was {
		t.Fatal("this test sees nothing of what a node makes")
	}
	if r := h.Run("tsshd", "uninstall", "--state", state); r.Status != 1 || !strings.Contains(r.Stderr, "uses the state folder") {
		t.Errorf("while it runs: %v", r)
	}
	p.Stop()
	if r := h.Run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "tsshd", "uninstall", "--state", state); r.Status != 1 || !strings.Contains(r.Stderr, "needs root") {
		t.Errorf("without root: %v", r)
	}
	if r := h.Run("tsshd", "uninstall", "--state", h.Path("."), "--purge"); r.Status != 1 || !strings.Contains(r.Stderr, "is not the state folder of a node") {
		t.Errorf("with a folder that is not a node's: %v", r)
	}
	if r := h.Run("tsshd", "uninstall", "--state", state); r.Status != 0 || !strings.Contains(r.Stdout, "stays (--purge removes it)") {
		t.Errorf("%v", r)
	}
	if is := look(); is != was {
		t.Errorf("left behind\nbefore:\n%s\nafter:\n%s", was, is)
	}
	if p, err = joinOnce(h, state, token, "leaver"); err != nil {
		t.Fatalf("the same state again: %v", err)
	}
	p.Kill()
	if r := h.Run("tsshd", "uninstall", "--state", state, "--purge"); r.Status != 0 || tree(t, state) != "" {
		t.Errorf("%v", r)
	}
	if is := look(); is != was {
		t.Errorf("left behind after kill -9\nbefore:\n%s\nafter:\n%s", was, is)
	}
	if r := m.hub.Admin("node", "remove", "leaver"); r.Status != 0 {
		t.Error(r)
	}
}
