package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// overPolicy has olga over alice's sessions; bob is nobody in particular.
const overPolicy = `{
	"tagOwners": {"tag:web": ["alice@example.com"]},
	"acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*"]}],
	"ssh":  [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["autogroup:nonroot"],
		"watch": ["olga@example.com", "bob@example.com"], "end": ["olga@example.com"], "showWatchers": %v}],
}`

// joined is a node of a person who may not reach web.
func (m *mesh) joined(t *testing.T, name, login string) *Node {
	t.Helper()
	if r := m.hub.Admin("user", "add", login); r.Status != 0 {
		t.Fatal(r)
	}
	h, err := m.lab.AddHost(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := m.hub.Join(h, login)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// liveID awaits the id of a session that runs, by a word of its command; "" is a shell.
func (m *mesh) liveID(t *testing.T, word string) (id string) {
	t.Helper()
	err := Until(40*time.Second, func() error {
		for _, r := range m.recordings(t) {
			if r.Live && strings.Contains(r.Command, word) && (word != "" || r.Command == "") {
				id = r.ID
				return nil
			}
		}
		return errors.New("no live session of " + word)
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestSessionsAreEndedByWhoMay: over the hub, by somebody who cannot reach the host, and the
// person reads by whom and why.
func TestSessionsAreEndedByWhoMay(t *testing.T) {
	m := ownMesh(t)
	m.setPolicy(t, fmt.Sprintf(overPolicy, true))
	m.logsIn(t)
	desk, phone := m.joined(t, "desk", "olga@example.com"), m.joined(t, "phone", "bob@example.com")

	a := m.tick(t, "tssh", "--socket", m.laptop.Socket, "deploy@web", ": mark-a; "+ticker)
	id := m.liveID(t, "mark-a")
	if r := phone.Tssh("sessions", "end", id, "--reason", "because"); r.Status == 0 || !strings.Contains(r.Stderr, "[denied]") || strings.Contains(r.Stderr, "olga") {
		t.Errorf("bob ends it: %v", r)
	}
	if r := m.hub.Admin("recording", "end", id, "--reason", "because"); r.Status == 0 || !strings.Contains(r.Stderr, "policy does not let you") {
		t.Errorf("the administrator, whom the rule does not name: %v", r)
	}
	if r := desk.Tssh("sessions", "end", id); r.Status == 0 || !strings.Contains(r.Stderr, "--reason") {
		t.Errorf("without words: %v", r)
	}
	a.await(t, 5)
	since := time.Now()
	if r := desk.Tssh("sessions", "end", id, "--reason", "the disk is full"); r.Status != 0 {
		t.Fatal(r)
	}
	took, words := a.ended(t, since, 20*time.Second)
	t.Logf("ended %v after olga asked: %q", took, words)
	if !strings.Contains(words, "ended by olga@example.com: the disk is full") || !strings.HasSuffix(strings.TrimSpace(words), "[revoked]") {
		t.Errorf("alice reads %q", words)
	}
	err := Until(20*time.Second, func() error {
		if n := m.running("mark-a"); n > 0 {
			return fmt.Errorf("%d processes of it still run", n)
		}
		r := m.laptop.Tssh("sessions", "--json", "mark-a")
		if r.Status != 0 || !strings.Contains(r.Stdout, `"terminated"`) {
			return fmt.Errorf("the recording does not say it: %v", r)
		}
		return m.auditedEnds(t, id)
	})
	if err != nil {
		t.Error(err)
	}
	if r := desk.Tssh("sessions", "end", id, "--reason", "again"); r.Status == 0 || !strings.Contains(r.Stderr, "over") {
		t.Errorf("a session that is over: %v", r)
	}

	// A rule that hides who watches names nobody; the person may end their own.
	m.setPolicy(t, fmt.Sprintf(overPolicy, false))
	m.logsIn(t)
	b := m.tick(t, "ssh", append(m.sshArgs()[:len(m.sshArgs())-1], ": mark-b; "+ticker)...)
	since = time.Now()
	if r := desk.Tssh("sessions", "end", m.liveID(t, "mark-b"), "--reason", "enough"); r.Status != 0 {
		t.Fatal(r)
	}
	if _, words = b.ended(t, since, 20*time.Second); !strings.Contains(words, "ended by an administrator: enough") || strings.Contains(words, "olga") {
		t.Errorf("alice reads %q", words)
	}
	c := m.tick(t, "tssh", "--socket", m.laptop.Socket, "deploy@web", ": mark-c; "+ticker)
	if r := m.laptop.Tssh("sessions", "end", m.liveID(t, "mark-c"), "--reason", "left it open"); r.Status != 0 {
		t.Fatal(r)
	}
	if _, words = c.ended(t, time.Now(), 20*time.Second); !strings.Contains(words, "ended by you, from laptop: left it open") {
		t.Errorf("alice reads %q", words)
	}

	// A host without a connection to the hub is said to be that.
	d := m.tick(t, "tssh", "--socket", m.laptop.Socket, "deploy@web", ": mark-d; "+ticker)
	id = m.liveID(t, "mark-d")
	m.web.Proc.Stop()
	if r := desk.Tssh("sessions", "end", id, "--reason", "x"); r.Status == 0 || !strings.Contains(r.Stderr, "[unreachable]") {
		t.Errorf("with the host's daemon away: %v", r)
	}
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Until(60*time.Second, func() error {
		if r := desk.Tssh("sessions", "end", id, "--reason", "after all"); r.Status != 0 {
			return fmt.Errorf("with the daemon back: %v", r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, words = d.ended(t, time.Now(), 20*time.Second); !strings.Contains(words, "after all") {
		t.Errorf("alice reads %q", words)
	}
}

// auditedEnds looks for who ended the session, in the hub's words and in the host's.
func (m *mesh) auditedEnds(t *testing.T, id string) error {
	t.Helper()
	r := m.hub.Admin("audit", "--json")
	byHub, byHost := 0, 0
	for l := range strings.Lines(r.Stdout) {
		var line struct {
			From  string `json:"from"` // the host that wrote it
			Entry struct {
				Kind, Who, Session, Verdict, Text string
				Extra                             map[string]string
			} `json:"entry"`
		}
		e := &line.Entry
		if json.Unmarshal([]byte(l), &line) != nil || e.Kind != "session.end" || e.Session != id || e.Verdict != "accept" || e.Who != "olga@example.com" || e.Text != "the disk is full" || e.Extra["person"] != "alice@example.com" {
			continue
		}
		switch line.From {
		case "":
			byHub++
		case "web":
			byHost++
		}
	}
	if byHub != 1 || byHost != 1 {
		return fmt.Errorf("audited %d times by the hub and %d times by the host: %s", byHub, byHost, r.Stdout[max(0, len(r.Stdout)-3000):])
	}
	return nil
}

// TestWatchingARunningSession: two people follow alice's keys from where they join, soon after
// they are typed, each sees that the other watches, and so does alice.
func TestWatchingARunningSession(t *testing.T) {
	m := ownMesh(t)
	m.setPolicy(t, fmt.Sprintf(overPolicy, true))
	m.logsIn(t)
	desk, phone := m.joined(t, "desk", "olga@example.com"), m.joined(t, "phone", "bob@example.com")
	alice := m.laptop.Host.terminal(t, 100, 40, "tssh", "--socket", m.laptop.Socket, "deploy@web")
	alice.until(t, "prompt", func(screen string) bool { return strings.TrimSpace(screen) != "" })
	alice.typed(t, "exec bash --norc --noprofile\r")
	alice.await(t, "bash-")
	alice.typed(t, "PS1='ready> '\r")
	alice.await(t, "ready>")
	alice.typed(t, "echo before-$((40+2))\r")
	alice.await(t, "before-42")
	id := m.liveID(t, "")

	olga := desk.Host.terminal(t, 120, 60, "tssh", "--socket", desk.Socket, "watch", id)
	olga.await(t, "before-42") // a late join begins with what is on the screen
	alice.await(t, "tssh: this session is watched by olga@example.com")
	var slowest time.Duration
	for i := range 10 {
		word := fmt.Sprintf("key-%d-%d", i, 7*i)
		began := time.Now()
		alice.typed(t, fmt.Sprintf("echo key-%d-$((7*%d))\r", i, i))
		olga.await(t, word)
		took := time.Since(began)
		t.Logf("on olga's screen %v after alice typed it", took)
		slowest = max(slowest, took)
	}
	if slowest > 10*time.Second {
		t.Errorf("the slowest key took %v", slowest)
	}
	// While a program has the whole screen nothing is written on it.
	alice.typed(t, "printf '\\033[?1049h\\033[2J\\033[H'; cat\r")
	alice.until(t, "empty screen", func(screen string) bool { return strings.TrimSpace(screen) == "" })
	bob := phone.Host.terminal(t, 120, 60, "tssh", "--socket", phone.Socket, "watch", id)
	bob.await(t, "also watching: olga@example.com")
	olga.await(t, "also watching: bob@example.com")
	const both = "this session is watched by olga@example.com and bob@example.com"
	if err := Until(30*time.Second, func() error {
		if !strings.Contains(alice.bytes(), "\x1b]2;tssh: "+both+"\a") {
			return errors.New("the title does not say who watches")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if got := strings.TrimSpace(alice.text()); got != "" {
		t.Errorf("on the whole screen of a program: %q", got)
	}
	alice.typed(t, "\x03")
	alice.await(t, "ready>")
	alice.typed(t, "printf '\\033[?1049l'\r")
	alice.await(t, both)
	if all := alice.bytes(); strings.LastIndex(all, "\x1b[23;2t") < strings.LastIndex(all, "\x1b]2;tssh: ") {
		t.Error("the title of before does not come back")
	}
	bob.typed(t, "q")
	olga.await(t, "nobody else watches")
	olga.typed(t, "q")
	alice.typed(t, "exit\r")
	r := m.hub.Admin("audit")
	for _, want := range []string{"recording.watch ", "recording.watched "} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("the audit log has no %s", want)
		}
	}
}
