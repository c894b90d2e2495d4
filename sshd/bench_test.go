package sshd_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// TestCostOfRecording compares sessions that are recorded with such that are not, through
// the same daemon code in turns: bulk output of a command and of a terminal, and the echo
// of a key. It says ratios and fails only where recording is not a matter of cost any more.
func TestCostOfRecording(t *testing.T) {
	if os.Getenv("TSSH_BENCH") == "" {
		t.Skip("a measurement of a minute or two: TSSH_BENCH=1 makes it")
	}
	const size = 128 << 20
	clients := map[string]*gossh.Client{}
	for _, how := range []string{"off", "required"} {
		rule := ruleWith(`"record":"off"`, "")
		if how == "required" {
			rule = usual()
		}
		r := newRig(t, rule)
		r.SpoolMax = 1 << 40
		clients[how] = r.daemon().client(account(t).Username)
	}
	bulk := func(c *gossh.Client, pty bool) float64 {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if pty {
			if err := s.RequestPty("xterm", 24, 80, gossh.TerminalModes{gossh.ONLCR: 0}); err != nil {
				t.Fatal(err)
			}
		}
		out, err := s.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := s.Start(fmt.Sprintf("yes 'all work and no play makes jack a dull boy' | head -c %d", size)); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, out)
		if err != nil || n < size {
			t.Fatalf("%d bytes of %d, %v", n, size, err)
		}
		return float64(n) / 1e6 / time.Since(began).Seconds()
	}
	for _, pty := range []bool{false, true} {
		rate := map[string][]float64{}
		for range 3 {
			for how, c := range clients {
				rate[how] = append(rate[how], bulk(c, pty))
			}
		}
		off, on := slices.Max(rate["off"]), slices.Max(rate["required"])
		t.Logf("bulk, terminal %v: %.0f MB/s recorded, %.0f MB/s not: %.2f", pty, on, off, on/off)
		if on < off/20 {
			t.Errorf("terminal %v: recording makes bulk twenty times slower", pty)
		}
	}
	median := map[string]time.Duration{}
	for how, c := range clients {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			t.Fatal(err)
		}
		in, err := s.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start("stty raw echo; echo ready; exec cat >/dev/null"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		for b[0] != '\n' {
			if _, err := out.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		var took []time.Duration
		for range 400 {
			began := time.Now()
			if _, err := in.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, b); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		median[how] = took[len(took)/2]
		s.Close()
	}
	t.Logf("a key's echo: %v recorded, %v not: %v more", median["required"], median["off"], median["required"]-median["off"])
}
