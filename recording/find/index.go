package find

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"tssh/recording"
	"tssh/recording/store"
	"tssh/recording/transcript"
)

const (
	version  = 3 // of the schema and of what is put into it
	maxLines = 50_000
	maxBytes = 4 << 20
	every    = 3 * time.Second

	perHost = 256 << 20 // bytes of text of one host
	whole   = -1        // until, where all of a recording is in the index
)

// Config is how an Index is set up.
type Config struct {
	Path  string // of the SQLite file; made if it is not there
	Store *store.Store
	Keys  *recording.Keys // open sealed recordings: what they showed is in the file then, in the clear
	// PerHost is how many bytes of text one host may have in the index; 0 is 256 MiB. Above it what its
	// oldest recordings showed is taken out.
	PerHost int64
	Log     *slog.Logger // nil discards
}

// Index is the index of one store; safe for concurrent use. A driver called "sqlite" must be linked in.
type Index struct {
	cfg Config
	db  *sql.DB
	mu  sync.Mutex // one Update at a time

	// of the store, guarded by mu
	mark, removed uint64          // what was seen of it
	live          map[string]bool // what ran then
}

const schema = `
CREATE TABLE recs (rec INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
	host TEXT NOT NULL, bytes INTEGER NOT NULL, until INTEGER NOT NULL);
CREATE INDEX recs_text ON recs (host, rec) WHERE bytes > 0;
CREATE INDEX recs_part ON recs (rec) WHERE until >= 0;
CREATE TABLE hosts (host TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE lines USING fts5(text, rec UNINDEXED, ch UNINDEXED, at UNINDEXED, tokenize = 'unicode61');
CREATE TABLE files (rec INTEGER NOT NULL, path TEXT NOT NULL, PRIMARY KEY (rec, path)) WITHOUT ROWID;
`

// Open opens the index, or begins a new one where there is none that can be used.
func Open(cfg Config) (*Index, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.PerHost <= 0 {
		cfg.PerHost = perHost
	}
	x := &Index{cfg: cfg, live: map[string]bool{}}
	err := x.open()
	if err == nil {
		return x, nil
	}
	cfg.Log.Info("search: a new index is begun", "path", cfg.Path, "why", err)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(cfg.Path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("find: %w", err)
		}
	}
	if err := x.open(); err != nil {
		return nil, fmt.Errorf("find: %s: %w", cfg.Path, err)
	}
	return x, nil
}

