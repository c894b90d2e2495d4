package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"gocloud.dev/blob/memblob"

	"tssh/recording"
)

// TestUnsealedIsMarked: what does not come sealed as it should is taken, marked from its first byte on, told once, and
// marked for whoever has only the file, only the summary, or only the bucket.
func TestUnsealedIsMarked(t *testing.T) {
	const why = "not sealed, though the policy asks for it"
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	dir := t.TempDir()
	var told []string
	cfg := Config{Dir: dir, Bucket: bucket,
		Sealing: func(m recording.Meta, to []string) string {
			if !m.Sealed {
				return why
			}
			return ""
		},
		Marked: func(m recording.Meta, why string) { told = append(told, m.ID+" "+why) },
	}
	s := open(t, cfg)
	id, b := made(t, meta("web", "deploy", noon))
	for size := int64(0); size < int64(len(b)); {
		n := min(size+900, int64(len(b)))
		got, _, err := s.Append("n-web", id, size, b[size:n])
		if err != nil {
			t.Fatal(err)
		}
		if got == size {
			if got, _, err = s.Append("n-web", id, size, b[size:]); err != nil || got == size {
				t.Fatal(got, err)
			}
		}
		if size = got; size > 0 {
			if sum, err := s.Lookup(id); err != nil || sum.Unsealed != why {
				t.Fatalf("after %d bytes: %q, %v", size, sum.Unsealed, err)
			}
		}
	}
	if len(told) != 1 || told[0] != id+" "+why {
		t.Errorf("told %q", told)
	}
	if n := s.Stats().Unsealed; n != 1 {
		t.Errorf("%d are counted", n)
	}
	if err := s.ArchiveNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	check := func(what string, s *Store) {
		t.Helper()
		sum, err := s.Lookup(id)
		if err != nil || sum.Unsealed != why || !sum.Complete {
			t.Errorf("%s: %q, complete %v, %v", what, sum.Unsealed, sum.Complete, err)
		}
	}
	check("with all", open(t, cfg))
	remove := func(ext string) {
		t.Helper()
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ext {
				return err
			}
			return os.Remove(path)
		}); err != nil {
			t.Fatal(err)
		}
	}
	remove(".mark")
	check("with the summary", open(t, cfg))
	cfg.Dir = t.TempDir()
	check("with the bucket", open(t, cfg))
	if err := bucket.Delete(t.Context(), keyOf(noon, id, ".json")); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = t.TempDir()
	check("with the recording and its mark in the bucket", open(t, cfg))
	dir = cfg.Dir
	remove(".json")
	check("with the file and its mark", open(t, cfg))
	if len(told) != 1 {
		t.Errorf("told again: %q", told)
	}
	last := open(t, cfg)
	if _, err := last.Delete(id, "root", "the test is over"); err != nil {
		t.Fatal(err)
	}
	if ok, err := bucket.Exists(t.Context(), keyOf(noon, id, markEnd)); err != nil || ok {
		t.Errorf("the mark of a deleted recording is still there: %v", err)
	}
}

