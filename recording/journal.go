package recording

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// MaxEventData is the most data one event holds; Append splits what is longer.
	MaxEventData = 64 << 10

	journalHead = 8  // length and sum
	journalBody = 13 // time, channel, kind
)

// ChannelMonitor marks events that the monitor added by itself. A journal cannot
// contain it, so a connection process cannot speak in the monitor's name.
const ChannelMonitor uint32 = 0xffffffff

// castagnoli is computed in hardware on the machines we run on.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errJournalShort means that the rest of a record is not there (yet);
// errJournalCorrupt that no more of this journal can be believed.
var (
	errJournalShort   = errors.New("record is not whole")
	errJournalCorrupt = errors.New("record is not valid")
)

// Journal appends events to the journal of one connection.
//
// Each event is one write to w, whole: with w a file opened O_APPEND, nothing that
// happens to this process can leave half an event in the middle of the file. An error
// is for ever: a journal that has missed an event takes no more, and whoever writes it
// ends the session.
type Journal struct {
	mu   sync.Mutex
	w    io.Writer
	t0   time.Time     // with its monotonic reading
	base time.Duration // of t0 since the recording's start
	last int64         // microseconds of the last event
	buf  []byte
	err  error

	dropped  bool         // Drop was called
	sync     func() error // makes w durable; nil when w is no file
	unsynced bool         // something was appended since the last Sync
	onFull   func(error) bool
}

// NewJournal writes to w. Start is the wall clock time at which the recording began;
// from here on time is counted by the monotonic clock.
func NewJournal(w io.Writer, start time.Time) *Journal {
	now := time.Now()
	j := &Journal{w: w, t0: now, base: max(0, now.Round(0).Sub(start.Round(0)))}
	if f, ok := w.(*os.File); ok {
		j.sync = func() error { return datasync(f) }
	}
	return j
}

// Sync makes what was appended durable. The spool does that for journals it reads; this
// is for the time when nobody reads. Appending goes on meanwhile.
func (j *Journal) Sync() error {
	j.mu.Lock()
	due := j.unsynced && j.err == nil && j.sync != nil && !j.dropped
	j.unsynced = false
	j.mu.Unlock()
	if !due {
		return j.Err()
	}
	if err := j.sync(); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.err == nil {
			j.err = fmt.Errorf("recording: journal: %w", err)
		}
		return j.err
	}
	return nil
}

// Drop makes the journal take everything from here on and keep nothing of it: for a session
// that goes on although its recording cannot.
func (j *Journal) Drop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dropped, j.err = true, nil
}

// OnFull is asked after each write that fails: true tries again. It may wait, and everything
// that would be appended waits with it. After a write that worked again it is called with nil.
// To be set before the journal is used.
func (j *Journal) OnFull(again func(error) bool) { j.onFull = again }

// Dropped reports whether Drop was called.
func (j *Journal) Dropped() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dropped
}

// Append adds one event, or several of the same kind where data is longer than
// MaxEventData. When it returns nil the data has left this process. It keeps no
// reference to data and may be called from several goroutines.
func (j *Journal) Append(ch uint32, k Kind, data []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		n := min(len(data), MaxEventData)
		if err := j.appendLocked(ch, k, data[:n]); err != nil {
			return err
		}
		if data = data[n:]; len(data) == 0 {
			return nil
		}
	}
}

func (j *Journal) appendLocked(ch uint32, k Kind, data []byte) error {
	if j.err != nil || j.dropped {
		return j.err
	}
	j.last = max(j.last, (j.base + time.Since(j.t0)).Microseconds())
	j.buf = appendJournalRecord(j.buf[:0], j.last, ch, k, data)
	n, err := j.w.Write(j.buf)
	j.unsynced = true
	if err == nil && n != len(j.buf) {
		err = io.ErrShortWrite
	}
	for failed := false; ; failed = true {
		if err == nil || j.onFull == nil || !j.onFull(err) {
			if err == nil && failed {
				j.onFull(nil)
			}
			break
		}
		// What is there of the record is half of it; the rest follows, or the file ends with it.
		var more int
		more, err = j.w.Write(j.buf[n:])
		if n += more; err == nil && n != len(j.buf) {
			err = io.ErrShortWrite
		}
	}
	if err != nil {
		j.err = fmt.Errorf("recording: journal: %w", err)
	}
	return j.err
}

// AppendJSON adds one event whose data is v as JSON.
func (j *Journal) AppendJSON(ch uint32, k Kind, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("recording: journal: kind %d: %w", k, err)
	}
	if len(data) > MaxEventData {
		// Split JSON would be two events that nobody can read.
		return fmt.Errorf("recording: journal: kind %d: %d bytes of JSON", k, len(data))
	}
	return j.Append(ch, k, data)
}

// Err is the error that closed the journal, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

func appendJournalRecord(b []byte, at int64, ch uint32, k Kind, data []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(journalBody+len(data)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, ch)
	b = append(b, byte(k))
	b = append(b, data...)
	body := b[len(b)-journalBody-len(data):]
	binary.LittleEndian.PutUint32(b[len(b)-len(body)-4:], crc32.Checksum(body, castagnoli))
	return b
}

// readJournalRecord decodes the record at the start of b and says how long it is. The
// event's data points into b.
func readJournalRecord(b []byte) (ev Event, n int, err error) {
	if len(b) < journalHead {
		return Event{}, 0, errJournalShort
	}
	size := binary.LittleEndian.Uint32(b)
	if size < journalBody || size > journalBody+MaxEventData {
		return Event{}, 0, errJournalCorrupt
	}
	n = journalHead + int(size)
	if len(b) < n {
		return Event{}, 0, errJournalShort
	}
	body := b[journalHead:n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return Event{}, 0, errJournalCorrupt
	}
	at := binary.LittleEndian.Uint64(body)
	if at > uint64(maxAt/time.Microsecond) {
		return Event{}, 0, errJournalCorrupt
	}
	ev = Event{
		At:      time.Duration(at) * time.Microsecond,
		Channel: binary.LittleEndian.Uint32(body[8:]),
		Kind:    Kind(body[12]),
		Data:    body[journalBody:],
	}
	if ev.Channel == ChannelMonitor || ev.Kind == KindNone || ev.Kind > lastKind {
		return Event{}, 0, errJournalCorrupt
	}
	return ev, n, nil
}

const (
	lastKind = KindHidden
	// maxAt bounds times read from files: ten years.
	maxAt = 10 * 366 * 24 * time.Hour
)
