package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	segmentSize = 64 << 20
	// tornLimit bounds what Open may move away: far more than the entries that can wait for
	// one fsync, far less than a segment.
	tornLimit = 4 << 20
	// keptSegments are kept by Prune whoever has them.
	keptSegments = 2
)

// Log is an open audit log; safe for concurrent use.
// Lock order: syncMu before mu.
type Log struct {
	dir  string
	lock *os.File // holds the flock

	syncMu sync.Mutex
	synced uint64 // last seq known to be on disk

	mu      sync.Mutex
	f       *os.File // the last segment, opened for appending
	segment int
	size    int64
	seq     uint64 // of the last line
	hash    Hash   // of the last line
	broken  error  // set when the file may hold half a line that could not be removed
	limit   int64  // segmentSize
	most    int    // segments that are kept; 0: all

	durable atomic.Uint64 // synced, for those who only look
	grown   chan struct{} // a value when durable has grown
}

// Open opens the log in dir, which it makes if it is not there, and repairs the end that a
// crash left.
func Open(dir string) (*Log, error) { return open(dir, segmentSize, 0) }

// OpenBounded is Open for a log that somebody else gets a copy of: it keeps at most so many
// segments. Where one must go that nobody may have yet, an entry of kind "audit.dropped"
// says so.
func OpenBounded(dir string, segments int) (*Log, error) {
	return open(dir, segmentSize, max(segments, keptSegments))
}

func open(dir string, limit int64, most int) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: open: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: open %s: %w", dir, err)
	}
	l := &Log{dir: dir, lock: lock, limit: limit, most: most, grown: make(chan struct{}, 1)}
	if err := l.resume(); err != nil {
		if l.f != nil {
			l.f.Close()
		}
		lock.Close()
		return nil, fmt.Errorf("audit: open %s: %w", dir, err)
	}
	return l, nil
}

// resume finds the end of the log, repairs it, and notes the repair.
func (l *Log) resume() error {
	names, err := segments(l.dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return l.startSegment(1)
	}
	// A crash right after a new segment was made leaves it empty: its end is that of the one before.
	var torn []byte
	last := len(names) - 1
	for i := last; i >= 0; i-- {
		f, err := os.OpenFile(filepath.Join(l.dir, names[i]), os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		end, t, err := findEnd(f, parseLine)
		if err != nil {
			f.Close()
			return fmt.Errorf("%s: %w", names[i], err)
		}
		if i == last {
			l.f, l.size, torn = f, end.offset, t
			if l.segment, err = segmentNumber(names[i]); err != nil {
				return err
			}
		} else {
			f.Close()
		}
		if end.found {
			l.seq, l.hash = end.line.seq, end.line.hash
			break
		}
		if i != last && len(t) > 0 || i == 0 && last > 0 {
			return fmt.Errorf("%s: holds no line that can be continued", names[i])
		}
	}
	l.synced = l.seq
	l.durable.Store(l.seq)
	if len(torn) == 0 {
		return nil
	}
	return l.repair(torn)
}

// repair sets the torn bytes aside durably, cuts them off, and says so in the log.
func (l *Log) repair(torn []byte) error {
	name := fmt.Sprintf("torn-%d.bin", l.seq+1)
	if err := writeSynced(filepath.Join(l.dir, name), torn); err != nil {
		return err
	}
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	if err := l.f.Sync(); err != nil {
		return err
	}
	return l.Append(Entry{
		Kind: "audit.repaired",
		Text: "the end of the log was no whole line and was set aside",
		Extra: map[string]string{
			"bytes":  fmt.Sprint(len(torn)),
			"sha256": fmt.Sprintf("%x", sha256.Sum256(torn)),
			"file":   name,
		},
	})
}

// Append adds e and returns when it is on disk. After an error the entry must be taken as not
// written, and what it would have allowed must not happen. The next Append tries again, so a
// disk that was full and is not any more needs no restart.
func (l *Log) Append(e Entry) error {
	if e.Kind == "" {
		return errors.New("audit: append: an entry needs a kind")
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC().Round(0)
	seq, err := l.write(e.bounded())
	if err != nil {
		return err
	}
	return l.sync(seq)
}

func (l *Log) write(e Entry) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, errors.New("audit: append: the log is closed")
	}
	if l.broken != nil {
		if err := l.f.Truncate(l.size); err != nil {
			return 0, fmt.Errorf("audit: append: %w", l.broken)
		}
		l.broken = nil
	}
	if l.size >= l.limit {
		if err := l.nextSegment(); err != nil {
			return 0, fmt.Errorf("audit: append: %w", err)
		}
		if err := l.drop(); err != nil {
			return 0, fmt.Errorf("audit: append: %w", err)
		}
	}
	return l.put(e)
}

