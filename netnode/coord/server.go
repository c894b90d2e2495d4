package coord

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
)

// Config is what a coordination server needs.
type Config struct {
	// DB is the database, opened with SQLiteDSN. The server closes nothing.
	DB *sql.DB
	// Key is the hub's key: its pin, and what signs every record.
	Key netmap.ControlKey
	// Mesh is the name of the mesh. A database that has a mesh already must agree; empty
	// agrees with all, and a new mesh needs one.
	Mesh string
	// Range4 is the IPv4 range of a new mesh, see CheckRange4; the zero value is DefaultRange4.
	// An existing mesh keeps its own and agrees with no other.
	Range4 netip.Prefix
	// Host is what join tokens say the hub's address is, host:port.
	Host string
	// Announce, when not empty, is the hub's address that hosts are told, host:port. They go
	// on trying those that they knew.
	Announce string
	// Policy, when not empty, is the policy in force from the start on, and only Reload
	// changes it; PolicyName is what its problems are told under.
	Policy     []byte
	PolicyName string
	// Restored says that the database was put back from an earlier time: a new epoch
	// begins, and every node takes everything anew.
	Restored bool
	// NodeExpiry is how long the nodes of people are members from their join on; 0: 180
	// days, negative: for good. Tagged machines do not expire.
	NodeExpiry time.Duration
	// EphemeralGrace is how long an ephemeral node may be away before it is removed; 0: 10
	// minutes.
	EphemeralGrace time.Duration
	// Audit keeps an entry for good before it returns nil. Entries wait in the database
	// until it does.
	Audit func(audit.Entry) error
	// ReadAudit is for `tsshub audit`; nil says that it is not to be had here.
	ReadAudit func(audit.Filter, func(audit.Record) error) error
	Clock     func() time.Time // nil: time.Now
	// Ping is how often a stream without news says so; 0: 45 s. A node that does not
	// answer for three of them is hung up on.
	Ping time.Duration
	Log  *slog.Logger
}

// Bounds. A limit reached is an answer in words.
const (
	logKept     = 7 * 24 * time.Hour
	logInMemory = 20000
	revokedSent = 30 * 24 * time.Hour // revocations younger than this are in snapshots
	addressRest = 30 * 24 * time.Hour
	maxKeyLife  = 366 * 24 * time.Hour
	auditBatch  = 256

	joinsPerSecond, joinBurst = 20, 100
	joinWait                  = 3 * time.Second // so at most 60 wait
)

// Server is a mesh's coordination server.
//
// Lock order: writing before mu. mu is never held while something is written to a
// disk or to the network.
type Server struct {
	c     Config
	store *store
	joins *rate.Limiter
	lim   *limits
	start time.Time

	writing sync.Mutex // one change at a time; held over the whole of it
	// failed is closed when the database can no longer be trusted to have what memory has.
	failed  chan struct{}
	failure error // set under writing, before failed is closed

	draining sync.Mutex

	mu        sync.RWMutex
	st        *state
	streams   map[string]*stream // by node id
	endpoints map[string]netmap.Where
	seen      map[string]time.Time // last contact since the start
	conns     sync.WaitGroup       // streams being served
	closed    bool
}

