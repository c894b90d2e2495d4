package recording

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Reasons for which there is no recording, and so no session.
var (
	ErrSpoolFull = errors.New("recording: the spool is full")
	ErrQuota     = errors.New("recording: too much of the spool is taken by one person")
)

// SpoolConfig says where and how much. Zero sizes mean the defaults.
type SpoolConfig struct {
	Dir               string // made if it is not there, 0700
	MaxBytes          int64  // of all recordings and journals together; 4 GiB
	MaxBytesPerPerson int64  // a quarter of MaxBytes
	// MinFree is what the file system must have left for a session to begin; 64 MiB. At
	// half of it running recordings fail, so that there is room to close them.
	MinFree int64
	// Low is the fill at which what need not be recorded is not any more, and Level says so: so
	// many bytes taken, or twice MinFree left; four fifths of MaxBytes.
	Low int64
	// Keyframer makes an emulator for a terminal of this size; nil: no keyframes. Sizes
	// are the client's claims.
	Keyframer func(cols, rows int) Keyframer
	// Countersign asks the hub to sign that a recording began; nil: it is not asked. It
	// is called by Run, one at a time, again after a while if it fails.
	Countersign func(ctx context.Context, s Start) (Countersignature, error)
	// Witness asks the hub to sign how much it has of a recording that runs, once a minute
	// where there is something new; nil: it is not asked. Called as Countersign is.
	Witness func(ctx context.Context, p Seen) (Countersignature, error)
	// SealTo says whom recordings are sealed to; nil func or result: they are not. An error is
	// that they are to be and cannot: no recording begins. It is asked often.
	SealTo func() (*Recipients, error)
	// Hurry is called when a recording that somebody watches has grown and should be sent at
	// once; nil: nothing is. It must not wait.
	Hurry func()
	Clock func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: nothing is logged
}

// Keyframer is a terminal emulator. It may fail (panic): there are no keyframes then.
type Keyframer interface {
	Write(p []byte)
	Resize(cols, rows int)
	Snapshot() []byte // ANSI that repaints
	Size() (cols, rows int)
}

const (
	// FrameAge and FrameBytes close a frame: seen events wait no longer, and there are
	// no more.
	FrameAge   = 2 * time.Second
	FrameBytes = 256 << 10
	// CheckpointEvery is how long recorded events wait for a signature.
	CheckpointEvery = 10 * time.Second
	// keyframeBytes of terminal output bring the next keyframe.
	keyframeBytes = 64 << 10
	// pollActive and pollIdle are how often a journal is looked at. A frame and its
	// fdatasync follow at most FrameAge later, which keeps a power loss under 5 s.
	pollActive = 500 * time.Millisecond
	pollIdle   = time.Second
)

const (
	journalName   = "journal"
	recordingName = "recording.tsr"
	keyName       = "key"
	stateName     = "state.json"
	newPrefix     = ".new-"
)

// Spool keeps recordings on this host until a recorder has them.
type Spool struct {
	cfg SpoolConfig
	log *slog.Logger
	enc *zstd.Encoder

	// mu is taken inside Session.mu, never the other way round.
	mu       sync.Mutex
	running  map[string]*Session
	orphans  map[string]bool
	finished map[string]*finishedRecording
	used     int64
	byPerson map[string]int64
	free     int64 // at freeAt
	freeAt   time.Time
	queue    []*Session // waiting for a countersignature
	seen     []*mark    // of which a recorder has all, waiting for its signature
	due      sessionHeap
	wake     chan struct{} // capacity 1: due changed
	ask      chan struct{} // capacity 1: queue changed

	buffers sync.Pool // *[]byte of journalChunk
	frames  sync.Pool // *[]byte, for frames being made
}

type finishedRecording struct {
	person      string
	to          []string
	size, acked int64
}

// OpenSpool reads what a spool folder holds. Unfinished recordings become orphans.
func OpenSpool(cfg SpoolConfig) (*Spool, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 4 << 30
	}
	if cfg.MaxBytesPerPerson <= 0 {
		cfg.MaxBytesPerPerson = cfg.MaxBytes / 4
	}
	if cfg.MinFree <= 0 {
		cfg.MinFree = 64 << 20
	}
	if cfg.Low <= 0 || cfg.Low > cfg.MaxBytes {
		cfg.Low = cfg.MaxBytes / 5 * 4
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	enc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	s := &Spool{
		cfg: cfg, log: cfg.Log, enc: enc, wake: make(chan struct{}, 1), ask: make(chan struct{}, 1),
		running: map[string]*Session{}, orphans: map[string]bool{},
		finished: map[string]*finishedRecording{}, byPerson: map[string]int64{},
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("recording: spool: %w", err)
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("recording: spool: %w", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, newPrefix): // a Begin that did not come to its end
			if err := os.RemoveAll(filepath.Join(cfg.Dir, name)); err != nil {
				return nil, fmt.Errorf("recording: spool: %w", err)
			}
		case e.IsDir() && ValidID(name):
			s.load(name)
		}
	}
	return s, nil
}

