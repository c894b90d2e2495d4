package coord

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/netnode/netmap"
)

func refusal(err error) string {
	var ref *Refusal
	var je *netmap.JoinError
	switch {
	case errors.As(err, &ref):
		return ref.Code
	case errors.As(err, &je):
		return je.Code
	}
	return fmt.Sprint(err)
}

// TestRename: a node changes its name and nothing else, and the old name means nobody
// else for a while.
func TestRename(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	a := h.member(h.join("laptop", alice), nil)
	b := h.member(h.join("desk", alice), nil)
	before := b.until("laptop", peers("laptop")).Peers[0]
	if err := h.RenameNode(t.Context(), "test", "laptop", "book"); err != nil {
		t.Fatal(err)
	}
	m := b.until("the new name", peers("book"))
	if p := m.Peers[0]; p.ID != before.ID || p.Addrs[0] != before.Addrs[0] || p.Key != before.Key {
		t.Errorf("more than the name changed: %+v", p)
	}
	a.until("its own new name", func(m *netmap.Map) bool { return m.Self.Name == "book" })
	for _, x := range []struct{ old, new, code string }{
		{"nobody", "x", CodeNotFound},
		{"desk", "book", netmap.CodeNameTaken},
		{"desk", "laptop", netmap.CodeNameTaken}, // it rests
		{"desk", "status", netmap.CodeNameReserved},
		{"desk", "a.b", netmap.CodeNameInvalid},
	} {
		if err := h.RenameNode(t.Context(), "test", x.old, x.new); refusal(err) != x.code {
			t.Errorf("%s to %s: %v", x.old, x.new, err)
		}
	}
	// Its own former name is not kept from the node itself, and later from nobody.
	for _, name := range []string{"laptop", "book"} {
		if err := h.RenameNode(t.Context(), "test", a.Map().Self.ID, name); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.move(nameRest + time.Minute)
	if err := h.RenameNode(t.Context(), "test", "desk", "laptop"); err != nil {
		t.Error(err)
	}
	if n := len(h.audited("node.rename")); n != 4 {
		t.Errorf("%d renames in the audit log", n)
	}
}

// TestNameSuffix: machines of one image come in with one key and one host name.
func TestNameSuffix(t *testing.T) {
	h := newHub(t, nil)
	plain := h.token(KeyRequest{Tags: []string{"tag:web"}, Reusable: true})
	tok := h.token(KeyRequest{Tags: []string{"tag:web"}, Reusable: true, Suffix: true})
	dirs := map[string]string{}
	for _, want := range []string{"web", "web-2", "web-3"} {
		dir := filepath.Join(t.TempDir(), "s")
		s, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: dir, Token: tok, Name: "web"})
		if err != nil || s.Name != want {
			t.Fatalf("%s: %v %+v", want, err, s)
		}
		dirs[want] = dir
	}
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: plain, Name: "web"}); refusal(err) != netmap.CodeNameTaken {
		t.Errorf("without the key's consent: %v", err)
	}
	// One that comes again keeps its number.
	for want, dir := range dirs {
		if s, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: dir, Token: tok, Name: "web"}); err != nil || s.Name != want {
			t.Errorf("again %s: %v %+v", want, err, s)
		}
	}
	long := strings.Repeat("a", 63)
	for i := range 2 {
		s, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: long})
		if err != nil || netmap.CheckName(s.Name) != nil || i == 1 && s.Name != long[:61]+"-2" {
			t.Errorf("a long name: %v %+v", err, s)
		}
	}
}

