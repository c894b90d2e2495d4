package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"tssh/recording"
)

const (
	// bucketTime bounds one exchange with the bucket about something small, and bucketLong
	// one about a recording.
	bucketTime = 30 * time.Second
	bucketLong = 30 * time.Minute
	// archiveEvery is how often complete recordings are brought to the bucket.
	archiveEvery = 10 * time.Second
	md5Size      = md5.Size
)

// keyOf is the object of a recording, or of something beside it.
func keyOf(start time.Time, id, end string) string {
	return path.Join(start.UTC().Format("2006"), start.UTC().Format("01"), id+end)
}

func (s *Store) key(r *rec, end string) string { return keyOf(r.sum.Meta.Start, r.id, end) }

// putBeside writes something small beside a recording in the bucket.
func (s *Store) putBeside(r *rec, end string, v any) error {
	if s.cfg.Bucket == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bucketTime)
	defer cancel()
	return s.cfg.Bucket.WriteAll(ctx, s.key(r, end), b, &blob.WriterOptions{ContentType: "application/json"})
}

// dropBeside removes objects of a recording; ones that are not there are removed already.
func (s *Store) dropBeside(r *rec, ends ...string) error {
	if s.cfg.Bucket == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), bucketTime)
	defer cancel()
	for _, end := range ends {
		if err := s.cfg.Bucket.Delete(ctx, s.key(r, end)); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			return err
		}
	}
	return nil
}

