package sshd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// spareOf waits for the process that waits for a connection.
func spareOf(t *testing.T, d *daemon, but ...int) int {
	t.Helper()
	var pid int
	d.r.until("a spare connection process", func() bool {
		below, _ := processesOf(d.cmd.Process.Pid, "none")
		below = slices.DeleteFunc(below, func(p int) bool { return slices.Contains(but, p) })
		if len(below) != 1 {
			return false
		}
		pid = below[0]
		// Past its start: it sleeps where it waits for its connection.
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && strings.HasSuffix(string(b), "\x00conn\x00") && inState(pid, "S")
	})
	return pid
}

func inState(pid int, state string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	return strings.HasPrefix(string(b[strings.LastIndexByte(string(b), ')')+1:]), " "+state)
}

func gone(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err != nil
}

// TestSpare: a connection gets the process that waited, which had nothing that it should
// not have, and is followed by another one.
func TestSpare(t *testing.T) {
	r := newRig(t, usual())
	r.Spare = true
	d := r.daemon()
	first := spareOf(t, d)
	var files []string
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", first))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", first, fd.Name()))
		to, _, _ = strings.Cut(to, ":[")
		files = append(files, to)
	}
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasPrefix(f, "/sys/fs/cgroup/") }) // the runtime's
	slices.Sort(files)
	want := []string{"/dev/null", "/dev/null", filepath.Join(r.Dir, "run/conn.log"), "socket", "socket"}
	all := len(files)
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasPrefix(f, "anon_inode") }) // two of the runtime's poller, as soon as that runs
	if !slices.Equal(files, want) || all > len(want)+2 {
		t.Errorf("it has %q of %d, not %q", files, all, want)
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", first)); err != nil || len(env) > 0 {
		t.Errorf("its environment is %q, %v", env, err)
	}

	u := account(t)
	cl := d.client(u.Username)
	s, err := cl.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("id -un"); strings.TrimSpace(string(out)) != u.Username || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if st := r.states(); len(st) != 1 || st[0].PID != first {
		t.Errorf("the session's process is not the spare %d: %+v", first, st)
	}
	second := spareOf(t, d, first)

	// One that was killed costs nobody the login.
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// All of its threads: the last one to go has its sockets open until then.
	r.until("it is dead", func() bool {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", second))
		return inState(second, "Z") && len(tasks) == 1
	})
	other := d.client(u.Username)
	if s, err = other.NewSession(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run("true"); err != nil {
		t.Error(err)
	}
	other.Close()
	r.until("the process of the second login is gone", func() bool { return len(r.states()) == 1 })
	third := spareOf(t, d, first)

	// It ends with the daemon, however that ends; sessions do not.
	d.kill()
	r.until("the spare is gone", func() bool { return gone(third) })
	d = r.daemon()
	fourth := spareOf(t, d)
	r.until("the session is back", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.Dir, "log"))
		return strings.Contains(string(b), "session is back")
	})
	if s, err = cl.NewSession(); err == nil {
		err = s.Run("true")
	}
	if err != nil {
		t.Errorf("the session that was there: %v", err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !gone(fourth) {
		t.Error("the spare outlived a daemon that ended in order")
	}
}

// TestSpareOfAnotherProgram: what waits is not used once another program is in its place.
func TestSpareOfAnotherProgram(t *testing.T) {
	r := newRig(t, usual())
	r.Spare, r.Conn = true, filepath.Join(r.Dir, "program")
	install := func() {
		t.Helper()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(exe)
		if err == nil {
			err = os.WriteFile(r.Conn+".new", b, 0o755)
		}
		if err == nil {
			err = os.Rename(r.Conn+".new", r.Conn)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install()
	d := r.daemon()
	old := spareOf(t, d)
	install()
	d.client(account(t).Username)
	st := r.states()
	if len(st) != 1 || st[0].PID == old {
		t.Errorf("the session is served by the program that was replaced: %+v", st)
	}
	r.until("the one that waited is gone", func() bool { return gone(old) })
}

// TestSpareGain measures logins with and without a spare process.
func TestSpareGain(t *testing.T) {
	if os.Getenv("TSSH_BENCH") == "" {
		t.Skip("a measurement of a minute: TSSH_BENCH=1 makes it")
	}
	u := account(t)
	daemons := map[bool]*daemon{}
	for _, spare := range []bool{true, false} {
		r := newRig(t, usual())
		r.Spare = spare
		daemons[spare] = r.daemon()
	}
	took := map[bool][]time.Duration{}
	for range 150 {
		for _, spare := range []bool{true, false} {
			time.Sleep(150 * time.Millisecond) // what is measured: a login now and then
			began := time.Now()
			cl, err := handshake(daemons[spare].connect(), u.Username)
			if err != nil {
				t.Fatal(err)
			}
			s, err := cl.NewSession()
			if err == nil {
				err = s.Run("true")
			}
			if err != nil {
				t.Fatal(err)
			}
			took[spare] = append(took[spare], time.Since(began))
			cl.Close()
		}
	}
	for spare, v := range took {
		slices.Sort(v)
		t.Logf("spare %v: connect and true: least %v, quarter %v, median %v", spare, v[0], v[len(v)/4], v[len(v)/2])
	}
}
