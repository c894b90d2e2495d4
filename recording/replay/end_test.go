package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/live"
)

// hosted gives the world a way to the hosts, and host web a connection to it. obey is what
// the host does; the list is what it was asked.
func (w *world) hosted(obey func(live.End) error) (ended func() []live.End) {
	w.t.Helper()
	hub, err := live.NewHub(live.HubConfig{HostOf: func(*http.Request) (string, bool) { return "n-web", true }})
	if err != nil {
		w.t.Fatal(err)
	}
	srv := httptest.NewServer(hub)
	w.t.Cleanup(srv.Close)
	w.t.Cleanup(hub.Close)
	w.viewer.cfg.Live = hub
	var mu sync.Mutex
	var all []live.End
	h, err := live.NewHost(live.HostConfig{
		HTTP: func() (*http.Client, string) { return http.DefaultClient, srv.URL },
		End: func(e live.End) error {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, e)
			return obey(e)
		},
		Watched: func(live.Watched) {},
		Open: func() []live.Open {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.unrecorded
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { h.Run(ctx); close(done) }() // ends with ctx
	w.t.Cleanup(func() { cancel(); <-done })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// An order for a session that is nobody's shows whether the host is there.
		if err := hub.End(w.t.Context(), "n-web", live.End{}); err != live.ErrAway {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the host does not connect")
		}
	}
	return func() []live.End {
		mu.Lock()
		defer mu.Unlock()
		return all[1:]
	}
}

func (w *world) post(path, from, body string) *http.Response {
	w.t.Helper()
	r := httptest.NewRequest("POST", hub+path, bytes.NewReader([]byte(body)))
	r.RemoteAddr = from
	r.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	w.viewer.ServeHTTP(rec, r)
	return rec.Result()
}

// running puts a session that still runs into the store.
func (w *world) running(m recording.Meta, play func(*script)) string {
	w.t.Helper()
	id, b := record(w.t, m, play)
	put(w.t, w.store, m.Host, id, b[:len(b)*6/10])
	return id
}

func words(t *testing.T, res *http.Response) string {
	t.Helper()
	var said struct{ Error string }
	if err := json.NewDecoder(res.Body).Decode(&said); err != nil {
		t.Fatal(err)
	}
	return said.Error
}

func TestEndingASession(t *testing.T) {
	w := newWorld(t)
	answer := error(nil)
	ended := w.hosted(func(live.End) error { return answer })
	m := meta("alice@example.com", "deploy", "web", w.now)
	id := w.running(m, shell)
	over := w.keep(meta("alice@example.com", "deploy", "web", w.now.Add(-time.Hour)), shell)
	away := w.running(meta("alice@example.com", "deploy", "db", w.now.Add(-time.Minute)), shell)
	const why = `{"reason":"it must end"}`

	for _, c := range []struct {
		name, id, from, body string
		answer               error
		status               int
		say                  string
	}{
		{"another's", id, fromBob, why, nil, 403, "does not let you end"},
		{"no words", id, fromRoot, `{"reason":" "}`, nil, 400, "why"},
		{"words that act on a terminal", id, fromRoot, `{"reason":"a\u001b[2J"}`, nil, 400, "why"},
		{"two lines", id, fromRoot, `{"reason":"a\nb"}`, nil, 400, "why"},
		{"long words", id, fromRoot, `{"reason":"` + strings.Repeat("x", 400) + `"}`, nil, 400, "why"},
		{"not JSON", id, fromRoot, `reason=x`, nil, 400, "cannot be read"},
		{"much", id, fromRoot, `{"reason":"` + strings.Repeat("x", 20000) + `"}`, nil, 400, "cannot be read"},
		{"nothing there", "none", fromRoot, why, nil, 404, "no session"},
		{"over", over, fromRoot, why, nil, 409, "over"},
		{"no connection", away, fromRoot, why, nil, 503, "not connected"},
		{"the host says no", id, fromRoot, why, &live.Refused{Code: live.CodeDenied, Say: "not by \x1b[2Jme"}, 403, "Not by  [2Jme"},
		{"the host does not know it", id, fromRoot, why, &live.Refused{Code: live.CodeGone, Say: "gone"}, 409, "Gone"},
		{"own", id, fromAlice, why, nil, 200, ""},
		{"by an administrator", id, fromRoot, why, nil, 200, ""},
	} {
		answer = c.answer
		before, notes := len(ended()), len(w.audited)
		res := w.post("/api/recordings/"+c.id+"/end", c.from, c.body)
		if res.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.name, res.StatusCode, c.status)
		}
		if c.status != 200 {
			if got := words(t, res); !strings.Contains(got, c.say) || strings.Contains(got, "\x1b") {
				t.Errorf("%s: %q", c.name, got)
			}
		}
		asked := c.status == 200 || c.answer != nil
		if got := len(ended()) > before; got != asked {
			t.Errorf("%s: host asked: %v", c.name, got)
		}
		if decided := c.status != 400 && c.status != 404; decided != (len(w.audited) > notes) {
			t.Errorf("%s: audited %v", c.name, w.audited[notes:])
		}
		if c.status == 200 {
			e := w.audited[len(w.audited)-1]
			last := ended()[len(ended())-1]
			if e.Kind != "session.end" || e.Session != id || e.Host != "web" || e.Text != "it must end" || e.Verdict != "accept" || e.Extra["person"] != "alice@example.com" {
				t.Errorf("%s: audited %+v", c.name, e)
			}
			if last.Session != id || last.Reason != "it must end" || last.By.Login != e.Who || last.By.ID == "" || last.By.Node == "" {
				t.Errorf("%s: the host got %+v", c.name, last)
			}
		}
	}

	// What cannot be audited is not done.
	w.failing = true
	before := len(ended())
	if res := w.post("/api/recordings/"+id+"/end", fromRoot, why); res.StatusCode != 500 || len(ended()) > before {
		t.Errorf("without an audit log: status %d", res.StatusCode)
	}
	w.failing = false

	// Who may is who is offered it.
	for from, want := range map[string]bool{fromAlice: true, fromRoot: true} {
		if d := decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+id, from)); d.MayEnd != want {
			t.Errorf("%s: may_end %v", from, d.MayEnd)
		}
	}
	if d := decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+over, fromRoot)); d.MayEnd {
		t.Error("a session that is over can be ended")
	}
}