// load takes stock of one folder.
func (s *Spool) load(id string) {
	path := s.path(id, recordingName)
	f, err := os.Open(path)
	if err != nil {
		s.log.Error("recording cannot be opened", "id", id, "err", err)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		s.log.Error("recording cannot be read", "id", id, "err", err)
		return
	}
	r, err := NewReader(f, st.Size())
	if err != nil {
		s.log.Error("recording cannot be read", "id", id, "err", err)
		return
	}
	defer r.Close()
	person := personOf(r.Meta())
	size := st.Size()
	if r.Complete() && r.end == size {
		s.finished[id] = &finishedRecording{person: person, to: r.Meta().Recorders, size: size, acked: s.readState(id)}
		// Finish may have been cut off between its last sync and this.
		_ = os.Remove(s.path(id, journalName))
		_ = os.Remove(s.path(id, keyName))
	} else {
		s.orphans[id] = true
		if j, err := os.Stat(s.path(id, journalName)); err == nil {
			size += diskUsage(j)
		}
	}
	s.used += size
	s.byPerson[person] += size
}

func (s *Spool) path(id, name string) string { return filepath.Join(s.cfg.Dir, id, name) }

// personOf is whose quota a recording counts against.
func personOf(m Meta) string {
	if m.Login != "" {
		return "user:" + m.Login
	}
	return "node:" + m.SrcID
}

// ValidID says whether id is one of ours: it is used as a name in paths and URLs.
func ValidID(id string) bool {
	if len(id) == 0 || len(id) > 64 || id[0] == '-' {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// NewID makes an id that sorts by time and cannot be guessed. It ends with a mark of the
// host that records, where that is known: the person recorded can read the id in the
// session, and no other machine may be first to send a recording of that name.
func NewID(now time.Time, host string) string {
	var b [10]byte
	rand.Read(b[:]) // never fails
	id := now.UTC().Format("20060102-150405-") + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	if host != "" {
		id += "-" + hostMark(host)
	}
	return id
}

func hostMark(host string) string {
	h := sha256.Sum256([]byte("tssh recording host\x00" + host))
	return strings.ToLower(base32.StdEncoding.EncodeToString(h[:5]))
}

// OfHost reports whether the id can be of a recording of this host's. Ids without a mark
// are of earlier versions, and can be anybody's.
func OfHost(id, host string) bool { return strings.Count(id, "-") < 3 || MarkedBy(id, host) }

// MarkedBy reports whether the id has this host's mark.
func MarkedBy(id, host string) bool {
	p := strings.Split(id, "-")
	return len(p) >= 4 && p[3] == hostMark(host)
}

// admit says whether a new recording of this person may begin.
func (s *Spool) admit(person string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.used >= s.cfg.MaxBytes:
		return ErrSpoolFull
	case s.byPerson[person] >= s.cfg.MaxBytesPerPerson:
		return ErrQuota
	}
	return s.roomLocked(s.cfg.MinFree, true)
}

// roomAgain says whether there is room for what ran out of it: a sixteenth more than it takes to
// run out, so that it does not do so at once.
func (s *Spool) roomAgain(person string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	below := func(used, most int64) bool { return used < most-most/16 }
	return below(s.used, s.cfg.MaxBytes) && below(s.byPerson[person], s.cfg.MaxBytesPerPerson) && s.roomLocked(s.cfg.MinFree, true) == nil
}

// Level is how full a spool is.
type Level int

const (
	LevelRoom Level = iota
	LevelLow        // only what must be recorded begins
	LevelFull       // nothing begins
)

func (l Level) String() string { return [...]string{"room", "low", "full"}[l] }

// Level says how full the spool and its disk are.
func (s *Spool) Level() Level {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.used >= s.cfg.MaxBytes, s.roomLocked(s.cfg.MinFree, false) != nil:
		return LevelFull
	case s.used >= s.cfg.Low, s.roomLocked(2*s.cfg.MinFree, false) != nil:
		return LevelLow
	}
	return LevelRoom
}

// Usage is how many bytes recordings and journals take, and how many they may.
func (s *Spool) Usage() (used, most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.cfg.MaxBytes
}

