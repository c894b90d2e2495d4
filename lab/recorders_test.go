package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// recordersPolicy sends what happens on web to recorders: deploy's sessions end without one,
// guest's are paused. root's may also go to the hub.
const recordersPolicy = `{"tagOwners": {"tag:web": ["alice@example.com"], "tag:recorder": [], "tag:tsshub": []}, "acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*"]}],
	"ssh": [
	{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "recorder": ["tag:recorder"], "enforceRecorder": true},
	{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["guest"], "recorder": ["tag:recorder"], "record": "required-remote", "onRecordFailure": "pause"},
	{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["root"], "recorder": ["tag:recorder", "tag:tsshub"], "record": "required-remote"},
	]}`

// kept is what a recorder has.
type kept struct {
	ID       string `json:"id"`
	Size     int64  `json:"size"`
	Live     bool   `json:"live"`
	Complete bool   `json:"complete"`
}

func keptAt(t *testing.T, admin func(...string) Result) map[string]kept {
	t.Helper()
	var list struct {
		Recordings []kept `json:"recordings"`
	}
	r := admin("recording", "list", "--json")
	if r.Status != 0 || json.Unmarshal([]byte(r.Stdout), &list) != nil {
		t.Fatalf("recording list: %v", r)
	}
	out := map[string]kept{}
	for _, k := range list.Recordings {
		out[k.ID] = k
	}
	return out
}

