package recording

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Session is one recording being made. The monitor holds it; the connection process
// holds its journal.
//
//	running --Finish--> finishing --(room on disk)--> finished
type Session struct {
	s      *Spool
	id     string
	person string
	failed chan error // capacity 1
	opened time.Time  // when this process got it, with the monotonic clock

	durable, acked atomic.Int64 // offsets in the .tsr
	behind         atomic.Int64 // since when, UnixNano, nothing new was acknowledged though there is something
	newest         atomic.Pointer[mark]
	news           chan struct{} // capacity 1: acked moved
	watched        atomic.Bool   // somebody watches

	// guarded by Spool.mu
	due       time.Time
	askAt     time.Time     // a countersignature is not asked for before
	askWait   time.Duration // the last pause of that
	seenAsked time.Time     // when a hub was last asked to sign how much it has
	seenAt    int64         // of that, the time of the last event
	heapPos   int           // 1-based, 0: not in the heap

	mu            sync.Mutex
	meta          Meta
	metaJSON      []byte
	w             writer
	keyFile       *os.File
	keys          uint64 // which key of the ratchet is in force
	journal       *os.File
	read          int64 // of the journal, decoded
	size          int64 // of the journal, seen
	punched       int64
	used          int64 // accounted for
	lastJournal   int64
	cut           bool // the journal is no longer believed
	short         bool // the journal lost its end in a crash; frames have it
	ended         bool // an End event is in
	clockNoted    bool
	raw           *[]byte // the frame being made, lent by the spool while there is one
	rawKey        bool
	events        int
	first, last   int64     // of its events
	since         time.Time // when its first event was seen
	sealed        time.Time // when the frame before was closed
	dirty         time.Time // when the first unsynced write was made
	unsigned      bool
	unsignedSince time.Time
	screens       map[uint32]*screenState
	blind         map[uint32]bool // terminals whose state is sealed away: no keyframes while there are any
	outline       []byte          // of the frame being made, where it is sealed
	outlined      int64           // time of its last event
	renewFailed   bool            // said once
	wiped         int64           // of the journal, overwritten
	sinceKey      int             // bytes of terminal output since the last keyframe
	keyDue        bool
	noKeys        bool // the emulator failed: no keyframes any more
	spent         time.Duration
	fedBytes      int64
	countersigned bool
	finish        *End // Finish was asked for
	done          bool
	err           error // the first that was told by Failed
}

type screenState struct {
	k       Keyframer
	waiting *[]byte // output that k was not given yet, lent by the spool; of the frame being made only
}

// ID is the recording's.
func (x *Session) ID() string { return x.id }

// Meta is the recording's description.
func (x *Session) Meta() Meta {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.meta
}

// Failed gives one error if the recording cannot go on: the disk is full, a quota is
// reached, a write failed, or the journal is not one. The session must end then.
func (x *Session) Failed() <-chan error { return x.failed }

// grown notes how much is durable.
func (x *Session) grown(off int64) {
	x.durable.Store(off)
	if off > x.acked.Load() {
		x.behind.CompareAndSwap(0, x.s.cfg.Clock().UnixNano())
	}
}

// taken notes how much of it a recorder has: more than before, or what another one has that
// takes over.
func (x *Session) taken(off int64) {
	since := int64(0)
	if off < x.durable.Load() {
		if since = x.behind.Load(); since == 0 || off != x.acked.Load() {
			since = x.s.cfg.Clock().UnixNano()
		}
	}
	x.acked.Store(off)
	x.behind.Store(since)
	select {
	case x.news <- struct{}{}:
	default:
	}
}

// Behind is how long a recorder has acknowledged nothing new although there was something;
// zero while it keeps up.
func (x *Session) Behind() time.Duration {
	since := x.behind.Load()
	if since == 0 {
		return 0
	}
	return max(1, x.s.cfg.Clock().Sub(time.Unix(0, since)))
}

// WaitAcked waits until a recorder has what is durable now. One goroutine at a time.
func (x *Session) WaitAcked(ctx context.Context) error {
	for goal := x.durable.Load(); x.acked.Load() < goal; {
		select {
		case <-x.news:
		case <-ctx.Done():
			return fmt.Errorf("recording: %q: no recorder has taken its beginning: %w", x.id, context.Cause(ctx))
		}
	}
	return nil
}

