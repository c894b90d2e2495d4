package sshd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/recording"
	"tssh/session/control"
	"tssh/sshd"
)

// Revocation, limits, and sessions that outlive their daemon; over TCP on loopback, the
// client at 127.0.0.2.

// running is a command under way on a client.
type running struct {
	in   io.WriteCloser
	out  *tail
	errs *tail
	done chan error
}

// tail is what was read so far.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.b.Write(p) }
func (w *tail) String() string              { w.mu.Lock(); defer w.mu.Unlock(); return w.b.String() }

func start(t *testing.T, c *gossh.Client, pty bool, command string) *running {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{out: &tail{}, errs: &tail{}, done: make(chan error, 1)}
	s.Stdout, s.Stderr = r.out, r.errs
	if pty {
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			t.Fatal(err)
		}
	}
	if r.in, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(command); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- s.Wait() }()
	return r
}

func (d *daemon) reload() {
	d.r.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		d.r.t.Fatal(err)
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// pidOf waits for a program to say its pid.
func pidOf(r *rig, run *running) int {
	r.t.Helper()
	var pid int
	r.until("the program says its pid", func() bool { n, _ := fmt.Sscanf(run.out.String(), "%d\n", &pid); return n == 1 })
	return pid
}

func TestRevoke(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig, d *daemon)
	}{
		{"rule gone", func(r *rig, d *daemon) {
			r.policy(strings.Replace(usual(), `"alice@example.com"],"dst":["tag:web"],"users"`, `"carol@example.com"],"dst":["tag:web"],"users"`, 1))
			d.reload()
		}},
		{"section gone", func(r *rig, d *daemon) { r.policy(policyNoSSH); d.reload() }},
		{"policy gone", func(r *rig, d *daemon) { r.policy("{"); d.reload() }},
		{"check instead", func(r *rig, d *daemon) { r.policy(policyCheck); d.reload() }},
		{"env narrowed", func(r *rig, d *daemon) {
			r.policy(strings.Replace(policyRoot, `"users"`, `"acceptEnv":["X"],"users"`, 1))
			d.reload()
		}},
		{"node gone", func(r *rig, d *daemon) {
			if err := os.WriteFile(filepath.Join(r.Dir, "peer-gone"), nil, 0o600); err != nil {
				r.t.Fatal(err)
			}
			d.reload()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, usual())
			d := r.daemon()
			cl := d.client(account(t).Username)
			term := start(t, cl, true, "echo $$; exec sleep 300")
			stubborn := start(t, cl, false, "trap '' HUP TERM INT; echo $$; while :; do sleep 1; done")
			pids := []int{pidOf(r, term), pidOf(r, stubborn)}
			begun := time.Now()
			c.do(r, d)
			for _, run := range []*running{term, stubborn} {
				select {
				case <-run.done:
				case <-time.After(10 * time.Second):
					t.Fatal("the session went on")
				}
			}
			took := time.Since(begun)
			if took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			t.Logf("closed after %v", took.Round(time.Millisecond))
			if !strings.Contains(term.errs.String(), "tssh: ") || !strings.Contains(stubborn.errs.String(), "tssh: ") {
				t.Errorf("words: %q and %q", term.errs, stubborn.errs)
			}
			r.until("the programs end", func() bool { return !alive(pids[0]) && !alive(pids[1]) })
			k := r.recordings(1)[0]
			if k.end.Cause != "revoked" || len(r.audited("session.revoke")) != 1 {
				t.Errorf("end %+v", k.end)
			}
		})
	}
}

// TestWidened changes the policy without taking this session's right away.
func TestWidened(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	cl := d.client(account(t).Username)
	run := start(t, cl, false, "cat")
	r.policy(strings.Replace(usual(), `"src":["alice@example.com"]`, `"src":["alice@example.com","bob@example.com"]`, 1))
	d.reload()
	time.Sleep(300 * time.Millisecond)
	fmt.Fprintln(run.in, "still here")
	r.until("the session goes on", func() bool { return run.out.String() == "still here\n" })
}

