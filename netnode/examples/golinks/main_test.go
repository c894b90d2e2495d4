package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"tssh/netnode/coord"
	"tssh/netnode/daemon"
	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// hub is a coordination server on loopback, and a func that makes join tokens.
func hub(t *testing.T) (token func(login, tag string) string) {
	t.Helper()
	key, err := netmap.NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", coord.SQLiteDSN(filepath.Join(t.TempDir(), "hub.db")))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := coord.New(t.Context(), coord.Config{DB: db, Key: key, Mesh: "lab", Host: l.Addr().String(), Audit: func(audit.Entry) error { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := netmap.ServerTLS(key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: s.Handler(ctx), TLSConfig: conf, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	done := make(chan struct{}, 2)
	go func() { srv.ServeTLS(l, "", ""); done <- struct{}{} }()
	go func() { s.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); srv.Close(); <-done; <-done; db.Close() })
	for _, u := range []string{"alice@example.com", "bob@example.com"} {
		if _, err := s.AddUser(t.Context(), "test", u, ""); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.SetPolicy(t.Context(), "test", "p", []byte(`{"tagOwners": {"tag:go": ["alice@example.com"]},
		"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:go:80"]}]}`), 0); err != nil || !r.OK {
		t.Fatal(r, err)
	}
	return func(login, tag string) string {
		r := coord.KeyRequest{User: login}
		if tag != "" {
			r = coord.KeyRequest{Tags: []string{tag}}
		}
		k, err := s.CreateKey(t.Context(), "test", r)
		if err != nil {
			t.Fatal(err)
		}
		return k.Token
	}
}

// visitor is a person's node, as an HTTP client.
func visitor(t *testing.T, name, token string) *http.Client {
	t.Helper()
	short, err := os.MkdirTemp("", "g") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	d, err := daemon.New(daemon.Config{State: filepath.Join(t.TempDir(), name), Socket: filepath.Join(short, "s"), OwnerUID: os.Getuid(), Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := netmap.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Join(t.Context(), parsed, name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	api := localapi.NewClient(filepath.Join(short, "s"))
	return &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return api.Dial(ctx, "go", 80) }}}
}

// TestGolinks runs the program as a node of its own and visits it from two others.
func TestGolinks(t *testing.T) {
	token := hub(t)
	dir, err := os.MkdirTemp("", "g")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	join, file := filepath.Join(dir, "join"), filepath.Join(dir, "links.json")
	if err := os.WriteFile(join, []byte(token("", "tag:go")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, file, "", filepath.Join(dir, "node"), join) }()
	defer func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the service ended: %v", err)
		}
	}()
	alice := visitor(t, "alices", token("alice@example.com", ""))
	bob := visitor(t, "bobs", token("bob@example.com", ""))

	ask := func(c *http.Client, method, u string, form url.Values, header ...string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequest(method, u, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(header); i += 2 {
			if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
				r.Host = header[i+1]
			}
		}
		resp, err := c.Do(r)
		if err != nil {
			return 0, err.Error(), nil
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), resp.Header
	}
	for name, c := range map[string]*http.Client{"alice@example.com": alice, "bob@example.com": bob} {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			code, body, head := ask(c, "GET", "http://go/", nil)
			if code == 200 {
				if !strings.Contains(body, "You are "+name+".") || !strings.HasPrefix(head.Get("Content-Security-Policy"), "default-src 'none'") {
					t.Errorf("%s sees %s %v", name, body, head)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %d %s", name, code, body)
			}
		}
	}
	doc := url.Values{"name": {"doc"}, "url": {"https://example.com/<b>?a=1&b=2"}}
	for _, c := range []struct {
		what   string
		client *http.Client
		method string
		url    string
		form   url.Values
		header []string
		code   int
		body   string
	}{
		{"alice adds one", alice, "POST", "http://go.lab.internal/", doc, []string{"Origin", "http://go.lab.internal"}, 303, ""},
		{"bob follows it", bob, "GET", "http://go/doc", nil, nil, 302, ""},
		{"bob reads the list", bob, "GET", "http://go/", nil, nil, 200, "https://example.com/&lt;b&gt;?a=1&amp;b=2 (alice@example.com)"},
		{"bob takes it over", bob, "POST", "http://go/", url.Values{"name": {"doc"}, "url": {"https://evil.example/"}}, nil, 403, "that link belongs to alice@example.com"},
		{"bob removes it", bob, "POST", "http://go/", url.Values{"name": {"doc"}}, nil, 403, ""},
		{"a script as a target", alice, "POST", "http://go/", url.Values{"name": {"x"}, "url": {"javascript:alert(1)"}}, nil, 400, ""},
		{"a path as a name", alice, "POST", "http://go/", url.Values{"name": {"../x"}, "url": {"https://example.com/"}}, nil, 400, ""},
		{"another page's form", alice, "POST", "http://go/", url.Values{"name": {"doc"}}, []string{"Origin", "http://evil.example"}, 403, ""},
		{"another page's script", alice, "POST", "http://go/", url.Values{"name": {"doc"}}, []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"a name bound to our address", alice, "GET", "http://go/", nil, []string{"Host", "evil.example"}, 421, "not called that"},
		{"nothing there", bob, "GET", "http://go/nope", nil, nil, 404, ""},
		{"a header that claims", bob, "GET", "http://go/", nil, []string{"X-Forwarded-For", "100.64.0.1", "X-User", "alice@example.com"}, 200, "You are bob@example.com."},
	} {
		code, body, _ := ask(c.client, c.method, c.url, c.form, c.header...)
		if code != c.code || !strings.Contains(body, c.body) {
			t.Errorf("%s: %d %q, want %d %q", c.what, code, body, c.code, c.body)
		}
	}
	b, err := os.ReadFile(file)
	var stored map[string]link
	if err != nil || json.Unmarshal(b, &stored) != nil || len(stored) != 1 || stored["doc"] != (link{"https://example.com/<b>?a=1&b=2", "alice@example.com"}) {
		t.Errorf("stored: %s %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".links*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// On the computer itself everybody can come from the node's own address: nobody's.
	api := localapi.NewClient(filepath.Join(dir, "node", "golinks.sock"))
	st, err := api.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := api.WhoIs(t.Context(), fmt.Sprintf("%s:1234", st.Self.Addrs[0])); err != nil || n.ID != st.Self.ID {
		t.Errorf("%+v %v", n, err)
	}
}
