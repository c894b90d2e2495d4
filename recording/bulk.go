package recording

import (
	"fmt"
	"sync"
	"time"
)

const (
	// BulkBudget is how much of one stream of a channel without a terminal is kept from its
	// beginning, and BulkTail how much from its end. The budget is the same whatever the
	// command is called: a name can be made to say anything.
	BulkBudget = 1 << 20
	BulkTail   = 32 << 10
	// bulkEvery and bulkBytes are how often a count of what is left out is written: a crash
	// takes no more than that of what is known.
	bulkEvery = 2 * time.Second
	bulkBytes = 64 << 20
)

// String says in words what was left out and not kept.
func (b Bulk) String() string {
	words := fmt.Sprintf("%d bytes of %s are left out here", b.Bytes-b.Tail, b.Stream)
	if b.SHA256 != "" {
		words += fmt.Sprintf(" (sha256 of these and the %d after: %s)", b.Tail, b.SHA256)
	}
	return words
}

// Stream records one stream of a channel that has no terminal, and keeps of it what the
// budget allows. Append is called before the bytes are sent to the client, from one
// goroutine at a time; Close when nothing more comes.
type Stream struct {
	j    *Journal
	ch   uint32
	kind Kind

	mu     sync.Mutex
	kept   int64
	sum    *Digest // nil within the budget
	out    int64   // left out
	said   int64   // of out, told in an event
	saidAt time.Time
	tail   []byte // ring of the last bytes left out
	at     int    // where the next goes
	closed bool
}

// NewStream records the stream k of channel ch: KindOutput or KindStderr.
func NewStream(j *Journal, ch uint32, k Kind) *Stream {
	return &Stream{j: j, ch: ch, kind: k}
}

// Append records data, or counts it. The data is read until the next call has returned, so
// the caller alternates between two buffers.
func (s *Stream) Append(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.j.Dropped() {
		return nil
	}
	if n := min(int64(len(data)), BulkBudget-s.kept); n > 0 {
		if err := s.j.Append(s.ch, s.kind, data[:n]); err != nil {
			return err
		}
		s.kept += n
		data = data[n:]
	}
	if len(data) == 0 {
		return s.j.Err()
	}
	if s.sum == nil {
		s.sum, s.tail, s.saidAt = NewDigest(), make([]byte, 0, BulkTail), time.Now()
		if err := s.say(false); err != nil {
			return err
		}
	}
	s.sum.Add(data)
	s.out += int64(len(data))
	s.keepTail(data)
	// The clock is read once in a while only: this is the way of every byte.
	if s.out-s.said >= bulkBytes || time.Since(s.saidAt) >= bulkEvery {
		return s.say(false)
	}
	return s.j.Err()
}

func (s *Stream) keepTail(data []byte) {
	data = data[max(0, len(data)-BulkTail):]
	if n := min(len(data), BulkTail-len(s.tail)); n > 0 {
		s.tail = append(s.tail, data[:n]...)
		data = data[n:]
	}
	for len(data) > 0 {
		n := copy(s.tail[s.at:], data)
		s.at = (s.at + n) % len(s.tail)
		data = data[n:]
	}
}

func (s *Stream) say(ends bool) error {
	b := Bulk{Stream: StreamOutput, Head: s.kept, Bytes: s.out, Ends: ends}
	if s.kind == KindStderr {
		b.Stream = StreamStderr
	}
	if s.out > 0 {
		b.SHA256 = s.sum.Hex()
	}
	if ends {
		b.Tail = int64(len(s.tail))
	}
	s.said, s.saidAt = s.out, time.Now()
	return s.j.AppendJSON(s.ch, KindBulk, b)
}

// Close says what was left out in all, and adds the tail. Called again it does nothing.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.sum == nil {
		return nil
	}
	s.closed = true
	if err := s.say(true); err != nil {
		return err
	}
	return s.j.Append(s.ch, s.kind, append(s.tail[s.at:], s.tail[:s.at]...))
}
