package find

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"modernc.org/sqlite"

	"tssh/recording"
	"tssh/recording/store"
)

// TestAddingReadsNoMoreOfALongList counts the pages of the file that are looked at while one
// recording is added: as many, but for the depth of a tree, where there are a few others as where
// there are very many.
func TestAddingReadsNoMoreOfALongList(t *testing.T) {
	w := newWorld(t)
	w.x.db.SetMaxOpenConns(1) // the counters are a connection's
	pages := func() (n int) {
		t.Helper()
		c, err := w.x.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Raw(func(dc any) error {
			for _, op := range []sqlite.DBStatusOp{sqlite.DBStatusCacheHit, sqlite.DBStatusCacheMiss} {
				now, _, err := dc.(sqlite.DBStatus).Status(op, true)
				if err != nil {
					return err
				}
				n += now
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	add := func() int {
		id := w.add("web", "ls", "a line\n")
		s, err := w.s.Lookup(id)
		if err != nil {
			t.Fatal(err)
		}
		pages()
		if err := w.x.add(t.Context(), store.Change{ID: id, Host: "n-web", Size: s.Size, Complete: s.Complete}); err != nil {
			t.Fatal(err)
		}
		return pages()
	}
	add() // the first makes what there is once
	few := add()
	const many = 50_000
	if _, err := w.x.db.Exec(`WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 100 + ?)
		INSERT INTO recs (rec, id, size, first, last, host, bytes, until) SELECT i, printf('20260101-000000-%016x', i), 4000, i, i, 'n-web', 40, -1 FROM n`, many); err != nil {
		t.Fatal(err)
	}
	long := add()
	t.Logf("pages looked at: %d beside 2 recordings, %d beside %d", few, long, many)
	if few == 0 || long > few+50 {
		t.Errorf("%d pages were looked at beside %d recordings, %d beside 2", long, many, few)
	}
	if got, _ := w.find(Query{Words: "line", Limit: 10}); strings.Count(got, "web") != 3 {
		t.Errorf("found %q", got)
	}
}

// plant puts n complete recordings into the folder of a store as a hub that ran for long has them: the same
// frames under n names, with summaries beside.
func plant(t *testing.T, n int) string {
	t.Helper()
	w := newWorld(t)
	id := w.add("web", "make -C /srv/build all", strings.Repeat("cc -O2 -c -o file.o file.c\n", 20))
	sum, err := w.s.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	src, err := w.s.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := io.ReadAll(src)
	if err != nil {
		t.Fatal(err)
	}
	src.Close()
	dir := t.TempDir()
	from := ""
	for i := range n {
		m := &sum.Meta
		m.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Minute)
		m.ID = recording.NewID(m.Start, fmt.Sprintf("n-h%d", i%500))
		m.Host, m.HostID = fmt.Sprintf("host%d.example", i%500), fmt.Sprintf("n-h%d", i%500)
		m.Login, m.Src, m.SrcID, m.SrcAddr = fmt.Sprintf("person%d@example.com", i%300), fmt.Sprintf("laptop%d", i%300), fmt.Sprintf("n-l%d", i%300), fmt.Sprintf("100.64.%d.%d", i%200, i%250)
		m.LocalUser, m.Rule, m.Client, m.Role, m.HostTags = "deploy", "ssh[3]", "SSH-2.0-OpenSSH_9.6", "member", []string{"tag:web"}
		sum.Channels = []store.Channel{{N: 1, Type: "exec", Command: fmt.Sprintf("make -C /srv/build-%d all", i), Exit: &recording.Exit{}}}
		stem := filepath.Join(dir, m.Start.Format("2006"), m.Start.Format("01"), m.ID)
		if err := os.MkdirAll(filepath.Dir(stem), 0o700); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 { // a file has only so many names
			from = stem + ".tsr"
			if err := os.WriteFile(from, frames, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Link(from, stem+".tsr"); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(map[string]any{"version": 1, "summary": sum})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(stem+".json", b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestMemoryOfAHub is what a hub holds with very many recordings (TSSH_BENCH_RECORDINGS, 3000), and
// how much more while it indexes them.
func TestMemoryOfAHub(t *testing.T) {
	n := 3000
	fmt.Sscan(os.Getenv("TSSH_BENCH_RECORDINGS"), &n)
	dir := plant(t, n)
	runtime.GC()
	var before, listed, indexed runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&listed)
	x, err := Open(Config{Path: filepath.Join(t.TempDir(), "search.db"), Store: s})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	ctx, cancel := context.WithCancel(t.Context())
	most := make(chan uint64)
	go func() { // ends with ctx
		var peak uint64
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				most <- peak
				return
			case <-tick.C:
				metrics.Read(sample)
				peak = max(peak, sample[0].Value.Uint64())
			}
		}
	}()
	began := time.Now()
	if err := x.Update(ctx); err != nil {
		t.Fatal(err)
	}
	first := time.Since(began)
	began = time.Now()
	for range 3 {
		if err := x.Update(ctx); err != nil {
			t.Fatal(err)
		}
	}
	again := time.Since(began) / 3
	cancel()
	peak := <-most
	runtime.GC()
	runtime.ReadMemStats(&indexed)
	runtime.KeepAlive(s)
	each := func(a, b uint64) float64 { return (float64(a) - float64(b)) / float64(n) }
	t.Logf("%d recordings: the list takes %.0f bytes each (%.0f MB); indexed in %v, a look at what is new %v; %.0f MB more while it indexed, %.0f after",
		n, each(listed.HeapAlloc, before.HeapAlloc), float64(listed.HeapAlloc-before.HeapAlloc)/1e6, first.Round(time.Millisecond), again.Round(100*time.Microsecond), (float64(peak)-float64(listed.HeapAlloc))/1e6, (float64(indexed.HeapAlloc)-float64(listed.HeapAlloc))/1e6)
	var rows int
	if err := x.db.QueryRow("SELECT count(*) FROM recs").Scan(&rows); err != nil || rows != n {
		t.Errorf("%d are indexed, %v", rows, err)
	}
}

// TestIndexKeepsUp: what a recording that runs has grown by is indexed by quarters, the rest when its host
// falls silent, and what is deleted is forgotten, each without a look at anything else.
func TestIndexKeepsUp(t *testing.T) {
	w := newWorld(t)
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "%d %x\n", i, i*2654435761)
	}
	id := w.add("web", "cat", text.String())
	src, err := w.s.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(src)
	if err != nil {
		t.Fatal(err)
	}
	src.Close()
	w.x.Close()
	now := time.Now()
	w.d = t.TempDir()
	if w.s, err = store.Open(store.Config{Dir: filepath.Join(w.d, "store"), Clock: func() time.Time { return now }}); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.update()
	var size int64
	put := func(part float64) {
		t.Helper()
		if size, _, err = w.s.Append("n-web", id, size, b[size:int(part*float64(len(b)))]); err != nil {
			t.Fatal(err)
		}
		w.update()
	}
	indexed := func() (n int64) {
		t.Helper()
		if err := w.x.db.QueryRow("SELECT coalesce(sum(size), 0) FROM recs").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	put(0.75)
	most := size
	if indexed() != most || most == 0 {
		t.Fatalf("%d of %d bytes are indexed", indexed(), most)
	}
	put(0.9)
	if indexed() != most || size == most {
		t.Fatalf("%d bytes are indexed, %d are here", indexed(), size)
	}
	now = now.Add(time.Hour)
	w.update()
	if indexed() != size {
		t.Errorf("%d of %d bytes are indexed of what does not run any more", indexed(), size)
	}
	put(1)
	if indexed() != int64(len(b)) {
		t.Errorf("%d of %d bytes are indexed of what has ended", indexed(), len(b))
	}
	if _, err := w.s.Delete(id, "root", "asked to"); err != nil {
		t.Fatal(err)
	}
	w.update()
	if indexed() != 0 {
		t.Error("what is deleted is indexed")
	}
}
