package recording

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Begin makes the folder of a new recording, with its description durable and signed.
// It fills Version and PublicKey, and ID and Start where they are empty. Without a
// recording there is no session: any error is a refusal.
func (s *Spool) Begin(m Meta) (*Session, error) {
	if m.Start.IsZero() {
		m.Start = s.cfg.Clock()
	}
	m.Start = m.Start.UTC().Truncate(time.Microsecond)
	if m.ID == "" {
		m.ID = NewID(m.Start, m.HostID)
	}
	if !ValidID(m.ID) {
		return nil, fmt.Errorf("recording: begin: %q is not an id", m.ID)
	}
	if err := s.admit(personOf(m)); err != nil {
		return nil, err
	}
	x, err := s.begin(m)
	if err != nil {
		return nil, fmt.Errorf("recording: begin %q: %w", m.ID, err)
	}
	return x, nil
}

func (s *Spool) begin(m Meta) (_ *Session, err error) {
	dir := filepath.Join(s.cfg.Dir, newPrefix+m.ID)
	final := filepath.Join(s.cfg.Dir, m.ID)
	if _, err := os.Lstat(final); err == nil {
		return nil, os.ErrExist
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	x := s.newSession(m)
	defer func() {
		if err != nil {
			x.closeFiles()
			_ = os.RemoveAll(dir) // the first error is the one to tell
			_ = os.RemoveAll(final)
		}
	}()
	if x.journal, err = os.OpenFile(filepath.Join(dir, journalName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if x.w.f, err = os.OpenFile(filepath.Join(dir, recordingName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if x.keyFile, err = os.OpenFile(filepath.Join(dir, keyName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	x.w.seed = new(ratchet)
	rand.Read(x.w.seed.seed[:]) // never fails
	to, err := s.sealTo()
	if err != nil {
		return nil, err
	}
	m.Version, m.PublicKey, m.Sealed = 1, x.w.seed.public(), to != nil
	x.meta = m
	if x.metaJSON, err = x.w.begin(m, to); err != nil {
		return nil, err
	}
	// The first key signed the description and is gone already; only the second ever
	// touches the disk.
	x.keys = 1
	synced := make(chan error, 1)
	go func() { synced <- writeKey(x.keyFile, x.keys, x.w.seed) }() // ends with its one write
	err = errors.Join(datasync(x.w.f), <-synced, syncDir(dir))
	if err != nil {
		return nil, err
	}
	if err = os.Rename(dir, final); err != nil {
		return nil, err
	}
	if err = syncDir(s.cfg.Dir); err != nil {
		return nil, err
	}
	x.grown(x.w.off)
	_ = s.grow(x.person, x.w.off) // admitted above
	x.used = x.w.off
	s.enlist(x)
	return x, nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (s *Spool) newSession(m Meta) *Session {
	return &Session{
		s: s, id: m.ID, meta: m, person: personOf(m), failed: make(chan error, 1), news: make(chan struct{}, 1),
		w: writer{clock: s.cfg.Clock, enc: s.enc}, screens: map[uint32]*screenState{}, opened: s.cfg.Clock(),
	}
}

// enlist puts a session among the running ones.
func (s *Spool) enlist(x *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[x.id] = x
	if s.cfg.Countersign != nil && !x.countersigned {
		s.queue = append(s.queue, x)
		select {
		case s.ask <- struct{}{}:
		default:
		}
	}
	s.pushLocked(x, s.cfg.Clock().Add(pollActive))
}

// Adopt goes on with an unfinished recording after the monitor was restarted. The
// recording says that it happened.
func (s *Spool) Adopt(id string) (*Session, error) {
	s.mu.Lock()
	orphan := s.orphans[id]
	delete(s.orphans, id)
	s.mu.Unlock()
	if !orphan {
		return nil, fmt.Errorf("recording: adopt %q: not an orphan of this spool", id)
	}
	x, err := s.adopt(id)
	if err != nil {
		s.mu.Lock()
		s.orphans[id] = true
		s.mu.Unlock()
		return nil, fmt.Errorf("recording: adopt %q: %w", id, err)
	}
	return x, nil
}

func (s *Spool) adopt(id string) (_ *Session, err error) {
	x := s.newSession(Meta{ID: id})
	defer func() {
		if err != nil {
			x.closeFiles()
		}
	}()
	if x.w.f, err = os.OpenFile(s.path(id, recordingName), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	v := NewVerifier()
	// What is wrong at the end was being written when the lights went out; what is
	// before it is whole.
	_, verr := io.CopyBuffer(onlyWriter{v}, io.LimitReader(x.w.f, 1<<62), make([]byte, 256<<10))
	if verr != nil && v.err == nil {
		return nil, verr
	}
	m, ok := v.Meta()
	if !ok {
		return nil, errors.New("the description cannot be read")
	}
	x.meta, x.person, x.metaJSON = m, personOf(m), v.metaRaw
	x.countersigned = len(v.report.Countersignatures) > 0
	at := v.resume()
	size, err := x.w.f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if err = x.w.f.Truncate(at.off); err != nil {
		return nil, err
	}
	x.w.off, x.w.seq, x.w.prev, x.w.last, x.w.journal = at.off, at.seq, at.prev, v.lastAt.Microseconds(), v.journal
	x.w.final = v.final
	x.unsigned = !v.covered
	x.lastJournal = x.w.last
	x.ended = v.ended
	if err = x.adoptKey(v); err != nil {
		return nil, err
	}
	x.journal, err = os.OpenFile(s.path(id, journalName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	x.read = x.w.journal
	if err = x.rebuildScreens(); err != nil {
		return nil, err
	}
	x.acked.Store(min(s.readState(id), x.w.off))
	x.grown(x.w.off)
	jst, err := x.journal.Stat()
	if err != nil {
		return nil, err
	}
	x.used = size + diskUsage(jst) // as load counted it
	x.size = jst.Size()
	if m.Sealed {
		if err := x.wipeLocked(true); err != nil {
			return nil, err
		}
	} else if to := x.w.journal &^ 4095; to > 0 && punch(x.journal, 0, to) {
		x.punched = to
	}
	x.short = jst.Size() < x.read // a power loss: the frames were durable, the journal was not
	if !x.w.final {
		if err = x.resealLocked(v); err != nil {
			return nil, err
		}
		x.noteLocked("adopted", adoptedWords(size-at.off))
		if err = x.settleLocked(true); err != nil {
			return nil, err
		}
	}
	s.enlist(x)
	return x, nil
}

func adoptedWords(cut int64) string {
	if cut == 0 {
		return "a new monitor goes on with this recording"
	}
	return fmt.Sprintf("a new monitor goes on with this recording; %d unfinished bytes were made anew from the journal", cut)
}

type onlyWriter struct{ io.Writer }

// adoptKey finds the signing key in force. Without one the recording goes on
// unsigned, which shows.
func (x *Session) adoptKey(v *Verifier) error {
	var err error
	if x.keyFile, err = os.OpenFile(x.s.path(x.id, keyName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	n, r := readKey(x.keyFile)
	for range 4 { // the file may be a step behind the last checkpoint, never more
		if r == nil {
			break
		}
		if r.public().Equal(v.key) {
			x.keys, x.w.seed = n, r
			return nil
		}
		next := r.next()
		n, r = n+1, &next
	}
	if !v.final {
		x.s.log.Error("signing key of a recording is lost: it goes on unsigned", "id", x.id)
	}
	return nil
}

// rebuildScreens brings the emulators where the recording is.
func (x *Session) rebuildScreens() error {
	r, err := NewReader(x.w.f, x.w.off)
	if err != nil {
		return err
	}
	defer r.Close()
	if x.meta.Sealed {
		return x.openUnseen(r)
	}
	from := r.KeyframeBefore(maxAt)
	if len(r.Index()) == 0 {
		return nil
	}
	_, key, err := r.Frame(from)
	if err != nil {
		return err
	}
	if key != nil {
		for _, sc := range key.Screens {
			x.openScreen(sc.Channel, sc.Cols, sc.Rows)
			if st := x.screens[sc.Channel]; st != nil {
				x.feed(st, sc.ANSI)
			}
		}
		x.sinceKey = 0
	}
	err = r.EventsFrom(from, func(ev Event) error {
		x.follow(ev)
		return nil
	})
	x.catchUpAll()
	return err
}
