package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"tssh/recording/term"
)

// terminal is a person's terminal with a program on it, and what it shows.
type terminal struct {
	cmd *exec.Cmd
	f   *os.File

	mu     sync.Mutex
	screen *term.Term
	raw    []byte
	news   chan struct{}
	closed bool
}

func (h *Host) terminal(t *testing.T, cols, rows int, name string, args ...string) *terminal {
	t.Helper()
	x := &terminal{cmd: h.Command(name, args...), screen: term.New(cols, rows), news: make(chan struct{}, 1)}
	x.cmd.Env = append(x.cmd.Env, "TERM=xterm-256color")
	f, err := pty.StartWithSize(x.cmd, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)})
	if err != nil {
		t.Fatal(err)
	}
	x.f = f
	done := make(chan struct{})
	t.Cleanup(func() {
		x.cmd.Process.Kill()
		x.cmd.Wait()
		f.Close()
		<-done
	})
	go func() { // ends with the terminal
		defer close(done)
		buf := make([]byte, 32<<10)
		for {
			n, err := f.Read(buf)
			x.mu.Lock()
			x.screen.Write(buf[:n])
			x.raw = append(x.raw, buf[:n]...)
			x.closed = err != nil
			x.mu.Unlock()
			select {
			case x.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return x
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Join(x.screen.Text(), "\n")
}

// bytes is all that was written to the terminal.
func (x *terminal) bytes() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return string(x.raw)
}

func (x *terminal) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := x.f.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// await waits until the screen shows a text.
func (x *terminal) await(t *testing.T, text string) {
	t.Helper()
	x.until(t, fmt.Sprintf("%q", text), func(screen string) bool { return strings.Contains(screen, text) })
}

func (x *terminal) until(t *testing.T, what string, ok func(screen string) bool) {
	t.Helper()
	late := time.After(60 * time.Second)
	for !ok(x.text()) {
		select {
		case <-x.news:
		case <-late:
			t.Fatalf("no %s on the screen:\n%s", what, x.text())
		}
	}
}