// roomLocked looks at the file system, at most once a second unless it is fresh.
func (s *Spool) roomLocked(need int64, fresh bool) error {
	now := s.cfg.Clock()
	if fresh || now.Sub(s.freeAt) >= time.Second || now.Before(s.freeAt) {
		free, err := freeBytes(s.cfg.Dir)
		if err != nil {
			return fmt.Errorf("recording: spool: %w", err)
		}
		s.free, s.freeAt = free, now
	}
	if s.free < need {
		return ErrSpoolFull
	}
	return nil
}

// grow accounts for what a session takes and says whether it may go on.
func (s *Spool) grow(person string, delta int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += delta
	if s.byPerson[person] += delta; s.byPerson[person] <= 0 {
		delete(s.byPerson, person)
	}
	switch {
	case delta <= 0:
		return nil
	case s.byPerson[person] > s.cfg.MaxBytesPerPerson:
		return ErrQuota
	case s.used > s.cfg.MaxBytes:
		return ErrSpoolFull
	}
	return s.roomLocked(s.cfg.MinFree/2, false)
}

// Orphans lists unfinished recordings that no one has adopted since this spool was
// opened.
func (s *Spool) Orphans() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedKeys(s.orphans), nil
}

// Finished lists recordings that are complete and that no recorder has.
func (s *Spool) Finished() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedKeys(s.finished), nil
}

// Progress is how far a recording has come.
type Progress struct {
	ID      string
	Path    string   // of the .tsr
	To      []string // Meta.Recorders
	Durable int64    // bytes on disk, whole blocks; only these may be shipped
	Acked   int64    // bytes that the recorder has which acknowledged last
	Final   bool     // Durable is all there will be
}

// Recordings lists what is here, running and finished, by id.
func (s *Spool) Recordings() []Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Progress
	for _, id := range sortedKeys(s.running) {
		x := s.running[id]
		out = append(out, Progress{ID: id, Path: s.path(id, recordingName), To: x.meta.Recorders, Durable: x.durable.Load(), Acked: x.acked.Load()})
	}
	for _, id := range sortedKeys(s.finished) {
		f := s.finished[id]
		out = append(out, Progress{ID: id, Path: s.path(id, recordingName), To: f.to, Durable: f.size, Acked: f.acked, Final: true})
	}
	return out
}

// Acked notes that a recorder has the first offset bytes of a recording. With final it
// has all of it, and the folder is freed. Where another recorder takes over it can be fewer than
// before: what counts is what one has, from the beginning on.
func (s *Spool) Acked(id string, offset int64, final bool) error {
	s.mu.Lock()
	x, f := s.running[id], s.finished[id]
	switch {
	case x != nil && !final && offset <= x.durable.Load():
		x.taken(offset)
		if m := x.unseen(offset); m != nil {
			s.seen = append(s.seen, m)
			select {
			case s.ask <- struct{}{}:
			default:
			}
		}
		s.mu.Unlock()
	case f != nil && final && offset == f.size:
		s.mu.Unlock()
		if err := os.RemoveAll(filepath.Join(s.cfg.Dir, id)); err != nil {
			return fmt.Errorf("recording: free %q: %w", id, err)
		}
		s.mu.Lock()
		delete(s.finished, id)
		s.mu.Unlock()
		_ = s.grow(f.person, -f.size) // freeing is never refused
		return nil
	case f != nil && !final && offset <= f.size:
		f.acked = offset
		s.mu.Unlock()
	default:
		s.mu.Unlock()
		return fmt.Errorf("recording: acknowledge %q: offset %d (final %v) is not in this spool", id, offset, final)
	}
	return s.writeState(id, offset)
}

// spoolState is state.json. It is a help, not evidence: without it a recording is
// offered to the recorder from its beginning.
type spoolState struct {
	Acked int64 `json:"acked"`
}

func (s *Spool) readState(id string) int64 {
	var st spoolState
	b, err := os.ReadFile(s.path(id, stateName))
	if err != nil || json.Unmarshal(b, &st) != nil || st.Acked < 0 {
		return 0
	}
	return st.Acked
}

func (s *Spool) writeState(id string, acked int64) error {
	b, err := json.Marshal(spoolState{Acked: acked})
	if err != nil {
		return err
	}
	tmp := s.path(id, stateName+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("recording: state of %q: %w", id, err)
	}
	if err := os.Rename(tmp, s.path(id, stateName)); err != nil {
		return fmt.Errorf("recording: state of %q: %w", id, err)
	}
	return nil
}
