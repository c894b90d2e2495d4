package store

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"
)

// TestHoldAtTheMomentOfDeletion: of a hold and a deletion at the same time one happens, and whoever asked for the other
// is told; nothing of a hold stays beside a tombstone.
func TestHoldAtTheMomentOfDeletion(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	var s *Store
	var holds sync.WaitGroup
	var held, second error
	cfg := Config{Dir: t.TempDir(), Bucket: bucket, Deleting: func(d Tombstone) error {
		started := make(chan struct{}, 2)
		holds.Go(func() { started <- struct{}{}; held = s.Hold(d.ID, Hold{By: "eve", Reason: "case 7"}) })
		holds.Go(func() { started <- struct{}{}; _, second = s.Delete(d.ID, "bob", "me too") })
		<-started
		<-started
		// Both are to find the recording before it goes. Who comes later finds nothing, which is well too.
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
			_ = s.count()
		}
		return nil
	}}
	s = open(t, cfg)
	id, b := made(t, meta("web", "deploy", noon))
	if _, done, err := s.Append("n-web", id, 0, b); err != nil || !done {
		t.Fatal(done, err)
	}
	if err := s.ArchiveNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := s.recs[id].path()
	if _, err := s.Delete(id, "alice", "asked to"); err != nil {
		t.Fatal(err)
	}
	holds.Wait()
	if !errors.Is(held, ErrNotFound) || !errors.Is(second, ErrNotFound) {
		t.Errorf("hold: %v, the second deletion: %v", held, second)
	}
	if _, err := os.Stat(besides(path, ".hold")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a hold is left: %v", err)
	}
	if ok, err := bucket.Exists(t.Context(), keyOf(noon, id, ".hold")); ok || err != nil {
		t.Errorf("a hold is left in the bucket: %v", err)
	}
	if stones, err := s.Tombstones(); err != nil || len(stones) != 1 || stones[0].By != "alice" {
		t.Errorf("tombstones %+v, %v", stones, err)
	}
}

// TestRetentionLeavesWhatRuns: a session that is older than its rule and still runs, or is still being sent after the hub
// was started, is not deleted; when its host is silent it is.
func TestRetentionLeavesWhatRuns(t *testing.T) {
	now := noon.Add(40 * 24 * time.Hour)
	cfg := Config{Dir: t.TempDir(), Retention: []Rule{{For: 30 * 24 * time.Hour}}, Clock: func() time.Time { return now }}
	s := open(t, cfg)
	id, b := made(t, meta("web", "deploy", noon))
	size, _, err := s.Append("n-web", id, 0, b[:len(b)/2])
	if err != nil || size == 0 {
		t.Fatal(size, err)
	}
	stays := func(what string) {
		t.Helper()
		if n, err := s.Expire(); n != 0 || err != nil {
			t.Fatalf("%s: %d deleted, %v", what, n, err)
		}
	}
	now = now.Add(time.Minute)
	stays("a minute after it was heard of")
	now = now.Add(time.Hour)
	s = open(t, cfg) // the hub starts; its host has not come back yet
	stays("just after a start")
	now = now.Add(time.Minute)
	if size, _, err = s.Append("n-web", id, size, nil); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	stays("its host came back")
	now = now.Add(time.Hour)
	if n, err := s.Expire(); n != 1 || err != nil {
		t.Fatalf("its host is silent: %d deleted, %v", n, err)
	}
	// The rest of it comes after all: it was deleted, and is refused in words.
	if _, _, err := s.Append("n-web", id, size, b[size:]); !errors.Is(err, ErrGone) {
		t.Errorf("the rest of a deleted one: %v", err)
	}
}
