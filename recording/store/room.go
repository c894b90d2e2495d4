package store

import (
	"fmt"
	"net/http"
	"time"

	"tssh/recording"
)

const (
	// summarySize is what an ordinary summary takes in memory, in bytes. A longer one counts for several
	// recordings, so that a host's share of them is one of the memory too.
	summarySize = 2 << 10
	channelSize = 200 // of one of its channels, without the command
	// toldAgain is after how long it is told again that a host has used up its share.
	toldAgain = time.Hour
	// expireAgain is how often a host that has too many recordings makes the store look for some that are
	// kept no longer.
	expireAgain = time.Minute
)

// limits is what was refused. It is guarded by Store.mu.
type limits struct {
	refused map[string]int64 // by limit
	told    map[string]time.Time
	expired map[string]time.Time // by host
}

func newLimits() limits {
	return limits{refused: map[string]int64{}, told: map[string]time.Time{}, expired: map[string]time.Time{}}
}

// owner is a host, and one person who was recorded there; without a person, all of the host.
type owner struct{ host, who string }

// whose is the person whose share of the host's recordings one counts against, so that nobody
// uses up that of all others there.
func whose(host string, m *recording.Meta) owner {
	if m.Login != "" {
		return owner{host, m.Login}
	}
	return owner{host, "node " + m.SrcID}
}

// tally adds to what is counted for r's host and person. mu is held.
func (s *Store) tally(r *rec, n int) {
	for _, o := range []owner{{host: r.host}, whose(r.host, &r.sum.Meta)} {
		if s.counts[o] += n; s.counts[o] == 0 {
			delete(s.counts, o)
		}
	}
}

// weigh counts r for its host and person, at what its summary takes. mu is held.
func (s *Store) weigh(r *rec) {
	size := 0
	for i := range r.sum.Channels {
		size += channelSize + len(r.sum.Channels[i].Command)
	}
	w := 1 + size/summarySize
	s.tally(r, w-r.weight)
	r.weight = w
}

// full is a refusal for want of room. Of one host's share it is told.
func (s *Store) full(host, limit string, err error) error {
	now := s.cfg.Clock()
	s.mu.Lock()
	s.refused[limit]++
	key := host + "\n" + limit
	tell := s.cfg.Limited != nil && host != "" && now.Sub(s.told[key]) >= toldAgain
	if tell {
		for k, at := range s.told { // of hosts that are long gone too
			if now.Sub(at) >= toldAgain {
				delete(s.told, k)
			}
		}
		s.told[key] = now
	}
	s.mu.Unlock()
	if tell {
		s.cfg.Limited(host, limit, err.Error())
	}
	return refuse(http.StatusInsufficientStorage, err)
}

// roomForOne refuses one more recording where its host, or its person there, has as many as they may.
// What the rules keep no longer goes first.
func (s *Store) roomForOne(host string, m *recording.Meta) error {
	most := s.cfg.MaxPerHost
	all, one := owner{host: host}, whose(host, m)
	share := most - most/2
	if most <= 0 || s.countOf(all) < most && s.countOf(one) < share {
		return nil
	}
	if s.expireDue(host) {
		if _, err := s.expireOf(host); err != nil {
			s.cfg.Log.Error("recordings that are kept no longer", "host", host, "err", err)
		}
	}
	n := s.countOf(one)
	if n >= share {
		return s.full(host, "recordings-per-person", fmt.Errorf("%w of this person on this host: what is here counts as %d of at most %d; it makes room when it is deleted, by hand or by --retention", ErrQuota, n, share))
	}
	if n = s.countOf(all); n < most {
		return nil
	}
	return s.full(host, "recordings-per-host", fmt.Errorf("%w from this host: its recordings here count as %d of at most %d; they make room when they are deleted, by hand or by --retention", ErrQuota, n, most))
}

func (s *Store) countOf(o owner) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.counts[o]
}

func (s *Store) expireDue(host string) bool {
	now := s.cfg.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.expired[host]; ok && now.Sub(at) < expireAgain {
		return false
	}
	for h, at := range s.expired {
		if now.Sub(at) >= expireAgain {
			delete(s.expired, h)
		}
	}
	s.expired[host] = now
	return true
}

// room refuses bytes that would go over a limit.
func (s *Store) room(host string, n int64) error {
	s.mu.RLock()
	all, hosts := s.bytes, s.byHost[host]
	s.mu.RUnlock()
	switch c := &s.cfg; {
	case c.MaxBytesPerHost > 0 && hosts+n > c.MaxBytesPerHost:
		return s.full(host, "bytes-per-host", fmt.Errorf("%w from this host: it has %d of %d bytes", ErrQuota, hosts, c.MaxBytesPerHost))
	case c.MaxBytes > 0 && all+n > c.MaxBytes:
		return s.full("", "bytes", fmt.Errorf("%w: it holds %d of %d bytes", ErrQuota, all, c.MaxBytes))
	case c.MinFree > 0:
		free, err := freeBytes(c.Dir)
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		if free-n < c.MinFree {
			return s.full("", "disk", fmt.Errorf("%w: %d bytes are free on its disk, %d must stay", ErrQuota, free, c.MinFree))
		}
		if left := free - n - c.MinFree; (hosts+n)/fairShare > left {
			return s.full(host, "bytes-per-host", fmt.Errorf("%w from this host: it has %d bytes, and %d are left for all", ErrQuota, hosts, left))
		}
	}
	return nil
}
