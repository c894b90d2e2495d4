package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Tail is a reader that follows a log: for whoever brings it somewhere else. Not for
// concurrent use.
type Tail struct {
	log     *Log
	c       cursor
	seq     uint64 // of the last line given, or to be followed
	hash    Hash
	joined  bool   // the next line is meant to follow seq and hash
	pending []byte // a line that was read and not given
}

// Tail starts after the line with this number and hash; 0 and the zero Hash are the
// beginning. Where the log does not have that line (any more), it starts with the oldest
// one there is, and Next says that it does not follow.
func (l *Log) Tail(after uint64, hash Hash) (*Tail, error) {
	t := &Tail{log: l, c: cursor{dir: l.dir}, seq: after, hash: hash, joined: true}
	if after == 0 && hash == (Hash{}) || after > l.durable.Load() {
		t.joined = after == 0
		return t, nil
	}
	segment, err := l.segmentOf(after)
	if err != nil {
		return nil, err
	}
	c := cursor{dir: l.dir, segment: segment}
	for {
		b, err := c.next()
		if err != nil {
			var broken *Broken
			if errors.As(err, &broken) {
				break
			}
			return nil, err
		}
		if b == nil {
			break
		}
		ln, err := parseLine(b)
		if err != nil || ln.seq < after {
			continue
		}
		if ln.seq == after && ln.hash == hash {
			t.c = c
			return t, nil
		}
		break
	}
	t.joined = false
	return t, nil
}

// segmentOf is the last segment that does not begin after seq.
func (l *Log) segmentOf(seq uint64) (int, error) {
	names, err := segments(l.dir)
	if err != nil {
		return 0, fmt.Errorf("audit: read: %w", err)
	}
	found := 0
	for _, name := range names {
		n, err := segmentNumber(name)
		if err != nil {
			return 0, err
		}
		first, err := firstSeq(l.dir, n)
		if err != nil {
			return 0, err
		}
		if found != 0 && (first == 0 || first > seq) {
			break
		}
		found = n
	}
	return found, nil
}

// firstSeq is the number of the first line of a segment, 0 when there is none to read.
func firstSeq(dir string, segment int) (uint64, error) {
	c := cursor{dir: dir, segment: segment}
	b, err := c.next()
	var broken *Broken
	if err != nil && !errors.As(err, &broken) {
		return 0, err
	}
	if b == nil || c.segment != segment {
		return 0, nil
	}
	ln, err := parseLine(b)
	if err != nil {
		return 0, nil // for Verify to name
	}
	return ln.seq, nil
}

// Next gives lines that are on disk and were not given yet, at most about limit bytes but
// at least one, and nil when there are none. All of them follow each other; follows says
// that the first follows the last of the call before (or where the Tail started). Lines
// that are not whole in themselves are left out, and what comes then does not follow.
func (t *Tail) Next(limit int) (lines []byte, follows bool, err error) {
	durable := t.log.durable.Load()
	follows = t.joined
	for {
		b := t.pending
		t.pending = nil
		if b == nil {
			if b, err = t.c.next(); err != nil {
				return nil, false, err
			}
		}
		if b == nil {
			break
		}
		ln, perr := parseLine(b)
		if perr == nil && ln.seq > durable {
			t.pending = b
			break
		}
		if perr != nil {
			t.joined = false
			if len(lines) > 0 {
				break
			}
			follows = false
			continue
		}
		next := t.joined && ln.follows(t.seq, t.hash) == ""
		if len(lines) > 0 && (!next || len(lines)+len(b) > limit) {
			t.pending, t.joined = b, next
			break
		}
		if len(lines) == 0 {
			follows = next
		}
		lines = append(lines, b...)
		t.seq, t.hash, t.joined = ln.seq, ln.hash, true
	}
	return lines, follows, nil
}

// Last is the last line given: what whoever took it must have now.
func (t *Tail) Last() (uint64, Hash) { return t.seq, t.hash }

// Grown gets a value when a line is on disk that was not before. One reader only.
func (l *Log) Grown() <-chan struct{} { return l.grown }

// Prune removes full segments of which somebody else has every line, but for the newest
// two. acked is the last line they have.
func (l *Log) Prune(acked uint64) error {
	l.mu.Lock()
	last := l.segment
	l.mu.Unlock()
	names, err := segments(l.dir)
	if err != nil {
		return fmt.Errorf("audit: prune: %w", err)
	}
	for _, name := range names {
		n, err := segmentNumber(name)
		if err != nil || n > last-keptSegments {
			return err
		}
		after, err := firstSeq(l.dir, n+1)
		if err != nil || after == 0 || after > acked+1 {
			return err
		}
		if err := os.Remove(filepath.Join(l.dir, name)); err != nil {
			return fmt.Errorf("audit: prune: %w", err)
		}
	}
	return nil
}