// Abandon closes the recording of a session that goes on: what follows is not recorded, and
// the recording says so.
func (x *Session) Abandon(why string) error {
	x.mu.Lock()
	if x.finish == nil && !x.done && !x.w.final {
		x.addOwn(KindGap, Gap{Why: "the session goes on from here and is not recorded: " + why})
	}
	x.mu.Unlock()
	return x.Finish("unrecorded", why)
}

// JournalFile opens the journal for the connection process. The caller closes it.
func (x *Session) JournalFile() (*os.File, error) {
	f, err := os.OpenFile(x.s.path(x.id, journalName), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("recording: journal of %q: %w", x.id, err)
	}
	return f, nil
}

// Note adds a remark of the monitor's. It is durable and signed when Note returns.
func (x *Session) Note(what, text string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finish != nil || x.done {
		return fmt.Errorf("recording: note in %q: it is finished", x.id)
	}
	err := x.drainLocked(1)
	if err == nil {
		x.noteLocked(what, text)
		err = x.settleLocked(true)
	}
	if err == nil {
		err = x.accountLocked()
	}
	if err != nil {
		err = fmt.Errorf("recording: note in %q: %w", x.id, err)
		x.failLocked(err)
	}
	return err
}

func (x *Session) noteLocked(what, text string) {
	x.addOwn(KindNote, Note{What: what, Text: text})
}

// addOwn adds an event of the monitor's.
func (x *Session) addOwn(k Kind, v any) {
	data, err := json.Marshal(v)
	if err != nil || len(data) > MaxEventData {
		data, _ = json.Marshal(Note{What: "note", Text: "a remark that was too long"})
	}
	at := max(x.w.last, x.last, x.elapsed().Microseconds())
	x.addEvent(Event{At: time.Duration(at) * time.Microsecond, Channel: ChannelMonitor, Kind: k, Data: data})
}

// elapsed is the recording's time now.
func (x *Session) elapsed() time.Duration {
	now := x.s.cfg.Clock()
	// By the wall clock up to where this process began, by the monotonic one since.
	return max(0, x.opened.Round(0).Sub(x.meta.Start)+now.Sub(x.opened))
}

// failLocked tells the owner, once.
func (x *Session) failLocked(err error) {
	if x.err != nil {
		return
	}
	x.err = err
	x.s.log.Error("recording fails", "id", x.id, "err", err)
	select {
	case x.failed <- err:
	default: // the one before was not taken
	}
}

// recoveredLocked takes a failure back when there is room again, and a little more than it
// takes to fail.
func (x *Session) recoveredLocked() {
	if x.err == nil || x.cut || !x.s.roomAgain(x.person) {
		return
	}
	x.err = nil
	x.s.log.Info("recording goes on", "id", x.id)
	select {
	case <-x.failed: // nobody was told yet
	default:
	}
}

// Trouble is why the recording does not go on at the moment; nil when it does. One that is
// Lost never will again.
func (x *Session) Trouble() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// Lost says that its journal is not to be believed any more.
func (x *Session) Lost() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cut
}

// journalChunk is how much of a journal is read at once: several of the largest
// records.
const journalChunk = 512 << 10

// drainLocked reads up to chunks pieces of the journal.
func (x *Session) drainLocked(chunks int) error {
	buf := x.s.buffer()
	defer x.s.buffers.Put(buf)
	for ; chunks > 0; chunks-- {
		n, err := x.readLocked(*buf)
		if err != nil {
			return err
		}
		if n < journalChunk/2 {
			return nil
		}
	}
	return nil
}

// readLocked takes what is new in the journal, as much as fits buf, and says how many
// bytes it understood.
func (x *Session) readLocked(buf []byte) (int, error) {
	if x.cut || x.w.final {
		return 0, nil
	}
	n, err := x.journal.ReadAt(buf, x.read)
	if n == 0 && err != nil && !isEOF(err) {
		return 0, err
	}
	if n == 0 && x.journalSize() < x.read && !x.short {
		x.cutLocked("the journal has become shorter; nothing after this is recorded")
		return 0, nil
	}
	x.size = max(x.size, x.read+int64(n))
	used := 0
	for used < n {
		ev, size, err := readJournalRecord(buf[used:n])
		if err == errJournalShort {
			break
		}
		if err != nil || x.ended {
			x.cutLocked("the connection process wrote what is no journal; nothing after this is recorded")
			return used, nil
		}
		x.ingest(ev)
		used += size
		x.read += int64(size)
		if x.events > 0 && len(*x.raw) >= FrameBytes {
			if err := x.sealLocked(); err != nil {
				return used, err
			}
		}
	}
	return used, nil
}