// New opens the database, makes the mesh if there is none, and reads everything into
// memory. It changes nothing when it fails.
func New(ctx context.Context, c Config) (*Server, error) {
	if c.DB == nil || c.Log == nil || c.Audit == nil || c.Key.IsZero() {
		return nil, errors.New("coord: DB, Key, Audit and Log are needed")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Ping <= 0 {
		c.Ping = 45 * time.Second
	}
	if c.NodeExpiry == 0 {
		c.NodeExpiry = personValidity
	}
	if c.EphemeralGrace <= 0 {
		c.EphemeralGrace = ephemeralGrace
	}
	st, err := openStore(ctx, c.DB)
	if err != nil {
		return nil, err
	}
	s := &Server{
		c: c, store: st, start: c.Clock(), joins: rate.NewLimiter(joinsPerSecond, joinBurst), lim: newLimits(), failed: make(chan struct{}),
		streams: map[string]*stream{}, endpoints: map[string]netmap.Where{}, seen: map[string]time.Time{},
	}
	if err := s.loadOrMake(ctx); err != nil {
		return nil, err
	}
	if c.Restored {
		if err := s.newEpoch(ctx); err != nil {
			return nil, err
		}
	}
	if c.Announce != "" {
		if err := s.announce(ctx); err != nil {
			return nil, err
		}
	}
	if len(c.Policy) > 0 {
		if err := s.Reload(ctx, c.Policy); err != nil {
			return nil, err
		}
	}
	s.drainAudit(ctx)
	return s, nil
}

func (s *Server) loadOrMake(ctx context.Context) error {
	c, err := s.store.load(ctx)
	if err != nil {
		return err
	}
	report := func(err error) { s.c.Log.Error("record in the database not used", "err", err) }
	if s.st, err = read(c, s.c.Key, report); err != nil {
		return err
	}
	if s.st == nil {
		return s.makeMesh(ctx)
	}
	if s.st.mesh.HubKey != s.c.Key.Public() {
		return errors.New("coord: the database belongs to a hub with another key")
	}
	if s.c.Mesh != "" && s.c.Mesh != s.st.mesh.Name {
		return fmt.Errorf("coord: this hub's mesh is called %q, and a mesh keeps its name", s.st.mesh.Name)
	}
	if s.c.Range4.IsValid() && s.c.Range4 != s.st.mesh.Range4 {
		return fmt.Errorf("coord: this hub's mesh has the addresses %s, and a mesh keeps its range", s.st.mesh.Range4)
	}
	return nil
}

// makeMesh writes the first two records: what the mesh is, and its first policy.
func (s *Server) makeMesh(ctx context.Context) error {
	if err := netmap.CheckMeshName(s.c.Mesh); err != nil {
		return fmt.Errorf("coord: %w", err)
	}
	if !s.c.Range4.IsValid() {
		s.c.Range4 = DefaultRange4
	}
	if err := CheckRange4(s.c.Range4); err != nil {
		return err
	}
	r6, err := newRange6()
	if err != nil {
		return err
	}
	id, err := randomID("m")
	if err != nil {
		return err
	}
	epoch, err := randomID("e")
	if err != nil {
		return err
	}
	s.st = newState(epoch)
	s.st.mesh.Header.Mesh = id
	return s.change(ctx, func(c *change) error {
		if err := c.tx.setMeta("mesh", id); err != nil {
			return err
		}
		if err := c.tx.setMeta("epoch", epoch); err != nil {
			return err
		}
		if err := c.put(&netmap.MeshInfo{
			Header: netmap.Header{Kind: netmap.KindMesh, ID: "mesh"}, Name: s.c.Mesh,
			Range4: s.c.Range4, Range6: r6, HubKey: s.c.Key.Public(), Created: c.now,
		}); err != nil {
			return err
		}
		if err := c.put(&netmap.Policy{Header: netmap.Header{Kind: netmap.KindPolicy, ID: "policy"}, Text: DefaultPolicy}); err != nil {
			return err
		}
		if err := c.keepPolicy("hub", "what a new mesh begins with", DefaultPolicy); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "mesh.create", Text: s.c.Mesh})
	})
}

func (s *Server) newEpoch(ctx context.Context) error {
	epoch, err := randomID("e")
	if err != nil {
		return err
	}
	return s.change(ctx, func(c *change) error {
		c.after = append(c.after, func(st *state) { st.epoch = epoch })
		if err := c.tx.setMeta("epoch", epoch); err != nil {
			return err
		}
		// What was used up, or taken back, after the backup was made looks as if it were not: no
		// key of then lets anybody in.
		n := 0
		for _, k := range s.st.keys {
			if err := c.removeKey(k); err != nil {
				return err
			}
			n++
		}
		return c.audit(audit.Entry{Kind: "mesh.restored", Extra: map[string]string{"keys_void": strconv.Itoa(n)}})
	})
}