// TestDisobedient stops the connection process, which then cannot obey.
func TestDisobedient(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	run := start(t, d.client(account(t).Username), false, "echo $$; exec sleep 300")
	pid := pidOf(r, run)
	conn := r.states()[0].PID
	if err := unix.Kill(conn, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.policy(policyNoSSH)
	d.reload()
	took := r.until("all of it is killed", func() bool { return !alive(conn) && !alive(pid) })
	t.Logf("killed after %v", took)
	if k := r.recordings(1)[0]; k.end.Cause != "revoked" {
		t.Errorf("end %+v", k.end)
	}
}

type state struct {
	ID    string
	PID   int
	Token string
}

// states reads what the monitor keeps about open connections.
func (r *rig) states() []state {
	r.t.Helper()
	files, _ := filepath.Glob(filepath.Join(r.Dir, "run/conns/*.json"))
	var out []state
	for _, f := range files {
		st, err := os.Stat(f)
		b, rerr := os.ReadFile(f)
		var s state
		if err != nil || rerr != nil || json.Unmarshal(b, &s) != nil || st.Mode().Perm() != 0o600 {
			r.t.Fatalf("%s: %v %v %v", f, err, rerr, st.Mode())
		}
		out = append(out, s)
	}
	return out
}

// TestSurvives kills the daemon under a session, twice, and once ends it in order.
func TestSurvives(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	u := account(t)
	cl := d.client(u.Username)
	run := start(t, cl, false, "cat")
	say := func(s string) {
		t.Helper()
		fmt.Fprintln(run.in, s)
		r.until("the echo of "+s, func() bool { return strings.HasSuffix(run.out.String(), s+"\n") })
	}
	say("before")
	before := r.states()
	d.kill()
	say("without a daemon")
	s, err := cl.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run("echo no"); err == nil {
		t.Error("something new was started without a monitor")
	}
	d = r.daemon()
	isBack := func(times int) func() bool {
		return func() bool {
			b, _ := os.ReadFile(filepath.Join(r.Dir, "log"))
			return bytes.Count(b, []byte("session is back")) == times
		}
	}
	back := r.until("it is back", isBack(1))
	t.Logf("back after %v", back.Round(time.Millisecond))
	say("with another")
	if now := r.states(); len(now) != 1 || now[0] != before[0] {
		t.Errorf("state %+v, before %+v", now, before)
	}
	s, err = cl.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo new"); string(out) != "new\n" || err != nil {
		t.Errorf("something new: %q %v", out, err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	say("after a shutdown")
	d = r.daemon()
	say("and a start")
	r.until("it is back again", isBack(2)) // one that ends before is not adopted, but finished after the fact
	run.in.Close()
	if err := <-run.done; err != nil {
		t.Error(err)
	}
	cl.Close()
	k := r.recordings(1)[0]
	want := "before\nwithout a daemon\nwith another\nafter a shutdown\nand a start\n"
	if got := k.bytes(1, recording.KindOutput); got != want {
		t.Errorf("recorded %q", got)
	}
	if n := len(r.audited("session.adopt")); n != 2 || k.end.Cause != "closed" {
		t.Errorf("adopted %d times, end %+v", n, k.end)
	}
	r.until("no state is left", func() bool { return len(r.states()) == 0 })
}

// TestRevokedWhileAway takes the right away while no daemon runs.
func TestRevokedWhileAway(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	run := start(t, d.client(account(t).Username), false, "echo $$; exec sleep 300")
	pid := pidOf(r, run)
	d.kill()
	r.policy(policyNoSSH)
	d = r.daemon()
	r.until("it is ended", func() bool { return !alive(pid) })
	<-run.done
	if !strings.Contains(run.errs.String(), "taken back") {
		t.Errorf("words %q", run.errs)
	}
	if k := r.recordings(1)[0]; k.end.Cause != "revoked" {
		t.Errorf("end %+v", k.end)
	}
	_ = d
}

// TestRevokedAfterAdoption revokes through a daemon that did not start the session.
func TestRevokedAfterAdoption(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	run := start(t, d.client(account(t).Username), true, "echo $$; exec sleep 300")
	pid := pidOf(r, run)
	d.kill()
	d = r.daemon()
	r.until("it is back", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.Dir, "log"))
		return bytes.Contains(b, []byte("session is back"))
	})
	r.policy(policyNoSSH)
	d.reload()
	<-run.done
	if !strings.Contains(run.errs.String(), "taken back") {
		t.Errorf("words %q", run.errs)
	}
	r.until("it is ended", func() bool { return !alive(pid) })
}

