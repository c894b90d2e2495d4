package localapi

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzRequest sends any call with any arguments and body, as root: the answer is JSON, no
// func sees a name that could be a path, an option or a line of its own.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"/v1/status", "", ""}, {"/v1/whois", "addr=100.64.0.1", ""}, {"/v1/resolve", "name=web.lab.internal.", ""},
		{"/v1/join", "", `{"token":"x","hostname":"y"}`}, {"/v1/policy/why", "host=web&user=root", ""}, {"/v1/dial", "host=-x&port=22", ""},
		{"/v1/resolve", "name=%00%0a", ""}, {"/v1/whois", "addr=fe80::1%25eth0", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	check := func(t *testing.T, name string) {
		if name == "" || len(name) > maxName || strings.ContainsAny(name, " \n\r\t\x00/\\@$`\"'") {
			t.Fatalf("name %q reached the node", name)
		}
	}
	f.Fuzz(func(t *testing.T, path, query, body string) {
		cfg := full(nil)
		cfg.Resolve = func(_ context.Context, n string) (Resolved, error) { check(t, n); return Resolved{}, nil }
		cfg.Dial = func(_ context.Context, n string, p uint16) (net.Conn, error) {
			check(t, n)
			return nil, Errorf(CodeUnreachable, "x")
		}
		cfg.Why = func(_ context.Context, r WhyRequest) (Why, error) { check(t, r.Host); return Why{}, nil }
		s := &server{cfg: cfg, log: cfg.Log, done: t.Context()}
		for _, m := range []string{"GET", "POST"} {
			r := &http.Request{Method: m, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{"Upgrade": {protocol}}, Body: http.NoBody}
			if body != "" {
				r.Body = readCloser{bytes.NewReader([]byte(body))}
			}
			r = r.WithContext(context.WithValue(t.Context(), uidKey{}, 0))
			w := httptest.NewRecorder()
			s.routes().ServeHTTP(w, r)
			if w.Code == 0 || w.Code == 500 {
				t.Fatalf("%s %s?%s: %d %s", m, path, query, w.Code, w.Body)
			}
		}
	})
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
