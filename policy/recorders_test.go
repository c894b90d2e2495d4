package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestRecordersOfAPolicy(t *testing.T) {
	p, ps := Parse("p", []byte(`{"tagOwners": {"tag:a": [], "tag:b": [], "tag:web": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["x"]},
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["y"], "recorder": ["tag:b", "tag:a"], "enforceRecorder": true},
		{"action": "check", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["z"], "recorder": ["tag:b"]}]}`))
	if p == nil {
		t.Fatal(ps)
	}
	if got := p.Recorders(); !slices.Equal(got, []Tag{"tag:a", "tag:b"}) {
		t.Errorf("recorders: %v", got)
	}
	for tag, want := range map[Tag]bool{"tag:a": true, "tag:b": true, "tag:web": false} {
		if p.IsRecorder([]Tag{"tag:other", tag}) != want {
			t.Errorf("%s is a recorder: not %v", tag, want)
		}
	}
	if (*Policy)(nil).IsRecorder([]Tag{"tag:a"}) || p.IsRecorder(nil) {
		t.Error("somebody without policy or tags is a recorder")
	}
	// A host that would send them to the hub is not given the file.
	if m := p.Missing([]string{"policy/1"}); len(m) != 2 || !strings.Contains(strings.Join(m, " "), `"recorder" of ssh[1] on line 3`) {
		t.Errorf("missing: %q", m)
	}
	if m := p.Missing(Understands()); len(m) != 0 {
		t.Errorf("missing: %q", m)
	}
	for tags, want := range map[string][]string{
		"":      {"ssh[1]: no machine carries tag:b or tag:a yet, and nobody can log in", "ssh[2]: no machine carries tag:b yet, and recordings wait"},
		"tag:a": {"ssh[2]: no machine carries tag:b"},
		"tag:b": nil,
	} {
		nodes := []DirectoryNode{{Name: "web", Tags: []Tag{"tag:web"}}}
		if tags != "" {
			nodes = append(nodes, DirectoryNode{Name: "rec", Tags: []Tag{Tag(tags)}})
		}
		d, err := NewDirectory([]DirectoryUser{{Login: "alice@example.com", Role: RoleMember}}, nodes)
		if err != nil {
			t.Fatal(err)
		}
		got := NoRecorder(p, d)
		ok := len(got) == len(want)
		for i := range want {
			ok = ok && got[i].Warning && strings.Contains(got[i].Error(), want[i])
		}
		if !ok {
			t.Errorf("%q: %s", tags, fmt.Sprint(got))
		}
	}
}
