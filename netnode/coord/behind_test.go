package coord

import (
	"strings"
	"testing"
	"time"
)

// TestHostBehind: a policy that a live host could not enforce is refused, and the host named.
func TestHostBehind(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	s := h.join("old", KeyRequest{User: "alice@example.com"})
	h.member(s, nil)
	connected := func() bool {
		h.Server.mu.Lock()
		defer h.Server.mu.Unlock()
		return len(h.streams) == 1
	}
	for deadline := time.Now().Add(20 * time.Second); !connected(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node has no stream")
		}
	}
	rule := func(fields string) []byte {
		return []byte(`{"tagOwners": {"tag:web": ["alice@example.com"]}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
			"ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["x"]` + fields + `}]}`)
	}
	with := rule(`, "sessionLimit": "1h",
		"permit": {"shell": true}`)
	if r := h.CheckPolicy("new", with); !r.OK {
		t.Fatalf("a host of this version: %+v", r)
	}
	h.Server.mu.Lock()
	for _, st := range h.streams {
		st.says = []string{"policy/1", "policy/permit"}
	}
	h.Server.mu.Unlock()
	r, err := h.SetPolicy(t.Context(), "test", "new", with, 0)
	if err != nil || r.OK || len(r.Problems) != 1 || r.Problems[0] != `new: old cannot enforce "limits" of ssh[0] on line 2: upgrade it first` {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := h.SetPolicy(t.Context(), "test", "new", rule(""), 0); err != nil || !r.OK {
		t.Errorf("without the field: %+v %v", r, err)
	}
	h.Server.mu.Lock()
	for _, st := range h.streams {
		st.says = nil // of a version before hosts said anything
	}
	h.Server.mu.Unlock()
	if r := h.CheckPolicy("new", with); r.OK || !strings.Contains(r.Problems[0], "old cannot enforce") {
		t.Errorf("a host that says nothing: %+v", r)
	}
}