// TestDiedWhileAway kills the connection process, too: what the client had received is
// in the recording all the same.
func TestDiedWhileAway(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	run := start(t, d.client(account(t).Username), false, "seq 1 20000; echo done; read -r x")
	r.until("output", func() bool { return strings.HasSuffix(run.out.String(), "done\n") })
	conn := r.states()[0].PID
	d.kill()
	if err := unix.Kill(conn, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-run.done
	d = r.daemon()
	k := r.recordings(1)[0]
	if k.bytes(1, recording.KindOutput) != run.out.String() || k.end.Cause != "lost" {
		t.Errorf("%d bytes recorded, %d received, end %+v", len(k.bytes(1, recording.KindOutput)), len(run.out.String()), k.end)
	}
	// The state goes last, so that a daemon that dies in between finishes the recording.
	r.until("the state goes", func() bool { return len(r.states()) == 0 })
	_ = d
}

// TestClaim tries to take a session over with everything but what proves it.
func TestClaim(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	run := start(t, d.client(account(t).Username), false, "cat")
	st := r.states()[0]
	claim := func(id string, token []byte) bool {
		nc, err := net.Dial("unixpacket", filepath.Join(r.Dir, "run/resume.sock"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := control.FromNet(nc, false)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.Send(control.Message{Type: control.Resume, Body: &control.ResumeMsg{Version: control.Version, ID: id, Token: token}}, nil) // closed already, perhaps
		m, _, err := c.Receive()
		return err == nil && m.Body.(*control.ResumedMsg).OK
	}
	if claim(st.ID, []byte(st.Token)) || claim(st.ID, make([]byte, 32)) || claim("no-such", nil) {
		t.Error("a stranger took the session over")
	}
	fmt.Fprintln(run.in, "mine")
	r.until("the session goes on", func() bool { return run.out.String() == "mine\n" })
}

// TestJournalFull takes the journal's room away, as the user can: a limit on the size of
// files of the connection process, which has the same uid. The session ends, in words,
// and nothing reaches the client that is not recorded.
func TestJournalFull(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	run := start(t, d.client(account(t).Username), false, "prlimit --pid $PPID --fsize=307200 && exec yes tssh")
	select {
	case <-run.done:
	case <-time.After(15 * time.Second):
		t.Fatal("the session went on without a recording")
	}
	if !strings.Contains(run.errs.String(), "cannot be recorded") {
		t.Errorf("words %q", run.errs)
	}
	k := r.recordings(1)[0]
	rec, got := k.bytes(1, recording.KindOutput), run.out.String()
	if len(got) == 0 || !strings.HasPrefix(rec, got) || k.end.Cause != "recorder-failed" {
		t.Errorf("%d bytes received, %d recorded, end %+v", len(got), len(rec), k.end)
	}
}

func TestStranger(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	for _, from := range []string{"127.0.0.1", "127.0.0.3"} { // the host itself, and nobody's
		nc := d.connectFrom(from)
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(nc); len(b) != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s was told %q (%v)", from, b, err)
		}
		nc.Close()
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t, usual())
	r.Limits = sshd.Limits{HandshakesPerPeer: 3, ConnsPerPeer: 5, LoginGrace: 2 * time.Second}
	d := r.daemon()
	told := func(want string) {
		t.Helper()
		nc := d.connect()
		defer nc.Close()
		_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		b, _ := io.ReadAll(nc)
		if !strings.HasPrefix(string(b), "tssh: ") || !strings.Contains(string(b), want) {
			t.Errorf("told %q, not %q", b, want)
		}
	}
	var idle []net.Conn
	for range 3 {
		nc := d.connect()
		defer nc.Close()
		if _, err := io.ReadFull(nc, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		idle = append(idle, nc)
	}
	told("logins of yours are under way")
	for _, nc := range idle { // the grace time ends them
		_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(nc); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("an idle connection is not ended: %v", err)
		}
	}
	r.until("room again", func() bool {
		c, err := handshake(d.connect(), account(t).Username)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	for range 5 {
		r.until("a connection", func() bool {
			c, err := handshake(d.connect(), account(t).Username)
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err == nil
		})
	}
	told("too many connections of yours")
	if n := len(r.audited("session.limit")); n < 2 {
		t.Errorf("%d limits audited", n)
	}
}

// TestNothingLeft runs sessions one after the other and counts the daemon's descriptors
// and children after.
func TestNothingLeft(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	fds := func() int {
		e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	once := func() {
		c, err := handshake(d.connect(), account(t).Username)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run("true"); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	once()
	r.recordings(1)
	before := fds()
	for range 10 {
		once()
	}
	r.recordings(11)
	r.until("descriptors as before", func() bool { return fds() <= before })
	r.until("no children", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", d.cmd.Process.Pid, d.cmd.Process.Pid))
		return err != nil || strings.TrimSpace(string(b)) == ""
	})
}

// TestOtherVersion puts a daemon in the place of a newer one, whose state it cannot read: the
// session ends, its recording is finished, and the log says why. Where only what the monitor may
// send is newer, it goes on.
func TestOtherVersion(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	cl := d.client(account(t).Username)
	run := start(t, cl, false, "cat")
	rewrite := func(old, by string) {
		t.Helper()
		name := filepath.Join(r.Dir, "run/conns", r.states()[0].ID+".json")
		b, err := os.ReadFile(name)
		if err == nil && !bytes.Contains(b, []byte(old)) {
			t.Fatalf("no %s in %s", old, b)
		}
		if err == nil {
			err = os.WriteFile(name, bytes.Replace(b, []byte(old), []byte(by), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	logged := func(words string) bool {
		b, _ := os.ReadFile(filepath.Join(r.Dir, "log"))
		return bytes.Contains(b, []byte(words))
	}
	d.kill()
	rewrite(fmt.Sprintf(`"minor":%d`, control.Minor), `"minor":99,"newer":true`)
	d = r.daemon()
	r.until("it is back", func() bool { return logged("session is back") })
	fmt.Fprintln(run.in, "on")
	r.until("the session goes on", func() bool { return run.out.String() == "on\n" })
	if !logged("session of a newer tsshd") {
		t.Error("the log does not say that it is newer")
	}
	pid := r.states()[0].PID
	d.kill()
	rewrite(`"version":1`, `"version":2`)
	d = r.daemon()
	r.until("the session ends", func() bool { return !alive(pid) })
	<-run.done
	if k := r.recordings(1)[0]; k.end.Cause != "lost" || k.bytes(1, recording.KindOutput) != "on\n" {
		t.Errorf("end %+v", k.end)
	}
	r.until("the state goes", func() bool { return len(r.states()) == 0 })
	if !logged("a session ends: it is of another version of tsshd") {
		t.Error("the log does not say why it ended")
	}
	_ = d
}
