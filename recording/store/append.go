package store

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"tssh/recording"
)

const (
	// piece is how much a verifier is given at a time: it buffers what is not a whole block yet,
	// and keeps the buffer.
	piece = 64 << 10
	// fairShare is how many times what is left for all others one host may have: alone it gets
	// four fifths of the disk, and whoever comes after it four fifths of the rest.
	fairShare = 4
	// maxReaders bounds the files that stay open for reading their new frames.
	maxReaders = 64
)

// Refusal is an append that the host must not try again as it is. It wraps one of the
// sentinels of this package.
type Refusal struct {
	Err    error
	status int
}

func (r *Refusal) Error() string { return "store: " + r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// HTTPStatus is how a recorder answers it.
func (r *Refusal) HTTPStatus() int { return r.status }

func refuse(status int, err error) error { return &Refusal{err, status} }

// Size says how much of a recording of host is here.
func (s *Store) Size(host, id string) (int64, bool, error) {
	if !recording.ValidID(id) {
		return 0, false, refuse(http.StatusBadRequest, ErrID)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone[id] {
		return 0, false, refuse(http.StatusGone, ErrGone)
	}
	r, ok := s.recs[id]
	if !ok {
		return 0, false, nil
	}
	if r.host != host {
		return 0, false, refuse(http.StatusForbidden, ErrForeign)
	}
	return r.sum.Size, r.sum.Complete, nil
}

// Append continues the recording id of host with data, which begins at offset. Whole blocks
// that continue the chain are on disk when it returns; what is left of data after them is to be
// sent again with what follows. It says how much is here now, also with an error. Data that is
// empty only says that the host is there and the recording goes on.
func (s *Store) Append(host, id string, offset int64, data []byte) (int64, bool, error) {
	if !recording.ValidID(id) || host == "" {
		return 0, false, refuse(http.StatusBadRequest, ErrID)
	}
	if s.isGone(id) {
		return 0, false, refuse(http.StatusGone, ErrGone)
	}
	r, begun := s.get(id)
	if !begun {
		return s.begin(host, id, offset, data)
	}
	if r.host != host {
		return 0, false, refuse(http.StatusForbidden, ErrForeign)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.extend(r, offset, data)
}

func (s *Store) get(id string) (*rec, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.recs[id]
	return r, ok
}

// begin takes the first bytes of a recording: its description must be among them, and be
// this recording's and this host's.
func (s *Store) begin(host, id string, offset int64, data []byte) (int64, bool, error) {
	if offset != 0 {
		return 0, false, refuse(http.StatusConflict, ErrOffset)
	}
	trial := recording.NewVerifier()
	n, err := feed(trial, data)
	if err != nil {
		return 0, false, refuse(http.StatusUnprocessableEntity, fmt.Errorf("%w: %w", ErrTampered, err))
	}
	m, ok := trial.Meta()
	if !ok {
		return 0, false, nil // no whole block yet
	}
	if m.ID != id {
		return 0, false, refuse(http.StatusUnprocessableEntity, fmt.Errorf("%w: it describes itself as %q", ErrTampered, m.ID))
	}
	if m.HostID != host || !recording.OfHost(id, host) {
		return 0, false, refuse(http.StatusForbidden, ErrForeign)
	}
	if s.cfg.Check != nil {
		if err := s.cfg.Check(m); err != nil {
			return 0, false, refuse(http.StatusUnprocessableEntity, fmt.Errorf("%w: %w", ErrClaims, err))
		}
	}
	path, err := s.pathOf(m)
	if err != nil {
		return 0, false, refuse(http.StatusUnprocessableEntity, err)
	}
	if err := s.roomForOne(host, &m); err != nil {
		return 0, false, err
	}
	if err := s.room(host, int64(n)); err != nil {
		return 0, false, err
	}
	r := &rec{id: id, dir: filepath.Dir(path), host: host, sum: Summary{Meta: m}, verifier: recording.NewVerifier()}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.mu.Lock()
	if _, raced := s.recs[id]; raced {
		s.mu.Unlock()
		return 0, false, refuse(http.StatusConflict, ErrOffset)
	}
	if err := create(s.cfg.Dir, path); err != nil {
		s.mu.Unlock()
		return 0, false, fmt.Errorf("store: begin %s: %w", id, err)
	}
	s.add(r)
	s.mu.Unlock()
	return s.extend(r, 0, data)
}

// create makes an empty file, and its folders, durably.
func create(top, path string) error {
	month := filepath.Dir(path)
	if err := os.MkdirAll(month, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(month), syncDir(filepath.Dir(month)), syncDir(top))
}

// extend is Append with r.mu held.
func (s *Store) extend(r *rec, offset int64, data []byte) (int64, bool, error) {
	s.mu.RLock()
	size, complete, sealed := r.sum.Size, r.sum.Complete, r.sealed
	s.mu.RUnlock()
	switch {
	case offset != size:
		return size, complete, refuse(http.StatusConflict, ErrOffset)
	case len(data) == 0 || complete:
		s.heard(r)
		return size, complete, nil
	case sealed:
		return size, complete, refuse(http.StatusUnprocessableEntity, fmt.Errorf("%w: what is here does not verify", ErrTampered))
	}
	if err := s.verifierOf(r, size); err != nil {
		return size, complete, err
	}
	// A copy is tried, so that bytes that are refused leave no trace.
	trial := *r.verifier
	n, err := feed(&trial, data)
	if err != nil {
		return size, complete, refuse(http.StatusUnprocessableEntity, fmt.Errorf("%w: %w", ErrTampered, err))
	}
	if n == 0 {
		s.heard(r)
		return size, complete, nil
	}
	trial.DropRest() // it comes again
	if err := s.room(r.host, int64(n)); err != nil {
		return size, complete, err
	}
	if err := s.checkSealing(r, &trial); err != nil {
		return size, complete, err
	}
	if err := writeAt(r.path(), data[:n], size); err != nil {
		return size, complete, fmt.Errorf("store: append %s: %w", r.id, err)
	}
	r.verifier = &trial
	size += int64(n)
	s.take(r, size, trial.Complete())
	return size, trial.Complete(), nil
}

// feed gives data to v in pieces and says how much of it are whole blocks.
func feed(v *recording.Verifier, data []byte) (int, error) {
	from := v.Offset()
	for rest := data; len(rest) > 0; {
		p := rest[:min(piece, len(rest))]
		if _, err := v.Write(p); err != nil {
			return 0, err
		}
		rest = rest[len(p):]
	}
	return int(v.Offset() - from), nil
}

// verifierOf makes sure that r has its verifier, from the file if need be. r.mu is held.
func (s *Store) verifierOf(r *rec, size int64) error {
	s.sweep()
	r.used = s.cfg.Clock()
	if r.verifier != nil {
		return nil
	}
	v, err := verify(r.path(), size)
	if err != nil || v.Offset() != size {
		s.mu.Lock()
		r.sealed = true
		s.mu.Unlock()
		s.cfg.Log.Error("recording does not verify any more", "recording", r.id, "path", r.path(), "err", err)
		return refuse(http.StatusUnprocessableEntity, fmt.Errorf("%w: what is here does not verify", ErrTampered))
	}
	r.verifier = v
	_, r.sealedTo = v.SealedTo()
	return nil
}

// writeAt makes data durable at offset, where the file ends, or leaves the file as it was.
func writeAt(path string, data []byte, offset int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(offset))
	}
	return errors.Join(err, f.Close())
}

// take notes that r has grown. r.mu is held.
func (s *Store) take(r *rec, size int64, complete bool) {
	s.mu.RLock()
	sum := r.sum.clone()
	s.mu.RUnlock()
	grown := size - sum.Size
	sum.Size, sum.Complete = size, complete
	if err := s.readNew(r, &sum); err != nil {
		sum.Problem = "a part of this recording cannot be read"
		s.cfg.Log.Warn("recording cannot be read", "recording", r.id, "err", err)
	}
	if s.readers.Load() > maxReaders {
		s.closeReader(r)
	}
	s.mu.Lock()
	r.sum, r.heard, r.sealed = sum, s.cfg.Clock(), r.sealed || complete
	s.bytes += grown
	s.byHost[r.host] += grown
	s.noteChange(r)
	s.weigh(r)
	s.grownLocked(r.id)
	s.mu.Unlock()
	if complete {
		s.closeReader(r)
		r.verifier = nil
		if err := writeSidecar(r.path(), sum); err != nil {
			s.cfg.Log.Warn("summary not written; the next start reads the recording instead", "recording", r.id, "err", err)
		}
	}
}

func (s *Store) heard(r *rec) {
	s.mu.Lock()
	r.heard = s.cfg.Clock()
	s.mu.Unlock()
}

// sweep lets go of what recordings that were not appended to for a while keep in memory.
func (s *Store) sweep() {
	now := s.cfg.Clock()
	s.mu.Lock()
	if now.Sub(s.swept) < time.Minute {
		s.mu.Unlock()
		return
	}
	s.swept = now
	all := make([]*rec, 0, len(s.recs))
	for _, r := range s.recs {
		all = append(all, r)
	}
	s.mu.Unlock()
	for _, r := range all {
		if !r.mu.TryLock() {
			continue // in use, so not idle
		}
		if now.Sub(r.used) > verifierIdle {
			r.verifier = nil
		}
		if now.Sub(r.used) > time.Minute {
			s.closeReader(r)
		}
		r.mu.Unlock()
	}
}

// Has says whether a recording of host is here up to this checkpoint, which is one of its last.
func (s *Store) Has(host string, p recording.Seen) (bool, error) {
	r, ok := s.get(p.ID)
	if !ok {
		return false, nil
	}
	if r.host != host {
		return false, refuse(http.StatusForbidden, ErrForeign)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.mu.RLock()
	size, sealed := r.sum.Size, r.sealed
	s.mu.RUnlock()
	if sealed {
		return false, nil
	}
	if err := s.verifierOf(r, size); err != nil {
		return false, err
	}
	return r.verifier.Has(p), nil
}
