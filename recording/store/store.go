package store

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"

	"tssh/recording"
)

const (
	// liveFor is how long a recording without an end counts as running after its host was last
	// heard about it. Senders report at least every 30 s.
	liveFor = 90 * time.Second
	// verifierIdle is how long the state of an unfinished recording's verification is kept in
	// memory without an append; after that it is made again from the file.
	verifierIdle = 10 * time.Minute
)

// Config is how a Store is set up.
type Config struct {
	Dir string // made if it is not there

	MaxBytesPerHost int64 // of recordings of one host; 0 is no limit
	MaxBytes        int64 // of all recordings; 0 is no limit
	// MaxPerHost is how many recordings one host may have, half of them of one person; 0 is no
	// limit. One whose summary is long counts for several. What began is taken to its end.
	MaxPerHost int
	// MinFree are bytes that stay free on the disk; 0 is no limit. With it no host may have
	// more than fairShare times what is left to the others, so that one that sends without
	// end does not keep them from being recorded.
	MinFree int64
	// Limited is told, once an hour of each, when a host's recordings are refused because its share is
	// used up: limit is a name of Stats.Refused.
	Limited func(host, limit, say string)
	// Check says what a recording that begins claims wrongly; nil: nothing is known of hosts.
	Check func(recording.Meta) error

	// Sealing says what is wrong with how a recording is sealed, in words; "" is nothing. It is
	// asked when a recording begins and when it is sealed to others than before. What is wrong
	// is taken all the same, and marked (Summary.Unsealed); Marked is told, once of each.
	Sealing func(m recording.Meta, to []string) string
	Marked  func(m recording.Meta, why string)

	// Bucket is where complete recordings go as well; nil: they stay in the folder alone. With
	// CacheBytes, so much of what the bucket has is kept in the folder; 0 keeps all.
	Bucket     *blob.Bucket
	CacheBytes int64

	Retention []Rule                // how long recordings are kept; none: for ever
	Key       crypto.Signer         // Ed25519, signs tombstones; nil: they are not signed
	Former    []ed25519.PublicKey   // of keys before, whose tombstones count too
	Deleting  func(Tombstone) error // asked before a recording is deleted; nil agrees

	Log   *slog.Logger     // nil discards
	Clock func() time.Time // nil is time.Now
}

// What an append can be refused for. Each is found with errors.Is.
var (
	ErrNotFound = errors.New("there is no such recording")
	ErrForeign  = errors.New("the recording belongs to another host")
	ErrOffset   = errors.New("the append does not begin where the recording ends")
	ErrTampered = errors.New("the bytes do not continue the recording")
	ErrQuota    = errors.New("the recorder has no room for more")
	ErrID       = errors.New("this is not the id of a recording")
	ErrClaims   = errors.New("the recording claims to be what it is not")
)

// Store is a folder of recordings; safe for concurrent use.
// Lock order: rec.mu before Store.mu.
type Store struct {
	cfg     Config
	readers atomic.Int32 // recs whose reader is open
	listed  atomic.Bool  // what the bucket has is in the list
	opened  time.Time

	mu     sync.RWMutex
	recs   map[string]*rec
	sorted []*rec // newest first, then by id
	bytes  int64
	byHost map[string]int64
	counts map[owner]int // weights, by host and by who was recorded there
	swept  time.Time
	limits
	changes uint64                            // counts what was added or has grown
	removed uint64                            // counts what was deleted
	gone    map[string]bool                   // deleted
	follow  map[string]map[chan struct{}]bool // by recording: who waits for more of it
}

// rec is one recording. The fields from sum on are guarded by Store.mu, so that lists need one
// lock; mu serialises appends.
type rec struct {
	id   string
	dir  string // the folder it is in
	host string // HostID of its first frame

	mu       sync.Mutex
	verifier *recording.Verifier // nil when it must be made from the file
	reader   *reader             // nil when closed
	read     int                 // frames that the summary has
	outlined int64               // of a sealed one, up to where it has the outline
	sealedTo []string            // whom Sealing was asked about last
	used     time.Time           // last append

	sum      Summary
	words    string    // who, where, as whom; lower case
	changed  uint64    // Store.changes when it last was
	mark     string    // of the file beside it, before sum has it
	heard    time.Time // the host's last word about it
	weight   int
	hold     *Hold
	archived bool      // the bucket has it
	away     bool      // and only the bucket
	sealed   bool      // takes no more: complete, or its bytes here do not verify
	sha256   string    // of what the bucket has; "" where that is not known
	fetched  time.Time // from there
}

// path is where it lies, or would if it were not only in the bucket.
func (r *rec) path() string { return filepath.Join(r.dir, r.id+".tsr") }

