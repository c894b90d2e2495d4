package store

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

func put(t *testing.T, s *Store, m recording.Meta) (string, []byte) {
	t.Helper()
	id, b := made(t, m)
	if _, complete, err := s.Append(m.HostID, id, 0, b); err != nil || !complete {
		t.Fatalf("append: %v", err)
	}
	return id, b
}

func TestDeletionLeavesATombstone(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	var asked []Tombstone
	no := errors.New("the audit log is full")
	agree := no
	dir := t.TempDir()
	cfg := Config{Dir: dir, Key: key, Deleting: func(x Tombstone) error { asked = append(asked, x); return agree }}
	s := open(t, cfg)
	id, b := put(t, s, meta("web", "deploy", noon))
	other, _ := put(t, s, meta("web", "root", noon.Add(time.Hour)))

	if _, err := s.Delete(id, "bob", "asked to"); !errors.Is(err, no) {
		t.Fatalf("deleted although it could not be audited: %v", err)
	}
	agree = nil
	if err := s.Hold(id, Hold{By: "carol", Reason: "case 7", At: noon}); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg) // a hold outlives the recorder
	if _, err := s.Delete(id, "bob", "asked to"); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "case 7") {
		t.Fatalf("deleted on hold: %v", err)
	}
	if err := s.Release(id); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	stone, err := s.Delete(id, "bob", "asked to")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if !stone.Valid() || stone.SHA256 != hex.EncodeToString(sum[:]) || stone.By != "bob" || stone.Reason != "asked to" || stone.Size != int64(len(b)) || stone.Host != "web" || len(asked) != 2 {
		t.Errorf("tombstone %+v, asked %d times", stone, len(asked))
	}
	for change := range 3 {
		bad := stone
		switch change {
		case 0:
			bad.By = "carol"
		case 1:
			bad.SHA256 = strings.Repeat("0", 64)
		case 2:
			bad.At = bad.At.Add(time.Second)
		}
		if bad.Valid() {
			t.Errorf("a tombstone that was changed (%d) is valid", change)
		}
	}
	for range 2 {
		if _, err := s.Lookup(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("still in the list: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "*", id+"*")); len(left) != 1 || !strings.HasSuffix(left[0], ".gone") {
			t.Errorf("left: %q", left)
		}
		if _, _, err := s.Append("n-web", id, 0, b); !errors.Is(err, ErrGone) {
			t.Errorf("sent again: %v", err)
		}
		if _, err := s.Lookup(other); err != nil {
			t.Error(err)
		}
		if stones, err := s.Tombstones(); err != nil || len(stones) != 1 || !stones[0].Valid() {
			t.Errorf("%+v %v", stones, err)
		}
		s = open(t, cfg)
	}
	// A crash between the tombstone and the end: the next start finishes it.
	again := filepath.Join(dir, "2026", "11", id+".tsr")
	if err := os.WriteFile(again, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if _, err := os.Stat(again); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was deleted is back: %v", err)
	}
	if _, err := s.Delete(id, "bob", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestALiveRecordingIsNotDeleted(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	now := noon
	s := open(t, Config{Dir: t.TempDir(), Clock: func() time.Time { return now }, Retention: []Rule{{For: time.Hour}}})
	cut := int64(blocks(t, b)[5])
	if _, _, err := s.Append("n-web", id, 0, b[:cut]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(id, "bob", ""); !errors.Is(err, ErrLive) {
		t.Errorf("%v", err)
	}
	now = now.Add(48 * time.Hour)
	if _, _, err := s.Append("n-web", id, cut, nil); err != nil { // the host is still there
		t.Fatal(err)
	}
	if n, err := s.Expire(); n != 0 || err != nil {
		t.Errorf("%d expired, %v", n, err)
	}
	now = now.Add(time.Hour)
	if n, err := s.Expire(); n != 1 || err != nil {
		t.Errorf("without a word of the host: %d expired, %v", n, err)
	}
}

func TestRetention(t *testing.T) {
	var rules []Rule
	for _, w := range []string{"30d", "tag:web=90d", "tag:pci=forever"} {
		r, err := ParseRule(w)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	for _, bad := range []string{"", "d", "0d", "-1d", "30", "web=30d", "tag:web=", "1d1d", "36501d", "30d "} {
		if r, err := ParseRule(bad); err == nil {
			t.Errorf("%q is %+v", bad, r)
		}
	}
	now := noon
	s := open(t, Config{Dir: t.TempDir(), Clock: func() time.Time { return now }, Retention: rules})
	ids := map[string]string{}
	for _, name := range []string{"plain", "web", "pci", "held"} {
		m := meta("web", name, noon)
		if name != "held" && name != "plain" {
			m.HostTags = []string{"tag:" + name, "tag:web"}
		}
		ids[name], _ = put(t, s, m)
	}
	if err := s.Hold(ids["held"], Hold{By: "carol", Reason: "case 7"}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		days int
		left string
	}{{29, "plain web pci held"}, {31, "web pci held"}, {89, "web pci held"}, {91, "pci held"}, {4000, "pci held"}} {
		now = noon.Add(time.Duration(step.days) * 24 * time.Hour)
		if _, err := s.Expire(); err != nil {
			t.Fatal(err)
		}
		for name, id := range ids {
			if _, err := s.Lookup(id); (err == nil) != strings.Contains(step.left, name) {
				t.Errorf("after %d days %s: %v", step.days, name, err)
			}
		}
	}
	if err := s.Release(ids["held"]); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Expire(); n != 1 || err != nil {
		t.Errorf("after the hold %d expired, %v", n, err)
	}
}
