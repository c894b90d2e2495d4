package recording

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// sessionHeap orders sessions by when they are to be looked at.
type sessionHeap []*Session

func (h sessionHeap) Len() int           { return len(h) }
func (h sessionHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h sessionHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapPos, h[j].heapPos = i+1, j+1
}
func (h *sessionHeap) Push(v any) {
	x := v.(*Session)
	*h = append(*h, x)
	x.heapPos = len(*h)
}
func (h *sessionHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	x.heapPos = 0
	return x
}

// pushLocked plans the next look at x. Times are brought to a grid, so that many idle
// sessions are looked at in one go.
func (s *Spool) pushLocked(x *Session, due time.Time) {
	if s.running[x.id] != x || x.heapPos != 0 {
		return
	}
	x.due = due
	heap.Push(&s.due, x)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Spool) dropLocked(x *Session) {
	if x.heapPos != 0 {
		heap.Remove(&s.due, x.heapPos-1)
	}
}

const pollGrid = 125 * time.Millisecond

// Run follows all journals until ctx ends, and then brings every running recording up
// to date on disk. Connection processes may go on writing: the next monitor adopts
// them. It returns after its last goroutine.
func (s *Spool) Run(ctx context.Context) error {
	workers := min(max(2, runtime.GOMAXPROCS(0)), 8)
	due := make(chan *Session)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { // ends when due is closed
			buf := make([]byte, journalChunk)
			for x := range due {
				next := x.step(buf)
				if next < 0 {
					continue
				}
				at := s.cfg.Clock().Add(next)
				if next >= pollGrid {
					at = at.Truncate(pollGrid).Add(pollGrid)
				}
				s.mu.Lock()
				s.pushLocked(x, at)
				s.mu.Unlock()
			}
		})
	}
	if s.cfg.Countersign != nil {
		wg.Go(func() { s.countersigner(ctx) }) // ends with ctx
	}
	s.dispatch(ctx, due)
	close(due)
	wg.Wait()

	s.mu.Lock()
	var left []*Session
	for _, x := range s.running {
		left = append(left, x)
	}
	s.mu.Unlock()
	var errs []error
	for _, x := range left {
		errs = append(errs, x.settle())
	}
	return errors.Join(errs...)
}

// settle makes all that is read so far durable.
func (x *Session) settle() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done || x.finish != nil {
		return nil
	}
	if err := x.drainLocked(64); err != nil {
		return err
	}
	return x.settleLocked(true)
}

// dispatch hands sessions to workers when they are due, until ctx ends.
func (s *Spool) dispatch(ctx context.Context, due chan<- *Session) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		var x *Session
		wait := time.Hour
		if len(s.due) > 0 {
			if wait = s.due[0].due.Sub(s.cfg.Clock()); wait <= 0 {
				x = heap.Pop(&s.due).(*Session)
			}
		}
		s.mu.Unlock()
		if x != nil {
			select {
			case due <- x:
				continue
			case <-ctx.Done():
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

const (
	signFirst   = 2 * time.Second // pauses with one recording that nobody countersigns
	signLongest = time.Minute
	signPatient = 10 * time.Second
)

// countersigner asks a recorder about each new recording in turn. One that is not countersigned
// waits longer and longer, by itself: others may go to recorders that answer. One that ended
// meanwhile is left as it is.
func (s *Spool) countersigner(ctx context.Context) {
	for {
		x, wait := s.nextUnsigned()
		m := s.nextSeen()
		switch {
		case x != nil:
			limited, cancel := context.WithTimeout(ctx, signPatient)
			c, err := s.cfg.Countersign(limited, newStart(x.id, x.metaJSON))
			cancel()
			if err == nil {
				err = x.countersign(c)
			}
			if err != nil {
				s.log.Warn("recording is not countersigned yet", "id", x.id, "err", err)
				s.unsigned(x)
			}
			wait = 0
		case m != nil:
			wait = 0
		}
		if m != nil {
			s.askSeen(ctx, m)
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-s.ask:
		case <-ctx.Done():
			return
		}
	}
}

// unsigned puts x into the queue again, for later.
func (s *Spool) unsigned(x *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.askWait = min(max(signFirst, 2*x.askWait), signLongest)
	x.askAt = s.cfg.Clock().Add(x.askWait)
	s.queue = append(s.queue, x)
}

// nextUnsigned takes a recording out of the queue that may be asked about now; else it says how
// long until there is one, -1 for none. Those come first that were asked about the least: a
// recorder that leaves its own without an answer keeps others from theirs for one question, not for all.
func (s *Spool) nextUnsigned() (x *Session, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Clock()
	wait = -1
	for _, q := range s.queue {
		if s.running[q.id] == q && !q.askAt.After(now) && (x == nil || q.askWait < x.askWait) {
			x = q
		}
	}
	left := s.queue[:0]
	for _, q := range s.queue {
		switch d := q.askAt.Sub(now); {
		case s.running[q.id] != q || q == x: // it ended, or it is its turn
		default:
			left = append(left, q)
			if d = max(d, 0); wait < 0 || d < wait {
				wait = d
			}
		}
	}
	clear(s.queue[len(left):])
	s.queue = left
	return x, wait
}

// countersign puts the hub's answer into the recording.
func (x *Session) countersign(c Countersignature) error {
	if !c.Valid(newStart(x.id, x.metaJSON)) {
		return errors.New("the answer is not a signature of this recording")
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done || x.w.final || x.countersigned {
		return nil
	}
	if err := x.w.put(header{typ: blockCountersignature}, payload); err != nil {
		return err
	}
	x.countersigned = true
	if !x.unsigned {
		x.unsigned, x.unsignedSince = true, x.s.cfg.Clock()
	}
	return x.syncLocked()
}

// buffer lends what a journal is read into, and frameBuffer what a frame is made in; a
// session that is idle holds neither.
func (s *Spool) buffer() *[]byte {
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, journalChunk)
	return &b
}

func (s *Spool) frameBuffer() *[]byte {
	if b, ok := s.frames.Get().(*[]byte); ok {
		*b = (*b)[:0]
		return b
	}
	return new([]byte)
}
