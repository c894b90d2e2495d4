package coord

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"tssh/policy"
)

// TestViewKnowsRoutes: what is behind a node is part of what a policy can know it by. Two
// routers of one tag are not alike when they route different networks, and the answer for
// one must not be given for the other, whichever is asked about first.
func TestViewKnowsRoutes(t *testing.T) {
	const text = `{"tagOwners": {"tag:gw": []}, "ssh": [],
		"acls": [{"action": "accept", "src": ["bob@example.com"], "dst": ["172.16.0.0/12:22", "autogroup:internet:443"]}],
		"grants": [{"src": ["alice@example.com"], "dst": ["10.1.0.0/16"], "ip": ["22"], "via": ["tag:gw"]}]}`
	addr := func(n byte) []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{100, 64, 0, n})} }
	gw := func(n byte, exit bool, routes ...string) policy.Identity {
		id := policy.Identity{ID: fmt.Sprint(n), Name: fmt.Sprint("gw", n), Tags: []policy.Tag{"tag:gw"}, Addrs: addr(n), Exit: exit}
		for _, r := range routes {
			id.Routes = append(id.Routes, netip.MustParsePrefix(r))
		}
		return id
	}
	people := []policy.Identity{
		{ID: "a", Name: "a", User: "alice@example.com", Role: policy.RoleMember, Addrs: addr(100)},
		{ID: "b", Name: "b", User: "bob@example.com", Role: policy.RoleMember, Addrs: addr(101)},
	}
	routers := []policy.Identity{gw(1, false), gw(2, false, "10.1.2.0/24"), gw(3, false, "10.2.0.0/16"), gw(4, true), gw(5, false, "172.16.0.0/24", "10.0.0.0/8")}
	want := map[string]bool{"a gw2": true, "a gw5": true, "b gw4": true, "b gw5": true}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		v, err := newView(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Shuffle(len(routers), func(i, j int) { routers[i], routers[j] = routers[j], routers[i] })
		for i := range routers {
			for j := range people {
				key := people[j].Name + " " + routers[i].Name
				if got := v.adjacent(&people[j], &routers[i]); got != want[key] {
					t.Fatalf("%s: %v", key, got)
				}
			}
		}
	}
}

// TestRoutesAreWarnedOf: what a file from elsewhere says about subnet routers is named, as
// long as no machine of the mesh is one.
func TestRoutesAreWarnedOf(t *testing.T) {
	h := newHub(t, nil)
	r := h.CheckPolicy("p", []byte(`{"tagOwners": {"tag:gw": []}, "ssh": [],
"autoApprovers": {"routes": {"10.0.0.0/8": ["tag:gw"]},
	"exitNode": ["tag:gw"]},
"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["22"]},
	{"src": ["autogroup:member"], "dst": ["10.0.0.0/8", "172.16.0.0/12"], "ip": ["22", "80"], "via": ["tag:gw"]}]}`))
	const none = ": machines of this mesh lead to no other networks yet"
	want := []string{
		`p:2:30: warning: autoApprovers.routes["10.0.0.0/8"] has no effect` + none,
		`p:3:14: warning: autoApprovers.exitNode has no effect` + none,
		`p:5:2: warning: grants[1] has no effect, as it has via` + none,
	}
	if !r.OK || !slices.Equal(r.Warnings, want) {
		t.Errorf("got %q\nwant %q", r.Warnings, want)
	}
}
