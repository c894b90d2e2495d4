package sshd_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/sshd"
)

// soak reports whether the big numbers are wanted: `make soak`.
func soak() bool { return os.Getenv("TSSH_SOAK") != "" }

// held is what a monitor holds.
type held struct {
	files int
	mib   float64
	cpu   float64 // seconds used so far
}

func holds(t *testing.T, pid int) held {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return held{len(fds), pss(pid), cpuOf(pid)}
}

// pss is the proportional set size of a process in MiB, 0 when it is gone.
func pss(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}

func cpuOf(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

// processesOf lists the processes below pid, and apart from them those with a real uid.
func processesOf(pid int, uid string) (below, owned []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		n, _ := strconv.Atoi(filepath.Base(d))
		b, err := os.ReadFile(d + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case len(f) > 1 && f[0] == "PPid:" && f[1] == strconv.Itoa(pid):
				below = append(below, n)
			case len(f) > 1 && f[0] == "Uid:" && f[1] == uid:
				owned = append(owned, n)
			}
		}
	}
	return below, owned
}

// programs are the command lines of processes that are still there.
func programs(pids []int) []string {
	var out []string
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		out = append(out, strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " "))
	}
	return out
}

// terminalsOf counts the terminals that belong to an account.
func terminalsOf(uid string) int {
	n := 0
	names, _ := filepath.Glob("/dev/pts/[0-9]*")
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(name, &st) == nil && strconv.Itoa(int(st.Uid)) == uid {
			n++
		}
	}
	return n
}

// patiently waits for something that happens soon on a machine with nothing else to do.
func patiently(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestSoakLogins makes many short logins, of every kind, and looks for what they left: in
// the monitor, among processes and terminals, in the folder of open connections. 500 of
// them, or 10,000 with TSSH_SOAK.
func TestSoakLogins(t *testing.T) {
	needRoot(t) // another account than the test's own, so that what it has can be counted
	n := 500
	if soak() {
		n = 10000
	}
	u := account(t)
	r := newRig(t, usual())
	r.Limits = sshd.Limits{Handshakes: 1000, HandshakesPerPeer: 1000, Conns: 1000, ConnsPerPeer: 1000}
	d := r.daemon()
	login := func(i int) error {
		cl, err := handshake(d.connect(), u.Username)
		if err != nil {
			return err
		}
		defer cl.Close()
		s, err := cl.NewSession()
		if err != nil {
			return err
		}
		switch i % 5 {
		case 0, 1:
			out, err := s.Output("echo $((" + strconv.Itoa(i) + " + 1))")
			if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(i+1) {
				return fmt.Errorf("%q: %w", out, errors.Join(err, errors.New("not the answer")))
			}
		case 2: // a terminal whose client goes away in the middle
			if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
				return err
			}
			return s.Start("sleep 1000")
		case 3:
			if err := s.RequestSubsystem("sftp"); err != nil {
				return err
			}
		case 4:
			if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
				return err
			}
			if err := s.Shell(); err != nil {
				return err
			}
		}
		return nil
	}
	many := func(count int) time.Duration {
		begin := time.Now()
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := int(next.Add(1)); i <= count && !t.Failed(); i = int(next.Add(1)) {
					if err := login(i); err != nil {
						t.Errorf("login %d: %v", i, err)
					}
				}
			})
		}
		wg.Wait()
		return time.Since(begin)
	}
	left := ""
	settled := func() bool {
		below, owned := processesOf(d.cmd.Process.Pid, u.Uid)
		left = fmt.Sprintf("processes of the daemon %q, of the account %q, open connections %d, terminals %d", programs(below), programs(owned), len(r.states()), terminalsOf(u.Uid))
		return len(below) == 0 && len(owned) == 0 && len(r.states()) == 0 && terminalsOf(u.Uid) == 0
	}
	defer func() {
		if t.Failed() {
			t.Log(left)
		}
	}()
	many(50) // every part was used once
	patiently(t, "the first logins are over", settled)
	before := holds(t, d.cmd.Process.Pid)
	took := many(n)
	patiently(t, "nothing is left of the logins", settled)
	var after held
	patiently(t, "the monitor holds what it held", func() bool {
		after = holds(t, d.cmd.Process.Pid)
		return after.files <= before.files+3
	})
	t.Logf("%d logins in %v; the monitor: %d files (%d), %.1f MiB (%.1f), %.1f ms of processor time for each", n, took.Round(time.Millisecond), after.files, before.files, after.mib, before.mib,
		1000*(after.cpu-before.cpu)/float64(n))
	if after.mib > before.mib+40 {
		t.Errorf("the monitor grew from %.1f to %.1f MiB", before.mib, after.mib)
	}
}

// TestSoakIdle holds many sessions that do nothing, and reports what they cost: 40, or 1,000
// with TSSH_SOAK.
func TestSoakIdle(t *testing.T) {
	needRoot(t)
	n, span := 40, time.Second
	if soak() {
		n, span = 1000, 2*time.Minute
	}
	u := account(t)
	r := newRig(t, usual())
	r.Limits = sshd.Limits{Handshakes: 1000, HandshakesPerPeer: 1000, Conns: 2000, ConnsPerPeer: 2000}
	d := r.daemon()
	pid := d.cmd.Process.Pid
	clients := make([]*gossh.Client, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !t.Failed(); i = int(next.Add(1)) - 1 {
				cl, err := handshake(d.connect(), u.Username)
				if err != nil {
					t.Errorf("session %d: %v", i, err)
					return
				}
				clients[i] = cl
				s, err := cl.NewSession()
				if err == nil {
					err = errors.Join(s.RequestPty("xterm", 24, 80, nil), s.Start("exec sleep 100000"))
				}
				if err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	conns, _ := processesOf(pid, u.Uid)
	if len(conns) != n {
		t.Errorf("%d connection processes, not %d", len(conns), n)
	}
	use := func() (mib, cpu float64) {
		for _, p := range conns {
			mib, cpu = mib+pss(p), cpu+cpuOf(p)
		}
		return mib, cpu
	}
	_, cpu := use()
	before := holds(t, pid)
	time.Sleep(span) // what is measured: nothing happens
	mib, later := use()
	after := holds(t, pid)
	t.Logf("%d idle sessions: %.2f MiB each, the monitor %.1f MiB; processor time in %v: %.2f s of theirs, %.2f s of the monitor's", n, mib/float64(n), after.mib, span, later-cpu, after.cpu-before.cpu)
	if mib/float64(n) > 20 {
		t.Errorf("%.1f MiB for an idle session", mib/float64(n))
	}
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
	patiently(t, "all of them are gone", func() bool { below, owned := processesOf(pid, u.Uid); return len(below) == 0 && len(owned) == 0 })
}