// sees waits until a recorder has a recording as ok wants it.
func sees(t *testing.T, what string, limit time.Duration, admin func(...string) Result, id string, ok func(kept) bool) {
	t.Helper()
	if err := Until(limit, func() error {
		if k := keptAt(t, admin)[id]; !ok(k) {
			return fmt.Errorf("%s: %+v", what, k)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestSeveralRecorders kills the recorder that takes a session in the middle of it.
func TestSeveralRecorders(t *testing.T) {
	m := ownMesh(t)
	var recs []*Recorder
	for _, name := range []string{"rec-a", "rec-b"} {
		h, err := m.lab.AddHost(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.hub.Record(h, "tag:recorder")
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, r)
	}
	m.setPolicy(t, recordersPolicy)
	m.logsIn(t)

	s := m.tick(t, "tssh", m.tsshArgs()...)
	id := m.liveID(t, "tick")
	var takes, other *Recorder
	if err := Until(20*time.Second, func() error {
		for i, r := range recs {
			if _, ok := keptAt(t, r.Admin)[id]; ok {
				takes, other = r, recs[1-i]
				return nil
			}
		}
		return errors.New("no recorder has it")
	}); err != nil {
		t.Fatal(err)
	}
	if _, ok := keptAt(t, other.Admin)[id]; ok {
		t.Error("both recorders have it")
	}
	if r := m.laptop.Tssh("sessions"); r.Status != 0 || !strings.Contains(r.Stdout, takes.Host.Name) {
		t.Errorf("sessions does not say where it is: %v", r)
	}

	takes.Proc.Kill()
	killed := time.Now()
	sees(t, "the other has it", 60*time.Second, other.Admin, id, func(k kept) bool { return k.Live && k.Size > 0 })
	t.Logf("the other recorder had it %s after the first was killed", time.Since(killed).Round(100*time.Millisecond))
	for time.Since(killed) < 30*time.Second { // longer than what may be unacknowledged before output is held
		s.await(t, 10)
	}
	t.Logf("%d lines %s after the recorder was killed", s.count(), time.Since(killed).Round(time.Second))
	if r := m.laptop.Tssh("deploy@web", "echo in"); r.Status != 0 || r.Stdout != "in\n" {
		t.Errorf("a new login with one recorder: %v", r)
	}
	s.cmd.Process.Kill()
	<-s.done
	s.inOrder(t)
	sees(t, "the other has all of it", 60*time.Second, other.Admin, id, func(k kept) bool { return k.Complete })
	if got := keptAt(t, m.hub.Admin); len(got) > 1 { // the login before the policy was changed
		t.Errorf("the hub has recordings that are for others: %v", got)
	}

	// From the laptop: found where it is, whole, and by whose word.
	r := m.laptop.Tssh("verify", id)
	if r.Status != 0 || !strings.Contains(r.Stdout, "ok: whole") || !strings.Contains(r.Stdout, "countersigned by the recorder "+takes.Host.Name) {
		t.Errorf("verify: %v", r)
	}
	t.Logf("verify says:\n%s", r.Stdout)
	r = m.laptop.Tssh("play", id)
	last := fmt.Sprintf("tick %d", s.count())
	if r.Status != 0 || !strings.Contains(r.Stdout, "tick 1\n") || !strings.Contains(r.Stdout, last) {
		t.Errorf("play has not all, to %s: %v", last, r)
	}
	r = m.laptop.Tssh("sessions", "--json")
	var rows []struct{ ID, Recorder string }
	if err := json.Unmarshal([]byte(r.Stdout), &rows); err != nil || r.Status != 0 || !strings.Contains(r.Stderr, "warning: recorder "+takes.Host.Name) {
		t.Errorf("sessions with one recorder away: %v, %v", r, err)
	}
	if r := m.laptop.Tssh("search", last); r.Status != 0 || !strings.Contains(r.Stdout, id) {
		t.Errorf("search: %v", r)
	}

	// Both away: no login, a session that is to pause is held, and where the hub may it is.
	pause := m.ticks(t, "guest")
	other.Proc.Kill()
	pause.until(t, 90*time.Second, "pause is told", func() bool { return strings.Contains(pause.said(), "not recorded at the moment") })
	pause.still(t)
	if r := m.stock("ssh", "deploy@"+m.webAddr, "echo in"); r.Status != 255 || !strings.Contains(r.Stderr, "insists on a recorder") {
		t.Errorf("a login with all recorders away: %v", r)
	}
	if r := m.stock("ssh", "root@"+m.webAddr, "echo in"); r.Status != 0 {
		t.Errorf("a login whose rule names the hub too: %v", r)
	}
	n := pause.ticks()
	if err := takes.Start(); err != nil {
		t.Fatal(err)
	}
	pause.until(t, 2*time.Minute, "pause goes on", func() bool { return pause.ticks() > n+10 && strings.Contains(pause.said(), "recorded again") })
	// The part that the first one has is not what is shown of the recording, nor twice in the list.
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Until(30*time.Second, func() error {
		r := m.laptop.Tssh("sessions", "--json")
		if err := json.Unmarshal([]byte(r.Stdout), &rows); err != nil {
			return err
		}
		seen := 0
		for _, x := range rows {
			if x.ID == id && x.Recorder == other.Host.Name {
				seen++
			}
		}
		if seen != 1 || strings.Contains(r.Stderr, "warning") || strings.Count(r.Stdout, id) != 1 {
			return fmt.Errorf("the list has it %d times: %v", seen, r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if r := m.laptop.Tssh("verify", id); r.Status != 0 {
		t.Errorf("verify with both there: %v", r)
	}
	// What was looked at on a recorder is in the hub's audit log too.
	if err := Until(30*time.Second, func() error {
		if r := m.hub.Admin("audit", "--host", other.Host.Name); r.Status != 0 || !strings.Contains(r.Stdout, "recording.download") {
			return errors.New(r.String())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestWatchingAtARecorder: a session whose recording is not at the hub is watched where it is,
// its person is told, and it is ended by way of the hub, not of the recorder.
func TestWatchingAtARecorder(t *testing.T) {
	m := ownMesh(t)
	h, err := m.lab.AddHost("rec-a")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := m.hub.Record(h, "tag:recorder")
	if err != nil {
		t.Fatal(err)
	}
	m.setPolicy(t, `{"tagOwners": {"tag:web": ["alice@example.com"], "tag:recorder": []}, "acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*"]}],
		"ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "recorder": ["tag:recorder"], "enforceRecorder": true,
			"watch": ["olga@example.com"], "end": ["olga@example.com"], "showWatchers": true}]}`)
	m.logsIn(t)
	desk := m.joined(t, "desk", "olga@example.com") // may reach nobody but hub and recorder
	alice := m.laptop.Host.terminal(t, 100, 40, "tssh", "--socket", m.laptop.Socket, "deploy@web")
	alice.until(t, "prompt", func(screen string) bool { return strings.TrimSpace(screen) != "" })
	alice.typed(t, "exec bash --norc --noprofile\r")
	alice.await(t, "bash-")
	alice.typed(t, "echo before-$((40+2))\r")
	alice.await(t, "before-42")
	id := m.liveID(t, "")
	if _, ok := keptAt(t, rec.Admin)[id]; !ok {
		t.Fatal("the recorder does not have it")
	}
	olga := desk.Host.terminal(t, 120, 60, "tssh", "--socket", desk.Socket, "watch", id)
	olga.await(t, "before-42")
	alice.await(t, "tssh: this session is watched by olga@example.com")
	began := time.Now()
	alice.typed(t, "echo after-$((40+3))\r")
	olga.await(t, "after-43")
	t.Logf("on olga's screen %v after alice typed it", time.Since(began))
	olga.typed(t, "q")
	alice.await(t, "nobody watches this session any more")

	if r := rec.Admin("recording", "end", id, "--reason", "x"); r.Status == 0 || !strings.Contains(r.Stderr, "by way of the hub") {
		t.Errorf("ended at the recorder: %v", r)
	}
	r := desk.Tssh("sessions", "end", id, "--reason", "it has to be")
	if r.Status != 0 {
		t.Fatalf("end: %v", r)
	}
	alice.await(t, "it has to be")
	sees(t, "the end is at the recorder", 60*time.Second, rec.Admin, id, func(k kept) bool { return k.Complete })
	if r := desk.Tssh("verify", id); r.Status != 0 || !strings.Contains(r.Stdout, "countersigned by the recorder rec-a") {
		t.Errorf("verify: %v", r)
	}
}
