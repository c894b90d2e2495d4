package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPolicyExplainAt: what a rule with hours or until makes of a login is asked as of a time.
func TestPolicyExplainAt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p := write("policy.hujson", `{"tagOwners": {"tag:web": []}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"]}], "ssh": [
	{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "hours": ["Mon-Fri 07:00-19:00 Europe/Oslo"]},
	{"action": "request", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "approvers": ["boss@example.com"], "until": "2026-08-01T00:00:00Z"}]}`)
	d := write("mesh.json", `{"nodes": [{"name": "laptop", "user": "alice@example.com", "addresses": ["100.64.0.1"]}, {"name": "web", "tags": ["tag:web"], "addresses": ["100.64.0.2"]}]}`)
	ask := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		status := policyCommand(append([]string{"explain", p, "--directory", d}, args...), strings.NewReader(""), &stdout, &stderr)
		return status, stdout.String(), stderr.String()
	}
	for _, c := range []struct {
		at   string
		want []string
	}{
		{"", []string{"accept: ssh[0] on line 2\nat some time: a rule has hours or until, and --at TIME says how it is at that time\n", "==> ssh[0]", "yes ssh[1]"}},
		{"2026-07-06T08:00:00+02:00", []string{"accept: ssh[0] on line 2\nat Mon 2026-07-06 08:00:00 +02:00, and until Mon 2026-07-06 19:00:00 +02:00\n", "==> ssh[0]"}},
		{"2026-07-05T08:00:00+02:00", []string{"request: ssh[1] on line 3\nat Sun 2026-07-05 08:00:00 +02:00, and until Sat 2026-08-01 02:00:00 +02:00\n",
			"no  ssh[0] line 2: the rule does not count at this time: Mon,Tue,Wed,Thu,Fri 07:00-19:00 Europe/Oslo\n", "==> ssh[1] line 3"}},
		{"2026-08-02T08:00:00Z", []string{"deny: no-hours", "no  ssh[0]", "no  ssh[1] line 3: the rule does not count at this time: until 2026-08-01T00:00:00Z\n"}},
	} {
		args := []string{"laptop", "deploy@web"}
		if c.at != "" {
			args = append(args, "--at", c.at)
		}
		status, out, errs := ask(args...)
		for _, w := range c.want {
			if status != 0 || !strings.Contains(out, w) {
				t.Errorf("at %q: no %q in\n%s%s", c.at, w, out, errs)
			}
		}
	}
	status, out, _ := ask("--json", "--at", "2026-07-05T08:00:00+02:00", "laptop", "deploy@web")
	var v struct {
		Verdict  string
		At, Ends time.Time
		Logins   []struct{ Failed string }
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != 0 || v.Verdict != "request" || len(v.Logins) != 2 || v.Logins[0].Failed != "hours" ||
		!v.At.Equal(time.Date(2026, 7, 5, 6, 0, 0, 0, time.UTC)) || !v.Ends.Equal(time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%v %s", err, out)
	}
	if status, _, errs := ask("laptop", "deploy@web", "--at", "tomorrow"); status != 2 || !strings.Contains(errs, `"tomorrow" is no time`) {
		t.Errorf("%d %s", status, errs)
	}
	now := time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{"now": now, "18:30": now.Add(6*time.Hour + 30*time.Minute), "2026-07-05 03:00": now.Add(-33 * time.Hour), "2026-07-05": now.Add(-36 * time.Hour)} {
		if got, err := parseAt(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
}
