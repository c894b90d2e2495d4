package coord

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/netnode/netmap"
)

// keysOf is what the hub's record of a node says.
func (h *hub) keysOf(name string) (wg netmap.WGPublic, control netmap.ControlPublic) {
	h.Server.mu.RLock()
	defer h.Server.mu.RUnlock()
	rec := h.st.named(name).rec
	return rec.WG, rec.Control
}

func copyState(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func loaded(t *testing.T, dir string) *netmap.State {
	t.Helper()
	s, err := netmap.LoadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNodeKeys(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com", Reusable: true}
	peer := h.member(h.join("peer", alice), nil)
	state := h.join("web", alice)
	stolen := copyState(t, state.Dir)
	told := make(chan netmap.WGPublic, 4)
	web := h.member(state, func(c *netmap.ClientConfig) {
		c.OnKeys = func(wg netmap.WGPrivate, _ netmap.ControlKey) { told <- wg.Public() }
	})
	before := peer.until("web", peers("web")).Peers[0]
	since := web.until("itself", func(m *netmap.Map) bool { return !m.KeysSince.IsZero() }).KeysSince

	if err := web.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := <-told
	after := peer.until("other keys", func(m *netmap.Map) bool { return peers("web")(m) && m.Peers[0].Key == now }).Peers[0]
	if after.Control == before.Control || after.ID != before.ID || after.Addrs[0] != before.Addrs[0] || after.Expires != before.Expires {
		t.Errorf("before %+v, after %+v", before, after)
	}
	waitFor(t, "stream with the new key", func() bool { return web.Status().Phase == netmap.PhaseConnected })
	web.until("the age", func(m *netmap.Map) bool { return !m.KeysSince.Before(since) })
	if s := loaded(t, state.Dir); s.WG.Public() != now || s.Control.Public() != after.Control || s.Next != nil || len(s.Rotations) != 1 {
		t.Errorf("node.json: %v %v %v", s.WG.Public(), s.Control.Public(), s.Rotations)
	}
	// Calls with the new key, by connections that were open with the former one.
	if err := web.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	// At most one a moment.
	var ref *netmap.Refused
	if err := web.Rotate(t.Context()); !errors.As(err, &ref) || ref.Code != netmap.CodeBusy || loaded(t, state.Dir).Next != nil {
		t.Errorf("at once again: %v", err)
	}
	h.clock.move(time.Minute)

	// The former keys are worth nothing: no stream, no change of keys, no join.
	old := loaded(t, stolen)
	thief := h.member(old, nil)
	waitFor(t, "refusal of the former key", func() bool { return thief.Status().Phase == netmap.PhaseRefused })
	if err := thief.Rotate(t.Context()); !errors.As(err, &ref) || ref.Code != netmap.CodeUnknown {
		t.Errorf("a change of keys that were changed: %v", err)
	}
	// Steps that somebody has copied need the last one's key.
	mallory, err := netmap.NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Server.rotate(t.Context(), mallory.Public(), loaded(t, state.Dir).Rotations); err == nil {
		t.Error("copied steps were taken")
	}
	_, err = netmap.Join(t.Context(), netmap.JoinConfig{Dir: copyState(t, stolen), Token: h.token(alice), Name: "web-again"})
	var je *netmap.JoinError
	if !errors.As(err, &je) || je.Code != netmap.CodeBad {
		t.Errorf("a former key joined: %v", err)
	}
	// Nor does a key of a removed node, its former ones included.
	last := copyState(t, state.Dir)
	if err := h.RemoveNode(t.Context(), "test", "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: copyState(t, stolen), Token: h.token(alice), Name: "web"}); !errors.As(err, &je) || je.Code != netmap.CodeBad {
		t.Errorf("a removed node's former key joined: %v", err)
	}
	s, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: last, Token: h.token(alice), Name: "web"})
	if err != nil || s.NodeID == state.NodeID || s.Control.Public() == after.Control {
		t.Errorf("a removed node: %v", err)
	}
}

