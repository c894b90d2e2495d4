package audit

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ReadAll gives fn every entry that filter chooses, of the log in dir and of all copies,
// by the time in the entries, and stops at fn's first error. Each chain is checked as far as it
// is read: a line that does not hold ends the reading with a *Broken.
func ReadAll(dir string, copies *Copies, filter Filter, fn func(Record) error) error {
	own := &source{c: cursor{dir: dir}}
	sources := sourceHeap{own}
	names, err := os.ReadDir(copies.cfg.Dir)
	if err != nil {
		return fmt.Errorf("audit: read: %w", err)
	}
	for _, d := range names {
		if !d.IsDir() || !hostID.MatchString(d.Name()) {
			continue
		}
		sub := filepath.Join(copies.cfg.Dir, d.Name())
		name, err := readName(sub)
		if err != nil {
			return fmt.Errorf("audit: read: %w", err)
		}
		if filter.Host == "" || filter.Host == name || filter.Host == d.Name() {
			s := &source{c: cursor{dir: sub}, copy: true, host: name, id: d.Name()}
			if s.seq, s.hash, err = dropped(sub); err != nil {
				return fmt.Errorf("audit: read: %w", err)
			}
			s.gone = s.seq
			sources = append(sources, s)
		}
	}
	var open sourceHeap
	for _, s := range sources {
		ok, err := s.next(filter)
		if err != nil {
			return err
		}
		if ok {
			open = append(open, s)
		}
	}
	heap.Init(&open)
	for len(open) > 0 {
		s := open[0]
		if err := fn(s.rec); err != nil {
			return err
		}
		ok, err := s.next(filter)
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(&open, 0)
		} else {
			heap.Pop(&open)
		}
	}
	return nil
}

// source is one of the logs that are read side by side.
type source struct {
	c        cursor
	copy     bool
	host, id string // of a copy
	seq      uint64
	hash     Hash
	gap      bool   // the next line need not follow
	gone     uint64 // lines up to here are not given, until the first that is

	rec Record // the entry that it would give next
	at  time.Time
}

// next reads to the next entry that filter chooses.
func (s *source) next(filter Filter) (bool, error) {
	for {
		b, err := s.c.next()
		if b == nil || err != nil {
			return false, s.named(err)
		}
		var received time.Time
		if s.copy {
			if received, b, err = unstamp(b); err != nil {
				return false, s.named(s.c.broken(err.Error()))
			}
			if string(b) == gapLine {
				s.gap = true
				continue
			}
		}
		ln, err := parseLine(b)
		if err != nil {
			return false, s.named(s.c.broken(err.Error()))
		}
		if s.gone >= ln.seq && !s.gap { // a crash left the segment
			continue
		}
		s.gone = 0
		if why := ln.follows(s.seq, s.hash); why != "" && !s.gap {
			return false, s.named(s.c.broken(why))
		}
		s.seq, s.hash, s.gap = ln.seq, ln.hash, false
		r := Record{Seq: ln.seq, Hash: ln.hash.String(), Raw: ln.raw, From: s.host, FromID: s.id, Received: received}
		if err := json.Unmarshal(ln.raw, &r.Entry); err != nil {
			return false, s.named(s.c.broken("holds no entry: " + err.Error()))
		}
		if r.matches(filter) {
			s.rec, s.at = r, r.Entry.Time
			return true, nil
		}
	}
}

// matches is filter.Match for a record that may be of another host: a line counts as new when
// it came lately, whatever its writer's clock says, and it is about the host it came from.
func (r Record) matches(f Filter) bool {
	if r.FromID != "" {
		f.Host = ""
		if !r.Received.IsZero() && !r.Received.Before(f.Since) {
			f.Since = time.Time{}
		}
	}
	return f.Match(r.Entry)
}

// named says whose log it is that does not hold.
func (s *source) named(err error) error {
	if b, ok := err.(*Broken); ok && s.copy {
		b.File = filepath.Join(s.id, b.File)
	}
	return err
}

type sourceHeap []*source

func (h sourceHeap) Len() int           { return len(h) }
func (h sourceHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h sourceHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sourceHeap) Push(x any)        { *h = append(*h, x.(*source)) }
func (h *sourceHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	*h = old[:len(old)-1]
	return s
}
