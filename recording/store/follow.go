package store

// Follow gives a channel that gets a value when there is more of a recording, and what ends
// that. A value stands for any number of changes.
func (s *Store) Follow(id string) (more <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follow[id] == nil {
		s.follow[id] = map[chan struct{}]bool{}
	}
	s.follow[id][ch] = true
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.follow[id], ch)
		if len(s.follow[id]) == 0 {
			delete(s.follow, id)
		}
	}
}

// grownLocked tells who follows a recording.
func (s *Store) grownLocked(id string) {
	for ch := range s.follow[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
