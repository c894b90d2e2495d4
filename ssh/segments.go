package ssh

import (
	"errors"
	"io"
	"sync"
	"time"
)

// A channel has a window of 2 MiB: on a path of 80 ms no more than 25 MiB/s. A large file
// goes in segments through several channels then, each with a window of its own.
const (
	segment     = 4 << 20
	segmentsMin = 4 * segment           // below, one channel does
	longPath    = 10 * time.Millisecond // a round trip from which several channels pay
	channelsMax = 8
)

// far says that a round trip to the host takes long.
func (f *Files) far() bool { return f.client != nil && f.rtt >= longPath }

// channels is how many are worth it for what is left of the file.
func (t *transfer) channels() int {
	_, in := t.in.(io.ReaderAt)
	_, out := t.out.(io.WriterAt)
	if !in || !out || t.size-t.start < segmentsMin {
		return 1
	}
	if t.Channels > 0 {
		return min(t.Channels, channelsMax)
	}
	if t.s.Files.far() || t.d.Files.far() {
		return 4
	}
	return 1
}

// way is one pair of handles; a side here is the same file for all.
type way struct {
	in  io.ReaderAt
	out io.WriterAt
}

// segments copies through n channels. The first begins at once, the others when they are
// open, which takes several round trips. Each has two segments under way, so that it has
// something to send while it waits for the last answers of one.
func (t *transfer) segments(n int) error {
	q := newQueue(t.start, t.size)
	first := way{t.in.(io.ReaderAt), t.out.(io.WriterAt)}
	var wg sync.WaitGroup
	copies := func(w way) {
		buf := make([]byte, segment)
		for {
			off, length, ok := q.take()
			if !ok {
				return
			}
			err := w.copy(buf[:length], off)
			if err == nil {
				err = t.ctx.Err()
			}
			q.finished(off, err)
			if err != nil {
				return
			}
			t.done.add(length)
		}
	}
	for range 2 {
		wg.Go(func() { copies(first) }) // ends with the queue
	}
	for i := 1; i < n; i++ {
		// Ends with the queue, or when it has opened what is no longer needed; Files.Close waits.
		t.s.Files.background(t.d.Files, func() {
			w, done, err := t.open(q, i, first)
			if err != nil {
				return // the host allows no more; those that are open do
			}
			if !q.join(&wg) {
				done()
				return
			}
			defer wg.Done()
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() { copies(w) })
			}
			both.Wait()
			if err := done(); err != nil {
				q.fail(err)
			}
		})
	}
	wg.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// copy carries one segment.
func (w way) copy(b []byte, off int64) error {
	n, err := w.in.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		if err = nil; n < len(b) {
			err = errors.New("the file shrank while it was copied")
		}
	}
	if err != nil {
		return err
	}
	_, err = w.out.WriteAt(b, off)
	return err
}

var errNotNeeded = errors.New("ssh: all segments are handed out")

// open opens the i-th way; done closes it.
func (t *transfer) open(q *queue, i int, first way) (w way, done func() error, err error) {
	w = first
	var opened []io.Closer
	done = func() (err error) {
		for _, c := range opened {
			if cerr := c.Close(); cerr != nil {
				err = cerr
			}
		}
		return err
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	if t.s.Files.client != nil {
		f, err := t.s.Files.another(i)
		if err != nil {
			return w, done, err
		}
		if q.over() {
			return w, done, errNotNeeded
		}
		r, err := f.open(t.s.Path)
		if err != nil {
			return w, done, err
		}
		opened = append(opened, r)
		w.in = r.(io.ReaderAt)
	}
	if t.d.Files.client != nil {
		f, err := t.d.Files.another(i)
		if err != nil {
			return w, done, err
		}
		if q.over() {
			return w, done, errNotNeeded
		}
		o, err := f.reopen(t.at)
		if err != nil {
			return w, done, err
		}
		opened = append(opened, o)
		w.out = o.(io.WriterAt)
	}
	return w, done, nil
}

// queue hands out segments in order, none further than maxGap from the first that is missing.
type queue struct {
	mu        sync.Mutex
	moved     sync.Cond
	next, end int64
	open      map[int64]bool // under way
	err       error
}

func newQueue(start, end int64) *queue {
	q := &queue{next: start, end: end, open: map[int64]bool{}}
	q.moved.L = &q.mu
	return q
}

func (q *queue) take() (off int64, length int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.err != nil || q.next >= q.end {
			return 0, 0, false
		}
		first := q.next
		for o := range q.open {
			first = min(first, o)
		}
		if q.next+segment-first <= maxGap {
			break
		}
		q.moved.Wait()
	}
	off, length = q.next, int(min(segment, q.end-q.next))
	q.next += int64(length)
	q.open[off] = true
	return off, length, true
}

// join counts one more that takes from the queue, while there is something to take.
func (q *queue) join(wg *sync.WaitGroup) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil || q.next >= q.end {
		return false
	}
	wg.Add(1) // whoever began with the queue has still to find it empty
	return true
}

func (q *queue) over() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err != nil || q.next >= q.end
}

func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
}

func (q *queue) finished(off int64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	delete(q.open, off)
	q.moved.Broadcast()
}