// change is one change of the mesh: rows of a transaction, and what memory becomes
// once they are durable.
type change struct {
	s     *Server
	tx    *tx
	now   time.Time
	rev   int64 // of the last record put or removed
	after []func(*state)
	// wake says that streams have something to send.
	wake bool
}

// errFailed is the error of every change after the database let us down.
var errFailed = errors.New("coord: the database failed, and the hub has to be started again")

// change runs fn with everything else that writes kept out, so that it may read s.st
// freely; what it changed is seen by others only after the disk has it.
func (s *Server) change(ctx context.Context, fn func(*change) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.failure != nil {
		return errFailed
	}
	c := &change{s: s, now: s.c.Clock(), rev: s.st.rev}
	err := s.store.update(ctx, func(t *tx) error {
		c.tx = t
		return fn(c)
	})
	if errors.Is(err, errCommit) {
		// It may be on the disk or not. Only reading it again can tell.
		s.failure = err
		close(s.failed)
		s.c.Log.Error("database", "err", err)
		return errFailed
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, f := range c.after {
		f(s.st)
	}
	s.st.rev = c.rev
	if n := len(s.st.log) - logInMemory; n > 0 {
		s.st.log = append([]logItem(nil), s.st.log[n:]...)
		s.st.floor += int64(n)
	}
	if c.wake {
		for _, t := range s.streams {
			t.poke()
		}
	}
	s.mu.Unlock()
	return nil
}

// put gives a record the next revision, signs it and writes it.
func (c *change) put(rec netmap.Body) error {
	c.rev++
	rec.Stamp(c.s.st.mesh.Header.Mesh, c.rev)
	env, err := netmap.Seal(c.s.c.Key, rec)
	if err != nil {
		return err
	}
	ref := rec.Ref()
	body, err := json.Marshal(env)
	if err != nil {
		return fmt.Errorf("coord: %s %s: %w", ref.Kind, ref.ID, err)
	}
	opened, err := netmap.Open(env, c.s.c.Key.Public(), "")
	if err != nil {
		return err
	}
	if err := c.tx.put(object{kind: string(ref.Kind), id: ref.ID, rev: c.rev, body: body}); err != nil {
		return err
	}
	if err := c.tx.log(logRow{rev: c.rev, kind: string(ref.Kind), id: ref.ID, op: "put"}, c.now); err != nil {
		return err
	}
	var view *view
	if opened.Policy != nil {
		if view, err = newView(opened.Policy.Text); err != nil {
			return err
		}
	}
	rev := c.rev
	c.wake = true
	c.after = append(c.after, func(st *state) {
		st.log = append(st.log, logItem{ref: ref, old: st.nodes[ref.ID]})
		if view != nil {
			st.policyRev, st.policyEnv, st.view = rev, &env, view
			return
		}
		// Only a policy can be refused here, and that one was read above.
		if err := st.apply(opened, &env); err != nil {
			c.s.c.Log.Error("record", "err", err)
		}
	})
	return nil
}

// remove takes a record out at the next revision.
func (c *change) remove(ref netmap.Ref) error {
	c.rev++
	if err := c.tx.remove(string(ref.Kind), ref.ID); err != nil {
		return err
	}
	if err := c.tx.log(logRow{rev: c.rev, kind: string(ref.Kind), id: ref.ID, op: "rm"}, c.now); err != nil {
		return err
	}
	c.wake = true
	c.after = append(c.after, func(st *state) {
		st.log = append(st.log, logItem{ref: ref, rm: true, old: st.nodes[ref.ID]})
		st.drop(ref)
	})
	return nil
}

// putJSON writes an object that is not distributed.
func (c *change) putJSON(kind, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("coord: %s: %w", kind, err)
	}
	return c.tx.put(object{kind: kind, id: id, body: b})
}

// audit notes the change in the same transaction: there is none without its entry.
func (c *change) audit(e audit.Entry) error {
	if e.Time.IsZero() {
		e.Time = c.now
	}
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("coord: audit: %w", err)
	}
	return c.tx.audit(b)
}

