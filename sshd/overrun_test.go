package sshd_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// overrun has the client's library believe that the server takes a gigabyte more on a channel.
func overrun(t *testing.T, ch gossh.Channel) {
	t.Helper()
	v := reflect.ValueOf(ch)
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	f := v.FieldByName("remoteWin")
	if f.IsValid() {
		f = f.FieldByName("win")
	}
	if !f.IsValid() || f.Kind() != reflect.Uint32 {
		t.Fatal("the library keeps its window elsewhere now")
	}
	*(*uint32)(unsafe.Pointer(f.UnsafeAddr())) = 1 << 30
}

// TestMoreThanTheWindow sends more on a channel than the server said that it takes: that
// connection ends, with a reason on record, it held no more than its windows, and another
// connection of the same person goes on.
func TestMoreThanTheWindow(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	d := r.daemon()
	other := d.client(u.Username)
	kept := start(t, other, false, "cat")
	pids := map[int]bool{}
	for _, s := range r.states() {
		pids[s.PID] = true
	}
	sink := listen(t, "tcp", "127.0.0.1:0") // nobody accepts
	t.Cleanup(func() { sink.Close() })
	for n, what := range []string{"a program", "a forward"} {
		t.Run(what, func(t *testing.T) {
			c := d.client(u.Username)
			var ch gossh.Channel
			if what == "a program" {
				ch, _ = open(t, c)
				if !request(t, ch, "exec", str("echo $$; exec sleep 300")) {
					t.Fatal("no exec")
				}
				var sleeps int
				if _, err := fmt.Fscanln(ch, &sleeps); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Kill(sleeps, unix.SIGKILL) }) // a program without a terminal outlives its client
			} else {
				var err error
				if ch, _, err = c.OpenChannel("direct-tcpip", direct(sink.Addr())); err != nil {
					t.Fatal(err)
				}
			}
			pid := 0
			r.until("its process", func() bool {
				for _, s := range r.states() {
					if !pids[s.PID] {
						pid, pids[s.PID] = s.PID, true
					}
				}
				return pid != 0
			})
			overrun(t, ch)
			over := make(chan error, 1)
			go func() { // ends with the connection
				for {
					if _, err := ch.Write(make([]byte, 1<<20)); err != nil {
						over <- err
						return
					}
				}
			}()
			peak := 0
			r.until("the connection is over", func() bool {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may be gone
				for line := range strings.Lines(string(b)) {
					var kib int
					if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
						peak = max(peak, kib)
					}
				}
				select {
				case <-over:
					return true
				default:
					return false
				}
			})
			t.Logf("its process held %d KiB at most", peak)
			if peak > 100<<10 {
				t.Error("that is more than the windows of a connection")
			}
			r.until("its end is on record", func() bool { return len(r.audited2("session.close")) == n+1 })
			if e := r.audited2("session.close")[n]; e.Verdict != "closed" || !strings.Contains(e.Text, "the client broke the protocol") || !strings.Contains(e.Text, "wrote too much") {
				t.Errorf("it ended as %+v", e)
			}
		})
	}
	fmt.Fprintln(kept.in, "still here")
	r.until("the other connection's echo", func() bool { return strings.Contains(kept.out.String(), "still here") })
}
