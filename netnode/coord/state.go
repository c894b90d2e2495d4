package coord

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
)

// state is the store in memory: everything that is read while serving. The entries
// are never changed, a change puts a new one in place.
type state struct {
	epoch string
	rev   int64 // of the last change
	floor int64 // log holds floor+1 to rev, without a gap
	log   []logItem

	mesh    netmap.MeshInfo
	meshEnv *netmap.Envelope

	nodes     map[string]*node
	byControl map[netmap.ControlPublic]string // node id, of removed nodes too
	byName    map[string]string
	users     map[policy.Login]*person
	revoked   map[string]*netmap.Record // revocations by record id
	keys      map[string]*authKey       // by hash

	chain     []netmap.Envelope // how the hub came to its key
	relays    []netmap.Relay
	relaysEnv *netmap.Envelope // nil: there is no record of relays

	policyRev int64
	policyEnv *netmap.Envelope
	view      *view
	versions  []PolicyVersion // of the policy, oldest first, without their text
}

type logItem struct {
	ref netmap.Ref
	rm  bool
	old *node // what a node was before; nil when read from the store
}

type node struct {
	rec  *netmap.Node
	env  *netmap.Envelope
	info nodeInfo
}

type person struct {
	rec *netmap.User
	env *netmap.Envelope
}

// nodeInfo is what the hub knows of a node and tells nobody: kind "nodeinfo".
type nodeInfo struct {
	Ephemeral bool      `json:"ephemeral,omitempty"`
	Key       string    `json:"key"` // id of the auth key it came in with
	From      string    `json:"from,omitempty"`
	Seen      time.Time `json:"seen"`
}

// authKey lets nodes in. Only a hash of the secret is kept: kind "authkey".
type authKey struct {
	ID        string       `json:"id"` // short, for people; the object's id is the hash
	User      policy.Login `json:"user,omitempty"`
	Tags      []policy.Tag `json:"tags,omitempty"`
	Reusable  bool         `json:"reusable,omitempty"`
	Ephemeral bool         `json:"ephemeral,omitempty"`
	Suffix    bool         `json:"suffix,omitempty"` // a taken name gets a number
	// NodeExpiry is how long its nodes are members; 0: as usual, negative: for ever.
	NodeExpiry time.Duration `json:"node_expiry,omitempty"`
	Created    time.Time     `json:"created"`
	Expires    time.Time     `json:"expires"`
	Uses       int           `json:"uses,omitempty"`
	UsedBy     string        `json:"used_by,omitempty"` // the last node's id
	hash       string
}

// Object kinds that are not records.
const (
	kindInfo = "nodeinfo"
	kindKey  = "authkey"
)

// relay reports whether there is a relay of that name.
func (s *state) relay(id string) bool {
	return slices.ContainsFunc(s.relays, func(r netmap.Relay) bool { return r.ID == id })
}

// identity is the node as the policy sees it.
func (s *state) identity(n *netmap.Node) policy.Identity {
	id := policy.Identity{ID: n.ID, Name: n.Name, User: n.User, Tags: slices.Clone(n.Tags), Addrs: slices.Clone(n.Addrs), Attributes: n.Attributes}
	if n.User != "" {
		id.Role = policy.RoleMember
		if u := s.users[n.User]; u != nil {
			id.Role = u.rec.Role
		}
	}
	return id
}

func expired(n *netmap.Node, now time.Time) bool { return !n.Until.IsZero() && !now.Before(n.Until) }

func newState(epoch string) *state {
	return &state{
		epoch: epoch,
		nodes: map[string]*node{}, byControl: map[netmap.ControlPublic]string{}, byName: map[string]string{},
		users: map[policy.Login]*person{}, revoked: map[string]*netmap.Record{}, keys: map[string]*authKey{},
	}
}