// cutLocked stops believing the journal. The session must end: what happens in it is
// not recorded any more.
func (x *Session) cutLocked(why string) {
	x.cut = true
	x.addOwn(KindGap, Gap{Bytes: max(0, x.journalSize()-x.read), Why: why})
	if x.finish == nil {
		x.failLocked(fmt.Errorf("recording: journal of %q: %w at offset %d", x.id, errJournalCorrupt, x.read))
	}
}

func (x *Session) journalSize() int64 {
	st, err := x.journal.Stat()
	if err != nil {
		return x.size
	}
	return st.Size()
}

// clockSlack is how far a journal may be ahead of our clock: it is counted by another
// process from a wall clock reading.
const clockSlack = time.Minute

// ingest takes one event of the journal's.
func (x *Session) ingest(ev Event) {
	at := ev.At.Microseconds()
	limit := (x.elapsed() + clockSlack).Microseconds()
	if at < x.lastJournal || at > limit {
		if !x.clockNoted && (at > limit || x.lastJournal-at > time.Second.Microseconds()) {
			x.clockNoted = true
			x.noteLocked("clock", "the connection process gives times that cannot be; they are bent from here on")
		}
		at = min(max(at, x.lastJournal), max(limit, x.lastJournal))
	}
	x.lastJournal = at
	ev.At = time.Duration(max(at, x.last, x.w.last)) * time.Microsecond
	x.addEvent(ev)
}

// addEvent puts an event into the frame being made.
func (x *Session) addEvent(ev Event) {
	at := ev.At.Microseconds()
	if x.events == 0 {
		x.raw = x.s.frameBuffer()
		x.first, x.last = at, at
		x.since = x.s.cfg.Clock()
		x.rawKey = false
		if x.keyDue || x.sinceKey >= keyframeBytes {
			x.keyframe()
		}
	}
	*x.raw = appendEvent(*x.raw, ev, x.last)
	x.last = at
	x.events++
	x.outlineLocked(ev)
	x.follow(ev)
}

// sealLocked writes the frame being made.
func (x *Session) sealLocked() error {
	if x.events == 0 {
		return nil
	}
	h := header{typ: blockFrame, raw: uint32(len(*x.raw)), events: uint32(x.events), first: x.first, last: x.last}
	if x.rawKey {
		h.flags = flagKeyframe
	}
	if x.meta.Sealed && x.w.seal == nil {
		return ErrSeal
	}
	x.renewLocked()
	x.catchUpAll()
	was := x.w.journal
	x.w.journal = x.read
	if err := x.w.put(h, x.s.enc.EncodeAll(*x.raw, nil)); err != nil {
		x.w.journal = was
		return err
	}
	x.s.frames.Put(x.raw)
	x.raw, x.events = nil, 0
	now := x.s.cfg.Clock()
	x.sealed = now
	if x.dirty.IsZero() {
		x.dirty = now
	}
	if !x.unsigned {
		x.unsigned, x.unsignedSince = true, now
	}
	return x.putOutlineLocked()
}

// settleLocked brings frames, signatures and the disk up to date: all of it now, or
// what is due.
func (x *Session) settleLocked(all bool) error {
	now := x.s.cfg.Clock()
	sync := all || !x.dirty.IsZero() && now.Sub(x.dirty) >= FrameAge
	if x.events > 0 && all || x.frameDue(now) {
		if err := x.sealLocked(); err != nil {
			return err
		}
		sync = true
	}
	sign := x.unsigned && x.w.seed != nil && (all || now.Sub(x.unsignedSince) >= CheckpointEvery)
	if sign {
		if err := x.w.put(header{typ: blockCheckpoint}, nil); err != nil {
			return err
		}
		x.markLocked()
		sync = true
	}
	if sync {
		if err := x.syncLocked(); err != nil {
			return err
		}
	}
	if sign {
		return x.ratchetLocked()
	}
	return nil
}