// Archive brings complete recordings to the bucket until ctx ends, and lets go of the oldest
// copies here above CacheBytes. Trouble with the bucket is logged once, and tried again: the
// recordings are here meanwhile.
func (s *Store) Archive(ctx context.Context) error {
	if s.cfg.Bucket == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(archiveEvery)
	defer tick.Stop()
	trouble := false
	for {
		err := s.listBucket(ctx)
		if err == nil {
			err = s.ArchiveNow(ctx)
		}
		switch {
		case err != nil && !trouble && ctx.Err() == nil:
			s.cfg.Log.Error("bucket of recordings cannot be reached; they wait here", "err", err)
		case err == nil && trouble:
			s.cfg.Log.Info("bucket of recordings answers again")
		}
		trouble = err != nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// ArchiveNow brings what is complete and not in the bucket there, once.
func (s *Store) ArchiveNow(ctx context.Context) error {
	s.mu.RLock()
	var due []*rec
	for _, r := range slices.Backward(s.sorted) { // oldest first
		if r.sum.Complete && !r.archived {
			due = append(due, r)
		}
	}
	s.mu.RUnlock()
	for _, r := range due {
		if err := s.archive(ctx, r); err != nil {
			return fmt.Errorf("store: archive %s: %w", r.id, err)
		}
	}
	return s.evict()
}

func (s *Store) archive(ctx context.Context, r *rec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.isGone(r.id) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bucketLong)
	defer cancel()
	f, err := os.Open(r.path())
	if err != nil {
		return err
	}
	defer f.Close()
	sum, whole := md5.New(), sha256.New() // the first is what S3 compares, and not for security
	if _, err := io.Copy(io.MultiWriter(sum, whole), f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	opt := &blob.WriterOptions{ContentType: "application/octet-stream", MaxConcurrency: 1}
	if r.sum.Size < 4<<20 { // larger ones go in parts, each of which is summed
		opt.ContentMD5 = sum.Sum(nil)
	}
	if err := s.cfg.Bucket.Upload(ctx, s.key(r, ".tsr"), f, opt); err != nil {
		return err
	}
	at, err := s.cfg.Bucket.Attributes(ctx, s.key(r, ".tsr"))
	if err != nil {
		return err
	}
	if at.Size != r.sum.Size || len(at.MD5) == md5Size && !bytes.Equal(at.MD5, sum.Sum(nil)) {
		return fmt.Errorf("the bucket has %d bytes of %d, or others", at.Size, r.sum.Size)
	}
	s.mu.RLock()
	summary, hold := r.sum.clone(), r.hold
	s.mu.RUnlock()
	beside := sidecar{Version: sidecarVersion, Summary: summary, Archived: true, SHA256: hex.EncodeToString(whole.Sum(nil))}
	if err := s.putBeside(r, ".json", beside); err != nil {
		return err
	}
	if summary.Unsealed != "" {
		if err := s.putBeside(r, markEnd, mark{summary.Unsealed}); err != nil {
			return err
		}
	}
	if hold != nil {
		if err := s.putBeside(r, ".hold", hold); err != nil {
			return err
		}
	}
	if err := writeFile(sidecarPath(r.path()), beside); err != nil {
		return err
	}
	s.mu.Lock()
	r.archived, r.sha256 = true, beside.SHA256
	s.mu.Unlock()
	return nil
}

func (s *Store) isGone(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.gone[id]
}

// evict removes the oldest local copies of what is in the bucket, above CacheBytes.
func (s *Store) evict() error {
	if s.cfg.CacheBytes <= 0 {
		return nil
	}
	s.mu.RLock()
	var here int64
	var old []*rec
	for _, r := range slices.Backward(s.sorted) {
		if !r.away {
			here += r.sum.Size
			if r.archived {
				old = append(old, r)
			}
		}
	}
	s.mu.RUnlock()
	slices.SortStableFunc(old, func(a, b *rec) int { return a.fetched.Compare(b.fetched) })
	for _, r := range old {
		if here <= s.cfg.CacheBytes {
			return nil
		}
		if !r.mu.TryLock() {
			continue
		}
		s.closeReader(r)
		err := os.Remove(r.path()) // whoever has it open goes on reading
		if err == nil {
			s.mu.Lock()
			r.away = true
			s.mu.Unlock()
			here -= r.sum.Size
		}
		r.mu.Unlock()
		if err != nil {
			return fmt.Errorf("store: evict %s: %w", r.id, err)
		}
	}
	return nil
}

// fetch brings a recording that is only in the bucket back, verified. r.mu is held.
func (s *Store) fetch(r *rec) error {
	s.mu.RLock()
	away, want := r.away, identity{r.sum.Size, r.sha256, &r.sum.Meta}
	s.mu.RUnlock()
	if !away {
		return nil
	}
	if s.cfg.Bucket == nil {
		return errors.New("it is in a bucket that is not configured")
	}
	ctx, cancel := context.WithTimeout(context.Background(), bucketLong)
	defer cancel()
	if err := s.download(ctx, s.key(r, ".tsr"), r.path(), want); err != nil {
		return err
	}
	s.mu.Lock()
	r.away, r.fetched = false, s.cfg.Clock()
	s.mu.Unlock()
	return nil
}

// identity is what is known here of a recording that a bucket has. A recording that verifies in
// itself can be another one, which whoever writes to the bucket made up.
type identity struct {
	size   int64 // -1: any
	sha256 string
	meta   *recording.Meta // nil: any
}

func (want *identity) fits(size int64, sum []byte, m recording.Meta) bool {
	if want.size >= 0 && size != want.size || want.sha256 != "" && hex.EncodeToString(sum) != want.sha256 {
		return false
	}
	if want.meta == nil {
		return true
	}
	a, err1 := json.Marshal(*want.meta)
	b, err2 := json.Marshal(m)
	return err1 == nil && err2 == nil && bytes.Equal(a, b)
}

// download copies an object to a file, verifies it whole, and that it is the one wanted.
func (s *Store) download(ctx context.Context, key, to string, want identity) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	in, err := s.cfg.Bucket.NewReader(ctx, key, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := to + ".new"
	out, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // renamed where all is well
	defer out.Close()
	v, sum := recording.NewVerifier(), sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, v, sum)}, in, make([]byte, piece))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	m, _ := v.Meta()
	if !v.Complete() || v.Offset() != n || !want.fits(n, sum.Sum(nil), m) {
		return fmt.Errorf("%w: the bucket gives %d bytes that are not the recording", ErrTampered, n)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// loadAway puts recordings into the list whose files are only in the bucket: by their
// summaries in this folder.
func (s *Store) loadAway() error {
	locals, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*", "*", "*.json"))
	if err != nil {
		return err
	}
	for _, f := range locals {
		id := strings.TrimSuffix(filepath.Base(f), ".json")
		var c sidecar
		if s.recs[id] == nil && recording.ValidID(id) && readFile(f, &c) == nil && c.Archived {
			s.addAway(id, c)
		}
	}
	return nil
}

// listBucket adds what the bucket has and this folder does not know, once. Recordings whose
// summary is lost are fetched and read: the list can be made from the bucket alone.
func (s *Store) listBucket(ctx context.Context) error {
	if s.cfg.Bucket == nil || s.listed.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bucketLong)
	defer cancel()
	list := s.cfg.Bucket.List(nil)
	beside := map[string]bool{}
	var tsr []string
	for {
		o, err := list.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("bucket: %w", err)
		}
		beside[o.Key] = true
		if strings.HasSuffix(o.Key, ".tsr") {
			tsr = append(tsr, o.Key)
		}
	}
	for key := range beside {
		stem, ok := strings.CutSuffix(key, ".gone")
		if id := path.Base(stem); ok && !s.isGone(id) {
			if err := s.deleted(ctx, key, id, beside[stem+".hold"]); err != nil {
				s.cfg.Log.Error("tombstone that does not count; what it is about stays", "object", key, "err", err)
			}
		}
	}
	for _, key := range tsr {
		if err := s.adopt(ctx, key, beside); err != nil {
			s.cfg.Log.Error("recording left out of the list", "object", key, "err", err)
		}
	}
	s.listed.Store(true)
	return nil
}