func (x *Index) open() error {
	f, err := os.OpenFile(x.cfg.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	// What is lost with the power is made again; only the file must stay whole.
	db, err := sql.Open("sqlite", "file:"+x.cfg.Path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(4)
	if err := prepare(db); err != nil {
		db.Close()
		return err
	}
	x.db = db
	return nil
}

func prepare(db *sql.DB) error {
	var have, tables int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if err := db.QueryRow("SELECT count(*) FROM sqlite_master").Scan(&tables); err != nil {
		return err
	}
	if have == version {
		_, err := db.Exec("SELECT count(*) FROM lines WHERE lines MATCH 'x'")
		return err
	}
	if tables != 0 {
		return fmt.Errorf("it is of version %d", have)
	}
	_, err := db.Exec(schema + fmt.Sprintf("PRAGMA user_version = %d;", version))
	return err
}

// Close gives the file back; Run must have returned.
func (x *Index) Close() error { return x.db.Close() }

// Run keeps the index up to date until ctx ends.
func (x *Index) Run(ctx context.Context) {
	for {
		if err := x.Update(ctx); err != nil && ctx.Err() == nil {
			x.cfg.Log.Error("search index", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

type known struct{ rec, size, first, last int64 }

// Update indexes what is new in the store and forgets what is gone from it. It asks for what has
// changed since it last did, so that a long list costs nothing while nothing happens.
func (x *Index) Update(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	list, mark, removed := x.cfg.Store.Changes(x.mark)
	if x.mark == 0 || removed != x.removed {
		if err := x.forgetGone(ctx); err != nil {
			return fmt.Errorf("find: %w", err)
		}
	}
	// What was live and has not changed may not be live any more.
	for id := range x.live {
		if s, err := x.cfg.Store.Lookup(id); err != nil {
			delete(x.live, id)
		} else if !s.Live {
			list = append(list, store.Change{ID: id, Host: s.Meta.HostID, Size: s.Size, Complete: s.Complete, Sealed: s.Meta.Sealed})
		}
	}
	for _, c := range list { // oldest first, so that later rows are newer
		if err := ctx.Err(); err != nil {
			return err
		}
		have, ok, err := x.known(ctx, c.ID)
		if err != nil {
			return fmt.Errorf("find: %w", err)
		}
		if !ok || (x.sizeMark(c) < 0) != (have.size < 0) || c.Size != abs(have.size) && (c.Complete || !c.Live || c.Size > have.size+have.size/4) {
			if err := x.add(ctx, c); err != nil {
				return fmt.Errorf("find: recording %s: %w", c.ID, err)
			}
		}
		if delete(x.live, c.ID); c.Live {
			x.live[c.ID] = true
		}
	}
	x.mark, x.removed = mark, removed
	return nil
}

// known is what the index has of one recording.
func (x *Index) known(ctx context.Context, id string) (k known, ok bool, err error) {
	err = x.db.QueryRowContext(ctx, "SELECT rec, size, first, last FROM recs WHERE id = ?", id).Scan(&k.rec, &k.size, &k.first, &k.last)
	if errors.Is(err, sql.ErrNoRows) {
		return k, false, nil
	}
	return k, err == nil, err
}

// goneAtOnce is how many recordings are looked at in one piece, of however many there are.
const goneAtOnce = 1000

// forgetGone forgets what the store does not have any more.
func (x *Index) forgetGone(ctx context.Context) error {
	for after := int64(-1); ; {
		gone, last, n, err := x.goneAfter(ctx, after)
		if err != nil {
			return err
		}
		for _, k := range gone {
			if err := x.forget(ctx, k); err != nil {
				return err
			}
		}
		if after = last; n < goneAtOnce {
			return nil
		}
	}
}

func (x *Index) goneAfter(ctx context.Context, after int64) (gone []known, last int64, n int, err error) {
	rows, err := x.db.QueryContext(ctx, "SELECT id, rec, size, first, last FROM recs WHERE rec > ? ORDER BY rec LIMIT ?", after, goneAtOnce)
	if err != nil {
		return nil, 0, 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var id string
		var k known
		if err := rows.Scan(&id, &k.rec, &k.size, &k.first, &k.last); err != nil {
			return nil, 0, 0, err
		}
		if last = k.rec; !x.cfg.Store.Known(id) {
			gone = append(gone, k)
		}
	}
	return gone, last, n, rows.Err()
}

func (x *Index) forget(ctx context.Context, k known) error {
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // nothing after Commit
	if err := remove(ctx, tx, k); err != nil {
		return err
	}
	return tx.Commit()
}

// remove takes a recording out.
func remove(ctx context.Context, tx *sql.Tx, k known) error {
	if err := empty(ctx, tx, k); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM recs WHERE rec = ?", k.rec)
	return err
}

// empty takes a recording's rows, which are one run, out.
func empty(ctx context.Context, tx *sql.Tx, k known) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM lines WHERE rowid BETWEEN ? AND ?", k.first, k.last); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM files WHERE rec = ?", k.rec); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE hosts SET bytes = bytes - (SELECT bytes FROM recs WHERE rec = ?1) WHERE host = (SELECT host FROM recs WHERE rec = ?1)", k.rec); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE recs SET bytes = 0, until = 0 WHERE rec = ?", k.rec)
	return err
}

// trim takes the text of a host's oldest recordings out while it has more than its share, but never that of
// the recording rec.
func (x *Index) trim(ctx context.Context, tx *sql.Tx, host string, rec int64) error {
	for {
		var has int64
		if err := tx.QueryRowContext(ctx, "SELECT bytes FROM hosts WHERE host = ?", host).Scan(&has); err != nil || has <= x.cfg.PerHost {
			return err
		}
		var old known
		switch err := tx.QueryRowContext(ctx, "SELECT rec, first, last FROM recs WHERE host = ? AND bytes > 0 ORDER BY rec LIMIT 1", host).Scan(&old.rec, &old.first, &old.last); {
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return err
		case err != nil || old.rec == rec:
			return nil
		}
		if err := empty(ctx, tx, old); err != nil {
			return err
		}
	}
}

// add indexes one recording anew. One that cannot be read is noted as it is, so that it is not
// tried again every few seconds.
func (x *Index) add(ctx context.Context, c store.Change) error {
	t, err := x.read(c)
	var sealed *recording.SealedError
	until := int64(whole)
	if err != nil {
		if !errors.As(err, &sealed) {
			until = 0
			x.cfg.Log.Warn("search index: recording cannot be read", "recording", c.ID, "err", err)
		}
		t = &transcript.Transcript{}
	}
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // nothing after Commit
	var old known
	switch err := tx.QueryRowContext(ctx, "SELECT rec, size, first, last FROM recs WHERE id = ?", c.ID).Scan(&old.rec, &old.size, &old.first, &old.last); {
	case err == nil:
		if err := remove(ctx, tx, old); err != nil {
			return err
		}
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	// Both numbers grow together, so the last row has the highest; asking for the maximum of the
	// column without an index would read the whole table for each recording.
	var rec, row int64
	if err := tx.QueryRowContext(ctx, "SELECT rec, last FROM recs ORDER BY rec DESC LIMIT 1").Scan(&rec, &row); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	rec++
	first := row + 1
	put, err := tx.PrepareContext(ctx, "INSERT INTO lines (rowid, text, rec, ch, at) VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer put.Close()
	bytes := int64(0)
	line := func(ch uint32, at time.Duration, text string) error {
		row++
		bytes += int64(len(text))
		_, err := put.ExecContext(ctx, row, text, rec, ch, (at + time.Millisecond - time.Microsecond).Milliseconds())
		return err
	}
	for _, cmd := range t.Commands {
		if cmd.Source != transcript.SourceExec {
			continue // the others are on the screen
		}
		if err := line(cmd.Channel, cmd.At, cmd.Text); err != nil {
			return err
		}
	}
	for _, m := range t.Marks {
		switch m.Kind {
		case "resize", "exit", "hidden", "input": // numbers only
			continue
		}
		if err := line(m.Channel, m.At, m.Text); err != nil {
			return err
		}
		for _, p := range m.Paths {
			bytes += int64(len(p))
			if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO files (rec, path) VALUES (?, ?)", rec, p); err != nil {
				return err
			}
		}
	}
	for _, l := range t.Lines {
		if err := line(l.Channel, l.At, l.Text); err != nil {
			return err
		}
	}
	// A recording without a line takes a row number all the same, so that order and runs are clear.
	if t.Until > 0 {
		until = t.Until.Milliseconds()
	}
	host := c.Host
	if _, err := tx.ExecContext(ctx, "INSERT INTO recs (rec, id, size, first, last, host, bytes, until) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		rec, c.ID, x.sizeMark(c), first, max(row, first), host, bytes, until); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO hosts (host, bytes) VALUES (?1, ?2) ON CONFLICT (host) DO UPDATE SET bytes = bytes + ?2", host, bytes); err != nil {
		return err
	}
	if err := x.trim(ctx, tx, host, rec); err != nil {
		return err
	}
	return tx.Commit()
}

// sizeMark is the size as it is kept: negative of one that is sealed and was read without any key,
// so that it is read again when there is one, and what was read is forgotten when there is none.
func (x *Index) sizeMark(c store.Change) int64 {
	if c.Sealed && x.cfg.Keys == nil {
		return -c.Size
	}
	return c.Size
}

func abs(n int64) int64 { return max(n, -n) }

func (x *Index) read(c store.Change) (*transcript.Transcript, error) {
	src, err := x.cfg.Store.Read(c.ID)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	r, err := x.cfg.Keys.NewReader(src, min(src.Size(), c.Size))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return transcript.Read(r, transcript.Limits{Lines: maxLines, Bytes: maxBytes, Commands: 5000, Marks: 10_000, Work: 1e9})
}
