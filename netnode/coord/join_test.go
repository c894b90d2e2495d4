package coord

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tssh/netnode/netmap"
)

func noHTTP2() map[string]func(*http.Server, *tls.Conn, http.Handler) {
	return map[string]func(*http.Server, *tls.Conn, http.Handler){}
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// tree is everything below dir: names, modes, contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		v := i.Mode().String()
		if i.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			v += " " + string(b)
		}
		out[p] = v
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// deaf is a port on which nobody listens.
func deaf(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestFailedJoinLeavesNoTrace(t *testing.T) {
	h := newHub(t, nil)
	other := newHub(t, nil)
	h.user("alice@example.com")
	other.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	h.join("taken", alice)
	used := h.token(alice)
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: used, Name: "first"}); err != nil {
		t.Fatal(err)
	}
	short := alice
	short.Expiry = time.Minute
	late := h.token(short)

	// A server that is no hub: it speaks TLS with another key, or no TLS at all.
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
			c.Close()
		}
	}()

	with := func(tok netmap.Token, edit func(*netmap.Token)) netmap.Token { edit(&tok); return tok }
	good := h.token(KeyRequest{User: "alice@example.com", Reusable: true, Expiry: 48 * time.Hour})
	for _, tc := range []struct {
		name, host, code, say string
		tok                   netmap.Token
		state                 string // what is in the folder before
		moved                 time.Duration
	}{
		{name: "unreachable", host: "web", code: netmap.CodeUnreachable, say: "cannot be reached", tok: with(good, func(k *netmap.Token) { k.Host = deaf(t) })},
		{name: "wrong pin", host: "web", code: netmap.CodeWrongPin, say: "not the hub", tok: with(good, func(k *netmap.Token) { k.Pin[3] ^= 1 })},
		{name: "another hub's port", host: "web", code: netmap.CodeWrongPin, say: "not the hub", tok: with(good, func(k *netmap.Token) { k.Host = other.addr })},
		{name: "not a hub", host: "web", code: netmap.CodeNotHub, say: "not a tsshub", tok: with(good, func(k *netmap.Token) { k.Host = mute.Addr().String() })},
		{name: "wrong key", host: "web", code: netmap.CodeKeyUnknown, say: "does not know", tok: with(good, func(k *netmap.Token) { k.AuthKey = strings.Repeat("A", 43) })},
		{name: "no key", host: "web", code: netmap.CodeKeyUnknown, say: "no key", tok: with(good, func(k *netmap.Token) { k.AuthKey = "" })},
		{name: "used key", host: "web", code: netmap.CodeKeyUsed, say: "used already", tok: used},
		{name: "expired key", host: "web", code: netmap.CodeKeyExpired, say: "expired on", tok: late, moved: time.Hour},
		{name: "name taken", host: "taken", code: netmap.CodeNameTaken, say: "another node is called taken", tok: good},
		{name: "name reserved", host: "status", code: netmap.CodeNameReserved, say: "reserved", tok: good},
		{name: "the hub's name", host: "hub", code: netmap.CodeNameReserved, say: "reserved", tok: good},
		{name: "name is none", host: "We_b", code: netmap.CodeNameInvalid, say: "letters", tok: good},
		{name: "another mesh's folder", host: "web", code: netmap.CodeOtherMesh, say: "belongs to another mesh", tok: good, state: "other"},
		{name: "a hub's folder", host: "web", code: netmap.CodeState, say: "is not a node's", tok: good, state: "hub"},
		{name: "a broken folder", host: "web", code: netmap.CodeState, say: "is not a node's", tok: good, state: "broken"},
		{name: "a file for a folder", host: "web", code: netmap.CodeState, say: "cannot be written", tok: good, state: "file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := t.TempDir()
			dir := filepath.Join(base, "deep", "state")
			switch tc.state {
			case "other":
				if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: dir, Token: other.token(alice), Name: "else" + strings.ToLower(filepath.Base(base))}); err != nil {
					t.Fatal(err)
				}
			case "hub", "broken", "file":
				if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
					t.Fatal(err)
				}
				file := map[string]string{"hub": filepath.Join(dir, netmap.HubFile), "broken": filepath.Join(dir, "node.json"), "file": dir}[tc.state]
				if tc.state != "file" {
					if err := os.Mkdir(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h.clock.move(tc.moved)
			defer h.clock.move(-tc.moved)
			before := tree(t, base)
			denied := len(h.audited("node.join"))
			_, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: dir, Token: tc.tok, Name: tc.host, Timeout: 5 * time.Second})
			var je *netmap.JoinError
			if !errors.As(err, &je) {
				t.Fatalf("Join gave %v, not a JoinError", err)
			}
			if je.Code != tc.code || !strings.Contains(je.Say, tc.say) {
				t.Errorf("code %q say %q, want %q and %q", je.Code, je.Say, tc.code, tc.say)
			}
			if je.Hint == "" {
				t.Error("no hint what to do")
			}
			if d := cmp.Diff(before, tree(t, base)); d != "" {
				t.Errorf("the folder changed (-before +after):\n%s", d)
			}
			switch tc.code {
			case netmap.CodeKeyUsed, netmap.CodeKeyExpired, netmap.CodeNameTaken:
				all := h.audited("node.join")
				if len(all) != denied+1 || all[denied].Verdict != "deny" || all[denied].Rule != tc.code {
					t.Errorf("the refusal is not in the audit log: %+v", all[denied:])
				}
			}
		})
	}
	// The mistake mended, the same token works.
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: good, Name: "web"}); err != nil {
		t.Fatal(err)
	}
}