// TestNodeKeysAnswerLost loses the hub's answer, and later the hub's memory of the change.
func TestNodeKeysAnswerLost(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	state := h.join("web", KeyRequest{User: "alice@example.com"})
	web := h.member(state, nil)
	waitFor(t, "connection", func() bool { return web.Status().Phase == netmap.PhaseConnected })
	backup := filepath.Join(t.TempDir(), "hub.db")
	db := filepath.Join(h.dir, "hub.db")
	save := func() {
		t.Helper()
		h.down()
		b, err := os.ReadFile(db)
		if err == nil {
			err = os.WriteFile(backup, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	save()
	// The hub takes the keys and dies before it answers.
	h.wrap = func(real http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != netmap.PathRotate {
				real.ServeHTTP(w, r)
				return
			}
			real.ServeHTTP(discarded{w}, r)
			panic(http.ErrAbortHandler)
		})
	}
	h.up(h.addr, nil)
	h.wrap = nil
	waitFor(t, "connection", func() bool { return web.Status().Phase == netmap.PhaseConnected })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := web.Rotate(ctx); err == nil {
		t.Fatal("the lost answer came")
	}
	now, control := h.keysOf("web")
	if now == state.WG.Public() || loaded(t, state.Dir).Next == nil {
		t.Fatal("the hub did not take the keys, or the node forgot them")
	}
	web.stop()
	<-web.done // the node is started again meanwhile
	h.down()
	h.up(h.addr, nil)
	web = h.member(loaded(t, state.Dir), nil)
	waitFor(t, "the keys that the hub has", func() bool {
		s := web.State()
		return web.Status().Phase == netmap.PhaseConnected && s.WG.Public() == now && s.Control.Public() == control
	})
	if s := loaded(t, state.Dir); s.WG.Public() != now || s.Next != nil {
		t.Error("the disk has other keys")
	}

	// A backup of before: the node shows how it came to its keys.
	h.down()
	for _, f := range []string{"-wal", "-shm"} {
		os.Remove(db + f)
	}
	b, err := os.ReadFile(backup)
	if err == nil {
		err = os.WriteFile(db, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.up(h.addr, func(c *Config) { c.Restored = true })
	waitFor(t, "connection to the hub that was put back", func() bool { return web.Status().Phase == netmap.PhaseConnected })
	waitFor(t, "its keys there", func() bool {
		wg, c := h.keysOf("web")
		return wg == now && c == control
	})
}

// discarded is an answer that nobody gets.
type discarded struct{ http.ResponseWriter }

func (discarded) Write(b []byte) (int, error) { return len(b), nil }
func (discarded) WriteHeader(int)             {}

// TestRelayGoesWithItsNode: a relay whose node is removed is off the list, others stay.
func TestRelayGoesWithItsNode(t *testing.T) {
	h := newHub(t, nil)
	st := h.join("r1", KeyRequest{Relay: true})
	for _, r := range []netmap.Relay{{ID: "r1", Host: "192.0.2.1", Port: 443, Pin: st.Control.Public()}, {ID: "r2", Host: "192.0.2.2", Port: 443}} {
		if _, err := h.AddRelay(t.Context(), "test", r); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.RemoveNode(t.Context(), "test", "r1"); err != nil {
		t.Fatal(err)
	}
	if rs := h.Relays(); len(rs) != 1 || rs[0].ID != "r2" {
		t.Errorf("relays %+v", rs)
	}
	h.down()
	h.up(h.addr, nil)
	if rs := h.Relays(); len(rs) != 1 || rs[0].ID != "r2" {
		t.Errorf("relays after a restart %+v", rs)
	}
}

// TestExpiryOfAKey: a key says how long its nodes are members, in place of what is usual.
func TestExpiryOfAKey(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	for i, c := range []struct {
		r    KeyRequest
		want time.Duration // 0: no end
	}{
		{KeyRequest{User: "alice@example.com"}, personValidity},
		{KeyRequest{User: "alice@example.com", NodeExpiry: 30 * time.Hour}, 30 * time.Hour},
		{KeyRequest{User: "alice@example.com", NodeExpiry: -1}, 0},
		{KeyRequest{Tags: []string{"tag:web"}}, 0},
		{KeyRequest{Tags: []string{"tag:web"}, NodeExpiry: 30 * time.Hour}, 30 * time.Hour},
	} {
		name := "n" + string(rune('a'+i))
		h.join(name, c.r)
		for _, n := range h.Nodes() {
			if n.Name != name {
				continue
			}
			if got := n.Expires.Sub(n.Created); c.want == 0 && !n.Expires.IsZero() || c.want != 0 && got != c.want {
				t.Errorf("%+v: until %v, %v after the join", c.r, n.Expires, got)
			}
		}
	}
	if _, err := h.CreateKey(t.Context(), "test", KeyRequest{User: "alice@example.com", NodeExpiry: 11 * 366 * 24 * time.Hour}); err == nil {
		t.Error("a membership of eleven years")
	}
}

// TestKeysAreNotWithoutEnd: a node changes its keys until it has had as many as a node may, and
// so do all of a person's; it keeps its last ones then, others are not kept from theirs, and the
// audit log says it once.
func TestKeysAreNotWithoutEnd(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	h.user("bob@example.com")
	h.lim.keysPerNode, h.lim.keysPerPerson = 6, 10 // a node joins with two
	alice := KeyRequest{User: "alice@example.com", Reusable: true}
	rotate := func(m *member) error {
		t.Helper()
		h.clock.move(time.Minute)
		was, _ := h.keysOf(m.Map().Self.Name)
		err := m.Rotate(t.Context())
		if now, _ := h.keysOf(m.Map().Self.Name); (err == nil) == (now == was) {
			t.Errorf("changed from %v to %v: %v", was, now, err)
		}
		return err
	}
	ready := func(name string, k KeyRequest) *member {
		m := h.member(h.join(name, k), nil)
		m.until("itself", func(x *netmap.Map) bool { return x.Self.Name == name })
		return m
	}
	refused := func(m *member, words string) {
		t.Helper()
		for range 3 {
			var ref *netmap.Refused
			if err := rotate(m); !errors.As(err, &ref) || ref.Code != netmap.CodeBusy || !strings.Contains(err.Error(), words) {
				t.Errorf("want %q: %v", words, err)
			}
		}
	}
	web := ready("web", alice)
	for range 2 {
		if err := rotate(web); err != nil {
			t.Fatal(err)
		}
	}
	refused(web, "this node has had 6 keys, and none may have more than 6")
	laptop := ready("laptop", alice)
	if err := rotate(laptop); err != nil {
		t.Fatal(err)
	}
	refused(laptop, "the nodes of alice@example.com have had 10 keys, and no person's may have more than 10")
	if err := rotate(ready("bobs", KeyRequest{User: "bob@example.com"})); err != nil {
		t.Errorf("another person's node: %v", err)
	}
	waitFor(t, "the node goes on with its last keys", func() bool { return web.Status().Phase == netmap.PhaseConnected })
	if err := h.RemoveNode(t.Context(), "test", "web"); err != nil {
		t.Fatal(err)
	}
	if err := rotate(laptop); err != nil {
		t.Errorf("with another of the person's removed: %v", err)
	}
	said := map[string]int{}
	for _, e := range h.audited("node.rotate") {
		if e.Verdict == "deny" {
			said[e.Node]++
		}
	}
	if len(said) != 2 || said["web"] != 1 || said["laptop"] != 1 {
		t.Errorf("audited: %v", said)
	}
}