// ratchetLocked moves to the next key after a durable checkpoint.
func (x *Session) ratchetLocked() error {
	next := x.w.seed.next()
	clear(x.w.seed.seed[:])
	x.w.seed = &next
	x.keys++
	x.unsigned = false
	return writeKey(x.keyFile, x.keys, x.w.seed)
}

func (x *Session) syncLocked() error {
	if x.w.off == x.durable.Load() {
		x.dirty = time.Time{}
		return nil
	}
	if err := datasync(x.w.f); err != nil {
		return err
	}
	x.dirty = time.Time{}
	x.grown(x.w.off)
	if x.meta.Sealed {
		return x.wipeLocked(false)
	}
	// What is durable in frames needs no room in the journal.
	const grain = 1 << 20
	if to := x.w.journal &^ 4095; to-x.punched >= grain && punch(x.journal, x.punched, to) {
		x.punched = to
	}
	return nil
}

// accountLocked tells the spool what the session takes.
func (x *Session) accountLocked() error {
	used := x.w.off + max(x.size, x.read) - x.punched
	delta := used - x.used
	x.used = used
	return x.s.grow(x.person, delta)
}

// step is one look at the session by a worker; it returns when to look again, or a
// negative time for never.
func (x *Session) step(buf []byte) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done {
		return -1
	}
	if x.finish != nil { // Finish found no room
		if err := x.finishLocked(); err != nil {
			return finishRetry
		}
		return -1
	}
	had := x.durable.Load()
	n, err := x.readLocked(buf)
	if err == nil {
		err = x.settleLocked(false)
	}
	x.hurry(had)
	if err == nil {
		err = x.accountLocked()
	}
	if err != nil {
		x.failLocked(err)
		return pollIdle
	}
	x.recoveredLocked()
	switch {
	case n >= journalChunk/2:
		return 0
	case x.watched.Load():
		return pollWatched
	case n > 0 || x.events > 0:
		return pollActive
	}
	return pollIdle
}

// finishRetry is how often a recording that could not be closed is tried again.
const finishRetry = 10 * time.Second

// Finish closes the recording when the connection process is gone: the journal is read
// to its end and everything is signed and durable. If there is no room for that it
// returns an error; Run goes on trying, and after a restart it is an orphan.
func (x *Session) Finish(cause, text string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done {
		return nil
	}
	if x.finish == nil {
		x.finish = &End{Cause: cause, Text: text}
	}
	if err := x.finishLocked(); err != nil {
		return fmt.Errorf("recording: finish %q: %w", x.id, err)
	}
	return nil
}

func (x *Session) finishLocked() error {
	if !x.w.final {
		for {
			was := x.read
			if err := x.drainLocked(8); err != nil {
				return err
			}
			if x.read == was {
				break
			}
		}
		if rest := x.journalSize() - x.read; rest > 0 && !x.cut {
			x.cutLocked("the last record of the journal is not whole")
		}
		if !x.ended {
			x.addOwn(KindEnd, *x.finish)
		}
		if err := x.sealLocked(); err != nil {
			return err
		}
	}
	if err := x.w.closeFile(); err != nil {
		return err
	}
	if err := x.syncLocked(); err != nil {
		return err
	}
	if x.meta.Sealed {
		if err := x.wipeLocked(true); err != nil {
			x.s.log.Error("journal of a sealed recording is not overwritten", "id", x.id, "err", err)
		}
	}
	x.done = true
	x.closeFiles()
	x.screens = nil
	for _, name := range []string{journalName, keyName} {
		if err := os.Remove(x.s.path(x.id, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			x.s.log.Error("leftover of a recording", "id", x.id, "file", name, "err", err)
		}
	}
	x.s.finishedSession(x)
	return nil
}

func (s *Spool) finishedSession(x *Session) {
	_ = s.grow(x.person, x.w.off-x.used) // closing is never refused
	x.used = x.w.off
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, x.id)
	s.finished[x.id] = &finishedRecording{person: x.person, to: x.meta.Recorders, size: x.w.off, acked: x.acked.Load()}
	s.dropLocked(x)
}

func (x *Session) closeFiles() {
	for _, f := range []*os.File{x.journal, x.w.f, x.keyFile} {
		if f != nil {
			_ = f.Close() // synced before, or given up
		}
	}
}
