package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"tssh/recording"
)

// markEnd is what the file beside a recording is called that says what the recorder found wrong with it.
const markEnd = ".mark"

// mark is that file.
type mark struct {
	Unsealed string `json:"unsealed"`
}

// checkSealing has a recording marked that is not sealed as it should be, before anything of it is
// acknowledged. It is taken: what happened is not to be lost because a host did not seal it. Sealing is asked when it
// begins, and again when it is sealed to others. r.mu is held.
func (s *Store) checkSealing(r *rec, v *recording.Verifier) error {
	sealed, to := v.SealedTo()
	s.mu.RLock()
	marked := r.sum.Unsealed != ""
	began := r.sum.Size == 0
	s.mu.RUnlock()
	switch {
	case s.cfg.Sealing == nil || marked:
		return nil
	case sealed && slices.Equal(to, r.sealedTo), !sealed && !began:
		return nil // also: no key block yet, without which there is no frame
	}
	r.sealedTo = slices.Clone(to)
	why := s.cfg.Sealing(r.sum.Meta, to)
	if why == "" {
		return nil
	}
	if err := writeFile(besides(r.path(), markEnd), mark{why}); err != nil {
		return fmt.Errorf("store: mark %s: %w", r.id, err)
	}
	s.mu.Lock()
	r.sum.Unsealed = why
	s.mu.Unlock()
	s.cfg.Log.Warn("recording is not sealed as it should be", "recording", r.id, "host", r.host, "why", why)
	if s.cfg.Marked != nil {
		s.cfg.Marked(r.sum.Meta, why)
	}
	return nil
}

// adoptMark takes a mark over that the bucket has.
func (s *Store) adoptMark(ctx context.Context, r *rec, stem string) error {
	k := mark{Unsealed: "what it was marked for cannot be read"}
	b, err := s.cfg.Bucket.ReadAll(ctx, stem+markEnd)
	if err == nil {
		_ = json.Unmarshal(b, &k) // else it is marked all the same
	}
	if err := writeFile(besides(r.path(), markEnd), k); err != nil {
		return err
	}
	s.mu.Lock()
	r.sum.Unsealed = k.Unsealed
	s.mu.Unlock()
	return nil
}
