package store

import "maps"

// Stats is what a Store has, and what it refused since it was opened.
type Stats struct {
	Recordings, Live, Unsealed int
	Bytes                      int64
	Refused                    map[string]int64 // by limit: bytes-per-host, recordings-per-host, recordings-per-person, bytes, disk
}

// Stats counts what is in the list.
func (s *Store) Stats() Stats {
	now := s.cfg.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Stats{Recordings: len(s.recs), Bytes: s.bytes, Refused: maps.Clone(s.refused)}
	for _, r := range s.sorted {
		if r.sum.Unsealed != "" {
			st.Unsealed++
		}
		if s.live(r, now) {
			st.Live++
		}
	}
	return st
}
