package replay

import (
	"sync"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/recording/store"
)

// rangeIdle is how long after its last part a look at a recording counts as over.
const rangeIdle = 2 * time.Minute

// ranges are the stretches of recordings that are being looked at part by part, so that it can be written down how far
// each went. Where the hub is killed the end of those that go on is not known; their beginning is in the log.
type ranges struct {
	mu sync.Mutex
	by map[string]*stretch
}

type stretch struct {
	entry       audit.Entry
	frame       int // the last one
	from, until time.Duration
	used        time.Time
}

// view audits that id is shown a part of a recording: once where it begins, and, when they jump elsewhere or stop, up to where
// it went.
func (v *Viewer) view(id policy.Identity, sum *store.Summary, frame int, from, until time.Duration, as string) error {
	extra := map[string]string{"from": second(from)}
	if as != "" {
		extra["as"] = as
	}
	if err := v.note("recording.view", id, sum, frame, extra); err != nil {
		return err
	}
	now := v.cfg.Clock()
	key := id.ID + "\n" + id.Name + "\n" + string(id.User) + "\n" + sum.Meta.ID
	v.ranges.mu.Lock()
	s := v.ranges.by[key]
	var over []*stretch
	if s != nil && frame != s.frame && frame != s.frame+1 {
		over, s = append(over, s), nil
		delete(v.ranges.by, key)
	}
	if s == nil {
		s = &stretch{from: from, entry: audit.Entry{Kind: "recording.viewed", Who: id.Who(), Node: id.Name, Verdict: "accept", Host: sum.Meta.Host, LocalUser: sum.Meta.LocalUser,
			Session: sum.Meta.ID, Text: "recording of " + person(sum)}}
		if v.ranges.by == nil {
			v.ranges.by = map[string]*stretch{}
		}
		v.ranges.by[key] = s
	}
	s.frame, s.until, s.used = frame, max(s.until, until), now
	v.ranges.mu.Unlock()
	v.viewed(over)
	return nil
}

// overLocked takes out what nobody went on with for so long; where there are too many, all.
func (r *ranges) overLocked(now time.Time, idle time.Duration) (over []*stretch) {
	for key, s := range r.by {
		if now.Sub(s.used) >= idle || len(r.by) > seenMost {
			over = append(over, s)
			delete(r.by, key)
		}
	}
	return over
}

func (v *Viewer) viewed(over []*stretch) {
	for _, s := range over {
		s.entry.Time = v.cfg.Clock()
		s.entry.Extra = map[string]string{"from": second(s.from), "until": second(s.until)}
		if err := v.cfg.Audit(s.entry); err != nil {
			v.cfg.Log.Error("audit", "err", err)
		}
	}
}

// endViews writes down how far all looks went.
func (v *Viewer) endViews(idle time.Duration) {
	v.ranges.mu.Lock()
	over := v.ranges.overLocked(v.cfg.Clock(), idle)
	v.ranges.mu.Unlock()
	v.viewed(over)
}