// Open reads what is in the folder and mends what a crash left: bytes after the last whole
// frame were never acknowledged and are cut off.
func Open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	s := &Store{cfg: cfg, opened: cfg.Clock(), recs: map[string]*rec{}, byHost: map[string]int64{}, counts: map[owner]int{}, limits: newLimits(), gone: map[string]bool{}, follow: map[string]map[chan struct{}]bool{}}
	if err := s.rebuild(); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", cfg.Dir, err)
	}
	if err := s.loadAway(); err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	if err := s.listBucket(context.Background()); err != nil {
		cfg.Log.Error("bucket of recordings cannot be listed; Archive tries again", "err", err)
	}
	return s, nil
}

// add puts r into the list. mu is held.
func (s *Store) add(r *rec) {
	r.lean()
	s.noteChange(r)
	s.recs[r.id] = r
	at, _ := slices.BinarySearchFunc(s.sorted, r, byAge)
	s.sorted = slices.Insert(s.sorted, at, r)
	s.bytes += r.sum.Size
	s.byHost[r.host] += r.sum.Size
	s.weigh(r)
}

func byAge(a, b *rec) int {
	if c := b.sum.Meta.Start.Compare(a.sum.Meta.Start); c != 0 {
		return c
	}
	return cmp.Compare(a.id, b.id)
}

// Query chooses recordings for List.
type Query struct {
	Words  string              // every word must occur in person, host, user, command or id
	May    func(*Summary) bool // nil chooses none: who may see must be decided
	Before string              // cursor: only recordings after this one in the list
	Limit  int                 // at most; 0 means 100
	Live   bool                // only those that still run
}

// List gives the newest recordings that q chooses, and a cursor when there are more.
func (s *Store) List(q Query) ([]Summary, string) {
	if q.May == nil {
		return nil, ""
	}
	if q.Limit <= 0 {
		q.Limit = 100
	}
	words := strings.Fields(strings.ToLower(q.Words))
	now := s.cfg.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	from := 0
	if q.Before != "" {
		r, ok := s.recs[q.Before]
		if !ok {
			return nil, ""
		}
		at, _ := slices.BinarySearchFunc(s.sorted, r, byAge)
		from = at + 1
	}
	var out []Summary
	for _, r := range s.sorted[from:] {
		if q.Live && !s.live(r, now) || !r.matches(words) || !q.May(&r.sum) {
			continue
		}
		if len(out) == q.Limit {
			return out, out[len(out)-1].Meta.ID
		}
		out = append(out, s.summary(r, now))
	}
	return out, ""
}

// summary is a copy of r's, with Live decided. mu is held.
func (s *Store) summary(r *rec, now time.Time) Summary {
	c := r.sum.clone()
	c.Live = s.live(r, now)
	return c
}

// live says whether r still runs. mu is held.
func (s *Store) live(r *rec, now time.Time) bool {
	return !r.sealed && !r.sum.Complete && now.Sub(r.heard) < liveFor
}

// Lookup gives the summary of one recording.
func (s *Store) Lookup(id string) (Summary, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.recs[id]
	if !ok {
		return Summary{}, fmt.Errorf("store: %w", ErrNotFound)
	}
	return s.summary(r, s.cfg.Clock()), nil
}

// Reader reads the bytes of a recording that are verified and durable here.
type Reader struct {
	*io.SectionReader
	f *os.File
}

// Close gives the file back.
func (r *Reader) Close() error { return r.f.Close() }

// Read opens the bytes of one recording.
func (s *Store) Read(id string) (*Reader, error) {
	s.mu.RLock()
	r, ok := s.recs[id]
	var size int64
	if ok {
		size = r.sum.Size
	}
	s.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("store: %w", ErrNotFound)
	}
	f, err := s.openFile(r)
	if err != nil {
		return nil, fmt.Errorf("store: read %s: %w", id, err)
	}
	return &Reader{io.NewSectionReader(f, 0, size), f}, nil
}

// openFile opens the file of a recording, from the bucket if need be.
func (s *Store) openFile(r *rec) (*os.File, error) {
	f, err := os.Open(r.path())
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := s.fetch(r); err != nil {
		return nil, err
	}
	return os.Open(r.path())
}

// pathOf is where a recording lives: by the month it began, so that no folder grows without end.
func (s *Store) pathOf(m recording.Meta) (string, error) {
	y := m.Start.UTC().Year()
	if y < 1970 || y > 9999 {
		return "", fmt.Errorf("%w: it claims to begin in the year %d", ErrTampered, y)
	}
	return filepath.Join(s.cfg.Dir, m.Start.UTC().Format("2006"), m.Start.UTC().Format("01"), m.ID+".tsr"), nil
}
