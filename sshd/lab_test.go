package sshd_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/recording"
	"tssh/recording/audit"
)

// Policies of the tests. Everybody reaches port 22; the ssh section decides.
const (
	policyNonroot = `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],
		"ssh":[{"action":"accept","src":["alice@example.com"],"dst":["tag:web"],"users":["autogroup:nonroot"],"acceptEnv":["FOO_*"]}]}`
	policyRoot = `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],
		"ssh":[{"action":"accept","src":["alice@example.com"],"dst":["tag:web"],"users":["root","autogroup:nonroot"]}]}`
	policyCheck = `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],
		"ssh":[{"action":"check","src":["alice@example.com"],"dst":["tag:web"],"users":["autogroup:nonroot"]}]}`
	policyNoSSH = `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}]}`
)

// usual is the policy under which the test's own account can be logged in to.
func usual() string {
	if os.Getuid() == 0 {
		return policyNonroot
	}
	return policyRoot
}

// rig is one monitor's folder.
type rig struct {
	t *testing.T
	setup
}

func newRig(t *testing.T, pol string) *rig {
	t.Helper()
	// Not t.TempDir: a connection process that became another user must get to the
	// socket, so every folder on the way is open to pass through.
	dir, err := os.MkdirTemp("", "sshd-test-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, setup{Dir: dir, Login: "alice@example.com", Peer: "100.64.0.2", Self: "100.64.0.1", ConnArgs: []string{"conn"}}}
	for _, f := range []string{"utmp", "wtmp", "lastlog"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.policy(pol)
	t.Cleanup(func() {
		for _, f := range []string{"log", "run/conn.log"} {
			b, _ := os.ReadFile(filepath.Join(dir, f))
			for _, w := range []string{"DATA RACE", "panic:", "fatal error:"} {
				if bytes.Contains(b, []byte(w)) {
					t.Errorf("%s: %s", f, w)
				}
			}
		}
		if t.Failed() {
			for _, f := range []string{"log", "audit", "run/conn.log"} {
				b, _ := os.ReadFile(filepath.Join(dir, f))
				t.Logf("%s:\n%s", f, b)
			}
		}
		os.RemoveAll(dir)
	})
	return r
}

func (r *rig) policy(text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.Dir, "policy"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// options of the stock clients for inetd mode.
func (r *rig) options() []string {
	r.t.Helper()
	r.save(r.t)
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	return []string{"-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20",
		"-o", fmt.Sprintf("ProxyCommand=%s inetd %s", exe, r.file())}
}

// result of a stock client.
type result struct {
	out, err string
	code     int
}

func (r *rig) run(stdin string, name string, args ...string) result {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	var out, errw bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errw
	cmd.Env = append(os.Environ(), "LC_TEST=héllo", "FOO_A=yes", "BAR_B=no", "LD_PRELOAD_X=no")
	cmd.WaitDelay = 10 * time.Second
	timer := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%s: %v", name, err)
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// ssh runs stock ssh in inetd mode.
func (r *rig) ssh(stdin, who string, args ...string) result {
	r.t.Helper()
	return r.run(stdin, "ssh", append(append(r.options(), who+"@web"), args...)...)
}

// inetd starts a monitor in inetd mode and returns the client's end of its connection.
func (r *rig) inetd() net.Conn {
	r.t.Helper()
	r.save(r.t)
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	cmd := exec.Command(exe, "inetd", r.file())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	nc, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		nc.Close()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			r.t.Error("the monitor did not end after its connection")
		}
	})
	return nc
}

// client logs in, in inetd mode.
func (r *rig) client(user string) *gossh.Client {
	r.t.Helper()
	c, err := handshake(r.inetd(), user)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// recordings waits until n recordings of the folder are finished, and returns them.
func (r *rig) recordings(n int) []taken {
	r.t.Helper()
	var out []taken
	var last error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out, last = out[:0], nil
		files, _ := filepath.Glob(filepath.Join(r.spool(), "*", "recording.tsr"))
		for _, f := range files {
			k, err := read(f)
			if err != nil {
				last = err
				continue
			}
			out = append(out, k)
		}
		if len(out) == n && last == nil {
			return out
		}
	}
	r.t.Fatalf("%d finished recordings, not %d (%v)", len(out), n, last)
	return nil
}

func (r *rig) spool() string {
	if r.Spool != "" {
		return r.Spool
	}
	return filepath.Join(r.Dir, "spool")
}

// taken is a recording, read.
type taken struct {
	id     string
	meta   recording.Meta
	events []recording.Event
	end    recording.End
	path   string
}

// read reads a recording that is complete, and checks that it verifies.
func read(name string) (taken, error) {
	var k taken
	f, err := os.Open(name)
	if err != nil {
		return k, err
	}
	defer f.Close()
	rep, err := recording.Verify(f)
	if err != nil {
		return k, err
	}
	if !rep.Complete || len(rep.Problems) > 0 {
		return k, fmt.Errorf("%s: complete %v, problems %v", name, rep.Complete, rep.Problems)
	}
	st, err := f.Stat()
	if err != nil {
		return k, err
	}
	rd, err := recording.NewReader(f, st.Size())
	if err != nil {
		return k, err
	}
	defer rd.Close()
	k.id, k.meta, k.path = rep.ID, rd.Meta(), name
	err = rd.Events(func(e recording.Event) error {
		e.Data = bytes.Clone(e.Data)
		k.events = append(k.events, e)
		if e.Kind == recording.KindEnd {
			return json.Unmarshal(e.Data, &k.end)
		}
		return nil
	})
	return k, err
}

// bytes of one kind on a channel.
func (k taken) bytes(ch uint32, kind recording.Kind) string {
	var b strings.Builder
	for _, e := range k.events {
		if e.Channel == ch && e.Kind == kind {
			b.Write(e.Data)
		}
	}
	return b.String()
}

func (k taken) files(t *testing.T) []recording.File {
	t.Helper()
	var out []recording.File
	for _, e := range k.events {
		if e.Kind == recording.KindFile {
			var f recording.File
			if err := json.Unmarshal(e.Data, &f); err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
	}
	return out
}

func (k taken) notes(what string) []string {
	var out []string
	for _, e := range k.events {
		var n recording.Note
		if e.Kind == recording.KindNote && json.Unmarshal(e.Data, &n) == nil && n.What == what {
			out = append(out, n.Text)
		}
	}
	return out
}

func (r *rig) audit() []audit.Entry {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.Dir, "audit"))
	if err != nil {
		r.t.Fatal(err)
	}
	var out []audit.Entry
	for line := range strings.Lines(string(b)) {
		var e audit.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// audited2 is audited for a monitor that may have had nothing to say.
func (r *rig) audited2(kind string) []audit.Entry {
	r.t.Helper()
	if _, err := os.Stat(filepath.Join(r.Dir, "audit")); err != nil {
		return nil
	}
	return r.audited(kind)
}

func (r *rig) audited(kind string) []audit.Entry {
	r.t.Helper()
	var out []audit.Entry
	for _, e := range r.audit() {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// daemon is a monitor on a TCP port.
type daemon struct {
	r    *rig
	cmd  *exec.Cmd
	addr string
}

func (r *rig) daemon() *daemon {
	r.t.Helper()
	if r.Addr == "" {
		r.Addr, r.Peer, r.Self = "127.0.0.1:0", "127.0.0.2", "127.0.0.1"
	}
	_ = os.Remove(filepath.Join(r.Dir, "addr"))
	r.save(r.t)
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	d := &daemon{r: r, cmd: exec.Command(exe, "daemon", r.file())}
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
	})
	r.until("the daemon listens", func() bool {
		b, err := os.ReadFile(filepath.Join(r.Dir, "addr"))
		d.addr = string(b)
		return err == nil
	})
	r.Addr = d.addr // the next one takes the same port
	return d
}

// until waits for something that happens soon, and says how long it took.
func (r *rig) until(what string, f func() bool) time.Duration {
	r.t.Helper()
	start := time.Now()
	for time.Since(start) < 20*time.Second {
		if f() {
			return time.Since(start)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("never: %s", what)
	return 0
}

// kill ends the daemon as nothing it could prepare for.
func (d *daemon) kill() {
	d.r.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.r.t.Fatal(err)
	}
	_ = d.cmd.Wait()
}

// connect opens a TCP connection from the peer's address.
func (d *daemon) connect() net.Conn {
	d.r.t.Helper()
	return d.connectFrom(d.r.Peer)
}

func (d *daemon) connectFrom(addr string) net.Conn {
	d.r.t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: 10 * time.Second}).Dial("tcp", d.addr)
	if err != nil {
		d.r.t.Fatal(err)
	}
	return c
}

func (d *daemon) client(user string) *gossh.Client {
	d.r.t.Helper()
	c, err := handshake(d.connect(), user)
	if err != nil {
		d.r.t.Fatal(err)
	}
	d.r.t.Cleanup(func() { c.Close() })
	return c
}

func newSigner(t *testing.T) gossh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gossh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func handshake(nc net.Conn, user string, auth ...gossh.AuthMethod) (*gossh.Client, error) {
	cfg := &gossh.ClientConfig{User: user, Auth: auth, HostKeyCallback: gossh.InsecureIgnoreHostKey(), Timeout: 20 * time.Second}
	c, chans, reqs, err := gossh.NewClientConn(nc, "web", cfg)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return gossh.NewClient(c, chans, reqs), nil
}
