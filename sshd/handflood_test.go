package sshd

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"tssh/policy"
	"tssh/recording/audit"
)

// TestHandoversAreNotWithoutEnd: connections that go to the host's own server are all written down, so a peer that makes
// one after the other is turned away before it fills the audit log.
func TestHandoversAreNotWithoutEnd(t *testing.T) {
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	go func() { // ends with the listener
		for {
			c, err := own.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	p, problems := policy.Parse("test", []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`))
	if p == nil {
		t.Fatal(problems)
	}
	alice := policy.Identity{ID: "n1", Name: "laptop", User: "alice@example.com", Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.2")}}
	var mu sync.Mutex
	n := 0
	s, err := New(Config{
		Self: func() policy.Identity {
			return policy.Identity{ID: "n0", Name: "web", Tags: []policy.Tag{"tag:web"}, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}}
		},
		WhoIs:  func(netip.Addr) (policy.Identity, bool) { return alice, true },
		Policy: func() *policy.Policy { return p }, HostSigners: []gossh.Signer{nil}, RunDir: filepath.Join(t.TempDir(), "run"), OwnUserOnly: true,
		ConnCommand: []string{"/bin/false"}, FallThrough: own.Addr().String(), Log: slog.New(slog.DiscardHandler),
		Audit: func(e audit.Entry) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == "session.handover" {
				n++
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 2 * handoversBurst {
		ours, theirs := net.Pipe()
		said := make(chan string, 1)
		go func() { // ends with the connection
			b, _ := io.ReadAll(theirs)
			theirs.Close()
			said <- string(b)
		}()
		s.handle(from{ours, "100.64.0.2:5000"})
		if strings.Contains(<-said, sayTooManyLogins) {
			refused++
		}
	}
	t.Logf("%d of %d written down, %d turned away", n, 2*handoversBurst, refused)
	if n < handoversBurst || n+refused != 2*handoversBurst || refused == 0 {
		t.Errorf("%d written down, %d turned away, of %d", n, refused, 2*handoversBurst)
	}
}