// TestExpiry: the setting, the end at the moment, the extension, and the way back.
func TestExpiry(t *testing.T) {
	h := newHub(t, func(c *Config) { c.NodeExpiry = 30 * 24 * time.Hour })
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	setPolicy(t, h, openPolicy)
	s := h.join("laptop", alice)
	a := h.member(s, nil)
	desk := h.member(h.join("desk", alice), nil)
	web := h.member(h.join("web", KeyRequest{Tags: []string{"tag:web"}}), nil)
	web.until("both", peers("desk", "laptop"))
	addr := a.until("itself", func(m *netmap.Map) bool { return m.Policy != nil }).SelfAddrs[0]
	if d := time.Until(a.Map().Expires); d < 29*24*time.Hour || d > 31*24*time.Hour {
		t.Errorf("ends in %s", d)
	}
	if !web.Map().Expires.IsZero() {
		t.Error("a tagged machine expires")
	}
	if _, err := h.ExtendNode(t.Context(), "test", "web", time.Hour); refusal(err) != netmap.CodeBad {
		t.Errorf("extending what does not end: %v", err)
	}
	if _, err := h.ExtendNode(t.Context(), "test", "laptop", 90*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	a.until("the later end", func(m *netmap.Map) bool { return time.Until(m.Expires) > 89*24*time.Hour })
	if err := h.ExpireNode(t.Context(), "test", "laptop"); err != nil {
		t.Fatal(err)
	}
	web.until("laptop gone", peers("desk"))
	desk.until("laptop gone", peers("web"))
	<-a.done
	if !errors.Is(a.err, netmap.ErrExpired) || a.Map().Policy != nil || len(a.Map().Peers) != 0 {
		t.Errorf("ended with %v", a.err)
	}
	if _, err := h.ExtendNode(t.Context(), "test", "laptop", time.Hour); refusal(err) != netmap.CodeExpired {
		t.Errorf("extending what has ended: %v", err)
	}
	back, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: s.Dir, Token: h.token(alice), Name: "laptop"})
	if err != nil || back.NodeID != s.NodeID {
		t.Fatalf("came back as %+v: %v", back, err)
	}
	m := h.member(back, nil).until("peers again", peers("desk", "web"))
	if m.SelfAddrs[0] != addr {
		t.Errorf("address %s, was %s", m.SelfAddrs[0], addr)
	}
}

// TestEphemeralLife: gone at once with a goodbye, not by a short absence, not because
// the hub was away, and not because a clock jumped.
func TestEphemeralLife(t *testing.T) {
	h := newHub(t, nil)
	key := KeyRequest{Tags: []string{"tag:web"}, Ephemeral: true}
	ci, stay := h.join("ci", key), h.join("stay", KeyRequest{Tags: []string{"tag:web"}})
	m := h.member(ci, nil)
	m.until("itself", func(m *netmap.Map) bool { return m.Policy != nil })
	m.stop()
	<-m.done
	waitFor(t, "end of the stream", func() bool { return !h.Nodes()[0].Online })
	h.clock.move(ephemeralGrace / 2)
	h.sweepEphemeral(t.Context())
	h.down()
	h.clock.move(24 * time.Hour) // the hub was away
	h.up(h.addr, nil)
	h.sweepEphemeral(t.Context())
	if len(h.Nodes()) != 2 {
		t.Fatalf("%d nodes", len(h.Nodes()))
	}
	// A hub whose clock was far ahead in its former life waits for the grace, not for a year.
	h.down()
	h.clock.move(-365 * 24 * time.Hour)
	h.up(h.addr, nil)
	h.sweepEphemeral(t.Context())
	if len(h.Nodes()) != 2 {
		t.Fatalf("%d nodes", len(h.Nodes()))
	}
	again := h.member(ci, nil)
	waitFor(t, "the node back", func() bool { return h.Nodes()[0].Online })
	for _, x := range []*member{again, h.member(stay, nil)} {
		if err := x.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.Nodes(); len(n) != 1 || n[0].Name != "stay" {
		t.Errorf("%+v", n)
	}
	<-again.done
	if !errors.Is(again.err, netmap.ErrRemoved) {
		t.Errorf("ended with %v", again.err)
	}
}

// TestRejoinRotatesTheKey: joining again with a new token makes another WireGuard key, and
// peers know the node by that alone.
func TestRejoinRotatesTheKey(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	s := h.join("laptop", alice)
	desk := h.member(h.join("desk", alice), nil)
	before := desk.until("laptop", peers("laptop")).Peers[0]
	tok := h.token(alice)
	again := func() *netmap.State {
		t.Helper()
		x, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: s.Dir, Token: tok, Name: "laptop"})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	x := again()
	after := desk.until("the new key", func(m *netmap.Map) bool { return len(m.Peers) == 1 && m.Peers[0].Key != before.Key }).Peers[0]
	if after.Key != x.WG.Public() || after.ID != before.ID || after.Addrs[0] != before.Addrs[0] {
		t.Errorf("%+v, was %+v", after, before)
	}
	if y := again(); y.WG.Public() != x.WG.Public() { // as after an answer that was lost
		t.Error("the same token gave another key")
	}
	tok = h.token(alice)
	if y := again(); y.WG.Public() == x.WG.Public() || y.WG.Public() == before.Key {
		t.Error("a new token gave a former key")
	}
}
