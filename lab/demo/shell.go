package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
)

// marker is what the demo's shell prints and its replay must show. The shell computes
// it, so that an echo of what was typed is not taken for the answer.
const marker = "recorded-1764"

// shell types into an interactive shell as a person does.
func (s *scene) shell() error {
	s.echo(s.laptop, s.target())
	c := s.laptop.TsshCommand(s.target())
	c.Env = append(c.Env, "TERM=dumb") // what it shows is shown here line by line
	f, err := pty.StartWithSize(c, &pty.Winsize{Cols: 100, Rows: 30})
	if err != nil {
		return err
	}
	defer f.Close()
	kill := time.AfterFunc(30*time.Second, func() { c.Process.Kill() })
	defer kill.Stop()

	var screen watched
	done := make(chan struct{})
	go func() { // ends when the terminal does
		io.Copy(&screen, f)
		close(done)
	}()
	for _, step := range []struct{ typed, until string }{
		{"PS1='%s '\n", "% "},
		{"echo recorded-$((42*42))\n", marker},
		{"stty size\n", "30 100"},
		{"exit 3\n", ""},
	} {
		if err := screen.await(step.until, step.typed, f); err != nil {
			return err
		}
	}
	err = c.Wait()
	<-done
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		return fmt.Errorf("the shell ended with %v, not its own status 3: %s", err, screen.text())
	}
	show(screen.text())
	say("exit status 3, the shell's own")
	return nil
}

// watched collects what a terminal shows.
type watched struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// await types text and waits until the terminal has shown more that contains want.
func (w *watched) await(want, typed string, to io.Writer) error {
	typed = strings.ReplaceAll(typed, "%s", "%")
	before := len(w.text())
	if _, err := io.WriteString(to, typed); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(w.text()[before:], want) {
			return nil
		}
	}
	return fmt.Errorf("typed %q, the terminal does not show %q: %q", typed, want, w.text())
}

// reach makes a loopback address of the hub's host reachable from here: in a namespace
// its loopback is its own, so a port here carries each connection over.
func (s *scene) reach(addr string) (string, error) {
	if !s.kernel {
		return addr, nil
	}
	u, err := url.Parse(addr)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		return "", fmt.Errorf("the replay page's port: %w", err)
	}
	go func() { // ends with the demo
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.carry(c, u.Host)
		}
	}()
	return addr, nil
}

// carry joins a connection with one made on the hub's host.
func (s *scene) carry(c net.Conn, host string) {
	defer c.Close()
	there, err := s.hub.Host.Dial("tcp", host)
	if err != nil {
		return
	}
	defer there.Close()
	go func() { // ends when either side does
		io.Copy(there, c)
		there.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, there)
}
