package main

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"tssh/netnode/netmap"
	"tssh/policy"
)

// TestARecorderKnowsItsHosts: key and address are of one record, or it is nobody.
func TestARecorderKnowsItsHosts(t *testing.T) {
	key := func() netmap.ControlKey {
		k, err := netmap.NewControlKey()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	web, db, stranger := key(), key(), key()
	peer := func(id string, k netmap.ControlKey) netmap.Peer {
		return netmap.Peer{Identity: policy.Identity{ID: id, Name: id[2:], Tags: []policy.Tag{"tag:web"}}, Control: k.Public()}
	}
	x := &standingRecorder{hub: &hub{log: slog.New(slog.DiscardHandler)}}
	x.members.Store(tableOf(&netmap.Map{Self: policy.Identity{ID: "n-rec", Name: "rec"}, Peers: []netmap.Peer{peer("n-web", web), peer("n-db", db)}}))
	whois := func(a netip.Addr) (policy.Identity, bool) {
		id := map[string]string{"100.64.0.1": "n-web", "100.64.0.2": "n-db"}[a.String()]
		return policy.Identity{ID: id}, id != ""
	}
	h := x.itself(whois, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	shown := func(k netmap.ControlKey) *tls.ConnectionState {
		c, err := netmap.Certificate(k)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}}
	}
	for name, c := range map[string]struct {
		tls    *tls.ConnectionState
		from   string
		status int
	}{
		"a host":                     {shown(web), "100.64.0.1:1", 200},
		"its IPv4 in IPv6":           {shown(web), "[::ffff:100.64.0.1]:1", 200},
		"its key, another's address": {shown(web), "100.64.0.2:1", 403},
		"another's key, its address": {shown(db), "100.64.0.1:1", 403},
		"its key from outside":       {shown(web), "192.0.2.1:1", 403},
		"a key of nobody":            {shown(stranger), "100.64.0.1:1", 403},
		"no key":                     {&tls.ConnectionState{HandshakeComplete: true}, "100.64.0.1:1", 403},
		"no TLS":                     {nil, "100.64.0.1:1", 403},
	} {
		r := httptest.NewRequest("PUT", "https://rec/v1/recordings/x", nil)
		r.TLS, r.RemoteAddr = c.tls, c.from
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.status {
			t.Errorf("%s: %d, not %d", name, rec.Code, c.status)
		}
	}
	if _, ok := x.nameOf("db"); !ok {
		t.Error("names of hosts are not known")
	}
	if id, ok := x.nameOf("rec"); !ok || id != "n-rec" {
		t.Error("a host can take the recorder's own name")
	}
}
