package store

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tssh/recording"
)

// What a deletion can be refused for.
var (
	ErrHeld = errors.New("the recording is on hold")
	ErrGone = errors.New("the recording was deleted here")
	ErrLive = errors.New("the recording is still being made")
)

// Hold keeps a recording from being deleted, by anybody and by time.
type Hold struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"` // a case number, say
	At     time.Time `json:"at"`
}

// Tombstone is what is left of a recording that was deleted: that it was, by whom, and what
// its bytes were.
type Tombstone struct {
	ID        string    `json:"id"`
	Start     time.Time `json:"start"`
	Host      string    `json:"host"`
	HostID    string    `json:"host_id"`
	Login     string    `json:"login,omitempty"`
	Src       string    `json:"src"`
	LocalUser string    `json:"local_user"`
	Size      int64     `json:"size"`
	SHA256    string    `json:"sha256"` // of the file
	Complete  bool      `json:"complete"`
	By        string    `json:"by"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
	Key       []byte    `json:"key,omitempty"`       // Ed25519 public key of the recorder
	Signature []byte    `json:"signature,omitempty"` // of "tssh recording tombstone" 0 | this as JSON without it
}

func (t Tombstone) message() ([]byte, error) {
	t.Signature = nil
	b, err := json.Marshal(t)
	return append([]byte("tssh recording tombstone\x00"), b...), err
}

// Valid says whether the key that t names signed it. Whose that is, is for the caller to know.
func (t Tombstone) Valid() bool {
	m, err := t.message()
	return err == nil && len(t.Key) == ed25519.PublicKeySize && ed25519.Verify(t.Key, m, t.Signature)
}

func (t *Tombstone) sign(key crypto.Signer) error {
	if key == nil {
		return nil
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the key is not Ed25519")
	}
	t.Key = pub
	m, err := t.message()
	if err != nil {
		return err
	}
	t.Signature, err = key.Sign(nil, m, crypto.Hash(0))
	return err
}

// Rule says how long recordings are kept. Of the rules that match, the longest counts, so
// that one more tag never shortens a time.
type Rule struct {
	Tag string        // of the host or the peer, "tag:web"; "" matches all
	For time.Duration // 0 is for ever
}

// ParseRule reads "90d", "tag:web=365d", "tag:pci=forever".
func ParseRule(s string) (Rule, error) {
	var r Rule
	age := s
	if tag, rest, ok := strings.Cut(s, "="); ok {
		if r.Tag, age = tag, rest; !strings.HasPrefix(tag, "tag:") {
			return r, fmt.Errorf("store: retention %q: %q is not a tag", s, tag)
		}
	}
	if age == "forever" {
		return r, nil
	}
	var days int
	if n, err := fmt.Sscanf(age, "%dd", &days); err != nil || n != 1 || age != fmt.Sprintf("%dd", days) || days < 1 || days > 36500 {
		return r, fmt.Errorf("store: retention %q: a time is of the form 90d, or forever", s)
	}
	r.For = time.Duration(days) * 24 * time.Hour
	return r, nil
}

// keepFor is how long a recording is kept; 0 is for ever.
func keepFor(rules []Rule, m *recording.Meta) time.Duration {
	most, any := time.Duration(0), false
	for _, r := range rules {
		if r.Tag != "" && !slices.Contains(m.HostTags, r.Tag) && !slices.Contains(m.SrcTags, r.Tag) {
			continue
		}
		if r.For == 0 {
			return 0
		}
		most, any = max(most, r.For), true
	}
	if !any {
		return 0
	}
	return most
}

func besides(path, end string) string { return strings.TrimSuffix(path, ".tsr") + end }

// writeFile writes a small file durably.
func writeFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func readFile(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewDecoder(io.LimitReader(f, maxSidecar)).Decode(v)
}

// Hold puts a recording on hold. One that is on hold stays so, for the new reason.
func (s *Store) Hold(id string, h Hold) error {
	r, ok := s.get(id)
	if !ok {
		return fmt.Errorf("store: hold %s: %w", id, ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.isGone(id) { // at this moment
		return fmt.Errorf("store: hold %s: %w", id, ErrNotFound)
	}
	if err := writeFile(besides(r.path(), ".hold"), h); err != nil {
		return fmt.Errorf("store: hold %s: %w", id, err)
	}
	if err := s.putBeside(r, ".hold", h); err != nil {
		return fmt.Errorf("store: hold %s: %w", id, err)
	}
	s.mu.Lock()
	r.hold = &h
	s.mu.Unlock()
	return nil
}

// Release takes a hold back.
func (s *Store) Release(id string) error {
	r, ok := s.get(id)
	if !ok {
		return fmt.Errorf("store: release %s: %w", id, ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.isGone(id) {
		return fmt.Errorf("store: release %s: %w", id, ErrNotFound)
	}
	err := s.dropBeside(r, ".hold")
	if err == nil {
		if err = os.Remove(besides(r.path(), ".hold")); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("store: release %s: %w", id, err)
	}
	s.mu.Lock()
	r.hold = nil
	s.mu.Unlock()
	return nil
}

// Held gives the hold of a recording; nil for none.
func (s *Store) Held(id string) *Hold {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.recs[id]; r != nil && r.hold != nil {
		h := *r.hold
		return &h
	}
	return nil
}

// Delete removes one recording for good and leaves a tombstone. Config.Deleting is asked
// before, and nothing happens if it does not agree.
func (s *Store) Delete(id, by, reason string) (Tombstone, error) {
	r, ok := s.get(id)
	if !ok {
		return Tombstone{}, fmt.Errorf("store: delete %s: %w", id, ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.isGone(id) {
		return Tombstone{}, fmt.Errorf("store: delete %s: %w", id, ErrNotFound)
	}
	s.mu.RLock()
	sum, hold := s.summary(r, s.cfg.Clock()), r.hold
	s.mu.RUnlock()
	switch {
	case hold != nil:
		return Tombstone{}, fmt.Errorf("store: delete %s: %w, by %s: %s", id, ErrHeld, hold.By, hold.Reason)
	case sum.Live:
		return Tombstone{}, fmt.Errorf("store: delete %s: %w", id, ErrLive)
	}
	t := Tombstone{ID: id, Start: sum.Meta.Start, Host: sum.Meta.Host, HostID: r.host, Login: sum.Meta.Login, Src: sum.Meta.Src, LocalUser: sum.Meta.LocalUser,
		Size: sum.Size, Complete: sum.Complete, By: by, Reason: reason, At: s.cfg.Clock().UTC()}
	var err error
	if t.SHA256, err = s.sumOf(r); err == nil {
		err = t.sign(s.cfg.Key)
	}
	if err == nil && s.cfg.Deleting != nil {
		err = s.cfg.Deleting(t)
	}
	if err != nil {
		return Tombstone{}, fmt.Errorf("store: delete %s: %w", id, err)
	}
	// The tombstone first: what a crash leaves is finished by the next Open.
	if err = writeFile(besides(r.path(), ".gone"), t); err == nil {
		err = s.putBeside(r, ".gone", t)
	}
	if err == nil {
		err = s.dropBeside(r, ".tsr", ".json", markEnd)
	}
	if err == nil {
		err = removeBesides(r.path())
	}
	if err != nil {
		return Tombstone{}, fmt.Errorf("store: delete %s: %w", id, err)
	}
	s.closeReader(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.recs, id)
	s.removed++
	if at, ok := slices.BinarySearchFunc(s.sorted, r, byAge); ok {
		s.sorted = slices.Delete(s.sorted, at, at+1)
	}
	s.bytes -= r.sum.Size
	if s.byHost[r.host] -= r.sum.Size; s.byHost[r.host] == 0 {
		delete(s.byHost, r.host)
	}
	s.tally(r, -r.weight)
	s.gone[id] = true
	r.sealed = true
	return t, nil
}

// removeBesides removes a recording and all that was made of it, but for its tombstone.
func removeBesides(path string) error {
	all, err := filepath.Glob(besides(path, ".*")) // ids have none of Glob's signs
	if err != nil {
		return err
	}
	for _, f := range all {
		if strings.HasSuffix(f, ".gone") {
			continue
		}
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

func (s *Store) sumOf(r *rec) (string, error) {
	if err := s.fetch(r); err != nil {
		return "", err
	}
	f, err := os.Open(r.path())
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Expire deletes what its rules keep no longer, and says how many. A recording without a
// rule, on hold, or still being made stays; after a start hosts have time to say what is.
func (s *Store) Expire() (int, error) { return s.expireOf("") }

// expireOf does it for one host; "" for all.
func (s *Store) expireOf(host string) (int, error) {
	now := s.cfg.Clock()
	s.mu.RLock()
	var due []string
	for _, r := range s.sorted {
		if host != "" && r.host != host {
			continue
		}
		age := keepFor(s.cfg.Retention, &r.sum.Meta)
		if age > 0 && r.hold == nil && now.Sub(r.sum.Meta.Start.Add(r.sum.Duration)) > age && now.Sub(r.heard) > liveFor && (r.sum.Complete || now.Sub(s.opened) > liveFor) {
			due = append(due, r.id)
		}
	}
	s.mu.RUnlock()
	n := 0
	var errs []error
	for _, id := range due {
		if _, err := s.Delete(id, "retention", "kept as long as its rule says"); err == nil {
			n++
		} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrHeld) && !errors.Is(err, ErrLive) {
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

// Tombstones lists what was deleted, of this folder.
func (s *Store) Tombstones() ([]Tombstone, error) {
	files, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*", "*", "*.gone"))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var out []Tombstone
	for _, f := range files {
		var t Tombstone
		if err := readFile(f, &t); err != nil {
			return nil, fmt.Errorf("store: tombstone %s: %w", f, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// loadKept takes holds and tombstones into account for a recording that is in the folder.
func (s *Store) loadKept(r *rec) error {
	if _, err := os.Stat(besides(r.path(), ".gone")); err == nil {
		s.mu.Lock()
		s.gone[r.id] = true
		s.mu.Unlock()
		return errors.Join(removeBesides(r.path()), errors.New("it was deleted; what was left of it is removed now"))
	}
	var k mark
	switch err := readFile(besides(r.path(), markEnd), &k); {
	case err == nil:
		r.mark = k.Unsealed
	case !errors.Is(err, os.ErrNotExist):
		r.mark = "what it was marked for cannot be read"
	}
	var h Hold
	switch err := readFile(besides(r.path(), ".hold"), &h); {
	case err == nil:
		r.hold = &h
	case !errors.Is(err, os.ErrNotExist):
		r.hold = &Hold{By: "unknown", Reason: "its hold cannot be read"} // a hold that cannot be read holds
	}
	return nil
}
