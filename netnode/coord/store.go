package coord

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// schemaVersion is of the tables below. A database of another version is not touched.
const schemaVersion = "1"

var schema = []string{
	`CREATE TABLE IF NOT EXISTS meta(k TEXT PRIMARY KEY, v TEXT NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS obj(kind TEXT NOT NULL, id TEXT NOT NULL, rev INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(kind, id))`,
	`CREATE TABLE IF NOT EXISTS log(rev INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, op TEXT NOT NULL, at INTEGER NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS uniq(key TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, until INTEGER NOT NULL)`,
	`CREATE INDEX IF NOT EXISTS uniq_id ON uniq(id)`,
	`CREATE TABLE IF NOT EXISTS audit(n INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)`,
}

// SQLiteDSN is how the hub's database is opened with the driver "sqlite": every commit
// is on the disk when it returns, and a write takes its lock at the start.
func SQLiteDSN(file string) string {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "foreign_keys(1)"}}
	return "file:" + (&url.URL{Path: file}).EscapedPath() + "?" + q.Encode()
}

// errTaken is the error of a unique key that somebody else has.
var errTaken = errors.New("taken")

// store is the hub's memory that survives: documents by kind and id, a log of what
// changed at which revision, keys that only one may have, and audit entries on their
// way out. Reads while serving come from memory; this is read once, at the start.
type store struct {
	db *sql.DB
}

type object struct {
	kind, id string
	rev      int64
	body     []byte
}

type logRow struct {
	rev      int64
	kind, id string
	op       string // "put" or "rm"
}

// contents is everything in the store but the audit entries.
type contents struct {
	meta map[string]string
	objs []object
	log  []logRow
}

// tx is one change of the store. Nothing of it is there until update returns nil.
type tx struct {
	ctx context.Context
	t   *sql.Tx
}

func openStore(ctx context.Context, db *sql.DB) (*store, error) {
	db.SetMaxOpenConns(1) // one writer; reads come from memory
	for _, q := range schema {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return nil, fmt.Errorf("coord: database: %w", err)
		}
	}
	s := &store{db: db}
	err := s.update(ctx, func(t *tx) error {
		v, err := t.meta("schema")
		if err != nil {
			return err
		}
		switch v {
		case "":
			return t.setMeta("schema", schemaVersion)
		case schemaVersion:
			return nil
		}
		return fmt.Errorf("coord: database: schema version %s, this program knows %s", v, schemaVersion)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// errCommit marks an error after which nobody knows whether the change is durable.
var errCommit = errors.New("coord: database: commit")

// update runs fn in one transaction. It is not cut short by ctx once it has begun to commit.
func (s *store) update(ctx context.Context, fn func(*tx) error) error {
	ctx = context.WithoutCancel(ctx)
	t, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("coord: database: %w", err)
	}
	if err := fn(&tx{ctx: ctx, t: t}); err != nil {
		if rerr := t.Rollback(); rerr != nil {
			return errors.Join(err, fmt.Errorf("coord: database: roll back: %w", rerr))
		}
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("%w: %w", errCommit, err)
	}
	return nil
}

// load reads everything.
func (s *store) load(ctx context.Context) (c contents, err error) {
	c.meta = map[string]string{}
	err = s.each(ctx, `SELECT k, v FROM meta`, func(scan func(...any) error) error {
		var k, v string
		err := scan(&k, &v)
		c.meta[k] = v
		return err
	})
	if err != nil {
		return c, err
	}
	err = s.each(ctx, `SELECT kind, id, rev, body FROM obj`, func(scan func(...any) error) error {
		var o object
		err := scan(&o.kind, &o.id, &o.rev, &o.body)
		c.objs = append(c.objs, o)
		return err
	})
	if err != nil {
		return c, err
	}
	err = s.each(ctx, `SELECT rev, kind, id, op FROM log ORDER BY rev`, func(scan func(...any) error) error {
		var r logRow
		err := scan(&r.rev, &r.kind, &r.id, &r.op)
		c.log = append(c.log, r)
		return err
	})
	return c, err
}

func (s *store) each(ctx context.Context, query string, fn func(scan func(...any) error) error, args ...any) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("coord: database: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return fmt.Errorf("coord: database: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("coord: database: %w", err)
	}
	return nil
}

// auditRow is an audit entry that the log of the mesh does not have yet.
type auditRow struct {
	n    int64
	body []byte
}

func (s *store) auditRows(ctx context.Context, limit int) (out []auditRow, err error) {
	err = s.each(ctx, `SELECT n, body FROM audit ORDER BY n LIMIT ?`, func(scan func(...any) error) error {
		var r auditRow
		err := scan(&r.n, &r.body)
		out = append(out, r)
		return err
	}, limit)
	return out, err
}

func (t *tx) exec(query string, args ...any) error {
	if _, err := t.t.ExecContext(t.ctx, query, args...); err != nil {
		return fmt.Errorf("coord: database: %w", err)
	}
	return nil
}

