package policy_test

import (
	"slices"
	"testing"
	"time"

	"tssh/policy"
)

// TestInstead: what a person could log in as is their own, and nothing of other people's.
func TestInstead(t *testing.T) {
	p, problems := policy.Parse("policy.hujson", []byte(`{
		"tagOwners": {"tag:web": ["alice@example.com"]},
		"acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"]}],
		"ssh": [
			{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy", "www"]},
			{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["root", "secret"]},
			{"action": "accept", "src": ["carol@example.com"], "dst": ["tag:web"], "users": ["localpart:*@example.com"]},
			{"action": "accept", "src": ["dan@example.com"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]},
		]}`))
	if p == nil {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		who    policy.Login
		want   []policy.LocalUser
		others bool
	}{
		{"alice@example.com", []policy.LocalUser{"deploy", "www"}, false},
		{"carol@example.com", []policy.LocalUser{"carol"}, false},
		{"dan@example.com", []policy.LocalUser{"dan"}, true},
		{"eve@example.com", nil, false},
	} {
		r := policy.Request{Src: policy.Identity{ID: "n1", Name: "laptop", User: c.who}, Dst: policy.Identity{ID: "n2", Name: "web", Tags: []policy.Tag{"tag:web"}}, User: "root", Now: time.Now()}
		got, others := policy.Instead(p, r)
		if !slices.Equal(got, c.want) || others != c.others {
			t.Errorf("%s: %q, others %v", c.who, got, others)
		}
	}
	if got, others := policy.Instead(nil, policy.Request{}); got != nil || others {
		t.Error("no policy lets somebody in")
	}
}