// drainAudit hands waiting entries on, oldest first. One may come twice when the hub
// dies in between, never not at all.
func (s *Server) drainAudit(ctx context.Context) {
	s.draining.Lock()
	defer s.draining.Unlock()
	for {
		rows, err := s.store.auditRows(context.WithoutCancel(ctx), auditBatch)
		if err != nil || len(rows) == 0 {
			if err != nil {
				s.c.Log.Error("audit", "err", err)
			}
			return
		}
		for _, r := range rows {
			var e audit.Entry
			if err := json.Unmarshal(r.body, &e); err != nil {
				e = audit.Entry{Kind: "audit.unreadable", Text: string(r.body)}
			}
			if err := s.c.Audit(e); err != nil {
				s.c.Log.Error("audit entry waits in the database", "err", err)
				return
			}
		}
		last := rows[len(rows)-1].n
		s.writing.Lock()
		err = s.store.update(ctx, func(t *tx) error { return t.auditDone(last) })
		s.writing.Unlock()
		if err != nil {
			s.c.Log.Error("audit", "err", err)
			return
		}
	}
}

// Run does what comes with time, until ctx ends: ephemeral nodes go, old log rows go,
// waiting audit entries are handed on. It returns an error when the database failed.
// All streams are over when it returns.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	defer s.hangUp()
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			s.saveSeen(ctx)
			s.drainAudit(ctx)
			return nil
		case <-s.failed:
			return errFailed
		case <-tick.C:
			s.sweepEphemeral(ctx)
			s.drainAudit(ctx)
			if now := s.c.Clock(); now.Sub(swept) >= 5*time.Minute {
				swept = now
				s.saveSeen(ctx)
				s.prune(ctx)
			}
		}
	}
}

func (s *Server) prune(ctx context.Context) {
	err := s.change(ctx, func(c *change) error { return c.tx.prune(c.now.Add(-logKept), c.now) })
	if err != nil {
		s.c.Log.Error("prune", "err", err)
	}
}

// saveSeen writes when nodes were last here, all at once and only now and then.
func (s *Server) saveSeen(ctx context.Context) {
	now := s.c.Clock()
	s.mu.Lock()
	for id := range s.streams {
		s.seen[id] = now
	}
	seen := s.seen
	s.seen = map[string]time.Time{}
	s.mu.Unlock()
	if len(seen) == 0 {
		return
	}
	err := s.change(ctx, func(c *change) error {
		for id, t := range seen {
			n := s.st.nodes[id]
			if n == nil {
				continue
			}
			info := n.info
			info.Seen = t
			if err := c.putInfo(id, info); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.c.Log.Error("last contacts not written", "err", err)
	}
}

func (c *change) putInfo(id string, info nodeInfo) error {
	if err := c.putJSON(kindInfo, id, info); err != nil {
		return err
	}
	c.after = append(c.after, func(st *state) {
		if n := st.nodes[id]; n != nil {
			st.nodes[id] = &node{rec: n.rec, env: n.env, info: info}
		}
	})
	return nil
}

// Mesh is what the mesh is.
func (s *Server) Mesh() netmap.MeshInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.st.mesh
}

// Policy is the policy in force.
func (s *Server) Policy() *policy.Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.st.view.policy
}

// NodeByControlKey is who holds a control key, for handlers beside this package's own.
// A node that is removed or expired is nobody.
func (s *Server) NodeByControlKey(k netmap.ControlPublic) (policy.Identity, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.st.nodes[s.st.byControl[k]]
	if n == nil || expired(n.rec, s.c.Clock()) {
		return policy.Identity{}, false
	}
	return s.st.identity(n.rec), true
}

// Named is the id of the node that has a name.
func (s *Server) Named(name string) (id string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok = s.st.byName[name]
	return id, ok
}

// Node is who a node is that there is, expired or not.
func (s *Server) Node(id string) (policy.Identity, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.st.nodes[id]
	if n == nil {
		return policy.Identity{}, false
	}
	return s.st.identity(n.rec), true
}

// randomID is a short name that nobody can guess and that is never used again.
func randomID(prefix string) (string, error) {
	var b [10]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("coord: %w", err)
	}
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(b[:])), nil
}
