package sshd

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/session/control"
)

// ErrNoSession says that there is no session of this id on this host.
var ErrNoSession = errors.New("sshd: no such session")

// Denied is an end that the policy does not allow; Say is for who asked.
type Denied struct{ Say string }

func (d *Denied) Error() string { return "sshd: " + d.Say }

// maxReason bounds the words of an end, in bytes.
const maxReason = 300

// End ends a session because by wants it, if the policy in force here lets by do that
// (policy.AskEnd), which nobody has decided for this host. reason is what the person reads,
// together with who it was, where the session's rule has that said.
func (s *Server) End(id string, by policy.Identity, reason string) error {
	l := s.session(id)
	if l == nil {
		return ErrNoSession
	}
	reason = strings.TrimSpace(clean(reason, maxReason))
	src, ok := l.peer()
	if !ok {
		src = l.src // it is about to end by itself
	}
	l.mu.Lock()
	r := l.request(policy.AskEnd, src, l.grant.user, l.grant.account.UID, "")
	l.mu.Unlock()
	r.Viewer = by
	d := policy.Evaluate(s.cfg.Policy(), r)
	e := audit.Entry{Kind: "session.end", Who: by.Who(), Node: by.Name, LocalUser: string(r.User), Session: id, Verdict: d.Verdict.String(), Rule: ruleName(d), Text: reason,
		Extra: map[string]string{"person": l.src.Who(), "reason": d.Reason}}
	if d.Verdict != policy.Accept {
		s.cfg.Log.Info("end of a session refused", "session", id, "by", by.Who(), "reason", d.Reason)
		s.audit(e)
		return &Denied{d.Say}
	}
	if !l.end(causeTerminated, sayEnded(overseer(by, l.src, d.Named), reason), &e) {
		return ErrNoSession // it is ending already
	}
	return nil
}

// session is the link of a session that is open.
func (s *Server) session(id string) *link {
	for _, l := range s.all() {
		if v, ok := l.view(); ok && v.ID == id {
			return l
		}
	}
	return nil
}

// Open is a session that is open and not recorded.
type Open struct {
	ID        string
	Src       policy.Identity
	SrcAddr   netip.Addr
	LocalUser policy.LocalUser
	UID       uint32
	Start     time.Time
	Why       string // in words, where it should be recorded; "" where its rule wants none
}

// Unrecorded lists the sessions that are open and not recorded, or not any more, the oldest first.
func (s *Server) Unrecorded() []Open {
	var out []Open
	for _, l := range s.all() {
		l.mu.Lock()
		if l.id != "" && l.state == control.Running && l.keep.Off && l.revoked == nil {
			out = append(out, Open{ID: l.id, Src: l.src, SrcAddr: l.srcAddr, LocalUser: l.grant.user, UID: l.grant.account.UID, Start: l.began, Why: l.keep.Why})
		}
		l.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Open) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID)) })
	return out
}

// overseer is who by is, in words for the person of the session.
func overseer(by, person policy.Identity, named bool) string {
	switch {
	case by.User != "" && by.User == person.User:
		return "you, from " + clean(by.Name, 63)
	case named:
		return clean(by.Who(), 254)
	}
	return sayOverseer
}

// maxWatchNotes bounds what one recording says of watchers.
const maxWatchNotes = 200

// Watched says who watches a session, nobody any more with none. Where its rule has
// showWatchers the person is told, in the terminal and in the recording.
func (s *Server) Watched(id string, who []policy.Identity) {
	l := s.session(id)
	if l == nil {
		return
	}
	var names []string
	for _, w := range who {
		names = append(names, overseer(w, l.src, true))
	}
	l.mu.Lock()
	if !l.grant.decision.Terms().ShowWatchers {
		names = nil // and where they were shown before, the last word is that nobody is
	}
	words := sayWatched(names)
	if words == l.watchers || l.watchers == "" && len(names) == 0 {
		l.mu.Unlock()
		return
	}
	l.watchers = words
	l.watchNotes++
	note, ctl, rec, minor := l.watchNotes <= maxWatchNotes, l.ctl, l.rec, l.minor
	l.mu.Unlock()
	if rec != nil && note {
		_ = rec.Note("watched", words) // its trouble shows in Failed
	}
	if ctl != nil && minor >= 1 {
		_ = ctl.Send(control.Message{Type: control.Notice, Body: &control.NoticeMsg{Line: words}}, nil) // a dead socket shows in listen
	}
}
