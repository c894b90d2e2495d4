package store

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"tssh/recording"
)

// TestSealedRecordings takes a sealed recording in as any other, and has of it what lists need.
func TestSealedRecordings(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := recording.ParseRecipients(key.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	id, b := madeTo(t, meta("web", "deploy", noon), func() (*recording.Recipients, error) { return to, nil })
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	for size := int64(0); size < int64(len(b)); {
		got, _, err := s.Append("n-web", id, size, b[size:min(size+700, int64(len(b)))])
		if err != nil {
			t.Fatal(err)
		}
		if got == size {
			if got, _, err = s.Append("n-web", id, size, b[size:]); err != nil || got == size {
				t.Fatal(got, err)
			}
		}
		size = got
	}
	check := func(what string, s *Store) {
		t.Helper()
		sum, err := s.Lookup(id)
		if err != nil {
			t.Fatal(err)
		}
		c := sum.Main()
		if !sum.Meta.Sealed || !sum.Complete || sum.Problem != "" || sum.Opened != 1 || c.Type != "exec" || c.Command != "" || c.Exit == nil || c.Exit.Status != 3 ||
			sum.End == nil || sum.End.Cause != "closed" || sum.Duration.Seconds() < 39 {
			t.Errorf("%s: %+v", what, sum)
		}
	}
	check("taken in", s)
	check("from the sidecar", open(t, Config{Dir: dir}))
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("run deploy")) || bytes.Contains(text, []byte("line 3")) {
			t.Errorf("%s has it in the clear", path)
		}
		if filepath.Ext(path) == ".json" {
			must(os.Remove(path))
		}
		return err
	}))
	check("from the file", open(t, Config{Dir: dir}))
	bad := bytes.Clone(b)
	bad[len(bad)/2] ^= 1
	if _, _, err := open(t, Config{Dir: t.TempDir()}).Append("n-web", id, 0, bad); err == nil {
		t.Error("a changed byte was taken")
	}
}