func (t *tx) meta(k string) (v string, err error) {
	err = t.t.QueryRowContext(t.ctx, `SELECT v FROM meta WHERE k = ?`, k).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("coord: database: %w", err)
	}
	return v, nil
}

func (t *tx) setMeta(k, v string) error {
	return t.exec(`INSERT INTO meta(k, v) VALUES(?, ?) ON CONFLICT(k) DO UPDATE SET v = excluded.v`, k, v)
}

func (t *tx) put(o object) error {
	return t.exec(`INSERT INTO obj(kind, id, rev, body) VALUES(?, ?, ?, ?) ON CONFLICT(kind, id) DO UPDATE SET rev = excluded.rev, body = excluded.body`,
		o.kind, o.id, o.rev, o.body)
}

func (t *tx) remove(kind, id string) error {
	return t.exec(`DELETE FROM obj WHERE kind = ? AND id = ?`, kind, id)
}

// log notes a revision. Its number is the primary key: none can be given twice.
func (t *tx) log(r logRow, at time.Time) error {
	if err := t.exec(`INSERT INTO log(rev, kind, id, op, at) VALUES(?, ?, ?, ?, ?)`, r.rev, r.kind, r.id, r.op, at.Unix()); err != nil {
		return err
	}
	return t.setMeta("rev", strconv.FormatInt(r.rev, 10))
}

// claim takes a unique key for an object; errTaken when it is another's, or rests.
func (t *tx) claim(key, kind, id string, now time.Time) error {
	if err := t.exec(`DELETE FROM uniq WHERE key = ? AND until <> 0 AND until <= ?`, key, now.Unix()); err != nil {
		return err
	}
	var k, i string
	err := t.t.QueryRowContext(t.ctx, `SELECT kind, id FROM uniq WHERE key = ?`, key).Scan(&k, &i)
	switch {
	case err == nil && k == kind && i == id:
		return nil
	case err == nil && k == "rest" && i == id:
		return t.exec(`UPDATE uniq SET kind = ?, until = 0 WHERE key = ?`, kind, key)
	case err == nil:
		return errTaken
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("coord: database: %w", err)
	}
	return t.exec(`INSERT INTO uniq(key, kind, id, until) VALUES(?, ?, ?, 0)`, key, kind, id)
}

// claimed reports whether a unique key is anybody's.
func (t *tx) claimed(key string) (bool, error) {
	var n int
	if err := t.t.QueryRowContext(t.ctx, `SELECT COUNT(*) FROM uniq WHERE key = ?`, key).Scan(&n); err != nil {
		return false, fmt.Errorf("coord: database: %w", err)
	}
	return n > 0, nil
}

// keysOf counts the node keys that were ever claimed for an object.
func (t *tx) keysOf(id string) (n int, err error) {
	err = t.t.QueryRowContext(t.ctx, `SELECT COUNT(*) FROM uniq WHERE id = ? AND (key LIKE 'wg/%' OR key LIKE 'control/%')`, id).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("coord: database: %w", err)
	}
	return n, nil
}

func (t *tx) release(key string) error { return t.exec(`DELETE FROM uniq WHERE key = ?`, key) }

// restFor keeps a key until then from everybody but the one who had it.
func (t *tx) restFor(key, id string, until time.Time) error {
	return t.exec(`INSERT INTO uniq(key, kind, id, until) VALUES(?, 'rest', ?, ?) ON CONFLICT(key) DO UPDATE SET kind = 'rest', id = excluded.id, until = excluded.until`, key, id, until.Unix())
}

// restsUntil is until when a key rests; zero: it does not.
func (t *tx) restsUntil(key string) (time.Time, error) {
	var until int64
	err := t.t.QueryRowContext(t.ctx, `SELECT until FROM uniq WHERE key = ?`, key).Scan(&until)
	if errors.Is(err, sql.ErrNoRows) || err == nil && until == 0 {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("coord: database: %w", err)
	}
	return time.Unix(until, 0), nil
}

// rest keeps a key from everybody until then.
func (t *tx) rest(key string, until time.Time) error {
	return t.exec(`INSERT INTO uniq(key, kind, id, until) VALUES(?, 'rest', '', ?) ON CONFLICT(key) DO UPDATE SET kind = 'rest', id = '', until = excluded.until`, key, until.Unix())
}

func (t *tx) audit(body []byte) error { return t.exec(`INSERT INTO audit(body) VALUES(?)`, body) }

func (t *tx) auditDone(upTo int64) error { return t.exec(`DELETE FROM audit WHERE n <= ?`, upTo) }

// prune forgets log rows and rests that are over.
func (t *tx) prune(logBefore, now time.Time) error {
	// By revision, not by time: a clock that was set back must not tear a hole.
	if err := t.exec(`DELETE FROM log WHERE rev < COALESCE((SELECT MIN(rev) FROM log WHERE at >= ?), (SELECT MAX(rev) + 1 FROM log))`, logBefore.Unix()); err != nil {
		return err
	}
	return t.exec(`DELETE FROM uniq WHERE until <> 0 AND until <= ?`, now.Unix())
}
