package coord

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// rotate stops the hub, gives it another key, and starts it.
func (h *hub) rotate() (former netmap.ControlKey) {
	h.t.Helper()
	h.down()
	next, err := netmap.NewControlKey()
	if err != nil {
		h.t.Fatal(err)
	}
	db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(h.dir, "hub.db")))
	if err != nil {
		h.t.Fatal(err)
	}
	err = RotateKey(context.Background(), db, h.key, next, h.clock.now())
	db.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	former, h.key = h.key, next
	h.up(h.addr, nil)
	return former
}

// TestHubKey: connected nodes follow the hub's new key, so do those that were away for
// two of them, and tokens from before; a thief of a former key leads nobody back.
func TestHubKey(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	tok := h.token(KeyRequest{User: "alice@example.com", Reusable: true})
	a := h.member(h.join("a", alice), nil)
	sleeper := h.join("sleeper", alice)
	s := h.member(sleeper, nil)
	s.until("a", peers("a"))
	s.stop()
	<-s.done
	first := h.key.Public()
	old := h.rotate()
	follows := func(m *member) func() bool {
		return func() bool { return m.State().Pin == h.key.Public() && m.Status().Phase == netmap.PhaseConnected }
	}
	waitFor(t, "the new key at a", follows(a))
	h.rotate()
	waitFor(t, "the third key at a", follows(a))
	// On disk too, and what the former keys signed is still read from the folder with the
	// hub away.
	h.down()
	st, err := netmap.LoadState(a.Dir())
	if err != nil || st.Pin != h.key.Public() || len(st.Former) != 2 || st.Former[0] != first {
		t.Fatalf("node.json: %+v: %v", st, err)
	}
	waitFor(t, "a map from the folder alone", func() bool { // written within a second
		c, err := netmap.NewClient(netmap.ClientConfig{State: st, Log: testLog(t)})
		return err == nil && peers("sleeper")(c.Map()) && c.Map().Policy != nil && c.Status().Dropped == 0
	})
	h.up(h.addr, nil)
	// One that slept through both, and a token that is older than both.
	again := h.member(sleeper, nil)
	waitFor(t, "the third key at the sleeper", follows(again))
	b, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: "b"})
	if err != nil || b.Pin != h.key.Public() || !b.Knows(tok.Pin) {
		t.Fatalf("a token from before: %+v: %v", b, err)
	}
	m := a.until("the newcomer", peers("b", "sleeper"))
	if len(m.FormerHubKeys) != 2 || m.FormerHubKeys[0] != first {
		t.Errorf("former keys %v", m.FormerHubKeys)
	}
	again.until("all", peers("a", "b"))
	for _, x := range []*member{a, again} {
		if d := x.Status().Dropped; d != 0 {
			t.Errorf("%d records dropped", d)
		}
	}
	// With the folder of one that followed, and a token of then or of now.
	for _, tk := range []netmap.Token{tok, h.token(alice)} {
		if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: b.Dir, Token: tk, Name: "b"}); err != nil {
			t.Error(err)
		}
	}

	// A thief has the first key and the database of then, and stands at the hub's address.
	h.down()
	thief := &hub{t: t, dir: t.TempDir(), key: old, clock: h.clock}
	thiefsHub(t, thief.dir, h, old)
	thief.up(h.addr, nil)
	t.Cleanup(thief.down)
	waitFor(t, "refusal of the thief", func() bool { return strings.Contains(a.Status().Say, "its key differs") })
	if a.State().Pin == old.Public() || !peers("b", "sleeper")(a.Map()) {
		t.Error("the thief was followed")
	}
	var je *netmap.JoinError
	now := netmap.Token{Host: h.addr, AuthKey: tok.AuthKey, Pin: a.State().Pin}
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: now, Name: "x"}); !errors.As(err, &je) || je.Code != netmap.CodeWrongPin {
		t.Errorf("join at the thief's: %v", err)
	}
}