// deleted takes a tombstone of the bucket's into account that this folder does not have: only
// one that this recorder signed, and not of a recording on hold. Whoever may write to the bucket
// has nothing deleted with it.
func (s *Store) deleted(ctx context.Context, key, id string, held bool) error {
	r, err := s.cfg.Bucket.NewRangeReader(ctx, key, 0, maxSidecar, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	var t Tombstone
	if err := json.NewDecoder(r).Decode(&t); err != nil {
		return err
	}
	switch {
	case held || s.Held(id) != nil:
		return ErrHeld
	case t.ID != id || !s.ours(&t):
		return errors.New("it was not signed here")
	}
	s.mu.Lock()
	s.gone[id] = true
	s.mu.Unlock()
	return nil
}

// ours reports whether the tombstone is of this recorder. One that does not sign has no way to know.
func (s *Store) ours(t *Tombstone) bool {
	if s.cfg.Key == nil {
		return true
	}
	pub, ok := s.cfg.Key.Public().(ed25519.PublicKey)
	return t.Valid() && (ok && pub.Equal(ed25519.PublicKey(t.Key)) || slices.ContainsFunc(s.cfg.Former, func(k ed25519.PublicKey) bool { return k.Equal(ed25519.PublicKey(t.Key)) }))
}

// adopt makes sure that one object of the bucket is in the list, with its hold.
func (s *Store) adopt(ctx context.Context, key string, beside map[string]bool) error {
	id := strings.TrimSuffix(path.Base(key), ".tsr")
	stem := strings.TrimSuffix(key, ".tsr")
	switch {
	case !recording.ValidID(id):
		return ErrID
	case s.isGone(id): // a crash came between the tombstone and the end of the deletion
		return errors.Join(s.cfg.Bucket.Delete(ctx, key), errors.New("it was deleted; what was left of it is removed now"))
	}
	if _, known := s.get(id); !known {
		var c sidecar
		b, err := s.cfg.Bucket.ReadAll(ctx, stem+".json")
		if err == nil {
			err = json.Unmarshal(b, &c)
		}
		if err == nil && c.Version == sidecarVersion && c.Summary.Meta.ID == id && keyOf(c.Summary.Meta.Start, id, ".tsr") == key {
			s.addAway(id, c)
		} else {
			to := filepath.Join(s.cfg.Dir, filepath.FromSlash(path.Dir(key)), id+".tsr")
			if err := s.download(ctx, key, to, identity{size: -1}); err != nil {
				return err
			}
			if err := s.load(to, id); err != nil {
				return err
			}
			s.mu.Lock()
			s.recs[id].archived = true
			s.mu.Unlock()
			if beside[stem+markEnd] {
				if err := s.adoptMark(ctx, s.recs[id], stem); err != nil {
					return err
				}
			}
		}
	}
	r, ok := s.get(id)
	if !ok {
		return errors.New("its summary does not describe it")
	}
	if s.Held(id) == nil && beside[stem+".hold"] {
		var h Hold
		if b, err := s.cfg.Bucket.ReadAll(ctx, stem+".hold"); err != nil || json.Unmarshal(b, &h) != nil {
			h = Hold{By: "unknown", Reason: "its hold cannot be read"}
		}
		s.mu.Lock()
		r.hold = &h
		s.mu.Unlock()
	}
	return nil
}

func (s *Store) addAway(id string, c sidecar) {
	p, err := s.pathOf(c.Summary.Meta)
	if err != nil || c.Summary.Meta.ID != id || !c.Summary.Complete {
		return
	}
	r := &rec{id: id, dir: filepath.Dir(p), host: c.Summary.Meta.HostID, sum: c.Summary, sealed: true, archived: true, sha256: c.SHA256, away: true}
	if s.loadKept(r) != nil {
		return
	}
	r.sum.Unsealed = cmp.Or(r.sum.Unsealed, r.mark)
	s.mu.Lock()
	s.add(r)
	s.mu.Unlock()
}

// Relist looks again for recordings, in the folder and in the bucket, that are not in the
// list, and says how many it found.
func (s *Store) Relist(ctx context.Context) (int, error) {
	before := s.count()
	err := s.rebuild()
	if err == nil {
		s.listed.Store(false)
		err = s.listBucket(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("store: relist: %w", err)
	}
	return s.count() - before, nil
}

func (s *Store) count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.recs)
}
