package replay

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/recording/store"
)

const (
	seenAgain = 10 * time.Minute // after which the same look is written down again
	seenMost  = 4096             // looks remembered; when there are more all are forgotten, and written again
)

// seen remembers what was audited lately, so that a page that asks every few seconds is one
// entry and not a thousand. Forgetting only makes more entries.
type seen struct {
	clock func() time.Time

	mu   sync.Mutex
	last map[string]look
}

type look struct {
	at    time.Time
	frame int
}

func newSeen(clock func() time.Time) *seen { return &seen{clock: clock, last: map[string]look{}} }

// fresh reports whether this look must be written down: it is new, long ago, or jumps to
// another place of the recording than the one before led to. A negative frame always is.
func (s *seen) fresh(key string, frame int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	l, ok := s.last[key]
	goesOn := ok && frame >= 0 && now.Sub(l.at) < seenAgain && (frame == l.frame || frame == l.frame+1)
	if goesOn {
		l.frame = frame // at stays: a long look is written down again now and then
		s.last[key] = l
		return false
	}
	if len(s.last) >= seenMost {
		clear(s.last)
	}
	s.last[key] = look{at: now, frame: frame}
	return true
}

func (s *seen) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, key)
}

// note writes to the audit log that id looked at sum (nil for the list), once for looks that
// go on. What cannot be written down is not shown.
func (v *Viewer) note(kind string, id policy.Identity, sum *store.Summary, frame int, extra map[string]string) error {
	v.endViews(rangeIdle)
	e := audit.Entry{Time: v.cfg.Clock(), Kind: kind, Who: id.Who(), Node: id.Name, Verdict: "accept", Extra: extra}
	key := kind + "\n" + id.ID + "\n" + id.Name + "\n" + string(id.User)
	if sum != nil {
		e.Host, e.LocalUser, e.Session = sum.Meta.Host, sum.Meta.LocalUser, sum.Meta.ID
		e.Text = "recording of " + person(sum)
		key += "\n" + sum.Meta.ID
	}
	for _, k := range []string{"q", "own", "before", "as"} {
		key += "\n" + extra[k]
	}
	if !v.seen.fresh(key, frame) {
		return nil
	}
	if no := v.pace.take(v, id); no != nil {
		v.seen.forget(key)
		return no
	}
	if err := v.cfg.Audit(e); err != nil {
		v.seen.forget(key)
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// may asks the policy whether id may see the recording.
func (v *Viewer) may(p *policy.Policy, id policy.Identity, sum *store.Summary) policy.Decision {
	return mayOver(p, policy.AskWatch, id, sum, v.cfg.Clock())
}

// mayOver asks the policy what id may do with a session.
func mayOver(p *policy.Policy, ask policy.Ask, id policy.Identity, sum *store.Summary, now time.Time) policy.Decision {
	m := &sum.Meta
	dst := policy.Identity{ID: m.HostID, Name: m.Host, Tags: tags(m.HostTags)}
	src := policy.Identity{ID: m.SrcID, Name: m.Src, User: policy.Login(m.Login), Role: policy.Role(m.Role), Tags: tags(m.SrcTags)}
	if len(dst.Tags) == 0 {
		dst.User = policy.Login(m.HostUser)
	}
	if len(dst.Tags) == 0 && dst.User == "" {
		// Of an earlier version, which did not keep whose it is; an identity must belong to somebody.
		dst.User = "unknown@" + policy.Login(m.Mesh)
	}
	return policy.Evaluate(p, policy.Request{
		Ask:    ask,
		Src:    src,
		Dst:    dst,
		User:   policy.LocalUser(m.LocalUser),
		UID:    m.UID,
		Viewer: id,
		Now:    now,
	})
}

func tags(in []string) []policy.Tag {
	out := make([]policy.Tag, len(in))
	for i, t := range in {
		out[i] = policy.Tag(t)
	}
	return out
}

// allowed looks a recording up for id, or says why not. A refusal is audited.
func (v *Viewer) allowed(r *http.Request, id policy.Identity) (store.Summary, error) {
	sum, err := v.cfg.Store.Lookup(r.PathValue("id"))
	if err != nil {
		return store.Summary{}, &refusal{http.StatusNotFound, "there is no recording with this id here; it may have been deleted, be kept by another recorder (tssh sessions says where), or the address is incomplete", ""}
	}
	d := v.may(v.cfg.Policy(), id, &sum)
	if d.Verdict == policy.Accept {
		return sum, nil
	}
	say := d.Say
	if say == "" {
		say = "policy does not let you see this recording"
	}
	if no := v.pace.take(v, id); no != nil {
		return store.Summary{}, no
	}
	if err := v.cfg.Audit(audit.Entry{
		Time: v.cfg.Clock(), Kind: "recording.denied", Who: id.Who(), Node: id.Name, Host: sum.Meta.Host, LocalUser: sum.Meta.LocalUser,
		Session: sum.Meta.ID, Verdict: d.Verdict.String(), Text: d.Reason,
	}); err != nil {
		v.cfg.Log.Error("audit", "err", err)
	}
	return store.Summary{}, &refusal{http.StatusForbidden, say, d.Reason}
}

// person is whom the recording is of, in words.
func person(sum *store.Summary) string {
	return policy.Identity{User: policy.Login(sum.Meta.Login), Tags: tags(sum.Meta.SrcTags)}.Who()
}
