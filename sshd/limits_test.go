package sshd

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/session/control"
)

type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr)) }
func (from) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("100.64.0.1:22"))
}

// TestLimitsArePersons: one person with many machines and addresses has the limits of one,
// and what such a flood leaves in the audit log is bounded and counted.
func TestLimitsArePersons(t *testing.T) {
	who := map[string]policy.Identity{
		"100.64.0.2": {ID: "n-laptop", Name: "laptop", User: "alice@example.com"},
		"100.64.0.3": {ID: "n-phone", Name: "phone", User: "alice@example.com"},
		"fd00::3":    {ID: "n-phone", Name: "phone", User: "alice@example.com"},
		"100.64.0.4": {ID: "n-bob", Name: "desk", User: "bob@example.com"},
		"100.64.0.5": {ID: "n-ci", Name: "ci", Tags: []policy.Tag{"tag:ci"}},
	}
	var mu sync.Mutex
	var log []audit.Entry
	s, err := New(Config{
		Self: func() policy.Identity {
			return policy.Identity{ID: "n-web", Name: "web", Tags: []policy.Tag{"tag:web"}}
		},
		WhoIs:  func(a netip.Addr) (policy.Identity, bool) { id, ok := who[a.String()]; return id, ok },
		Policy: func() *policy.Policy { return nil }, HostSigners: []gossh.Signer{nil}, RunDir: filepath.Join(t.TempDir(), "run"), OwnUserOnly: true,
		ConnCommand: []string{"/bin/sleep", "100"}, Limits: Limits{Handshakes: 7, HandshakesPerPeer: 3, ConnsPerPeer: 5}, Log: slog.New(slog.DiscardHandler),
		Audit: func(e audit.Entry) { mu.Lock(); log = append(log, e); mu.Unlock() },
	})
	if err != nil {
		t.Fatal(err)
	}
	// knock gives the words of a refusal; a connection that is let in has none.
	knock := func(addr string) string {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close() })
		before := len(s.all())
		done := make(chan struct{})
		s.wg.Go(func() { s.handle(from{theirs, addr}); close(done) })
		words := make(chan string, 1)
		go func() { b, _ := io.ReadAll(ours); words <- string(b) }() // ends with the pipe
		for {
			select {
			case w := <-words:
				<-done
				return w
			default:
			}
			if len(s.all()) > before {
				return ""
			}
		}
	}
	t.Cleanup(func() {
		for _, l := range s.all() {
			l.proc.kill(true)
		}
		s.wg.Wait()
	})
	for _, addr := range []string{"100.64.0.2:1", "100.64.0.3:1", "[fd00::3]:1"} {
		if w := knock(addr); w != "" {
			t.Fatalf("%s: %s", addr, w)
		}
	}
	for range limitsBurst + 20 {
		for _, addr := range []string{"100.64.0.2:2", "100.64.0.3:2", "[fd00::3]:2"} {
			if w := knock(addr); !strings.Contains(w, sayTooManyLogins) {
				t.Fatalf("%s is one login more than a person may have under way, and was told %q", addr, w)
			}
		}
	}
	for _, addr := range []string{"100.64.0.4:1", "100.64.0.5:1"} {
		if w := knock(addr); w != "" {
			t.Errorf("%s pays for another's flood: %s", addr, w)
		}
	}
	mu.Lock()
	n := len(log)
	mu.Unlock()
	if n == 0 || n > limitsBurst {
		t.Errorf("%d audit entries of one flood", n)
	}
	// Nothing is lost: the next entry says how many were not written.
	e := audit.Entry{Kind: "session.refuse"}
	if !s.hush.allow(who["100.64.0.2"], &e) || e.Extra["unaudited_before"] != strconv.Itoa(3*(limitsBurst+20)-n) {
		t.Errorf("the entry after %d of %d: %v", n, 3*(limitsBurst+20), e.Extra)
	}
}

// TestLateDialogue: a process that dies while it comes back, again and again, must not meet
// the monitor between its last word and the end.
func TestLateDialogue(t *testing.T) {
	ours, file, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := control.FromFile(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	l := &link{s: &Server{}, ended: true, state: control.Running}
	l.startListening(ours)
	if _, _, err := theirs.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the socket of a link that ended: %v", err)
	}
	l.s.wg.Wait()
}
