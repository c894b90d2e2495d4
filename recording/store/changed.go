package store

import (
	"strings"
	"time"
	"unique"

	"tssh/recording"
)

// Change is what somebody who keeps up with a store needs to know of one recording.
type Change struct {
	ID       string
	Host     string // its node id
	Size     int64
	Complete bool
	Sealed   bool // its frames are encrypted
	Live     bool
}

// Changes says what was added or has grown since a call that gave this mark (0: all there is),
// oldest first. Removed counts recordings that are gone; where it is another one than before,
// something is not there any more. A recording that runs and is not heard of any more is no
// change: who needs that asks Lookup about those that were live.
func (s *Store) Changes(since uint64) (list []Change, mark, removed uint64) {
	now := s.cfg.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := len(s.sorted) - 1; i >= 0; i-- {
		if r := s.sorted[i]; r.changed > since {
			list = append(list, s.change(r, now))
		}
	}
	return list, s.changes, s.removed
}

// Known says whether there is such a recording.
func (s *Store) Known(id string) bool {
	_, ok := s.get(id)
	return ok
}

// change is what Changes says of r. mu is held.
func (s *Store) change(r *rec, now time.Time) Change {
	return Change{ID: r.id, Host: r.host, Size: r.sum.Size, Complete: r.sum.Complete, Sealed: r.sum.Meta.Sealed, Live: s.live(r, now)}
}

// noteChange is called with mu held.
func (s *Store) noteChange(r *rec) {
	s.changes++
	r.changed = s.changes
}

// lean has r share what it has in common with others, and makes its words: the list of a hub that ran for
// years is in memory. mu is held, or r is not in the list yet.
func (r *rec) lean() {
	m := &r.sum.Meta
	m.ID = r.id
	for _, p := range []*string{&m.Mesh, &m.Host, &m.HostID, &m.HostUser, &m.Src, &m.SrcID, &m.SrcAddr, &m.Login, &m.Role, &m.LocalUser, &m.Rule, &m.Client, &r.host, &r.dir} {
		*p = unique.Make(*p).Value()
	}
	for _, tags := range [][]string{m.HostTags, m.SrcTags} {
		for i := range tags {
			tags[i] = unique.Make(tags[i]).Value()
		}
	}
	for i := range r.sum.Channels {
		c := &r.sum.Channels[i]
		c.Type = unique.Make(c.Type).Value()
	}
	r.words = unique.Make(wordsOf(m)).Value()
}

// wordsOf is the text of who, where and as whom that a filter looks through.
func wordsOf(m *recording.Meta) string {
	return strings.ToLower(strings.Join([]string{m.Login, m.Src, m.Host, m.LocalUser, strings.Join(m.SrcTags, " "), strings.Join(m.HostTags, " ")}, "\n"))
}

// matches says whether every word, in lower case, occurs in who, where, as whom, the id, or what was run.
func (r *rec) matches(words []string) bool {
	for _, w := range words {
		if !strings.Contains(r.words, w) && !strings.Contains(r.id, w) && !r.ran(w) {
			return false
		}
	}
	return true
}

func (r *rec) ran(w string) bool {
	for i := range r.sum.Channels {
		c := &r.sum.Channels[i]
		if strings.Contains(strings.ToLower(c.Type), w) || strings.Contains(strings.ToLower(c.Command), w) {
			return true
		}
	}
	return false
}
