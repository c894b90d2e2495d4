package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// live is a session that prints a counted line ten times a second on web, seen from the laptop.
type live struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	lines  []string
	stderr strings.Builder
	done   chan error
}

const ticker = `i=0; while :; do i=$((i+1)); echo "tick $i"; sleep 0.1; done`

// tick starts a live session with a client of the laptop's.
func (m *mesh) tick(t *testing.T, name string, args ...string) *live {
	t.Helper()
	l := &live{cmd: m.laptop.Host.Command(name, args...), done: make(chan error, 1)}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := l.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.cmd.Process.Kill() })
	var wg sync.WaitGroup
	wg.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			l.mu.Lock()
			l.lines = append(l.lines, s.Text())
			l.mu.Unlock()
		}
	})
	wg.Go(func() {
		b, _ := io.ReadAll(errs)
		l.mu.Lock()
		l.stderr.Write(b)
		l.mu.Unlock()
	})
	go func() { // ends with the client
		wg.Wait()
		l.done <- l.cmd.Wait()
	}()
	l.await(t, 5)
	return l
}

func (l *live) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

func (l *live) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stderr.String()
}

// await waits for n more lines.
func (l *live) await(t *testing.T, n int) {
	t.Helper()
	from := l.count()
	err := Until(40*time.Second, func() error {
		if got := l.count() - from; got < n {
			return fmt.Errorf("%d of %d lines more, client says %q", got, n, l.text())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inOrder checks that no line is missing or twice.
func (l *live) inOrder(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.lines {
		if want := fmt.Sprintf("tick %d", i+1); s != want {
			t.Fatalf("line %d is %q, not %q", i+1, s, want)
		}
	}
}

// ended waits for the client's end and returns how long it took and what it said.
func (l *live) ended(t *testing.T, since time.Time, limit time.Duration) (time.Duration, string) {
	t.Helper()
	select {
	case <-l.done:
		return time.Since(since), l.text()
	case <-time.After(limit):
		t.Fatalf("the session goes on %v later, %d lines", limit, l.count())
		return 0, ""
	}
}

func (m *mesh) sshArgs() []string {
	return []string{"-F", "none", "-o", "UserKnownHostsFile=" + m.laptop.Host.Path("known_hosts"), "-o", "StrictHostKeyChecking=accept-new",
		"-o", "BatchMode=yes", "deploy@" + m.webAddr, ticker}
}

func (m *mesh) tsshArgs() []string {
	return []string{"--socket", m.laptop.Socket, "deploy@web", ticker}
}

func TestTakingTheRightAwayEndsTheSession(t *testing.T) {
	m := theMesh(t)
	for _, c := range []struct{ what, policy string }{
		{"another rule instead", strings.Replace(basePolicy, `["autogroup:nonroot"]`, `["guest"]`, 1)},
		{"the last ssh rule gone", strings.Replace(basePolicy, `{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]}`, ``, 1)},
		{"the ssh section gone", basePolicy[:strings.Index(basePolicy, `"ssh":`)] + "}"},
		{"the network rule gone", strings.Replace(basePolicy, `{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*"]}`, ``, 1)},
	} {
		t.Run(c.what, func(t *testing.T) {
			m.setPolicy(t, basePolicy)
			m.logsIn(t)
			a, b := m.tick(t, "ssh", m.sshArgs()...), m.tick(t, "tssh", m.tsshArgs()...)
			since := time.Now()
			m.setPolicy(t, c.policy)
			if c.what == "the network rule gone" {
				// The packets stop in the same moment, so the clients may see only silence; what
				// counts is that the host ended the sessions.
				if err := Until(5*time.Second, func() error {
					if n := m.running("tick"); n > 0 {
						return fmt.Errorf("%d sessions still run on web", n)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
				return
			}
			took, words := a.ended(t, since, 10*time.Second)
			took2, words2 := b.ended(t, since, 10*time.Second)
			t.Logf("%s: ssh ended after %v, tssh after %v: %q", c.what, took, took2, words2)
			if !strings.Contains(words, "access") && !strings.Contains(words, "revoked") {
				t.Errorf("ssh's person is not told: %q", words)
			}
			if !strings.Contains(words2, "[revoked]") {
				t.Errorf("tssh does not say revoked: %q", words2)
			}
			err := Until(5*time.Second, func() error {
				if r := m.stock("ssh", "deploy@"+m.webAddr, "true"); r.Status == 0 {
					return errors.New("may log in again")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRemovingThePersonEndsTheSession(t *testing.T) {
	m := theMesh(t)
	if r := m.hub.Admin("user", "add", "carol@example.com"); r.Status != 0 {
		t.Fatal(r)
	}
	m.setPolicy(t, strings.ReplaceAll(basePolicy, `"src": ["alice@example.com"]`, `"src": ["alice@example.com", "carol@example.com"]`))
	h, err := m.lab.AddHost("tablet", Account{"deploy", deployUID})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{{"user", "remove", "carol@example.com"}, {"node", "remove", "tablet"}} {
		if verb[0] == "node" {
			h, err = m.lab.AddHost("tablet2", Account{"deploy", deployUID})
			if err != nil {
				t.Fatal(err)
			}
			if r := m.hub.Admin("user", "add", "carol@example.com"); r.Status != 0 {
				t.Fatal(r)
			}
			verb[2] = "tablet2"
		}
		n, err := m.hub.Join(h, "carol@example.com")
		if err != nil {
			t.Fatal(err)
		}
		other := *m
		other.laptop = n
		other.logsIn(t)
		l := other.tick(t, "ssh", other.sshArgs()...)
		since := time.Now()
		if r := m.hub.Admin(verb...); r.Status != 0 {
			t.Fatal(r)
		}
		// The node is off the mesh at once, so its client sees silence; what counts is that the host ended it.
		err = Until(5*time.Second, func() error {
			if n := m.running("tick"); n > 0 {
				return fmt.Errorf("%d sessions still run on web", n)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%v: %v", verb, err)
		}
		t.Logf("%v: the session was gone on the host after %v", verb, time.Since(since))
		l.cmd.Process.Kill()
	}
}

// running counts the processes on web whose command line has the word and that are deploy's.
func (m *mesh) running(word string) int {
	n := 0
	for _, pid := range m.web.Host.Left() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && strings.Contains(string(b), word) && strings.Contains(string(st), fmt.Sprintf("Uid:\t%d", deployUID)) {
			n++
		}
	}
	return n
}

func TestSessionsOutliveTheDaemon(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	a, b := m.tick(t, "ssh", m.sshArgs()...), m.tick(t, "tssh", m.tsshArgs()...)

	m.web.Proc.Stop()
	time.Sleep(time.Second)
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	a.await(t, 20)
	b.await(t, 20)

	m.web.Proc.Kill()
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	a.await(t, 20)
	m.laptop.Proc.Kill()
	if err := m.laptop.Start(); err != nil {
		t.Fatal(err)
	}
	a.await(t, 20)
	m.hub.Proc.Kill()
	a.await(t, 10)
	if r := m.stock("ssh", "deploy@"+m.webAddr, "echo in"); r.Stdout != "in\n" {
		t.Errorf("no login while the hub is away: %v", r)
	}
	if err := m.hub.Start(); err != nil {
		t.Fatal(err)
	}
	a.inOrder(t)
	b.inOrder(t)

	// The restarted daemon still knows them and can still end them.
	since := time.Now()
	m.setPolicy(t, strings.Replace(basePolicy, `["autogroup:nonroot"]`, `["guest"]`, 1))
	took, words := a.ended(t, since, 15*time.Second)
	t.Logf("adopted session revoked after %v: %q", took, words)
	b.ended(t, since, 15*time.Second)
	a.inOrder(t)
}

// recorded is one row of `tssh sessions --json`.
type recorded struct {
	ID        string `json:"id"`
	LocalUser string `json:"local_user"`
	Command   string `json:"command"`
	Live      bool   `json:"live"`
	Complete  bool   `json:"complete"`
}

// recordings lists what the hub has, as alice sees it.
func (m *mesh) recordings(t *testing.T) []recorded {
	t.Helper()
	r := m.laptop.Tssh("sessions", "--json")
	var list []recorded
	if r.Status != 0 || json.Unmarshal([]byte(r.Stdout), &list) != nil {
		t.Fatalf("sessions: %v", r)
	}
	return list
}

func TestEveryByteReceivedIsRecorded(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	for _, victim := range []string{"conn", "tsshd", "both"} {
		word := "mark-" + victim
		l := m.tick(t, "tssh", "--socket", m.laptop.Socket, "deploy@web", ": "+word+"; "+ticker)
		l.await(t, 15)
		conns := m.connProcs()
		switch victim {
		case "conn", "both":
			if len(conns) == 0 {
				t.Fatal("no conn process found")
			}
			if victim == "both" {
				m.web.Proc.Kill()
			}
			for _, pid := range conns {
				killPID(t, pid)
			}
		case "tsshd":
			m.web.Proc.Kill()
			time.Sleep(500 * time.Millisecond)
			l.cmd.Process.Kill()
		}
		select {
		case <-m.web.Proc.Exited(): // without it not even the end of the connection gets out
			if err := m.web.Start(); err != nil {
				t.Fatal(err)
			}
		default:
		}
		l.ended(t, time.Now(), 40*time.Second)
		got := l.count()
		err := Until(40*time.Second, func() error {
			for _, r := range m.recordings(t) {
				if !strings.Contains(r.Command, word) {
					continue
				}
				if r.Live {
					return fmt.Errorf("recording %s still live", r.ID)
				}
				p := m.laptop.Tssh("play", "--speed", "1000", r.ID)
				if p.Status != 0 || !strings.Contains(p.Stdout, fmt.Sprintf("tick %d\n", got)) {
					return fmt.Errorf("client saw %d ticks, recording %s: %d bytes, status %d, %s", got, r.ID, len(p.Stdout), p.Status, p.Stderr)
				}
				if v := m.laptop.Tssh("verify", r.ID); v.Status != 0 {
					return fmt.Errorf("verify: %v", v)
				}
				return nil
			}
			return fmt.Errorf("no recording of %s", word)
		})
		if err != nil {
			t.Errorf("%s killed: %v", victim, err)
		}
		m.logsIn(t)
	}
}

// connProcs are the connection processes on web.
func (m *mesh) connProcs() []int {
	var pids []int
	for _, pid := range m.web.Host.Left() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(strings.ReplaceAll(string(b), "\x00", " "), "tsshd conn") || strings.Contains(string(b), "exe\x00conn") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func killPID(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Logf("kill %d: %v", pid, err)
	}
}
