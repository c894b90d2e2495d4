package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
)

// rotateKey is `tsshub rotate-key`: the hub gets a new key, and its hosts follow by
// themselves. Where it breaks off, the next start or the next rotate-key goes on from
// what the database says:
//
//	hub.json: old --> old, next --database: signed by next--> old, next --> next
func (c *cli) rotateKey(db string) error {
	dir, err := inspect(c.state)
	if err != nil {
		return err
	}
	if dir.lock != nil {
		defer dir.lock.Close()
	}
	if dir.first {
		return &trouble{say: "there is no hub in " + dir.path, hint: "name its state folder with --state"}
	}
	o := options{}
	if db != "" {
		f, ok := strings.CutPrefix(db, "sqlite:")
		if !ok || f == "" {
			return errDB(db)
		}
		o.db = f
	}
	if _, err := os.Stat(o.dbFile(dir)); err != nil {
		return errFile("the database", o.dbFile(dir), err)
	}
	ctx := context.Background()
	d, err := sql.Open("sqlite", coord.SQLiteDSN(o.dbFile(dir)))
	if err != nil {
		return errStart(err)
	}
	defer d.Close()
	if err := dir.settleKey(ctx, d); err != nil {
		return errStart(err)
	}
	old := dir.key
	if dir.next, err = netmap.NewControlKey(); err != nil {
		return err
	}
	if err := dir.saveKeys(); err != nil {
		return errNotWritable(dir.path, err)
	}
	if err := coord.RotateKey(ctx, d, old, dir.next, time.Now()); err != nil {
		return errors.Join(&trouble{say: "the key stays as it was", err: err}, dir.settleKey(ctx, d))
	}
	if err := dir.settleKey(ctx, d); err != nil {
		return errStart(err)
	}
	if c.json {
		return c.printJSON(map[string]string{"pin": dir.key.Public().String(), "former": old.Public().String()})
	}
	_, err = fmt.Fprintf(c.out, "the hub's key is now %s; start the hub, and hosts follow by themselves\n", dir.key.Public())
	return err
}

// settleKey finishes a rotation that was begun, or takes it back, as the database says.
func (s *stateDir) settleKey(ctx context.Context, db *sql.DB) error {
	if s.next.IsZero() {
		return nil
	}
	now, err := coord.HubKey(ctx, db)
	if err != nil {
		return err
	}
	if now == s.next.Public() {
		s.key = s.next
	}
	s.next = netmap.ControlKey{}
	return s.saveKeys()
}

// saveKeys puts hub.json in place as a whole. What was there is gone, as far as a file
// system forgets.
func (s *stateDir) saveKeys() error {
	j := hubJSON{Format: stateFormat, Control: s.key.Encode(), Next: s.next.Encode()}
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", netmap.HubFile, err)
	}
	if err := os.Remove(filepath.Join(s.path, "."+netmap.HubFile+".new")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.writeKey(append(b, '\n'))
}
