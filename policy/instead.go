package policy

import (
	"slices"
	"strings"
)

// mostInstead bounds the answer of Instead.
const mostInstead = 8

// Instead is for somebody who is not let in as r.User: the accounts that the same peer could
// log in as on the same host, of those that rules name and the person's own local part. Where a
// rule has all accounts but root, others is true. It says nothing about anybody else's rights.
func Instead(p *Policy, r Request) (accounts []LocalUser, others bool) {
	if p == nil {
		return nil, false
	}
	r.Ask, r.UIDUnknown = AskLogin, true
	try := func(u LocalUser) (rule int, ok bool) {
		r.User = u
		d := Evaluate(p, r)
		return d.Rule, d.Verdict != Deny
	}
	if i := strings.LastIndexByte(string(r.Src.User), '@'); i > 0 {
		if u, err := ParseLocalUser(string(r.Src.User[:i])); err == nil {
			if _, ok := try(u); ok {
				accounts = append(accounts, u)
			}
		}
	}
	for i := range p.ssh.rules {
		rule := &p.ssh.rules[i]
		if rule.users.nonroot && !others {
			_, others = try("tssh-nobody-has-this-name") // let in only where all are
		}
		for _, u := range rule.users.names {
			// Only by the rule that names it: names in other people's rules are not told.
			if by, ok := try(u); ok && by == rule.index && !slices.Contains(accounts, u) {
				accounts = append(accounts, u)
			}
		}
	}
	slices.Sort(accounts)
	return accounts[:min(len(accounts), mostInstead)], others
}
