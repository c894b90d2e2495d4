package sshd_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/recording"
)

// TestBytesOfAnHour has real programs run on terminals of 120 by 40 for a while, and says what
// an hour of each takes: on the terminal, in the recording, and as asciicast v3.
func TestBytesOfAnHour(t *testing.T) {
	if os.Getenv("TSSH_BENCH") == "" {
		t.Skip("a measurement of a minute: TSSH_BENCH=1 makes it")
	}
	const span = 40 * time.Second
	who := account(t).Username // one for all
	type work struct {
		name    string
		command string // "" is a shell that is typed at
		needs   string
		keys    func(w io.Writer, until time.Time)
		whole   bool // it is over by itself: a factor and no hour
	}
	typed := func(w io.Writer, until time.Time, lines ...string) {
		for i := 0; time.Now().Before(until); i++ {
			for _, c := range lines[i%len(lines)] {
				fmt.Fprintf(w, "%c", c)
				time.Sleep(120 * time.Millisecond)
			}
			time.Sleep(time.Second)
		}
	}
	for _, wk := range []work{
		{name: "typing", keys: func(w io.Writer, until time.Time) {
			typed(w, until, "ls -la /usr/share\r", "ps aux | head -20\r", "grep -rn root /etc/passwd\r", "df -h\r", "cat /etc/fstab\r")
		}},
		{name: "vim", command: "vim -u NONE -c 'syntax on' -c 'set number' /tmp/tssh-bench-copy.go", needs: "vim", keys: func(w io.Writer, until time.Time) {
			typed(w, until, "/func\rn", "ithese are some words\r\x1b", "\x04\x04\x15", "ddp", "A // why\x1b", "G", "gg")
		}},
		{name: "top -d 1", command: "top -d 1", needs: "top"},
		{name: "build output", command: "cd /tmp && GOCACHE=/tmp/tssh-bench-cache GOFLAGS= go build -n -a std 2>&1 | head -c 8000000", needs: "go", whole: true},
	} {
		t.Run(wk.name, func(t *testing.T) {
			t.Parallel()
			if wk.needs != "" {
				path, err := exec.LookPath(wk.needs)
				if err != nil {
					t.Skip(wk.needs + " is not installed")
				}
				wk.command = "PATH=$PATH:" + filepath.Dir(path) + "; export PATH; " + wk.command
			}
			r := newRig(t, usual())
			c := r.daemon().client(who)
			if wk.name == "vim" {
				b, err := os.ReadFile("link.go")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile("/tmp/tssh-bench-copy.go", b, 0o666); err != nil {
					t.Fatal(err)
				}
				defer os.Remove("/tmp/tssh-bench-copy.go")
			}
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.RequestPty("xterm-256color", 40, 120, gossh.TerminalModes{}); err != nil {
				t.Fatal(err)
			}
			in, err := s.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			raw := 0
			s.Stdout = writerFunc(func(p []byte) (int, error) { mu.Lock(); raw += len(p); mu.Unlock(); return len(p), nil })
			began := time.Now()
			if wk.command == "" {
				err = s.Shell()
			} else {
				err = s.Start(wk.command)
			}
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case wk.whole:
				_ = s.Wait()
			case wk.keys != nil:
				wk.keys(in, began.Add(span))
			default:
				time.Sleep(span)
			}
			took := time.Since(began)
			c.Close()
			k := r.recordings(1)[0]
			st, err := os.Stat(k.path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(k.path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			rd, err := recording.NewReader(f, st.Size())
			if err != nil {
				t.Fatal(err)
			}
			defer rd.Close()
			var cast bytes.Buffer
			if err := recording.WriteCast(&cast, rd, recording.CastOptions{}); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if raw == 0 {
				t.Fatal("no output")
			}
			if wk.whole {
				t.Logf("%s: %.1f MB of output, recording %.3f of it, cast %.2f", wk.name, float64(raw)/1e6, float64(st.Size())/float64(raw), float64(cast.Len())/float64(raw))
				return
			}
			hour := func(n int) float64 { return float64(n) / 1e6 * float64(time.Hour) / float64(took) }
			t.Logf("%s: MB an hour: %.2f on the terminal, %.2f in the recording, %.2f as a cast", wk.name, hour(raw), hour(int(st.Size())), hour(cast.Len()))
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
