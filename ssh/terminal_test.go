//go:build linux

package ssh

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, s, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); s.Close() })
	return m, s
}

func state(t *testing.T, f *os.File) *term.State {
	t.Helper()
	s, err := term.GetState(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever ends a session, the terminal is as it was.
func TestTerminalIsGivenBack(t *testing.T) {
	h := (&host{}).start(t)
	why := errors.New("told to end")
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s Session, c *Client, m *os.File)
	}{
		{"exit", func(t *testing.T, s Session, c *Client, _ *os.File) {
			s.Command = "exit 3"
			if x, err := c.Run(t.Context(), s); err != nil || x.Code() != 3 {
				t.Error(x, err)
			}
		}},
		{"refused", func(t *testing.T, s Session, c *Client, _ *os.File) {
			s.Command = "forbidden"
			if _, err := c.Run(t.Context(), s); err == nil {
				t.Error("not refused")
			}
		}},
		{"cancelled", func(t *testing.T, s Session, c *Client, _ *os.File) {
			ctx, cancel := context.WithCancelCause(t.Context())
			s.Command = "echo ready; sleep 60"
			s.Stdout = &notify{want: "ready", hit: func() { cancel(why) }}
			if _, err := c.Run(ctx, s); !errors.Is(err, why) {
				t.Error(err)
			}
		}},
		{"escape", func(t *testing.T, s Session, c *Client, m *os.File) {
			s.Command = "echo ready; cat"
			s.Escape = '~'
			s.Stdout = &notify{want: "ready", hit: func() { io.WriteString(m, "typed\r~.") }}
			if _, err := c.Run(t.Context(), s); !errors.Is(err, ErrDisconnected) {
				t.Error(err)
			}
		}},
		{"lost", func(t *testing.T, s Session, c *Client, _ *os.File) {
			s.Command = "echo ready; sleep 60"
			s.Stdout = &notify{want: "ready", hit: h.cut}
			if _, err := c.Run(t.Context(), s); err == nil {
				t.Error("not lost")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, s := openPTY(t)
			go io.Copy(io.Discard, m) // ends with the pty
			before := state(t, s)
			tt, ok := OpenTerminal(s)
			if !ok {
				t.Fatal("not a terminal")
			}
			c.run(t, Session{PTY: true, Terminal: tt, Term: "xterm", Stdin: s}, h.dial(t), m)
			if !reflect.DeepEqual(state(t, s), before) {
				t.Error("the terminal is not as it was")
			}
		})
	}
}

// A panic in one of our goroutines ends the program, and still the terminal is given back.
func TestTerminalIsGivenBackOnPanic(t *testing.T) {
	if os.Getenv("PANIC_HELPER") != "" {
		tt, _ := OpenTerminal(os.Stdin)
		if tt.Raw() != nil {
			os.Exit(9)
		}
		os.Stdout.WriteString("raw")
		go tt.guard(func() { panic("as planned") })
		time.Sleep(10 * time.Second)
		os.Exit(8)
	}
	_, s := openPTY(t)
	before := state(t, s)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestTerminalIsGivenBackOnPanic$")
	cmd.Env = append(os.Environ(), "PANIC_HELPER=1")
	cmd.Stdin = s
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), "raw") || !strings.Contains(string(out), "as planned") {
		t.Fatalf("the helper did not panic in raw mode: %s", out)
	}
	if !reflect.DeepEqual(state(t, s), before) {
		t.Error("the terminal is not as it was")
	}
}

func TestSizesAndModesReachTheHost(t *testing.T) {
	h := (&host{}).start(t)
	m, s := openPTY(t)
	go io.Copy(io.Discard, m) // ends with the pty
	if err := pty.Setsize(m, &pty.Winsize{Cols: 101, Rows: 33}); err != nil {
		t.Fatal(err)
	}
	tio, err := unix.IoctlGetTermios(int(s.Fd()), getTermios)
	if err != nil {
		t.Fatal(err)
	}
	tio.Cc[unix.VINTR] = 7
	if err := unix.IoctlSetTermios(int(s.Fd()), unix.TCSETS, tio); err != nil {
		t.Fatal(err)
	}
	tt, _ := OpenTerminal(s)
	resize := func() {
		pty.Setsize(m, &pty.Winsize{Cols: 77, Rows: 11})
		syscall.Kill(os.Getpid(), syscall.SIGWINCH)
	}
	// The program ends when the window changed, so a lost change is a hang here.
	out := &notify{want: "33 101", hit: resize}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen := func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.sizes) == 2
	}
	go func() { // ends with the window change, or with ctx
		for ctx.Err() == nil && !seen() {
			time.Sleep(5 * time.Millisecond)
		}
		io.WriteString(m, "x")
	}()
	if x, err := h.dial(t).Run(ctx, Session{Command: "stty size; stty -icanon; head -c 1 >/dev/null", PTY: true, Terminal: tt, Term: "xterm", Stdin: s, Stdout: out}); err != nil || x.Code() != 0 {
		t.Fatal(x, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if want := []Size{{101, 33, 0, 0}, {77, 11, 0, 0}}; !reflect.DeepEqual(h.sizes, want) {
		t.Errorf("sizes %v, want %v", h.sizes, want)
	}
	if !strings.Contains(h.modes, "\x01\x00\x00\x00\x07") || !strings.HasSuffix(h.modes, "\x00") || len(h.modes)%5 != 1 {
		t.Errorf("modes %q", h.modes)
	}
}
