package find

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	_ "modernc.org/sqlite"

	"tssh/recording"
	"tssh/recording/store"
	"tssh/recording/term"
)

// world is a store that is filled by a spool.
type world struct {
	t  testing.TB
	s  *store.Store
	k  *recording.Keys
	to *recording.Recipients
	x  *Index
	sp *recording.Spool
	d  string
	at time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, d: t.TempDir(), at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var err error
	if w.s, err = store.Open(store.Config{Dir: filepath.Join(w.d, "store")}); err != nil {
		t.Fatal(err)
	}
	if w.sp, err = recording.OpenSpool(recording.SpoolConfig{
		Dir: filepath.Join(w.d, "spool"), MinFree: 1, SealTo: func() (*recording.Recipients, error) { return w.to, nil }, Keyframer: func(cols, rows int) recording.Keyframer { return term.New(cols, rows) },
	}); err != nil {
		t.Fatal(err)
	}
	w.open()
	return w
}

func (w *world) open() {
	x, err := Open(Config{Path: filepath.Join(w.d, "search.db"), Store: w.s, Keys: w.k})
	if err != nil {
		w.t.Fatal(err)
	}
	w.x = x
	w.t.Cleanup(func() { x.Close() })
}

// add records an exec on host that writes text, and puts the first part of it, of whole, into the store.
func (w *world) add(host, command, text string) string {
	w.t.Helper()
	w.at = w.at.Add(time.Minute)
	x, err := w.sp.Begin(recording.Meta{Version: 1, Start: w.at, Mesh: "demo", Host: host, HostID: "n-" + host, Src: "laptop", SrcID: "n-l", Login: "a@b.c", LocalUser: "me"})
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := x.JournalFile()
	if err != nil {
		w.t.Fatal(err)
	}
	j := recording.NewJournal(f, time.Now())
	if err := j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: command}); err != nil {
		w.t.Fatal(err)
	}
	if err := j.Append(1, recording.KindOutput, []byte(text)); err != nil {
		w.t.Fatal(err)
	}
	if err := j.AppendJSON(1, recording.KindFile, recording.File{Op: "put", Path: "/srv/" + host + "/upload.bin"}); err != nil {
		w.t.Fatal(err)
	}
	f.Close()
	if err := x.Finish("closed", ""); err != nil {
		w.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(w.d, "spool", x.ID(), "recording.tsr"))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := w.s.Append("n-"+host, x.ID(), 0, b); err != nil {
		w.t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(w.d, "spool", x.ID()))
	return x.ID()
}