// TestEndIsTheRules: the rule of the session says who may end it, also to administrators.
func TestEndIsTheRules(t *testing.T) {
	w := newWorld(t)
	p, problems := policy.Parse("test", []byte(`{"tagOwners": {"tag:web": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "end": ["bob@example.com"]}]}`))
	if p == nil {
		t.Fatal(problems)
	}
	w.policy = p
	ended := w.hosted(func(live.End) error { return nil })
	m := meta("alice@example.com", "deploy", "web", w.now)
	m.HostTags = []string{"tag:web"}
	id := w.running(m, shell)
	for from, want := range map[string]int{fromRoot: 403, fromBob: 200, fromAlice: 200} {
		before := len(ended())
		if got := w.post("/api/recordings/"+id+"/end", from, `{"reason":"x"}`).StatusCode; got != want || len(ended()) > before != (want == 200) {
			t.Errorf("%s: status %d, want %d", from, got, want)
		}
	}
	denied := 0
	for _, e := range w.audited {
		if e.Kind == "session.end" && e.Verdict == "deny" && e.Who == "root@example.com" {
			denied++
		}
	}
	if denied != 1 {
		t.Errorf("%d refusals audited", denied)
	}
	err := End(t.Context(), Config{Store: w.store, Policy: func() *policy.Policy { return nil }, Audit: func(audit.Entry) error { return nil }, Live: w.viewer.cfg.Live},
		root, id, "x")
	if err == nil || !strings.Contains(err.Error(), "no policy") {
		t.Errorf("without a policy: %v", err)
	}
}

// TestEndingWhatAnotherRecorderHas: nothing is known of the session here but its host, which decides.
func TestEndingWhatAnotherRecorderHas(t *testing.T) {
	w := newWorld(t)
	answer := error(nil)
	ended := w.hosted(func(live.End) error { return answer })
	of := func(host string) string { return recording.NewID(w.now, host) }
	for _, c := range []struct {
		name, id string
		answer   error
		status   int
		asked    bool
	}{
		{"one of the host", of("n-web"), nil, 200, true},
		{"refused by the host", of("n-web"), &live.Refused{Code: live.CodeDenied, Say: "no"}, 403, true},
		{"not there", of("n-web"), &live.Refused{Code: live.CodeGone, Say: "gone"}, 404, true},
		{"of a host that is not connected", of("n-db"), nil, 404, false},
		{"without a mark", of(""), nil, 404, false},
	} {
		answer = c.answer
		before, notes := len(ended()), len(w.audited)
		if got := w.post("/api/recordings/"+c.id+"/end", fromBob, `{"reason":"it must end"}`).StatusCode; got != c.status {
			t.Errorf("%s: status %d, want %d", c.name, got, c.status)
		}
		if got := len(ended()) > before; got != c.asked {
			t.Errorf("%s: host asked: %v", c.name, got)
		}
		if c.asked && (len(w.audited) == notes || w.audited[notes].Kind != "session.end" || w.audited[notes].Verdict != "asked") {
			t.Errorf("%s: audited %+v", c.name, w.audited[notes:])
		}
		if c.asked && ended()[before].By.Login != "bob@example.com" {
			t.Errorf("%s: asked by %+v", c.name, ended()[before].By)
		}
	}
	w.viewer.cfg.CannotEnd = "not here"
	before := len(ended())
	if res := w.post("/api/recordings/"+of("n-web")+"/end", fromRoot, `{"reason":"x"}`); res.StatusCode != 409 || len(ended()) != before || words(t, res) != "Not here." {
		t.Errorf("at a recorder: %d", res.StatusCode)
	}
}