// read makes the state out of what the store holds. Records whose signature does not
// hold were altered in the database: nodes and people among them are left out and
// reported, a mesh or a policy like that ends the start.
func read(c contents, key netmap.ControlKey, report func(error)) (*state, error) {
	s := newState(c.meta["epoch"])
	if v := c.meta["rev"]; v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("coord: database: revision: %w", err)
		}
		s.rev = n
	}
	mesh := c.meta["mesh"]
	if mesh == "" || s.epoch == "" {
		return nil, nil
	}
	infos := map[string]nodeInfo{}
	for _, o := range c.objs {
		switch o.kind {
		case kindInfo:
			var i nodeInfo
			if err := json.Unmarshal(o.body, &i); err != nil {
				report(fmt.Errorf("coord: database: node %s: %w", o.id, err))
			}
			infos[o.id] = i
		case kindKey:
			k := &authKey{hash: o.id}
			if err := json.Unmarshal(o.body, k); err != nil {
				report(fmt.Errorf("coord: database: auth key: %w", err))
				continue
			}
			s.keys[o.id] = k
		case string(netmap.KindSuccession):
			if err := s.readSuccession(o); err != nil {
				report(err)
			}
		case kindVersion:
			if err := s.readVersion(o); err != nil {
				report(err)
			}
		default:
			if err := s.readRecord(o, mesh, key.Public()); err != nil {
				if o.kind == string(netmap.KindMesh) || o.kind == string(netmap.KindPolicy) || o.kind == string(netmap.KindRevocation) {
					return nil, err
				}
				report(err)
			}
		}
	}
	for id, n := range s.nodes {
		n.info = infos[id]
	}
	if s.meshEnv == nil || s.policyEnv == nil {
		return nil, fmt.Errorf("coord: database: mesh or policy is missing")
	}
	s.floor = s.rev
	if len(c.log) > 0 {
		s.floor = c.log[0].rev - 1
	}
	for i, r := range c.log {
		if r.rev != s.floor+int64(i)+1 {
			return nil, fmt.Errorf("coord: database: the log has a gap before revision %d", r.rev)
		}
		s.log = append(s.log, logItem{ref: netmap.Ref{Kind: netmap.Kind(r.kind), ID: r.id}, rm: r.op == "rm"})
	}
	if s.floor+int64(len(s.log)) != s.rev {
		return nil, fmt.Errorf("coord: database: the log ends before revision %d", s.rev)
	}
	return s, nil
}

func (s *state) readRecord(o object, mesh string, pin netmap.ControlPublic) error {
	env := new(netmap.Envelope)
	if err := json.Unmarshal(o.body, env); err != nil {
		return fmt.Errorf("coord: database: %s %s: %w", o.kind, o.id, err)
	}
	r, err := netmap.Open(*env, pin, mesh)
	if err != nil {
		return fmt.Errorf("coord: database: %s %s: %w", o.kind, o.id, err)
	}
	if string(r.Kind) != o.kind || r.ID != o.id || r.Rev != o.rev || r.Rev > s.rev {
		return fmt.Errorf("coord: database: %s %s: the record is another's", o.kind, o.id)
	}
	return s.apply(r, env)
}

// apply puts a record in place.
func (s *state) apply(r netmap.Record, env *netmap.Envelope) error {
	switch {
	case r.Mesh != nil:
		s.mesh, s.meshEnv = *r.Mesh, env
	case r.Node != nil:
		var info nodeInfo
		if old := s.nodes[r.ID]; old != nil {
			info = old.info
			delete(s.byName, old.rec.Name)
			delete(s.byControl, old.rec.Control)
		}
		s.nodes[r.ID] = &node{rec: r.Node, env: env, info: info}
		s.byControl[r.Node.Control] = r.ID
		s.byName[r.Node.Name] = r.ID
	case r.User != nil:
		s.users[r.User.Login] = &person{rec: r.User, env: env}
	case r.Policy != nil:
		v, err := newView(r.Policy.Text)
		if err != nil {
			return fmt.Errorf("coord: policy at revision %d: %w", r.Rev, err)
		}
		s.policyRev, s.policyEnv, s.view = r.Rev, env, v
	case r.Relays != nil:
		s.relays, s.relaysEnv = r.Relays.Relays, env
	case r.Revocation != nil:
		s.revoked[r.ID] = &r
		if r.Revocation.Node != "" {
			s.byControl[r.Revocation.Control] = r.Revocation.Node
		}
	}
	return nil
}

// drop takes a record out.
func (s *state) drop(ref netmap.Ref) {
	switch ref.Kind {
	case netmap.KindNode:
		if n := s.nodes[ref.ID]; n != nil {
			delete(s.byName, n.rec.Name)
			delete(s.nodes, ref.ID)
		}
	case netmap.KindUser:
		delete(s.users, policy.Login(ref.ID))
	}
}
