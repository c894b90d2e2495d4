package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
)

const openPolicy = `{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
	{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:22"]}],
	"tagOwners": {"tag:web": ["alice@example.com"], "tag:db": ["alice@example.com"]}}`

func setPolicy(t *testing.T, h *hub, text string) {
	t.Helper()
	r, err := h.SetPolicy(t.Context(), "test", "test.hujson", []byte(text), 0)
	if err != nil || !r.OK {
		t.Fatalf("policy not set: %v %v", err, r.Problems)
	}
}

func TestWhoIsInWhoseMap(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	h.user("bob@example.com")
	alice, bob := KeyRequest{User: "alice@example.com"}, KeyRequest{User: "bob@example.com"}
	laptop := h.member(h.join("laptop", alice), nil)
	web := h.member(h.join("web", KeyRequest{Tags: []string{"tag:web"}}), nil)
	phone := h.member(h.join("phone", bob), nil)
	laptop.until("nobody else", func(m *netmap.Map) bool { return m.Policy != nil && len(m.Peers) == 0 })
	web.until("nobody else", func(m *netmap.Map) bool { return m.Policy != nil && len(m.Peers) == 0 })

	desk := h.member(h.join("desk", alice), nil)
	desk.until("laptop", peers("laptop"))
	m := laptop.until("desk", peers("desk"))
	if p := m.Peers[0]; p.User != "alice@example.com" || p.Role != policy.RoleMember || len(p.Addrs) != 2 || p.Key.IsZero() || !m.Range4.Contains(p.Addrs[0]) || !m.Range6.Contains(p.Addrs[1]) {
		t.Errorf("peer %+v", p)
	}
	// A policy that says more: the ones it brings together see each other, nobody else.
	setPolicy(t, h, openPolicy)
	laptop.until("web", peers("desk", "web"))
	web.until("alice's", peers("desk", "laptop"))
	phone.until("nobody, under the new policy", func(m *netmap.Map) bool {
		return m.Policy != nil && strings.Contains(string(m.Policy.Text()), "tag:web") && len(m.Peers) == 0
	})
	// Roles and host keys reach those who see the node.
	if _, err := h.AddUser(t.Context(), "test", "alice@example.com", "admin"); err != nil {
		t.Fatal(err)
	}
	web.until("alice as admin", func(m *netmap.Map) bool { return len(m.Peers) == 2 && m.Peers[0].Role == policy.RoleAdmin })
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChNbwLhEVYBSHhFCmnbZaWpVD0Lg3WGJ0cV5z0yE"
	if err := web.PublishHostKeys([]string{key}); err != nil {
		t.Fatal(err)
	}
	laptop.until("web's host key", func(m *netmap.Map) bool {
		return len(m.Peers) == 2 && slices.Equal(m.Peers[1].HostKeys, []string{key})
	})
	// Endpoints go to those who see the node, and to those who come to see it.
	web.PublishEndpoints(netmap.Where{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:41641")}})
	id := web.Map().Self.ID
	for _, who := range []*member{laptop, desk} {
		select {
		case got := <-who.eps:
			if got != id+" 192.0.2.7:41641" {
				t.Errorf("endpoint %q", got)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no endpoint came")
		}
	}
	pad := h.member(h.join("pad", alice), nil)
	select {
	case got := <-pad.eps:
		if got != id+" 192.0.2.7:41641" {
			t.Errorf("endpoint %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no endpoint came to the newcomer")
	}
	// The rule goes, and with it the sight.
	setPolicy(t, h, `{"acls": []}`)
	web.until("nobody", func(m *netmap.Map) bool { return m.Policy != nil && len(m.Peers) == 0 })
	laptop.until("its owner's", peers("desk", "pad"))
	select {
	case got := <-phone.eps:
		t.Errorf("a node that sees nobody got the endpoint %q", got)
	default:
	}
	// A node is removed; a person is removed with all nodes at once.
	if err := h.RemoveNode(t.Context(), "test", "desk"); err != nil {
		t.Fatal(err)
	}
	<-desk.done
	if !errors.Is(desk.err, netmap.ErrRemoved) || desk.Map().Policy != nil || len(desk.Map().Peers) != 0 {
		t.Errorf("a removed node ended with %v and map %s", desk.err, show(desk.Map()))
	}
	laptop.until("pad", peers("pad"))
	n, err := h.RemoveUser(t.Context(), "test", "alice@example.com")
	if err != nil || n != 2 {
		t.Fatalf("removed %d nodes: %v", n, err)
	}
	for _, m := range []*member{laptop, pad} {
		<-m.done
		if !errors.Is(m.err, netmap.ErrRemoved) {
			t.Errorf("ended with %v", m.err)
		}
	}
	if s := laptop.Status(); s.Phase != netmap.PhaseRemoved {
		t.Errorf("status %+v", s)
	}
	// What was removed stays removed for a node that starts with the hub away.
	st, err := netmap.LoadState(laptop.Dir())
	if err != nil {
		t.Fatal(err)
	}
	h.down()
	again := h.member(st, nil)
	<-again.done
	if !errors.Is(again.err, netmap.ErrRemoved) {
		t.Errorf("after a restart: %v", again.err)
	}
	h.up(h.addr, nil)
	for _, m := range []*member{laptop, web, phone, desk, pad} {
		if d := m.Status().Dropped; d != 0 {
			t.Errorf("%s dropped %d records", m.Map().Self.Name, d)
		}
	}
}

// TestAddressesInThePolicy: the policy names one node of many alike by its address.
func TestAddressesInThePolicy(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	laptop := h.member(h.join("laptop", KeyRequest{User: "alice@example.com"}), nil)
	key := KeyRequest{Tags: []string{"tag:db"}}
	var addr netip.Addr
	for i := range 4 {
		s := h.join(fmt.Sprintf("db%d", i), key)
		m := h.member(s, nil)
		addr = m.until("itself", func(m *netmap.Map) bool { return m.Policy != nil }).SelfAddrs[i%2]
	}
	text := `{"tagOwners": {"tag:db": []}, "hosts": {"main": "` + addr.String() + `"}, "acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["main:5432"]}]}`
	setPolicy(t, h, text)
	laptop.until("the one that is named", peers("db3"))
}

// TestRestartAndResume: the hub goes and comes, nodes go on with what they have and
// take up where they were.
func TestRestartAndResume(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	alice := KeyRequest{User: "alice@example.com"}
	a, b := h.member(h.join("a", alice), nil), h.member(h.join("b", alice), nil)
	a.until("b", peers("b"))
	b.until("a", peers("a"))
	for i := range 3 {
		rev := h.Status().Revision
		h.down()
		if m := a.Map(); len(m.Peers) == 0 || m.Policy == nil {
			t.Fatal("with the hub away the map is gone")
		}
		h.up(h.addr, nil)
		if got := h.Status().Revision; got != rev {
			t.Fatalf("revision %d after the restart, was %d", got, rev)
		}
		h.join(fmt.Sprintf("c%d", i), alice)
		for _, m := range []*member{a, b} {
			m.until("the newcomer", func(m *netmap.Map) bool {
				return len(m.Peers) == i+2 && m.Peers[len(m.Peers)-1].Name == fmt.Sprintf("c%d", i)
			})
		}
	}
	// A hub that was put back is refused until it says so.
	h.down()
	db := filepath.Join(h.dir, "hub.db")
	old, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	h.up(h.addr, nil)
	if err := h.RemoveNode(t.Context(), "test", "c0"); err != nil {
		t.Fatal(err)
	}
	a.until("c0 gone", peers("b", "c1", "c2"))
	h.down()
	for _, f := range []string{"-wal", "-shm"} {
		os.Remove(db + f)
	}
	if err := os.WriteFile(db, old, 0o600); err != nil {
		t.Fatal(err)
	}
	h.up(h.addr, nil)
	waitFor(t, "refusal of a hub that is behind", func() bool { return strings.Contains(a.Status().Say, "--restored") })
	if !peers("b", "c1", "c2")(a.Map()) {
		t.Errorf("the map went back: %s", show(a.Map()))
	}
	h.down()
	epoch := a.Map().Epoch
	h.up(h.addr, func(c *Config) { c.Restored = true })
	// All but what it saw removed: that stays so, whatever an older database says.
	a.until("everything anew", func(m *netmap.Map) bool { return m.Epoch != epoch && peers("b", "c1", "c2")(m) })
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("no " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestRevisionsHaveNoGap changes from many sides at once, with a stream watching.
func TestRevisionsHaveNoGap(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	tok := h.token(KeyRequest{User: "alice@example.com", Reusable: true})
	watch := h.member(h.join("tower", KeyRequest{User: "alice@example.com"}), nil)
	watch.until("itself", func(m *netmap.Map) bool { return m.Policy != nil })
	var wg sync.WaitGroup
	const each, sides = 8, 4
	for g := range sides {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("n%d-%d", g, i)
				if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: name}); err != nil {
					t.Error(err)
				}
				if _, err := h.AddUser(t.Context(), "test", name+"@example.com", ""); err != nil {
					t.Error(err)
				}
				if i%2 == 1 {
					if err := h.RemoveNode(t.Context(), "test", name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	m := watch.until("all that stay", func(m *netmap.Map) bool { return len(m.Peers) == sides*each/2 && m.Revision == h.Status().Revision })
	if s := watch.Status(); s.Dropped != 0 {
		t.Errorf("%d records dropped", s.Dropped)
	}
	seen := map[netip.Addr]bool{}
	for _, p := range m.Peers {
		for _, a := range p.Addrs {
			if seen[a] {
				t.Errorf("address %s twice", a)
			}
			seen[a] = true
		}
	}
	// users and nodes 2 + 2*32, revocation and removal 2*16, mesh and policy 2
	if want := int64(2 + 2*each*sides + 2*each*sides/2 + 2); m.Revision != want {
		t.Errorf("revision %d, want %d", m.Revision, want)
	}
	c, err := h.store.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range c.log {
		if r.rev != int64(i)+1 {
			t.Fatalf("log row %d has revision %d", i, r.rev)
		}
	}
}

// TestOneUseKeyIsUsedOnce: many come with the same key at the same moment.
func TestOneUseKeyIsUsedOnce(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	tok := h.token(KeyRequest{User: "alice@example.com"})
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for i := range 12 {
		wg.Go(func() {
			_, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: fmt.Sprintf("n%d", i)})
			var je *netmap.JoinError
			switch {
			case err == nil:
				mu.Lock()
				in++
				mu.Unlock()
			case !errors.As(err, &je) || je.Code != netmap.CodeKeyUsed:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in != 1 || len(h.Nodes()) != 1 {
		t.Errorf("%d came in, %d nodes", in, len(h.Nodes()))
	}
}

// TestAlteredDatabase: what is altered in the database without the key is not handed out.
func TestAlteredDatabase(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	h.user("bob@example.com")
	h.join("a", KeyRequest{User: "alice@example.com"})
	h.join("b", KeyRequest{User: "bob@example.com"})
	h.down()
	h.up(h.addr, nil)
	var body []byte
	id := h.Nodes()[1].ID
	if err := h.db.QueryRowContext(t.Context(), `SELECT body FROM obj WHERE kind = 'node' AND id = ?`, id).Scan(&body); err != nil {
		t.Fatal(err)
	}
	var env netmap.Envelope
	if err := json.Unmarshal(body, &env); err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(env.Payload), "bob@example.com", "alice@example.com", 1)
	if forged == string(env.Payload) {
		t.Fatal("nothing to forge")
	}
	env.Payload = []byte(forged)
	body, err := json.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.db.ExecContext(t.Context(), `UPDATE obj SET body = ? WHERE kind = 'node' AND id = ?`, body, id); err != nil {
		t.Fatal(err)
	}
	h.down()
	h.up(h.addr, nil)
	for _, n := range h.Nodes() {
		if n.ID == id {
			t.Errorf("a forged record is in use: %+v", n)
		}
	}
	if len(h.Nodes()) != 1 {
		t.Errorf("%d nodes", len(h.Nodes()))
	}
}

// TestSlowStreamHoldsNobodyUp: a node that does not read gets a snapshot later, and
// others do not notice.
func TestSlowStreamHoldsNobodyUp(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	slow := h.join("slow", KeyRequest{User: "alice@example.com"})
	gate := make(chan struct{})
	var once sync.Once
	m := h.member(slow, func(c *netmap.ClientConfig) {
		on := c.OnMap
		c.OnMap = func(x *netmap.Map) {
			once.Do(func() { <-gate })
			on(x)
		}
	})
	tok := h.token(KeyRequest{User: "alice@example.com", Reusable: true})
	start := time.Now()
	for i := range 40 {
		if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: fmt.Sprintf("n%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("40 joins beside a stalled node took %s", time.Since(start))
	close(gate)
	m.until("all", func(m *netmap.Map) bool { return len(m.Peers) == 40 })
}

func TestEphemeralNodesGo(t *testing.T) {
	h := newHub(t, nil)
	s := h.join("ci", KeyRequest{Tags: []string{"tag:web"}, Ephemeral: true})
	m := h.member(s, nil)
	m.until("itself", func(m *netmap.Map) bool { return m.Policy != nil })
	h.clock.move(2 * time.Hour)
	h.sweepEphemeral(t.Context())
	if len(h.Nodes()) != 1 {
		t.Fatal("a node that is there was removed")
	}
	m.stop()
	<-m.done
	waitFor(t, "end of the stream", func() bool { return !h.Nodes()[0].Online })
	h.sweepEphemeral(t.Context())
	if len(h.Nodes()) != 1 {
		t.Fatal("removed at once")
	}
	h.clock.move(ephemeralGrace + time.Minute)
	h.sweepEphemeral(t.Context())
	if len(h.Nodes()) != 0 {
		t.Fatal("an ephemeral node stayed")
	}
	// Its addresses rest: a log that names them must not come to mean another node.
	var n int
	if err := h.db.QueryRowContext(context.Background(), `SELECT count(*) FROM uniq WHERE kind = 'rest' AND key LIKE 'addr/%'`).Scan(&n); err != nil || n != 2 {
		t.Errorf("%d addresses rest: %v", n, err)
	}
}

// TestManyJoinAtOnce: more than the burst come together, and each gets in at its first try.
func TestManyJoinAtOnce(t *testing.T) {
	h := newHub(t, nil)
	tok := h.token(KeyRequest{Tags: []string{"tag:web"}, Reusable: true})
	var wg sync.WaitGroup
	const each = (joinBurst + joinsPerSecond) / 8
	for w := range 8 {
		wg.Go(func() {
			for i := range each {
				if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: fmt.Sprintf("n%d-%d", w, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(h.Nodes()); n != 8*each {
		t.Errorf("%d nodes of %d", n, 8*each)
	}
}
