package replay

import (
	"strings"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording/store"
)

// TestDeleting: whom the rule names deletes a recording, with a reason that stays; nobody else, never
// one's own, and not what is on hold or still runs.
func TestDeleting(t *testing.T) {
	w := newWorld(t)
	p, problems := policy.Parse("test", []byte(`{"tagOwners": {"tag:web": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "delete": ["alice@example.com", "bob@example.com"]}]}`))
	if p == nil {
		t.Fatal(problems)
	}
	s, err := store.Open(store.Config{Dir: t.TempDir(), Key: hubKey})
	if err != nil {
		t.Fatal(err)
	}
	w.store, w.policy = s, p
	w.viewer = w.newViewer(root)
	record := func(user string, ago time.Duration) string {
		m := meta("alice@example.com", user, "web", w.now.Add(-ago))
		m.HostTags = []string{"tag:web"}
		return w.keep(m, shell)
	}
	id, held, other := record("deploy", time.Hour), record("deploy", 2*time.Hour), record("backup", 3*time.Hour)
	m := meta("alice@example.com", "deploy", "web", w.now)
	m.HostTags = []string{"tag:web"}
	live := w.running(m, shell)
	if err := s.Hold(held, store.Hold{By: "root", Reason: "case 7", At: w.now}); err != nil {
		t.Fatal(err)
	}
	const why = `{"reason":"asked to, ticket 12"}`
	for _, c := range []struct {
		name, id, from, body string
		status               int
		say                  string
	}{
		{"an administrator whom the rule does not name", id, fromRoot, why, 403, "does not let you delete"},
		{"one's own", id, fromAlice, why, 403, "of their own sessions"},
		{"of a login that no rule has", other, fromBob, why, 403, "does not let you delete"},
		{"no words", id, fromBob, `{"reason":""}`, 400, "say why"},
		{"words that act on a terminal", id, fromBob, `{"reason":"a\u001b[2J"}`, 400, "say why"},
		{"on hold", held, fromBob, why, 409, "on hold"},
		{"still running", live, fromBob, why, 409, "still runs"},
		{"nothing there", "none", fromBob, why, 404, "no recording"},
	} {
		notes := len(w.audited)
		res := w.post("/api/recordings/"+c.id+"/delete", c.from, c.body)
		if got := words(t, res); res.StatusCode != c.status || !strings.Contains(strings.ToLower(got), c.say) {
			t.Errorf("%s: %d %q", c.name, res.StatusCode, got)
		}
		if c.status == 403 {
			e := w.audited[len(w.audited)-1]
			if len(w.audited) != notes+1 || e.Kind != "recording.delete" || e.Verdict != "deny" || e.Session != c.id || e.Text != "asked to, ticket 12" {
				t.Errorf("%s: audited %+v", c.name, w.audited[notes:])
			}
		}
		if _, err := s.Lookup(c.id); (err == nil) != (c.id != "none") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct {
		id, from string
		want     bool
	}{{id, fromAlice, false}, {id, fromRoot, false}} {
		if d := decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+c.id, c.from)); d.MayDelete != c.want {
			t.Errorf("%s is offered to delete: %v", c.from, d.MayDelete)
		}
	}
	if res := w.post("/api/recordings/"+id+"/delete", fromBob, why); res.StatusCode != 200 {
		t.Fatalf("status %d: %s", res.StatusCode, words(t, res))
	}
	if res := w.ask("GET", hub+"/api/recordings/"+id, fromAlice); res.StatusCode != 404 {
		t.Errorf("after that it is there: %d", res.StatusCode)
	}
	all, err := s.Tombstones()
	if err != nil || len(all) != 1 || all[0].ID != id || all[0].By != "bob@example.com" || all[0].Reason != "asked to, ticket 12" {
		t.Errorf("tombstones %+v %v", all, err)
	}
}
