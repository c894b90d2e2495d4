package sshd

import (
	"strconv"
	"strings"
	"time"

	"tssh/policy"
)

// outOfHours tells a login that is refused at this time alone.
func outOfHours(d policy.Decision) bool { return strings.HasPrefix(d.Reason, "no-hours") }

// takeSlot counts a session of an owner under a rule, or says why there is no room. The
// slot is to be given back; "" is of rules that do not count.
func (s *Server) takeSlot(src policy.Identity, d policy.Decision) (slot, say string) {
	most := d.Terms().SessionsAtOnce
	if most == 0 {
		return "", ""
	}
	slot = owner(src) + " " + d.RuleID()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots[slot] >= most {
		return "", sayAtOnce(most)
	}
	s.slots[slot]++
	return slot, ""
}

func (s *Server) giveBack(slot string) {
	if slot == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots[slot]--; s.slots[slot] <= 0 {
		delete(s.slots, slot)
	}
}

func sayAtOnce(n int) string {
	if n == 1 {
		return "the rule for this login allows one session at a time on this host, and you have one"
	}
	return "the rule for this login allows " + strconv.Itoa(n) + " sessions at a time on this host, and you have as many"
}

func saySessionLimit(d time.Duration) string {
	return "this session reached the limit of the rule for its login, " + d.String()
}

// armLocked sets the timer to what ends the session by the clock: its limit, or the end of
// the rule's hours. Called with mu held, after every decision that lets the session go on.
func (l *link) armLocked() {
	d := l.grant.decision
	at := d.Ends
	if limit := d.Terms().SessionLimit; limit > 0 {
		if end := l.began.Add(limit); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if !at.IsZero() {
		l.timer = time.AfterFunc(max(0, at.Sub(l.s.cfg.Now())), l.clock)
	}
}

// clock runs when the session's time may be over.
func (l *link) clock() {
	l.mu.Lock()
	limit := l.grant.decision.Terms().SessionLimit
	over := limit > 0 && !l.s.cfg.Now().Before(l.began.Add(limit))
	l.mu.Unlock()
	if over {
		l.revoke(causeExpired, saySessionLimit(limit))
		return
	}
	l.review()
}

// disarm forgets what was set and counted for the session.
func (l *link) disarm() {
	l.mu.Lock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	slot := l.slot
	l.slot = ""
	l.mu.Unlock()
	l.s.giveBack(slot)
}