// put writes one line at the end. mu is held.
func (l *Log) put(e Entry) (uint64, error) {
	ln, err := newLine(l.hash, l.seq+1, e)
	if err != nil {
		return 0, err
	}
	text := ln.text()
	if _, err := l.f.Write(text); err != nil {
		if terr := l.f.Truncate(l.size); terr != nil {
			l.broken = err
		}
		return 0, fmt.Errorf("audit: append: %w", err)
	}
	l.size += int64(len(text))
	l.seq, l.hash = ln.seq, ln.hash
	return ln.seq, nil
}

// sync waits until line seq is on disk. Those who wait share one fsync.
func (l *Log) sync(seq uint64) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if l.synced >= seq {
		return nil
	}
	l.mu.Lock()
	f, upTo := l.f, l.seq
	l.mu.Unlock()
	if f == nil {
		return nil // Close synced it
	}
	// A file that was closed meanwhile is a full segment, and nextSegment synced it first.
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("audit: append: %w", err)
	}
	l.synced = upTo
	l.durable.Store(upTo)
	select {
	case l.grown <- struct{}{}:
	default:
	}
	return nil
}

// nextSegment ends the current file and starts another. The old one is synced here, so that
// sync needs to know one file only. mu is held.
func (l *Log) nextSegment() error {
	if err := l.f.Sync(); err != nil {
		return err
	}
	old := l.f
	if err := l.startSegment(l.segment + 1); err != nil {
		return err
	}
	return old.Close()
}

// drop removes the oldest segment where there are too many, and says so. mu is held.
func (l *Log) drop() error {
	if l.most == 0 {
		return nil
	}
	names, err := segments(l.dir)
	if err != nil || len(names) <= l.most {
		return err
	}
	n, err := segmentNumber(names[0])
	if err != nil {
		return err
	}
	next, err := firstSeq(l.dir, n+1)
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(l.dir, names[0])); err != nil {
		return err
	}
	_, err = l.put(Entry{Time: time.Now().UTC(), Kind: "audit.dropped", Text: fmt.Sprintf("the log has reached its bound; the lines before %d are not kept", next)})
	return err
}

func (l *Log) startSegment(n int) error {
	f, err := os.OpenFile(filepath.Join(l.dir, segmentName(n)), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(l.dir); err != nil {
		f.Close()
		return err
	}
	l.f, l.segment, l.size = f, n, 0
	return nil
}

// Head is the number and hash of the last line: what somebody else must keep to notice a
// log that was rewritten or cut.
func (l *Log) Head() (seq uint64, hash Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq, l.hash
}

// Dir is the folder of the log.
func (l *Log) Dir() string { return l.dir }

// Close syncs and closes. Append fails afterwards.
func (l *Log) Close() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Sync()
	err = errors.Join(err, l.f.Close(), l.lock.Close())
	l.f = nil
	return err
}

func segmentName(n int) string { return fmt.Sprintf("audit-%08d.jsonl", n) }

func segmentNumber(name string) (int, error) {
	var n int
	if _, err := fmt.Sscanf(name, "audit-%08d.jsonl", &n); err != nil || segmentName(n) != name {
		return 0, fmt.Errorf("%s is not the name of a segment", name)
	}
	return n, nil
}

// segments lists the files of the log in order.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := segmentNumber(e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

type end struct {
	found  bool
	line   line
	offset int64 // just after the line; 0 when there is none
}

// findEnd finds the last line that is whole in itself, and the bytes after it. It reads
// backwards and no further than tornLimit.
func findEnd(f *os.File, parse func([]byte) (line, error)) (end, []byte, error) {
	st, err := f.Stat()
	if err != nil {
		return end{}, nil, err
	}
	from := max(0, st.Size()-tornLimit)
	tail := make([]byte, st.Size()-from)
	if _, err := io.ReadFull(io.NewSectionReader(f, from, int64(len(tail))), tail); err != nil {
		return end{}, nil, err
	}
	stop := len(tail) // tail[:stop] has not been ruled out yet
	for stop > 0 {
		nl := bytes.LastIndexByte(tail[:stop], '\n')
		if nl < 0 {
			break
		}
		start := bytes.LastIndexByte(tail[:nl], '\n') + 1
		if start > 0 || from == 0 {
			if l, err := parse(tail[start : nl+1]); err == nil {
				return end{found: true, line: l, offset: from + int64(nl) + 1}, bytes.Clone(tail[nl+1:]), nil
			}
		}
		stop = start
	}
	if from > 0 {
		return end{}, nil, fmt.Errorf("its last %d bytes hold no whole line; look at it by hand before anything is appended", len(tail))
	}
	return end{}, bytes.Clone(tail), nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
