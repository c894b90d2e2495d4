package recording

import "time"

// While somebody watches a recording it is looked at every pollWatched, and what is new goes
// into a frame of its own at once, but not more often than watchedEvery: the first key after a
// pause waits for nothing, and a flood makes five frames a second.
const (
	pollWatched  = 50 * time.Millisecond
	watchedEvery = 200 * time.Millisecond
)

// Watch says that somebody watches a running recording, or nobody any more. It changes when
// frames are closed and nothing else about them; Hurry is called when there is a new one.
func (s *Spool) Watch(id string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.running[id]
	if x == nil || x.watched.Swap(on) == on || !on {
		return
	}
	if x.heapPos != 0 { // else a worker has it, and puts it back with the new interval
		s.dropLocked(x)
		s.pushLocked(x, s.cfg.Clock())
	}
}

// frameDue reports whether the frame being made is to be closed.
func (x *Session) frameDue(now time.Time) bool {
	if x.events == 0 {
		return false
	}
	return now.Sub(x.since) >= FrameAge || x.watched.Load() && now.Sub(x.sealed) >= watchedEvery
}

// hurry has what is new sent, where somebody waits to see it.
func (x *Session) hurry(before int64) {
	if x.s.cfg.Hurry != nil && x.watched.Load() && x.durable.Load() > before {
		x.s.cfg.Hurry()
	}
}
