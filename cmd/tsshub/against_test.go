package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
)

// TestAgainst tries a policy on logins of the past.
func TestAgainst(t *testing.T) {
	parse := func(rules string) *policy.Policy {
		p, problems := policy.Parse("p", []byte(`{"tagOwners": {"tag:web": []}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "ssh": [`+rules+`]}`))
		if p == nil {
			t.Fatal(problems)
		}
		return p
	}
	rule := func(who, user, more string) string {
		return `{"action": "accept", "src": ["` + who + `"], "dst": ["tag:web"], "users": ["` + user + `"]` + more + `},`
	}
	dir, err := policy.NewDirectory([]policy.DirectoryUser{{Login: "alice@example.com", Role: policy.RoleMember}, {Login: "bob@example.com", Role: policy.RoleMember}}, []policy.DirectoryNode{
		{Name: "laptop", User: "alice@example.com", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.1")}},
		{Name: "phone", User: "bob@example.com", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.2")}},
		{Name: "web", Tags: []policy.Tag{"tag:web"}, Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.3")}}})
	if err != nil {
		t.Fatal(err)
	}
	d := &dryRun{Since: time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), dir: dir, by: map[[5]string]*pastLogin{},
		was:  parse(rule("alice@example.com", "deploy", "")),
		next: parse(rule("alice@example.com", "deploy", `, "hours": ["Mon-Fri 07:00-19:00 UTC"]`) + rule("bob@example.com", "deploy", ""))}
	at := func(s string) time.Time {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	add := func(kind, when, who, node, user string) {
		d.add(&audit.Entry{Kind: kind, Time: at(when), Who: who, Node: node, Host: "web", LocalUser: user})
	}
	add("session.open", "2026-07-06T10:00:00Z", "alice@example.com", "laptop", "deploy")  // a Monday: the same
	add("session.open", "2026-07-04T10:00:00Z", "alice@example.com", "laptop", "deploy")  // a Saturday
	add("session.open", "2026-07-05T10:00:00Z", "alice@example.com", "laptop", "deploy")  // a Sunday
	add("session.refuse", "2026-07-05T10:00:00Z", "bob@example.com", "phone", "deploy")   // allowed by the new policy
	add("session.refuse", "2026-07-05T10:00:00Z", "bob@example.com", "phone", "root")     // still refused
	add("session.open", "2026-07-06T10:00:00Z", "alice@example.com", "laptop", "other")   // refused by the policy in force as well
	add("session.open", "2026-07-06T10:00:00Z", "carol@example.com", "old-pc", "deploy")  // gone
	add("session.open", "2026-07-06T10:00:00Z", "bob@example.com", "laptop", "deploy")    // the machine is another person's now
	add("session.close", "2026-07-05T10:00:00Z", "alice@example.com", "laptop", "deploy") // no login
	d.done()
	want := []string{
		"- alice@example.com (laptop) as deploy on web: 2 logins, last 2026-07-05 10:00Z: would be refused (no-hours: ssh rules would allow this, but not at this time)",
		"+ bob@example.com (phone) as deploy on web: 1 login, last 2026-07-05 10:00Z: was refused, would be let in (ssh[1] on line 1)",
		"since 2026-07-01 00:00Z: 2 logins of 1 person would now be refused, 1 login of 1 person newly allowed, 3 the same, 2 of people or machines that are gone",
	}
	if got := strings.Join(d.lines(), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
