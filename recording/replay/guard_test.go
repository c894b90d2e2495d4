package replay

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/recording/live"
	"tssh/recording/store"
)

const token = "0123456789abcdef0123456789abcdef"

var (
	alice = policy.Identity{ID: "n1", Name: "laptop", User: "alice@example.com", Role: policy.RoleMember}
	bob   = policy.Identity{ID: "n2", Name: "phone", User: "bob@example.com", Role: policy.RoleMember}
	root  = policy.Identity{ID: "n3", Name: "desk", User: "root@example.com", Role: policy.RoleAdmin}
)

// world is a viewer with what is around it.
type world struct {
	t       *testing.T
	store   *store.Store
	viewer  *Viewer
	failing bool // the audit log does not take entries

	mu      sync.Mutex // of what a server of its own goroutines reads
	audited []audit.Entry
	now     time.Time
	policy  *policy.Policy

	unrecorded []live.Open // what the host says
}

func (w *world) swapPolicy(p *policy.Policy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policy = p
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p, problems := policy.Parse("test", []byte(`{"acls": [], "ssh": []}`))
	if p == nil {
		t.Fatal(problems)
	}
	w := &world{t: t, store: s, now: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC), policy: p}
	w.viewer = w.newViewer(root)
	return w
}

func (w *world) newViewer(who policy.Identity) *Viewer {
	w.t.Helper()
	v, err := New(Config{
		Store: w.store, Policy: func() *policy.Policy {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.policy
		},
		WhoIs: func(r *http.Request) (policy.Identity, bool) {
			switch {
			case strings.HasPrefix(r.RemoteAddr, "100.64.0.1:"):
				return alice, true
			case strings.HasPrefix(r.RemoteAddr, "100.64.0.2:"):
				return bob, true
			case strings.HasPrefix(r.RemoteAddr, "100.64.0.3:"):
				return root, true
			}
			return policy.Identity{}, false
		},
		AllowedHosts: []string{"hub.demo.internal", "100.64.0.9:8080"},
		Token:        token, TokenIdentity: who,
		Audit: func(e audit.Entry) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.failing {
				return errors.New("disk full")
			}
			w.audited = append(w.audited, e)
			return nil
		},
		Clock: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(v.Close)
	return v
}

// ask makes a request; from is the remote address, headers are "Name: value".
func (w *world) ask(method, url, from string, headers ...string) *http.Response {
	w.t.Helper()
	r := httptest.NewRequest(method, url, nil)
	r.RemoteAddr = from
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	rec := httptest.NewRecorder()
	w.viewer.ServeHTTP(rec, r)
	return rec.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	fromAlice    = "100.64.0.1:5000"
	fromBob      = "100.64.0.2:5000"
	fromRoot     = "100.64.0.3:5000"
	fromNobody   = "192.0.2.1:5000"
	fromLoopback = "127.0.0.1:5000"
)

func TestWhereRequestsMayComeFrom(t *testing.T) {
	w := newWorld(t)
	const hub = "http://hub.demo.internal"
	cookie := "Cookie: " + w.viewer.cookie + "=" + token
	place := w.viewer.place
	type request struct {
		name    string
		method  string
		url     string
		from    string
		headers []string
		want    int
	}
	all := []request{
		{"own page", "GET", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: same-origin", "Origin: http://hub.demo.internal"}, 200},
		{"a program", "GET", hub + "/api/recordings", fromAlice, nil, 200},
		{"by address and port", "GET", "http://100.64.0.9:8080/api/recordings", fromAlice, nil, 200},
		{"trailing dot and case", "GET", "http://HUB.demo.internal./api/recordings", fromAlice, nil, 200},
		{"rebound name", "GET", "http://evil.example/api/recordings", fromAlice, nil, 421},
		{"rebound name on loopback", "GET", "http://evil.example/api/recordings", fromLoopback, []string{cookie}, 421},
		{"loopback name from the mesh", "GET", "http://localhost/api/recordings", fromAlice, nil, 421},
		{"no host", "GET", hub + "/api/recordings", fromAlice, []string{"X-No-Host: 1"}, 421},
		{"cross-site WebSocket", "GET", hub + "/api/recordings", fromAlice, []string{"Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 403},
		{"cross-site WebSocket without Origin", "GET", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: websocket", "Connection: Upgrade", "Upgrade: websocket"}, 403},
		{"form to the search", "POST", hub + "/api/search?q=a", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Origin: null"}, 403},
		{"another origin", "GET", hub + "/api/recordings", fromAlice, []string{"Origin: http://evil.example"}, 403},
		{"null origin", "GET", hub + "/api/recordings", fromAlice, []string{"Origin: null"}, 403},
		{"same host, another port", "GET", hub + "/api/recordings", fromAlice, []string{"Origin: http://hub.demo.internal:9999"}, 403},
		{"cross-site fetch", "GET", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, 403},
		{"same-site fetch", "GET", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: same-site"}, 403},
		{"cross-site navigation to the API", "GET", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 403},
		{"link to a recording", "GET", hub + "/r/abc", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, page(w)},
		{"in a frame", "GET", hub + "/r/abc", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"cross-site form", "POST", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Content-Type: application/x-www-form-urlencoded"}, 403},
		{"cross-site form of an old browser", "POST", hub + "/", fromAlice, []string{"Origin: http://evil.example"}, 403},
		{"own form", "POST", hub + "/api/recordings", fromAlice, []string{"Sec-Fetch-Site: same-origin"}, 405},
		{"follow: from another site", "GET", hub + "/api/recordings/x/live?from=0", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Accept: text/event-stream"}, 403},
		{"follow: another origin", "GET", hub + "/api/recordings/x/live?from=0", fromAlice, []string{"Origin: http://evil.example", "Accept: text/event-stream"}, 403},
		{"follow: rebound name", "GET", "http://evil.example/api/recordings/x/live?from=0", fromAlice, []string{"Accept: text/event-stream"}, 421},
		{"follow: own page", "GET", hub + "/api/recordings/x/live?from=0", fromAlice, []string{"Sec-Fetch-Site: same-origin", "Accept: text/event-stream"}, 404},
		{"end: by our page", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Sec-Fetch-Site: same-origin", "Origin: http://hub.demo.internal", "Content-Type: application/json"}, 400},
		{"end: by a program", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Content-Type: application/json"}, 400},
		{"end: cross-site fetch", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Content-Type: application/json"}, 403},
		{"end: cross-site form", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Origin: null", "Content-Type: text/plain"}, 403},
		{"end: same-site fetch", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Sec-Fetch-Site: same-site", "Content-Type: application/json"}, 403},
		{"end: typed into the address bar", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Sec-Fetch-Site: none", "Content-Type: application/json"}, 403},
		{"end: a form of an old browser", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Content-Type: text/plain"}, 415},
		{"end: another port", "POST", hub + "/api/recordings/x/end", fromAlice, []string{"Origin: http://hub.demo.internal:8081", "Content-Type: application/json"}, 403},
		{"end: rebound name", "POST", "http://evil.example/api/recordings/x/end", fromAlice, []string{"Content-Type: application/json"}, 421},
		{"end: nobody", "POST", hub + "/api/recordings/x/end", fromNobody, []string{"Content-Type: application/json"}, 403},
		{"end: loopback without the cookie", "POST", "http://localhost/api/recordings/x/end", fromLoopback, []string{"Content-Type: application/json"}, 401},
		{"end: loopback, token in the address", "POST", "http://localhost/api/recordings/x/end?token=" + token, fromLoopback, []string{"Content-Type: application/json"}, 401},
		{"end: loopback, at its place with the cookie", "POST", "http://localhost" + place + "/api/recordings/x/end", fromLoopback, []string{cookie, "Content-Type: application/json"}, 400},
		{"end: loopback, cookie, not the place", "POST", "http://localhost/api/recordings/x/end", fromLoopback, []string{cookie, "Content-Type: application/json"}, 401},
		{"end: by GET", "GET", hub + "/api/recordings/x/end", fromAlice, nil, 404},
		{"end: PUT", "PUT", hub + "/api/recordings/x/end", fromAlice, []string{"Content-Type: application/json"}, 405},
		{"post elsewhere", "POST", hub + "/api/recordings/x", fromAlice, []string{"Sec-Fetch-Site: same-origin", "Content-Type: application/json"}, 405},
		{"delete", "DELETE", hub + "/api/recordings/x", fromAlice, nil, 405},
		{"unknown peer", "GET", hub + "/api/recordings", fromNobody, nil, 403},
		{"unknown peer with a token", "GET", hub + "/?token=" + token, fromNobody, nil, 403},
		{"identity headers", "GET", hub + "/api/recordings", fromNobody, []string{"X-Forwarded-For: 100.64.0.3", "Tailscale-User-Login: root@example.com", "X-Forwarded-User: root@example.com", "Forwarded: for=100.64.0.3"}, 403},
		{"loopback without token", "GET", "http://localhost/api/recordings", fromLoopback, nil, 401},
		{"loopback, wrong token", "GET", "http://localhost/?token=0123456789abcdef0123456789abcdee", fromLoopback, nil, 401},
		{"loopback, token in the API's address", "GET", "http://localhost/api/recordings?token=" + token, fromLoopback, nil, 401},
		{"loopback, right token", "GET", "http://127.0.0.1:8080/?token=" + token, fromLoopback, nil, 303},
		{"loopback, cookie", "GET", "http://[::1]:8080" + place + "/api/recordings", fromLoopback, []string{cookie}, 200},
		{"loopback, cookie, page", "GET", "http://[::1]:8080" + place + "/r/abc", fromLoopback, []string{cookie}, page(w)},
		{"loopback, cookie, not the place", "GET", "http://[::1]:8080/api/recordings", fromLoopback, []string{cookie}, 401},
		{"loopback, cookie, another place", "GET", "http://[::1]:8080/" + strings.Repeat("0", 32) + "/api/recordings", fromLoopback, []string{cookie}, 401},
		{"loopback, the place alone", "GET", "http://[::1]:8080" + place + "/api/recordings", fromLoopback, nil, 401},
		{"loopback, more than the place", "GET", "http://[::1]:8080" + place + "x/api/recordings", fromLoopback, []string{cookie}, 401},
		{"loopback, wrong cookie", "GET", "http://localhost" + place + "/api/recordings", fromLoopback, []string{cookie + "x"}, 401},
		{"loopback, place, foreign page", "GET", "http://localhost" + place + "/api/recordings", fromLoopback, []string{cookie, "Sec-Fetch-Site: same-site"}, 403},
		{"loopback, place, foreign form", "POST", "http://localhost" + place + "/api/recordings/x/end", fromLoopback, []string{cookie, "Origin: http://localhost:9999", "Sec-Fetch-Site: same-site"}, 403},
		{"the place over the mesh", "GET", hub + place + "/api/recordings", fromAlice, nil, 404},
		{"nothing there", "GET", hub + "/etc/passwd", fromAlice, nil, 404},
		{"no such asset", "GET", hub + "/assets/.keep", fromAlice, nil, 404},
	}
	for _, c := range all { // what holds for ending a session holds for deleting its recording
		if url, ok := strings.CutSuffix(c.url, "/x/end"); ok {
			c.name, c.url = "delete instead of "+c.name, url+"/x/delete"
			all = append(all, c)
		}
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			var res *http.Response
			if c.name == "no host" {
				r := httptest.NewRequest(c.method, c.url, nil)
				r.RemoteAddr, r.Host = c.from, ""
				rec := httptest.NewRecorder()
				w.viewer.ServeHTTP(rec, r)
				res = rec.Result()
			} else {
				res = w.ask(c.method, c.url, c.from, c.headers...)
			}
			if res.StatusCode != c.want {
				t.Errorf("got %d %q, want %d", res.StatusCode, body(t, res), c.want)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer"} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			csp := res.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "script-src 'self';", "style-src 'self';", "require-trusted-types-for 'script'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("content policy %q lacks %q", csp, want)
				}
			}
			if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
				t.Errorf("content policy %q is loose", csp)
			}
		})
	}
}

// page is what a page answers: 503 with words where it was not built.
func page(w *world) int {
	if _, built := w.viewer.assets["index.html"]; built {
		return 200
	}
	return 503
}

func TestTokenBecomesACookie(t *testing.T) {
	w := newWorld(t)
	res := w.ask("GET", "http://localhost:1/r/abc?t=5&token="+token, fromLoopback)
	if got := res.Header.Get("Location"); got != w.viewer.place+"/r/abc?t=5" {
		t.Errorf("redirected to %q", got)
	}
	cs := res.Cookies()
	if len(cs) != 1 || cs[0].Value != token || !cs[0].HttpOnly || cs[0].SameSite != http.SameSiteStrictMode || cs[0].Path != w.viewer.place+"/" || cs[0].Domain != "" {
		t.Fatalf("cookies: %+v", cs)
	}
	// The redirect stays here whatever the path looks like.
	res = w.ask("GET", "http://localhost:1/r/%2Fevil.example?token="+token, fromLoopback)
	if got := res.Header.Get("Location"); !strings.HasPrefix(got, w.viewer.place+"/r/") {
		t.Errorf("redirected to %q", got)
	}
}

func TestUnbuiltPageSaysSo(t *testing.T) {
	w := newWorld(t)
	w.viewer.assets = map[string]asset{}
	res := w.ask("GET", "http://hub.demo.internal/", fromAlice)
	if text := body(t, res); res.StatusCode != 503 || !strings.Contains(text, "run make") {
		t.Errorf("got %d %q", res.StatusCode, text)
	}
}

func TestConfigThatWouldShowTooMuchIsRefused(t *testing.T) {
	w := newWorld(t)
	ok := Config{Store: w.store, Policy: func() *policy.Policy { return nil }, Audit: func(audit.Entry) error { return nil }}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no audit":    func(c *Config) { c.Audit = nil },
		"no policy":   func(c *Config) { c.Policy = nil },
		"no store":    func(c *Config) { c.Store = nil },
		"short token": func(c *Config) { c.Token, c.TokenIdentity = "secret", root },
		"nobody's":    func(c *Config) { c.Token = token },
	} {
		c := ok
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
