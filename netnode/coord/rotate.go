package coord

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// unsigned are the kinds of objects that are no records of the hub's present key.
func unsigned(kind string) bool {
	return kind == kindInfo || kind == kindKey || kind == kindVersion || kind == string(netmap.KindSuccession)
}

// RotateKey gives the mesh in db another hub's key, in one transaction: every record is
// signed anew over the same bytes, at the revision it has, and a succession signed by the
// former key tells hosts that were away. No server may run on the database meanwhile.
// What the former key can still do is to lead hosts astray that have not followed yet;
// those that have no longer believe anything it signs.
func RotateKey(ctx context.Context, db *sql.DB, old, next netmap.ControlKey, now time.Time) error {
	st, err := openStore(ctx, db)
	if err != nil {
		return err
	}
	c, err := st.load(ctx)
	if err != nil {
		return err
	}
	var bad error
	s, err := read(c, old, func(err error) { bad = errors.Join(bad, err) })
	if err != nil {
		return err
	}
	if bad != nil {
		return fmt.Errorf("coord: rotate key: what the former key did not sign is not signed anew: %w", bad)
	}
	if s == nil {
		return errors.New("coord: rotate key: there is no mesh in this database")
	}
	if len(s.mesh.FormerKeys) >= netmap.MaxSuccessions {
		return fmt.Errorf("coord: rotate key: it was rotated %d times already, and hosts follow no further", len(s.mesh.FormerKeys))
	}
	id, rev := s.mesh.Header.Mesh, s.rev+1
	put := func(t *tx, kind netmap.Kind, oid string, rev int64, e netmap.Envelope) error {
		body, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("coord: %s %s: %w", kind, oid, err)
		}
		return t.put(object{kind: string(kind), id: oid, rev: rev, body: body})
	}
	return st.update(ctx, func(t *tx) error {
		for _, o := range c.objs {
			if unsigned(o.kind) || o.kind == string(netmap.KindMesh) {
				continue
			}
			var e netmap.Envelope
			if err := json.Unmarshal(o.body, &e); err != nil {
				return fmt.Errorf("coord: database: %s %s: %w", o.kind, o.id, err)
			}
			if e, err = netmap.Resign(next, e); err != nil {
				return err
			}
			if err := put(t, netmap.Kind(o.kind), o.id, o.rev, e); err != nil {
				return err
			}
		}
		mesh := s.mesh
		mesh.FormerKeys = append(slices.Clone(mesh.FormerKeys), netmap.FormerKey{Key: mesh.HubKey, Until: now.UTC()})
		mesh.HubKey = next.Public()
		mesh.Stamp(id, rev)
		e, err := netmap.Seal(next, &mesh)
		if err == nil {
			err = put(t, netmap.KindMesh, "mesh", rev, e)
		}
		if err == nil {
			err = t.log(logRow{rev: rev, kind: string(netmap.KindMesh), id: "mesh", op: "put"}, now)
		}
		if err != nil {
			return err
		}
		step := netmap.NewSuccession(old.Public(), next.Public(), now.UTC())
		step.Stamp(id, rev)
		if e, err = netmap.Seal(old, step); err != nil {
			return err
		}
		if err := put(t, netmap.KindSuccession, step.ID, rev, e); err != nil {
			return err
		}
		b, err := json.Marshal(audit.Entry{Time: now, Kind: "hub.rotate-key", Text: next.Public().String(), Extra: map[string]string{"former": old.Public().String()}})
		if err != nil {
			return fmt.Errorf("coord: audit: %w", err)
		}
		return t.audit(b)
	})
}

// HubKey is the key that the mesh in db says its hub has; it is not verified. Zero: there
// is no mesh.
func HubKey(ctx context.Context, db *sql.DB) (netmap.ControlPublic, error) {
	var none netmap.ControlPublic
	st, err := openStore(ctx, db)
	if err != nil {
		return none, err
	}
	c, err := st.load(ctx)
	if err != nil {
		return none, err
	}
	for _, o := range c.objs {
		if o.kind != string(netmap.KindMesh) {
			continue
		}
		var e netmap.Envelope
		var m netmap.MeshInfo
		if err := errors.Join(json.Unmarshal(o.body, &e), json.Unmarshal(e.Payload, &m)); err != nil {
			return none, fmt.Errorf("coord: database: mesh: %w", err)
		}
		return m.HubKey, nil
	}
	return none, nil
}

// readSuccession takes a step of the chain as it is: those who follow it verify it.
func (s *state) readSuccession(o object) error {
	var e netmap.Envelope
	if err := json.Unmarshal(o.body, &e); err != nil {
		return fmt.Errorf("coord: database: %s %s: %w", o.kind, o.id, err)
	}
	s.chain = append(s.chain, e)
	return nil
}

// handleSuccession tells everybody how the hub came to its key. All of it is signed, and
// nothing in it is a secret.
func (s *Server) handleSuccession(w http.ResponseWriter, _ *http.Request) {
	s.mu.RLock()
	chain := s.st.chain
	s.mu.RUnlock()
	answer(w, http.StatusOK, netmap.Successions{Chain: chain})
}

// announce writes the hub's address into the record of the mesh, before those it had:
// hosts try them in this order, and keep the one that worked last.
func (s *Server) announce(ctx context.Context) error {
	host := strings.ToLower(s.c.Announce)
	return s.change(ctx, func(c *change) error {
		if hubs := s.st.mesh.Hubs; len(hubs) > 0 && hubs[0] == host {
			return nil
		}
		mesh := s.st.mesh
		mesh.Hubs = []string{host}
		for _, h := range s.st.mesh.Hubs {
			if h != host && len(mesh.Hubs) < netmap.MaxHubs {
				mesh.Hubs = append(mesh.Hubs, h)
			}
		}
		if err := c.put(&mesh); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "hub.address", Text: host})
	})
}
