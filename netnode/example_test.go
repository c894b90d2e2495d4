package netnode_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"tssh/netnode"
	"tssh/netnode/meshtest"
)

// greet knows its visitors by the address that they come from: the mesh has proven it.
func greet(n *netnode.Node) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		who, ok := n.WhoIs(from.Addr())
		if !ok { // no peer: fail closed
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "hello %s at %s", who.User, who.Name)
	})
}

// A web service on a node that knows who asks, with no login. The node comes from New,
// or from daemon.Daemon, which joins the mesh and keeps the map too. It has no output, so
// it is compiled and not run: TestExampleWhoIs runs what it serves.
func ExampleNode_WhoIs() {
	serve := func(n *netnode.Node) error {
		l, err := n.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		return http.Serve(l, greet(n))
	}
	var node *netnode.Node // of netnode.New, after SetMap
	log.Fatal(serve(node))
}

func TestExampleWhoIs(t *testing.T) {
	m := meshtest.New(t, `{"acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["*:80"]}]}`,
		meshtest.Node{Name: "web", User: "bob@example.com"}, meshtest.Node{Name: "laptop", User: "alice@example.com"})
	l, err := m.Node("web").Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: greet(m.Node("web"))}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	get := func() (string, error) {
		c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return m.Node("laptop").Dial(ctx, network, netip.AddrPortFrom(m.Addr("web"), 80).String())
			}}}
		r, err := c.Get("http://web/")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	if got, err := get(); err != nil || got != "hello alice@example.com at laptop" {
		t.Errorf("laptop: %q %v", got, err)
	}
	// The node's own address is nobody's, and so is everything else.
	for _, from := range []string{m.Addr("web").String(), "127.0.0.1", "192.0.2.1"} {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.RemoteAddr = net.JoinHostPort(from, "1234")
		if greet(m.Node("web")).ServeHTTP(w, r); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", from, w.Code, w.Body)
		}
	}
}