func TestJoinWithAWrongClock(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	for _, off := range []time.Duration{-26 * time.Hour, 26 * time.Hour} {
		dir := filepath.Join(t.TempDir(), "s")
		name := map[bool]string{true: "early", false: "late"}[off < 0]
		nodeClock := func() time.Time { return time.Now().Add(off) }
		s, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: dir, Token: h.token(KeyRequest{User: "alice@example.com"}), Name: name, Clock: nodeClock})
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "behind", false: "ahead of"}[off < 0]
		if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "26h0m0s "+want) {
			t.Errorf("warnings %q", s.Warnings)
		}
		all := h.audited("node.join")
		e := all[len(all)-1]
		nt, err := time.Parse(time.RFC3339, e.Extra["node_time"])
		if err != nil {
			t.Fatal(err)
		}
		if d := nt.Sub(e.HubTime) - off; d.Abs() > time.Minute {
			t.Errorf("audit has the node at %s, the hub at %s", nt, e.HubTime)
		}
		// The stream works, and what ends when is judged by the hub's clock.
		m := h.member(s, func(c *netmap.ClientConfig) { c.Clock = nodeClock })
		m.until("itself", func(x *netmap.Map) bool { return x.Self.Name == name && x.Policy != nil })
	}
}

func TestJoinAgain(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	h.user("bob@example.com")
	s := h.join("web", KeyRequest{User: "alice@example.com"})
	first := h.Nodes()[0]
	if err := h.ExpireNode(t.Context(), "test", "web"); err != nil {
		t.Fatal(err)
	}
	m := h.member(s, nil)
	<-m.done
	if !errors.Is(m.err, netmap.ErrExpired) {
		t.Fatalf("an expired node's client ended with %v", m.err)
	}
	// Somebody else's token does not take the node over.
	_, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: s.Dir, Token: h.token(KeyRequest{User: "bob@example.com"}), Name: "web"})
	var je *netmap.JoinError
	if !errors.As(err, &je) || je.Code != netmap.CodeOwner {
		t.Fatalf("taken over: %v", err)
	}
	// The owner's brings the same node back.
	s2, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: s.Dir, Token: h.token(KeyRequest{User: "alice@example.com"}), Name: "web2"})
	if err != nil {
		t.Fatal(err)
	}
	again := h.Nodes()[0]
	if s2.NodeID != s.NodeID || again.Name != "web2" || cmp.Diff(first.Addresses, again.Addresses, cmp.Comparer(sameAddr)) != "" || again.Expired {
		t.Errorf("came back as %+v, was %+v", again, first)
	}
	h.member(s2, nil).until("itself", func(x *netmap.Map) bool { return x.Self.Name == "web2" && x.Policy != nil })
	// The name that was given up rests, and is free after that.
	_, err = netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: h.token(KeyRequest{User: "bob@example.com"}), Name: "web"})
	if !errors.As(err, &je) || je.Code != netmap.CodeNameTaken || !strings.Contains(je.Say, "rests until") {
		t.Errorf("a name given up just now: %v", err)
	}
	h.clock.move(nameRest + time.Minute)
	h.join("web", KeyRequest{User: "bob@example.com"})

	// A removed node comes back as another one, from the same folder.
	if err := h.RemoveNode(t.Context(), "test", "web2"); err != nil {
		t.Fatal(err)
	}
	s3, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: s.Dir, Token: h.token(KeyRequest{User: "alice@example.com"}), Name: "web3"})
	if err != nil {
		t.Fatal(err)
	}
	if s3.NodeID == s.NodeID || s3.Control.Public() == s.Control.Public() {
		t.Error("a removed node came back as itself")
	}
	h.member(s3, nil).until("itself", func(x *netmap.Map) bool { return x.Self.Name == "web3" && x.Policy != nil })
}

// TestTheHubsOwnNode: it is everybody's peer, its name and tag are its own, and one
// that the hub lost is replaced.
func TestTheHubsOwnNode(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	own := func() *netmap.State {
		tok, err := h.HubToken(t.Context(), h.addr)
		if err != nil {
			t.Fatal(err)
		}
		s, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: netmap.HubName})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := own()
	laptop := h.member(h.join("laptop", KeyRequest{User: "alice@example.com"}), nil)
	laptop.until("the hub", peers("hub"))
	second := own()
	m := laptop.until("the hub's new node", func(m *netmap.Map) bool { return len(m.Peers) == 1 && m.Peers[0].ID == second.NodeID })
	if m.Peers[0].Name != "hub" || m.Peers[0].User != "" {
		t.Errorf("the hub is %+v", m.Peers[0].Identity)
	}
	gone := h.member(first, nil)
	<-gone.done
	if !errors.Is(gone.err, netmap.ErrRemoved) {
		t.Errorf("the former one ended with %v", gone.err)
	}
	hub := h.member(second, nil)
	hub.until("the laptop", peers("laptop"))
}
