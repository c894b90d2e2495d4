//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tssh/netnode/netmap"
	"tssh/policy"
)

// TestWhichRecorders: by tag, in the order of the list, none twice, nobody without the tag, and
// hosts spread over those of one tag.
func TestWhichRecorders(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("100.64.0.9")}
	node := func(id string, tags ...policy.Tag) netmap.Peer {
		return netmap.Peer{Identity: policy.Identity{ID: id, Name: id, Tags: tags, Addrs: addrs}}
	}
	pol, ps := policy.Parse("p", []byte(`{"tagOwners": {"tag:rec": [], "tag:far": [], "tag:old": [], "tag:web": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["x"], "recorder": ["tag:rec", "tag:far"]}]}`))
	if pol == nil {
		t.Fatal(ps)
	}
	m := &netmap.Map{Policy: pol, Self: policy.Identity{ID: "web", Tags: []policy.Tag{"tag:rec"}}, Peers: []netmap.Peer{
		node("a", "tag:rec"), node("b", "tag:rec", "tag:far"), node("c", "tag:far"), node("member"), node("former", "tag:old"), node("hub-node", netmap.HubTag),
		{Identity: policy.Identity{ID: "nowhere", Tags: []policy.Tag{"tag:rec"}}},
	}}
	ids := func(m *netmap.Map, to ...string) (out []string) {
		for _, p := range choose(m, to) {
			out = append(out, p.ID)
		}
		return out
	}
	if got := ids(m); !slices.Equal(got, []string{hubID}) {
		t.Errorf("without a list: %v", got)
	}
	if got := ids(m, "tag:none"); len(got) != 0 {
		t.Errorf("a tag that nobody has: %v", got)
	}
	if got := ids(m, "tag:old", "tag:web"); len(got) != 0 {
		t.Errorf("a tag that no rule names any more: %v", got)
	}
	if got := ids(&netmap.Map{Self: m.Self, Peers: m.Peers}, "tag:rec"); len(got) != 0 {
		t.Errorf("without a policy: %v", got)
	}
	if got := ids(m, "tag:far", "tag:rec", string(netmap.HubTag), "tag:far"); len(got) != 4 || got[2] != "a" || got[3] != hubID || !slices.Contains(got[:2], "b") || !slices.Contains(got[:2], "c") {
		t.Errorf("a list: %v", got)
	}
	first := map[string]int{}
	for i := range 300 {
		m.Self.ID = fmt.Sprint("host", i)
		got := ids(m, "tag:rec")
		if len(got) != 2 || !slices.Equal(got, ids(m, "tag:rec")) {
			t.Fatalf("%v", got)
		}
		first[got[0]]++
	}
	if first["a"] < 90 || first["b"] < 90 {
		t.Errorf("300 hosts: %v", first)
	}
}
