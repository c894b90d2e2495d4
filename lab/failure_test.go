package lab

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// failurePolicy has a rule for each setting of onRecordFailure, by account.
func failurePolicy(record string) string {
	rule := func(user, setting string) string {
		return `{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["` + user + `"], "record": "` + record + `", "onRecordFailure": "` + setting + `"}`
	}
	return `{"tagOwners": {"tag:web": ["alice@example.com"]}, "acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*"]}],
	"ssh": [` + rule("deploy", "terminate") + `,` + rule("guest", "pause") + `,` + rule("root", "refuse") + `]}`
}

// ticking is a session of the stock client that prints a line ten times a second.
type ticking struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
}

func (s *ticking) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *ticking) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *ticking) ticks() int { return strings.Count(s.said(), "tick") }

func (s *ticking) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (m *mesh) ticks(t *testing.T, user string) *ticking {
	t.Helper()
	s := &ticking{done: make(chan struct{})}
	s.cmd = m.laptop.Host.Command("ssh", "-tt", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", user+"@"+m.webAddr,
		"while :; do echo tick; sleep 0.1; done")
	in, err := s.cmd.StdinPipe() // open: its end would end the session
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = s, s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the client
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.done
		in.Close()
	})
	s.until(t, 60*time.Second, "it prints", func() bool { return s.ticks() > 5 })
	return s
}

func (s *ticking) until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	err := Until(limit, func() error {
		if ok() {
			return nil
		}
		text := s.said()
		return fmt.Errorf("%s: not so; %d ticks, ended %v, %q", what, s.ticks(), s.ended(), text[max(0, len(text)-300):])
	})
	if err != nil {
		t.Fatal(err)
	}
}

// still waits until no tick came for two seconds.
func (s *ticking) still(t *testing.T) {
	t.Helper()
	last, at := -1, time.Now()
	s.until(t, 60*time.Second, "it stands still", func() bool {
		if n := s.ticks(); n != last {
			last, at = n, time.Now()
		}
		return time.Since(at) > 2*time.Second
	})
}

// TestFullDisk fills the disk of a host under a session of each setting.
func TestFullDisk(t *testing.T) {
	m := ownMesh(t)
	m.web.Proc.Stop()
	spool := filepath.Join(m.web.State, "spool")
	if r := m.web.Host.Run("mount", "-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs", spool); r.Status != 0 {
		t.Fatal(r)
	}
	m.web.args = append(m.web.args, "--spool-free", "40000000")
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	m.setPolicy(t, failurePolicy("required"))
	m.logsIn(t)
	terminate, pause, refuse := m.ticks(t, "deploy"), m.ticks(t, "guest"), m.ticks(t, "root")
	fill := filepath.Join(spool, "other")
	if r := m.web.Host.Run("sh", "-c", "head -c 90000000 /dev/zero > "+fill); r.Status != 0 {
		t.Fatal(r)
	}
	terminate.until(t, 60*time.Second, "terminate ends", terminate.ended)
	if s := terminate.said(); !strings.Contains(s, "cannot be recorded any more") {
		t.Errorf("terminate: %q", s[max(0, len(s)-300):])
	}
	pause.until(t, 60*time.Second, "pause is told", func() bool { return strings.Contains(pause.said(), "not recorded at the moment") })
	pause.still(t)
	n := refuse.ticks()
	refuse.until(t, 60*time.Second, "refuse goes on", func() bool { return refuse.ticks() > n+30 })
	for _, user := range []string{"deploy", "guest", "root"} {
		if r := m.stock("ssh", user+"@"+m.webAddr, "echo in"); r.Status != 255 || strings.Contains(r.Stdout, "in") || !strings.Contains(r.Stderr, "cannot record") {
			t.Errorf("a new session of %s: %v", user, r)
		}
	}
	if r := m.web.Host.Run("rm", fill); r.Status != 0 {
		t.Fatal(r)
	}
	n = pause.ticks()
	pause.until(t, 60*time.Second, "pause goes on", func() bool { return pause.ticks() > n+10 && strings.Contains(pause.said(), "recorded again") })
	if r := m.stock("ssh", "deploy@"+m.webAddr, "echo in"); r.Status != 0 {
		t.Errorf("with room again: %v", r)
	}
	if refuse.ended() {
		t.Error("refuse ended")
	}
}

// TestRecorderOutage stops the recorder under a session of each setting that needs it.
func TestRecorderOutage(t *testing.T) {
	m := ownMesh(t)
	m.setPolicy(t, failurePolicy("required-remote"))
	m.logsIn(t)
	terminate, pause, refuse := m.ticks(t, "deploy"), m.ticks(t, "guest"), m.ticks(t, "root")
	m.hub.Proc.Stop()
	began := time.Now()
	pause.until(t, 90*time.Second, "pause is told", func() bool { return strings.Contains(pause.said(), "not recorded at the moment") })
	t.Logf("paused after %s", time.Since(began).Round(time.Second))
	pause.still(t)
	terminate.still(t)
	if terminate.ended() {
		t.Error("terminate ended before its time")
	}
	for _, user := range []string{"deploy", "guest", "root"} {
		if r := m.stock("ssh", user+"@"+m.webAddr, "echo in"); r.Status != 255 || !strings.Contains(r.Stderr, "insists on a recorder") {
			t.Errorf("a new session of %s: %v", user, r)
		}
	}
	terminate.until(t, 4*time.Minute, "terminate ends", terminate.ended)
	t.Logf("ended after %s", time.Since(began).Round(time.Second))
	if s := terminate.said(); !strings.Contains(s, "has not answered for too long") {
		t.Errorf("terminate: %q", s[max(0, len(s)-300):])
	}
	n := refuse.ticks()
	refuse.until(t, 60*time.Second, "refuse goes on", func() bool { return refuse.ticks() > n+10 })
	n = pause.ticks()
	if err := m.hub.Start(); err != nil {
		t.Fatal(err)
	}
	pause.until(t, 2*time.Minute, "pause goes on", func() bool { return pause.ticks() > n+10 && strings.Contains(pause.said(), "recorded again") })
}
