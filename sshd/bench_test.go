package sshd_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	gossh "golang.org/x/crypto/ssh"
)

// TestCostOfRecording compares sessions that are recorded, and recorded and sealed, with such
// that are not, through the same daemon code in turns: bulk output of a command and of a terminal,
// and the echo of a key. It says ratios, and the processor time of monitor and connection, which a
// busy machine does not blur as it does speeds. It fails only where recording is not a matter of
// cost any more.
func TestCostOfRecording(t *testing.T) {
	if os.Getenv("TSSH_BENCH") == "" {
		t.Skip("a measurement of a minute or two: TSSH_BENCH=1 makes it")
	}
	const size = 128 << 20
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	clients, daemons := map[string]*gossh.Client{}, map[string]*daemon{}
	hows := []string{"off", "recorded", "sealed"}
	for _, how := range hows {
		rule := usual()
		if how == "off" {
			rule = ruleWith(`"record":"off"`, "")
		}
		r := newRig(t, rule)
		r.SpoolMax = 1 << 40
		if how == "sealed" {
			r.SealTo = id.Recipient().String()
		}
		daemons[how] = r.daemon()
		clients[how] = daemons[how].client(account(t).Username)
	}
	bulk := func(c *gossh.Client, pty bool) float64 {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if pty {
			if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
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
		rate, monitor, conns := map[string][]float64{}, map[string]time.Duration{}, map[string]time.Duration{}
		const rounds = 5
		for i := range rounds + 1 {
			for _, how := range hows {
				m0, c0 := daemons[how].processorTime()
				got := bulk(clients[how], pty)
				if i > 0 { // the first warms up
					rate[how] = append(rate[how], got)
					m1, c1 := daemons[how].processorTime()
					monitor[how] += m1 - m0
					conns[how] += c1 - c0
				}
			}
		}
		perMB := func(d time.Duration) float64 { return d.Seconds() * 1e3 / (rounds * size / 1e6) }
		off := slices.Max(rate["off"])
		t.Logf("bulk, terminal %v: %.0f MB/s not recorded (best of %d), processor time a MB: connection %.2f ms, monitor %.2f", pty, off, rounds, perMB(conns["off"]), perMB(monitor["off"]))
		for _, how := range hows[1:] {
			var ratios []float64
			for i := range rounds {
				ratios = append(ratios, rate[how][i]/rate["off"][i])
			}
			slices.Sort(ratios)
			on := slices.Max(rate[how])
			t.Logf("    %s: %.0f MB/s, %.2f (best), %.2f (middle of the pairs); connection %.2f ms, monitor %.2f", how, on, on/off, ratios[rounds/2], perMB(conns[how]), perMB(monitor[how]))
			if on < off/20 {
				t.Errorf("terminal %v, %s: it makes bulk twenty times slower", pty, how)
			}
		}
	}
	keys := map[string]func() time.Duration{}
	for how, c := range clients {
		keys[how] = echoes(t, c)
	}
	took := map[string][]time.Duration{}
	for range 1000 {
		for _, how := range hows {
			took[how] = append(took[how], keys[how]())
		}
	}
	at := func(how string, part float64) time.Duration {
		slices.Sort(took[how])
		return took[how][int(part*float64(len(took[how])-1))]
	}
	for _, part := range []float64{0.5, 0.95} {
		t.Logf("a key's echo, %.0f %% are quicker than: %v not recorded, %v more recorded, %v more sealed", part*100, at("off", part), at("recorded", part)-at("off", part), at("sealed", part)-at("off", part))
	}
}

// echoes gives a function that types a key and waits for its echo.
func echoes(t *testing.T, c *gossh.Client) func() time.Duration {
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
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
	return func() time.Duration {
		began := time.Now()
		if _, err := in.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, b); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
}

// processorTime is what the monitor and its connection processes have used, and not what
// runs in sessions.
func (d *daemon) processorTime() (monitor, conns time.Duration) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ") // no name here has that
		f := strings.Fields(rest)
		if len(f) < 13 {
			continue
		}
		used := &conns
		switch pid := strconv.Itoa(d.cmd.Process.Pid); {
		case filepath.Base(dir) == pid:
			used = &monitor
		case f[1] != pid:
			continue
		}
		for _, ticks := range f[11:13] { // proc_pid_stat(5): utime, stime
			n, _ := strconv.Atoi(ticks)
			*used += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return monitor, conns
}
