package coord

import (
	"slices"
	"testing"

	"tssh/policy"
)

// TestEditorLockout: who sets a policy is told what they themselves lose by it.
func TestEditorLockout(t *testing.T) {
	h := newHub(t, nil)
	h.user("alice@example.com")
	h.user("bob@example.com")
	rule := func(src, action, users string) string {
		return `{"tagOwners": {"tag:web": ["alice@example.com"]}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
			"ssh": [{"action": "` + action + `", "src": ["` + src + `"], "dst": ["tag:web"], "users": ["` + users + `"]},
				{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["x"]}]}`
	}
	if r, err := h.SetPolicy(t.Context(), "test", "p", []byte(rule("alice@example.com", "accept", "root")), 0); err != nil || !r.OK {
		t.Fatalf("%+v %v", r, err)
	}
	laptop := h.join("laptop", KeyRequest{User: "alice@example.com"})
	web := h.join("web", KeyRequest{Tags: []string{"tag:web"}})
	addr := func(name string) (id policy.Identity) {
		d, err := h.Directory()
		if err != nil {
			t.Fatal(err)
		}
		id, _ = d.Node(name)
		return id
	}
	if laptop == nil || web == nil {
		t.Fatal("no nodes")
	}
	editor := Editor{Login: "alice@example.com", Node: "laptop", Addr: addr("laptop").Addrs[0], Host: addr("web").Addrs[0], Account: "root"}
	for _, c := range []struct {
		text string
		e    Editor
		want []string
	}{
		{rule("alice@example.com", "accept", "root"), editor, nil},
		{rule("bob@example.com", "accept", "root"), editor, []string{
			"p: warning: you (alice@example.com) could not log in on web any more",
			"p: warning: the session that you are in, as root on web, would end: it does not allow this login"}},
		{rule("alice@example.com", "accept", "deploy"), editor, []string{
			"p: warning: the session that you are in, as root on web, would end: it does not allow this login"}},
		{rule("alice@example.com", "check", "root"), editor, []string{
			"p: warning: the session that you are in, as root on web, would end: this login would need a check"}},
		{rule("bob@example.com", "accept", "root"), Editor{Login: "alice@example.com"}, []string{
			"p: warning: you (alice@example.com) could not log in on web any more"}},
		{rule("bob@example.com", "accept", "root"), Editor{}, nil},
		{rule("bob@example.com", "accept", "root"), Editor{Login: "bob@example.com", Node: "laptop", Account: "root", Host: editor.Host}, nil},
	} {
		r := h.tryPolicy(PolicyRequest{Name: "p", Text: c.text, Editor: c.e})
		if !r.OK || !slices.Equal(r.Warnings, c.want) && len(r.Warnings)+len(c.want) > 0 {
			t.Errorf("%s\n%+v\n\tgot  %q %q\n\twant %q", c.text, c.e, r.Warnings, r.Problems, c.want)
		}
	}
}
