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

// countersigner asks the hub about each new recording in turn. While the hub is away it
// waits longer and longer; a recording that ended meanwhile is left as it is.
func (s *Spool) countersigner(ctx context.Context) {
	const (
		first   = 2 * time.Second
		longest = time.Minute
		patient = 10 * time.Second
	)
	pause := first
	for {
		x := s.nextUnsigned()
		wait := time.Duration(-1)
		if x == nil {
			if m := s.nextSeen(); m != nil {
				s.askSeen(ctx, m)
				wait = 0
			}
		}
		if x != nil {
			limited, cancel := context.WithTimeout(ctx, patient)
			c, err := s.cfg.Countersign(limited, newStart(x.id, x.metaJSON))
			cancel()
			if err == nil {
				err = x.countersign(c)
			}
			if err != nil {
				s.log.Warn("recording is not countersigned yet", "id", x.id, "err", err)
				s.mu.Lock()
				s.queue = append(s.queue, x)
				s.mu.Unlock()
				wait, pause = pause, min(2*pause, longest)
			} else {
				wait, pause = 0, first
			}
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		var asked <-chan struct{}
		if pause == first { // the hub answers: new recordings need not wait
			asked = s.ask
		}
		select {
		case <-timer:
		case <-asked:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Spool) nextUnsigned() *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		x := s.queue[0]
		s.queue = s.queue[1:]
		if s.running[x.id] == x {
			return x
		}
	}
	return nil
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