// TestSealedToOthers: whom a recording is sealed to is asked at its key block, and again only for another one; a hub
// that was started anew in the middle does not ask about what it has.
func TestSealedToOthers(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := recording.ParseRecipients(key.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	id, b := madeTo(t, meta("web", "deploy", noon), func() (*recording.Recipients, error) { return to, nil })
	asked := 0
	cfg := Config{Dir: t.TempDir(), Sealing: func(m recording.Meta, to []string) string {
		if asked++; len(to) == 1 && to[0] == key.Recipient().String() {
			return "not sealed to all whom the policy names"
		}
		return ""
	}}
	s := open(t, cfg)
	half := int64(len(b) / 2)
	size, _, err := s.Append("n-web", id, 0, b[:half])
	if err != nil || size == 0 {
		t.Fatal(size, err)
	}
	first := asked
	if sum, _ := s.Lookup(id); sum.Unsealed == "" {
		t.Error("not marked")
	}
	if err := os.Remove(besides(s.recs[id].path(), markEnd)); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if _, done, err := s.Append("n-web", id, size, b[size:]); err != nil || !done {
		t.Fatal(done, err)
	}
	if asked != first || first == 0 {
		t.Errorf("asked %d times, then %d", first, asked)
	}
}

// TestRecordingsPerHost: a host that has as many recordings as it may begins no more; what runs goes on, others are not
// concerned, nothing that is there goes, and what its rule keeps no longer makes room.
func TestRecordingsPerHost(t *testing.T) {
	now := noon.Add(time.Hour)
	var told []string
	cfg := Config{Dir: t.TempDir(), MaxPerHost: 3, Clock: func() time.Time { return now }, Retention: []Rule{{For: 30 * 24 * time.Hour}},
		Limited: func(host, limit, say string) { told = append(told, host+" "+limit) }}
	s := open(t, cfg)
	people := 0
	whole := func(host string, start time.Time) error {
		m := meta(host, "deploy", start)
		people++ // each another one, who has a share of their own
		m.Login = fmt.Sprintf("p%d@example.com", people)
		id, b := made(t, m)
		_, _, err := s.Append("n-"+host, id, 0, b)
		return err
	}
	for i := range 2 {
		if err := whole("web", noon.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	running, b := made(t, meta("web", "deploy", noon.Add(2*time.Minute)))
	size, _, err := s.Append("n-web", running, 0, b[:len(b)/2])
	if err != nil || size == 0 {
		t.Fatal(size, err)
	}
	for range 3 {
		var no *Refusal
		if err := whole("web", noon.Add(3*time.Minute)); !asRefusal(err, &no) || no.HTTPStatus() != 507 {
			t.Fatalf("the fourth: %v", err)
		}
	}
	if len(told) != 1 || told[0] != "n-web recordings-per-host" {
		t.Errorf("told %q", told)
	}
	if n := s.Stats().Refused["recordings-per-host"]; n != 3 {
		t.Errorf("counted %d", n)
	}
	if _, done, err := s.Append("n-web", running, size, b[size:]); err != nil || !done {
		t.Errorf("the one that ran: %v, %v", done, err)
	}
	if err := whole("db", noon); err != nil {
		t.Errorf("another host: %v", err)
	}
	if n := s.count(); n != 4 {
		t.Errorf("%d recordings", n)
	}
	s = open(t, cfg) // what a host has is counted from the files too
	if err := whole("web", noon.Add(4*time.Minute)); err == nil {
		t.Error("taken after a new start")
	}
	now = noon.Add(31 * 24 * time.Hour)
	if err := whole("web", now.Add(-time.Minute)); err != nil {
		t.Errorf("after a month: %v", err)
	}
	if got := s.countOf(owner{host: "n-web"}); got != 1 {
		t.Errorf("it counts as %d", got)
	}
}

// TestRecordingsPerPerson: one person has half of a host's recordings at most, so that others there are still recorded.
func TestRecordingsPerPerson(t *testing.T) {
	var told []string
	cfg := Config{Dir: t.TempDir(), MaxPerHost: 4, Limited: func(host, limit, say string) { told = append(told, host+" "+limit) }}
	s := open(t, cfg)
	at := noon
	begin := func(host, login string) (string, error) {
		at = at.Add(time.Minute)
		m := meta(host, "deploy", at)
		if m.Login = login; login == "" {
			m.SrcTags = []string{"tag:ci"}
		}
		id, b := made(t, m)
		_, _, err := s.Append("n-"+host, id, 0, b)
		return id, err
	}
	var first string
	for i := range 2 {
		id, err := begin("web", "alice@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = id
		}
	}
	var no *Refusal
	if _, err := begin("web", "alice@example.com"); !asRefusal(err, &no) || no.HTTPStatus() != 507 || !strings.Contains(err.Error(), "of this person") {
		t.Fatalf("the third of one person: %v", err)
	}
	s = open(t, cfg) // counted from the files too
	if _, err := begin("web", "alice@example.com"); err == nil {
		t.Error("taken after a new start")
	}
	for _, c := range []struct{ host, login string }{{"db", "alice@example.com"}, {"web", "bob@example.com"}, {"web", ""}} {
		if _, err := begin(c.host, c.login); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := begin("web", "carol@example.com"); !asRefusal(err, &no) || !strings.Contains(err.Error(), "from this host") {
		t.Errorf("the fifth of the host: %v", err)
	}
	if _, err := s.Delete(first, "root", "room"); err != nil {
		t.Fatal(err)
	}
	if _, err := begin("web", "alice@example.com"); err != nil {
		t.Errorf("after a deletion: %v", err)
	}
	if len(told) < 2 || told[0] != "n-web recordings-per-person" {
		t.Errorf("told %q", told)
	}
}

// TestLongSummaryCounts: a recording with many long commands takes more of its host's share than another.
func TestLongSummaryCounts(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), MaxPerHost: 100})
	r := &rec{host: "n-web"}
	s.weigh(r)
	if s.counts[owner{host: "n-web"}] != 1 {
		t.Errorf("an empty one counts as %d", s.counts[owner{host: "n-web"}])
	}
	for range maxChannels {
		r.sum.Channels = append(r.sum.Channels, Channel{Command: string(make([]byte, maxCommand))})
	}
	s.weigh(r)
	s.weigh(r)
	if want := 1 + maxChannels*(channelSize+maxCommand)/summarySize; s.counts[owner{host: "n-web"}] != want || want < 20 {
		t.Errorf("one with many long commands counts as %d, not %d", s.counts[owner{host: "n-web"}], want)
	}
}

func asRefusal(err error, to **Refusal) bool { return errors.As(err, to) }
