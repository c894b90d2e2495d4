package replay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/live"
)

// TestUnrecordedSessions: what runs and is not recorded is listed for whoever could watch it or may end it, can be ended
// and not watched, and a host is believed nothing that the hub knows better.
func TestUnrecordedSessions(t *testing.T) {
	w := newWorld(t)
	ended := w.hosted(func(live.End) error { return nil })
	web := policy.Identity{ID: "n-web", Name: "web", Tags: []policy.Tag{"tag:web"}}
	w.viewer.cfg.Node = func(id string) (policy.Identity, bool) {
		for _, n := range []policy.Identity{alice, bob, root, web} {
			if n.ID == id {
				return n, true
			}
		}
		return policy.Identity{}, false
	}
	of := func(id policy.Identity) live.By { return byOf(id) }
	id := func(host string) string { return recording.NewID(w.now, host) }
	mine, elses, foreign, liar := id("n-web"), id("n-web"), id("n-db"), id("n-web")
	say := func(open ...live.Open) {
		t.Helper()
		w.mu.Lock()
		w.unrecorded = open
		w.mu.Unlock()
		for deadline := time.Now().Add(20 * time.Second); len(w.viewer.cfg.Live.Open()) != len(open); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the host is not heard")
			}
		}
	}
	say(live.Open{Session: mine, Of: of(alice), LocalUser: "deploy", UID: 1000, Since: w.now, Why: "the spool is nearly full\x1b[2J"},
		live.Open{Session: elses, Of: live.By{ID: "gone", Node: "tablet", Login: "carol@example.com"}, LocalUser: "root", Since: w.now},
		live.Open{Session: foreign, Of: of(alice), LocalUser: "deploy", Since: w.now},                                                             // of another host
		live.Open{Session: "../../etc", Of: of(alice), LocalUser: "deploy", Since: w.now},                                                         // no id
		live.Open{Session: liar, Of: live.By{ID: "n2", Node: "phone", Login: "root@example.com", Role: "admin"}, LocalUser: "root", Since: w.now}) // bob's machine
	list := func(from, query string) string {
		t.Helper()
		var out []string
		for _, u := range decode[listJSON](t, w.ask("GET", hub+"/api/recordings"+query, from)).Unrecorded {
			s := u.Who + " as " + u.LocalUser + " on " + u.Host
			if u.MayEnd {
				s += ", may end"
			}
			if strings.Contains(u.Why, "\x1b") {
				t.Errorf("words %q", u.Why)
			}
			out = append(out, s)
		}
		slices.Sort(out)
		return strings.Join(out, "; ")
	}
	const a, c = "alice@example.com as deploy on web, may end", "carol@example.com as root on web, may end"
	for _, q := range []struct{ from, query, want string }{
		{fromAlice, "", a}, {fromBob, "", ""}, {fromRoot, "", a + "; " + c}, {fromRoot, "?own=1", ""}, {fromRoot, "?q=carol", c}, {fromRoot, "?q=host:web+as:deploy", a},
		{fromRoot, "?q=host:db", ""}, {fromRoot, "?q=is:live", a + "; " + c}, {fromRoot, "?q=kind:shell", ""}, {fromRoot, "?before=x", ""},
	} {
		if got := list(q.from, q.query); got != q.want {
			t.Errorf("%s%s: %q, want %q", q.from, q.query, got, q.want)
		}
	}
	// Nothing of it can be looked at.
	for _, what := range []string{"", "/frames/0", "/file", "/screen", "/transcript", "/live?from=0"} {
		if res := w.ask("GET", hub+"/api/recordings/"+mine+what, fromRoot); res.StatusCode != 404 {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
	}
	for _, e := range []struct {
		id, from string
		status   int
	}{{mine, fromBob, 403}, {foreign, fromRoot, 404}, {liar, fromRoot, 404}, {mine, fromAlice, 200}, {elses, fromRoot, 200}} {
		before := len(ended())
		if res := w.post("/api/recordings/"+e.id+"/end", e.from, `{"reason":"enough"}`); res.StatusCode != e.status || len(ended()) > before != (e.status == 200) {
			t.Errorf("%s by %s: %d, want %d", e.id, e.from, res.StatusCode, e.status)
		}
	}
	last := w.audited[len(w.audited)-1]
	if last.Kind != "session.end" || last.Session != elses || last.Host != "web" || last.LocalUser != "root" || last.Extra["person"] != "carol@example.com" || last.Text != "enough" {
		t.Errorf("audited %+v", last)
	}

	// One that was recorded and is not any more is over only for its recording.
	over := w.keep(meta("alice@example.com", "deploy", "web", w.now.Add(-time.Hour)), shell)
	if res := w.post("/api/recordings/"+over+"/end", fromRoot, `{"reason":"x"}`); res.StatusCode != 409 {
		t.Errorf("over: %d", res.StatusCode)
	}
	say(live.Open{Session: over, Of: of(alice), LocalUser: "deploy", UID: 1000, Since: w.now, Why: "the spool is full"})
	if res := w.post("/api/recordings/"+over+"/end", fromRoot, `{"reason":"x"}`); res.StatusCode != 200 {
		t.Errorf("not recorded any more: %d", res.StatusCode)
	}
}