func (w *world) update() {
	w.t.Helper()
	if err := w.x.Update(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func all(*store.Summary) bool { return true }

func (w *world) find(q Query) (string, int64) {
	w.t.Helper()
	if q.May == nil {
		q.May = all
	}
	hits, next, err := w.x.Search(context.Background(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, h := range hits {
		s := h.Summary.Meta.Host + ":"
		for _, l := range h.Lines {
			s += " " + l.Text
		}
		if h.More {
			s += " ..."
		}
		out = append(out, s)
	}
	return strings.Join(out, " | "), next
}

func TestSearch(t *testing.T) {
	w := newWorld(t)
	w.add("web", "tail log", "nginx started\nerror: größe of 10.0.0.5 is \"odd\"\nfine\n")
	w.add("db", "psql", "error in table\nnothing\nerror again\nand error\n")
	w.update()
	w.add("mail", "mailq", "queue is empty; NGINX not here\n")
	w.update()
	for _, c := range []struct{ words, want string }{
		{"nginx", "mail: queue is empty; NGINX not here | web: nginx started"},
		{"ngin", "mail: queue is empty; NGINX not here | web: nginx started"},
		{"ginx", ""},
		{"error table", "db: error in table"},
		{"table error", "db: error in table"},
		{`"in error"`, ""},
		{`"error in"`, "db: error in table"},
		{"10.0.0.5", `web: error: größe of 10.0.0.5 is "odd"`},
		{"10.0.0.6", ""},
		{"GRÖSSE", ""},
		{"grosse", ""},
		{"GRÖßE", `web: error: größe of 10.0.0.5 is "odd"`},
		{"mailq", "mail: mailq"},
		{"/srv/db/upload.bin", "db: put /srv/db/upload.bin"},
		{`error" OR "fine`, ""},
		{"text:fine", ""},
		{"fine OR nginx", ""},
		{"-- fine )", "web: fine"},
		{"NEAR(fine\x00", ""},
	} {
		if got, _ := w.find(Query{Words: c.words}); got != c.want {
			t.Errorf("%q: %s\nwant %s", c.words, got, c.want)
		}
	}
	for _, none := range []string{"", "  ", "-- *", `""`} {
		if _, _, err := w.x.Search(t.Context(), Query{Words: none, May: all}); err != ErrNoWords {
			t.Errorf("%q: %v", none, err)
		}
	}
	if got, _ := w.find(Query{Words: "error", Lines: 2}); got != `db: error again and error ... | web: error: größe of 10.0.0.5 is "odd"` {
		t.Error(got)
	}
	if got, _ := w.find(Query{Words: "error", May: func(s *store.Summary) bool { return s.Meta.Host == "web" }}); strings.Contains(got, "db") || !strings.Contains(got, "web") {
		t.Error(got)
	}
	if hits, _, err := w.x.Search(t.Context(), Query{Words: "error"}); hits != nil || err != nil {
		t.Error("without a decision something was found")
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 25 {
		host := fmt.Sprintf("h%02d", i)
		w.add(host, "x", strings.Repeat("needle\n", 1+i%7))
		want = append([]string{host}, want...)
	}
	w.update()
	for _, words := range []string{"needle", "needl"} {
		var got []string
		for before, rounds := int64(0), 0; ; rounds++ {
			hits, next, err := w.x.Search(t.Context(), Query{Words: words, May: all, Limit: 4, Lines: 3, Before: before})
			if err != nil || rounds > 10 || len(hits) > 4 {
				t.Fatal(err, rounds, len(hits))
			}
			for _, h := range hits {
				got = append(got, h.Summary.Meta.Host)
			}
			if before = next; next == 0 {
				break
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v\nwant %v", words, got, want)
		}
	}
}

// TestTheIndexIsOnlyAHelp: deleted, damaged or of another time, it is made again.
func TestTheIndexIsOnlyAHelp(t *testing.T) {
	w := newWorld(t)
	w.add("web", "x", "needle\n")
	w.update()
	path := filepath.Join(w.d, "search.db")
	for name, harm := range map[string]func(){
		"deleted": func() { os.Remove(path) },
		"damaged": func() {
			if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"version": func() {
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
				t.Fatal(err)
			}
			db.Close()
		},
	} {
		w.x.Close()
		harm()
		w.open()
		if got, _ := w.find(Query{Words: "needle"}); got != "" {
			t.Errorf("%s: found before it was made: %s", name, got)
		}
		w.update()
		if got, _ := w.find(Query{Words: "needle"}); got != "web: needle" {
			t.Errorf("%s: %q", name, got)
		}
	}
	// Another store: what it does not have is forgotten.
	other, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w.x.Close()
	w.s = other
	w.open()
	w.update()
	var rows int
	if err := w.x.db.QueryRow("SELECT (SELECT count(*) FROM recs) + (SELECT count(*) FROM lines)").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows stay, %v", rows, err)
	}
}

// TestSealed finds what was sealed while there is a key, and not after.
func TestSealed(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if w.to, err = recording.ParseRecipients(id.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	w.add("web", "ls", "a needle in it\n")
	keys, err := recording.ParseKeys([]byte(id.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []*recording.Keys{nil, keys, nil} {
		w.x.Close()
		w.k = k
		w.open()
		w.update()
		w.update()
		if found, _ := w.find(Query{Words: "needle"}); (found != "") != (k != nil) {
			t.Errorf("%d: with a key %v, found %q", i, k != nil, found)
		}
	}
	b, err := os.ReadFile(filepath.Join(w.d, "search.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("needle left in the file: %v", bytes.Contains(b, []byte("needle")))
}

// BenchmarkSearch is over TSSH_BENCH_RECORDINGS recordings (300; the published table is of 10,000) of 100 lines each.
func BenchmarkSearch(b *testing.B) {
	n := 300
	fmt.Sscan(os.Getenv("TSSH_BENCH_RECORDINGS"), &n)
	w := newWorld(b)
	raw := 0
	for i := range n {
		var text strings.Builder
		for l := range 100 {
			fmt.Fprintf(&text, "Nov 26 12:%02d:%02d host%d service[%d]: request %x took %d ms, status ok\n", i%60, l%60, i%50, i*7, i*l*2654435761, l*i%997)
		}
		if i == n/2 {
			text.WriteString("the needle is here\n")
		}
		raw += text.Len()
		w.add(fmt.Sprintf("h%d", i%50), "journalctl", text.String())
	}
	began := time.Now()
	w.update()
	built := time.Since(began)
	w.x.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	st, err := os.Stat(filepath.Join(w.d, "search.db"))
	if err != nil {
		b.Fatal(err)
	}
	for _, words := range []string{"needle", "request took", "status ok 996", "absent"} {
		b.Run(words, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := w.x.Search(b.Context(), Query{Words: words, May: all}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Logf("%d recordings, %.1f MB of text: built in %v, index %.1f MB (%.2f of the text)", n, float64(raw)/1e6, built.Round(time.Millisecond), float64(st.Size())/1e6, float64(st.Size())/float64(raw))
}

// TestAHostHasAShare: above its share a host's oldest recordings go out of the index, and are said not to be in it;
// others' stay. What a host deletes makes room, and one long recording is in it up to a second that is said.
func TestAHostHasAShare(t *testing.T) {
	w := newWorld(t)
	w.x.cfg.PerHost = 4000
	w.add("db", "psql", "quiet needle\n")
	for i := range 6 {
		w.add("web", fmt.Sprintf("cmd%d", i), strings.Repeat(fmt.Sprintf("needle%d and nine more words to make it long\n", i), 30))
	}
	w.update()
	shares := func() map[string]int64 {
		t.Helper()
		m := map[string]int64{}
		rows, err := w.x.db.Query("SELECT host, bytes, (SELECT coalesce(sum(bytes), 0) FROM recs WHERE recs.host = hosts.host) FROM hosts")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var h string
			var n, sum int64
			if err := rows.Scan(&h, &n, &sum); err != nil {
				t.Fatal(err)
			}
			if n != sum || n > 4000 {
				t.Errorf("%s: %d bytes counted, %d there, of 4000", h, n, sum)
			}
			m[h] = n
		}
		return m
	}
	if m := shares(); m["n-web"] < 2000 || m["n-db"] == 0 {
		t.Errorf("shares %v", m)
	}
	for _, c := range []struct {
		words string
		found bool
	}{{"needle5", true}, {"needle4", true}, {"needle0", false}, {"needle1", false}, {"quiet", true}} {
		if got, _ := w.find(Query{Words: c.words}); (got != "") != c.found {
			t.Errorf("%s: %q", c.words, got)
		}
	}
	p, err := w.x.Partial(t.Context(), all)
	if err != nil || p.Recordings != 4 || len(p.Hosts) != 1 || p.Hosts[0] != "web" {
		t.Errorf("partial: %+v, %v", p, err)
	}
	if p, err := w.x.Partial(t.Context(), func(s *store.Summary) bool { return s.Meta.Host == "db" }); err != nil || p.Recordings != 0 || len(p.Hosts) != 0 {
		t.Errorf("what one may not see is told: %+v, %v", p, err)
	}
	if p, err := w.x.Partial(t.Context(), nil); err != nil || p.Recordings != 0 {
		t.Errorf("without a decision: %+v, %v", p, err)
	}
	var left int
	if err := w.x.db.QueryRow("SELECT count(*) FROM files JOIN recs ON recs.rec = files.rec WHERE recs.bytes = 0").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d paths of what was taken out, %v", left, err)
	}
	sums, _ := w.s.List(store.Query{May: all})
	if _, err := w.s.Delete(sums[0].Meta.ID, "root", "test"); err != nil {
		t.Fatal(err)
	}
	before := shares()["n-web"]
	w.update()
	if after := shares()["n-web"]; after >= before {
		t.Errorf("a deletion made no room: %d, before %d", after, before)
	}
}

// TestLongRecordingIsSaid: of a recording with more lines than are indexed the hit says up to where.
func TestLongRecordingIsSaid(t *testing.T) {
	w := newWorld(t)
	w.add("web", "yes", "needle\n"+strings.Repeat("y\n", maxLines+10))
	w.add("db", "no", "needle\n")
	w.update()
	hits, _, err := w.x.Search(t.Context(), Query{Words: "needle", May: all})
	if err != nil || len(hits) != 2 {
		t.Fatal(hits, err)
	}
	for _, h := range hits {
		if long := h.Summary.Meta.Host == "web"; (h.Until >= 0) != long {
			t.Errorf("%s: until %v", h.Summary.Meta.Host, h.Until)
		}
	}
}
