package policy

import (
	"fmt"
	"slices"
	"time"
)

// terms looks at what rules say about their sessions: what has no effect, what is over, and
// what gives much to many.
func (l *linter) terms() {
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		l.times(r)
		l.limits(r)
		l.oversight(r)
		l.approval(r)
		l.glass(r)
		l.accounts(r)
	}
}

// at is the place of the first field of the feature, or of the rule.
func (r *sshRule) at(feature string) int {
	for _, u := range r.terms.uses {
		if u.feature == feature {
			return u.off
		}
	}
	return r.off
}

func (l *linter) times(r *sshRule) {
	t := r.terms
	rule := fmt.Sprintf("ssh[%d]", r.index)
	if !t.until.IsZero() && !l.now.IsZero() && !l.now.Before(t.until) {
		l.warnf(r.at("hours"), "%s counts no more: it was until %s", rule, t.until.Format(time.RFC3339))
		return
	}
	if len(t.hours) > 0 {
		hours := terms{hours: t.hours}
		if end, ok := hours.holds(time.Unix(1_000_000_000, 0)); ok && end.IsZero() {
			l.warnf(r.at("hours"), "%s: its hours are all the week, so they have no effect", rule)
		}
	}
}

func (l *linter) limits(r *sshRule) {
	t := r.terms
	rule := fmt.Sprintf("ssh[%d]", r.index)
	if t.SessionLimit > 0 && t.IdleLimit >= t.SessionLimit {
		l.warnf(r.at("limits"), "%s: idleLimit %s has no effect: sessions end after %s anyhow", rule, shortDuration(t.IdleLimit), shortDuration(t.SessionLimit))
	}
	if !t.permit.pty {
		if t.LoginMessage != "" {
			l.warnf(r.at("loginMessage"), "%s: loginMessage has no effect: it is shown when a terminal opens, and permit has no pty", rule)
		}
		if t.ShowRecording {
			l.warnf(r.at("showRecording"), "%s: showRecording has no effect: it is said when a terminal opens, and permit has no pty", rule)
		}
		if t.RecordInput {
			l.warnf(r.at("recordInput"), "%s: recordInput has no effect: it is about terminals, and permit has no pty", rule)
		}
	}
	if t.Record == RecordOff && r.users.root {
		l.warnf(r.at("record"), "%s: what root does under it is recorded nowhere", rule)
	}
}

func (l *linter) oversight(r *sshRule) {
	t := r.terms
	rule := fmt.Sprintf("ssh[%d]", r.index)
	for _, list := range []struct {
		key string
		who []selector
	}{{"watch", t.watch}, {"join", t.join}, {"end", t.end}, {"delete", t.del}} {
		for _, s := range list.who {
			if s.kind == selGroup && len(s.group.members) == 0 {
				l.warnf(s.word.off, "%s: %s names %s, which has no members", rule, list.key, s.word.text)
			}
		}
	}
	if t.watch != nil && len(t.watch) == 0 && t.Record != RecordOff {
		l.warnf(r.at("watch"), "%s: watch is empty, so nobody but the person sees these sessions, auditors included", rule)
	}
	for _, s := range t.join {
		seen := t.watch == nil && s.kind == selRole && (s.role == RoleAdmin || s.role == RoleOwner || s.role == RoleAuditor) ||
			slices.ContainsFunc(t.watch, func(w selector) bool { return w.word.text == s.word.text })
		if !seen {
			l.warnf(s.word.off, "%s: %s may join sessions and may not watch them", rule, s.word.text)
		}
	}
}

// approval looks for requests that nobody can grant, and for those that the asker alone can.
func (l *linter) approval(r *sshRule) {
	if !r.request {
		return
	}
	rule := fmt.Sprintf("ssh[%d]", r.index)
	people, known := members(r.terms.approvers)
	asking, _ := members(r.src)
	off := r.off
	if len(r.terms.approvers) > 0 {
		off = r.terms.approvers[0].word.off
	}
	switch {
	case !known: // roles and the like, whose number the file does not say
	case len(people) < r.terms.Approvals:
		l.warnf(off, "%s: nobody gets in: %d must approve, and approvers are %d", rule, r.terms.Approvals, len(people))
	case slices.ContainsFunc(asking, func(a Login) bool {
		others := len(people)
		if slices.Contains(people, a) {
			others--
		}
		return others < r.terms.Approvals
	}):
		l.warnf(off, "%s: some who ask could be approved by nobody but themselves", rule)
	}
}

// members is everybody that the selectors name; false when the file alone does not say.
func members(sels []selector) (out []Login, known bool) {
	known = true
	for _, s := range sels {
		switch s.kind {
		case selLogin:
			out = append(out, s.login)
		case selGroup:
			out = append(out, s.group.members...)
		default:
			known = false
		}
	}
	slices.Sort(out)
	return slices.Compact(out), known
}

func (l *linter) glass(r *sshRule) {
	if !r.terms.BreakGlass {
		return
	}
	rule := fmt.Sprintf("ssh[%d]", r.index)
	for _, s := range r.src {
		switch {
		case s.kind == selMember || s.kind == selDomain || s.kind == selTagged:
			l.warnf(s.word.off, "%s: everybody in %s can break the glass, and then is not recorded for sure", rule, s.word.text)
		case s.kind == selGroup && len(s.group.members) > manyRoots:
			l.warnf(s.word.off, "%s: the %d people of %s can break the glass, and then are not recorded for sure", rule, len(s.group.members), s.word.text)
		}
	}
}

// accounts asks about rules that give more accounts than is plain to see, or fewer.
func (l *linter) accounts(r *sshRule) {
	rule := fmt.Sprintf("ssh[%d]", r.index)
	if tags := tagsOf(r.dst); r.users.nonroot && !r.users.root && len(tags) > 0 {
		l.warnf(tags[0].word.off, "%s gives every account but root on %s, those of services too; name the accounts", rule, tags[0].word.text)
	}
	if !l.real {
		return
	}
	for _, dom := range r.users.domains {
		if _, ok := l.d.roles[Login("root@"+dom)]; ok {
			l.warnf(r.off, "%s: root@%s gets nothing by localpart:, which never means root", rule, dom)
		}
	}
}

// strangers tells logins in rules that the mesh does not have.
func (l *linter) strangers(f *file) {
	if !l.real {
		return
	}
	told := map[Login]bool{}
	see := func(sels []selector) {
		for _, s := range sels {
			if _, ok := l.d.roles[s.login]; s.kind == selLogin && !ok && !told[s.login] && !l.guest(s.login) {
				told[s.login] = true
				l.warnf(s.word.off, "the mesh has nobody called %s%s", s.login, l.nearest(s.login))
			}
		}
	}
	for i := range f.net {
		see(f.net[i].src)
		see(f.net[i].dst)
	}
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		see(r.src)
		see(r.dst)
		for _, list := range [][]selector{r.terms.watch, r.terms.join, r.terms.end, r.terms.del, r.terms.approvers} {
			see(list)
		}
	}
}

// guest reports whether a node of another mesh, or one whose person is not listed, has the login.
func (l *linter) guest(login Login) bool {
	return slices.ContainsFunc(l.d.nodes, func(id Identity) bool { return id.User == login })
}

func (l *linter) nearest(login Login) string {
	var all []string
	for _, k := range sortedKeys(l.d.roles) {
		all = append(all, string(k))
	}
	return l.hint(string(login), all)
}