// thiefsHub makes a hub that still has the first key: a mesh of its own under it, as good
// as a thief can make one, with a forged step from the newest key to it.
func thiefsHub(t *testing.T, dir string, h *hub, old netmap.ControlKey) {
	t.Helper()
	db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(dir, "hub.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := New(t.Context(), Config{DB: db, Key: old, Mesh: "lab", Host: h.addr, Clock: h.clock.now, Log: testLog(t), Audit: func(audit.Entry) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	step := netmap.NewSuccession(h.st.mesh.HubKey, old.Public(), time.Now())
	step.Stamp(h.st.mesh.Header.Mesh, 1000)
	e, err := netmap.Seal(old, step)
	if err == nil {
		err = s.change(t.Context(), func(c *change) error { return c.putJSON(string(netmap.KindSuccession), step.ID, e) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHubMoves: a new address is told, tried first, and kept once it works.
func TestHubMoves(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	s := h.join("a", KeyRequest{User: "alice@example.com"})
	a := h.member(s, nil)
	a.until("itself", func(m *netmap.Map) bool { return m.Policy != nil })
	former := h.addr
	h.down()
	// The new address is told while the old one still answers.
	h.up(former, func(c *Config) { c.Announce = "127.0.0.2:" + former[strings.LastIndexByte(former, ':')+1:] })
	next := h.c.Announce
	waitFor(t, "word of the new address", func() bool { return len(a.State().Hubs) == 1 && a.State().Hubs[0] == next })
	if a.State().Hub != former {
		t.Errorf("the former address was given up before the new one worked: %s", a.State().Hub)
	}
	h.down()
	h.up(next, func(c *Config) { c.Announce = next })
	waitFor(t, "the node at the new address", func() bool { return a.Status().Phase == netmap.PhaseConnected && a.State().Hub == next })
	b, err := os.ReadFile(filepath.Join(s.Dir, "node.json"))
	if err != nil || !strings.Contains(string(b), `"hub": "`+next+`"`) {
		t.Errorf("node.json: %s %v", b, err)
	}
	h.join("b", KeyRequest{User: "alice@example.com"})
	a.until("news at the new address", peers("b"))
}

// TestTokenNewerThanThePin is a start with a token of after a rotation that the node has
// not heard of: the token is for its mesh.
func TestTokenNewerThanThePin(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	st := h.join("sleeper", alice)
	old := h.token(alice)
	h.rotate()
	middle := h.token(alice)
	h.rotate()
	newest := h.token(alice)
	other := newHub(t, nil)
	other.user("alice@example.com")
	foreign := other.token(alice)
	same := func(tok netmap.Token, want bool, when string) {
		t.Helper()
		if got := st.SameMesh(t.Context(), tok, nil); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	same(old, true, "a token of before")
	same(middle, true, "a token of between two rotations")
	same(newest, true, "a token of now")
	same(foreign, false, "a token of another mesh")
	forged := newest
	forged.Pin = foreign.Pin
	same(forged, false, "another mesh's pin at the own hub's address")
	h.down()
	same(newest, true, "a token of the own hub's, which is away")
	same(foreign, false, "a token of another mesh, the own hub being away")
	h.up(h.addr, nil)
	// Joining again does, too, with a token of between.
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: st.Dir, Token: middle, Name: "sleeper"}); err != nil {
		t.Error(err)
	}
}

// TestHubClockWrong: a hub whose clock is a day off, either way, keeps its nodes, lets
// others in, and does so too when the clock is set right.
func TestHubClockWrong(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			h := newHub(t, nil)
			h.user("alice@example.com")
			alice := KeyRequest{User: "alice@example.com", Reusable: true}
			a, b := h.member(h.join("a", alice), nil), h.member(h.join("b", alice), nil)
			e := h.member(h.join("e", KeyRequest{User: "alice@example.com", Ephemeral: true}), nil)
			a.until("all", peers("b", "e"))
			waitFor(t, "connection of the ephemeral one", func() bool { return e.Status().Phase == netmap.PhaseConnected })
			names := []string{"b", "e"}
			for _, when := range []string{"wrong", "wrong, started again", "right", "right, started again"} {
				if when == "wrong" {
					h.clock.move(off)
				} else if when == "right" {
					h.clock.move(-off)
				} else {
					h.down()
					h.up(h.addr, nil)
				}
				h.sweepEphemeral(t.Context())
				name := "n" + strconv.Itoa(len(names))
				n := h.member(h.join(name, alice), nil)
				names = append(names, name)
				slices.Sort(names)
				a.until(when+": the newcomer", peers(names...))
				n.until(when+": everybody", func(m *netmap.Map) bool { return len(m.Peers) == len(names) })
				for _, x := range []*member{a, b, e, n} {
					waitFor(t, when+": connection", func() bool { return x.Status().Phase == netmap.PhaseConnected })
					if x.Map().Policy == nil || x.Status().Dropped != 0 {
						t.Errorf("%s: policy %v, %d dropped", when, x.Map().Policy != nil, x.Status().Dropped)
					}
				}
				if err := n.Rotate(t.Context()); err != nil {
					t.Errorf("%s: other keys: %v", when, err)
				}
				if err := h.RenameNode(t.Context(), "test", name, name+"x"); err != nil {
					t.Error(err)
				}
				names[slices.Index(names, name)] = name + "x"
				slices.Sort(names)
				a.until(when+": the other name", peers(names...))
			}
		})
	}
}
