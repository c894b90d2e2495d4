package coord

import (
	"testing"

	"tssh/netnode/netmap"
	"tssh/policy"
)

// TestRecordersAndEverybodyKnowEachOther: as long as a rule names their tag, and no longer.
func TestRecordersAndEverybodyKnowEachOther(t *testing.T) {
	node := func(id string, tags ...policy.Tag) *netmap.Node {
		n := &netmap.Node{Header: netmap.Header{ID: id}, Name: id, Tags: tags}
		if len(tags) == 0 {
			n.User = policy.Login(id + "@example.com")
		}
		return n
	}
	rec, web, bob, relay := node("rec", "tag:rec"), node("web", "tag:web"), node("bob"), node("relay", netmap.RelayTag)
	s := &state{}
	for recorder, want := range map[string]bool{`"recorder": ["tag:rec"], `: true, `"recorder": ["tag:web"], `: false, "": false} {
		v, err := newView(`{"tagOwners": {"tag:rec": [], "tag:web": []}, "acls": [], "ssh": [
			{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], ` + recorder + `"users": ["deploy"]}]}`)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []*netmap.Node{bob} {
			if s.sees(v, n, rec) != want || s.sees(v, rec, n) != want {
				t.Errorf("%s: %s and the recorder know each other: not %v", recorder, n.ID, want)
			}
		}
		if recorder != `"recorder": ["tag:web"], ` && s.sees(v, web, rec) != want {
			t.Errorf("%s: web knows the recorder: not %v", recorder, want)
		}
		if s.sees(v, rec, relay) || s.sees(v, bob, web) && recorder == "" {
			t.Errorf("%s: somebody knows too much", recorder)
		}
	}
}
