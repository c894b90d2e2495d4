package netmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tssh/policy"
)

// ErrBehind is the error of a hub that is at a lower revision than it once was within
// the same epoch, as after a database was put back.
var ErrBehind = errors.New("the hub is behind what this node has already seen")

// errGap is the error of a frame that does not follow on what the node has.
var errGap = errors.New("netmap: frame does not follow on")

// book is the set of verified records a node has, at one revision. It belongs to one
// goroutine.
//
//	empty --snapshot--> at rev --delta(from == rev)--> at rev' --...
//	any   --frame of another epoch that is no snapshot, or a gap--> error, asked again
type book struct {
	pin    ControlPublic
	mesh   string
	epoch  string
	rev    int64
	recs   map[Ref]Record
	report func(error) // of a record that was not taken

	next *book // a snapshot that is being received
	got  int   // envelopes of it

	parsed    *policy.Policy // of the policy record at parsedRev
	parsedRev int64
}

func newBook(pin ControlPublic, mesh string, report func(error)) *book {
	return &book{pin: pin, mesh: mesh, recs: map[Ref]Record{}, report: report}
}

// load fills an empty book from a cache; every record is verified as if it had just come.
// Records that a former key of the hub signed are good here, and here only: they were
// taken while it was the hub's, and nobody but this node's owner writes its folder.
func (b *book) load(c cache, former []ControlPublic) {
	b.epoch, b.rev = c.Epoch, c.Rev
	pin := b.pin
	for _, e := range c.Records {
		b.pin = pin
		for _, k := range former {
			if e.verify(b.pin) == nil {
				break
			}
			b.pin = k
		}
		b.take(e, b)
	}
	b.pin = pin
}

// apply takes a frame in. When it gives an error nothing has changed, and the
// connection is of no more use.
func (b *book) apply(f *Frame) (urgent bool, err error) {
	if f.Snapshot {
		return b.snapshot(f)
	}
	if b.next != nil {
		return false, errors.New("netmap: a snapshot broke off")
	}
	if f.Epoch != b.epoch || f.From != b.rev || f.Rev < f.From {
		return false, errGap
	}
	for _, e := range f.Up {
		if k, ok := b.take(e, b); ok && (k == KindPolicy || k == KindRevocation) {
			urgent = true
		}
	}
	for _, r := range f.Rm {
		if r.Kind != KindNode && r.Kind != KindUser {
			b.report(fmt.Errorf("netmap: removal of a %.20q record is not a thing", r.Kind))
			continue
		}
		delete(b.recs, r)
		urgent = true
	}
	b.rev = f.Rev
	return urgent, nil
}

func (b *book) snapshot(f *Frame) (bool, error) {
	if f.Epoch == "" {
		return false, errors.New("netmap: snapshot without an epoch")
	}
	if f.Epoch == b.epoch && f.Rev < b.rev {
		return false, fmt.Errorf("netmap: snapshot at revision %d, this node is at %d: %w", f.Rev, b.rev, ErrBehind)
	}
	if b.next == nil {
		b.next, b.got = newBook(b.pin, b.mesh, b.report), 0
		b.next.epoch, b.next.rev = f.Epoch, f.Rev
	}
	n := b.next
	if n.epoch != f.Epoch || n.rev != f.Rev {
		return false, errors.New("netmap: a snapshot changed while it came")
	}
	b.got += len(f.Up)
	for _, e := range f.Up {
		n.take(e, b)
	}
	if f.More {
		return false, nil
	}
	if f.Count != b.got {
		return false, fmt.Errorf("netmap: snapshot of %d records came as %d", f.Count, b.got)
	}
	// What ended stays ended, also where the hub no longer mentions it. That goes for nodes
	// in a new epoch too: a database that was put back knows nothing of removals made since,
	// and ids are never used again. A person may have been added anew at a lower revision.
	for ref, r := range b.recs {
		if _, ok := n.recs[ref]; !ok && r.Revocation != nil && (n.epoch == b.epoch || r.Revocation.Node != "") {
			n.put(r)
		}
	}
	mesh := Ref{KindMesh, "mesh"}
	if r, ok := b.recs[mesh]; ok && n.recs[mesh].Mesh == nil {
		n.put(r) // or what it pins could be let go and taken anew
	}
	if n.epoch != b.epoch {
		b.parsedRev = 0 // the same number may be another policy now
	}
	b.recs, b.epoch, b.rev, b.next = n.recs, n.epoch, n.rev, nil
	return true, nil
}

// take verifies one envelope and puts the record into b. One that is not good is
// reported and left out; what there was stays. known is the book whose records must not
// be older than the new ones.
func (b *book) take(e Envelope, known *book) (Kind, bool) {
	r, err := Open(e, b.pin, b.mesh)
	if err != nil {
		b.report(err)
		return "", false
	}
	ref := r.Ref()
	if old, ok := known.recs[ref]; ok && old.Revocation != nil && old.Revocation.Node != "" {
		b.put(old) // said once is enough, be it of an earlier epoch
		return r.Kind, true
	}
	if old, ok := known.recs[ref]; ok && known.epoch == b.epoch && old.Rev > r.Rev {
		b.report(fmt.Errorf("netmap: record %s %q: revision %d is older than %d, which is known", r.Kind, r.ID, r.Rev, old.Rev))
		if b != known {
			b.put(old)
		}
		return r.Kind, false
	}
	if old, ok := known.recs[ref]; ok && r.Mesh != nil && old.Mesh != nil && (old.Mesh.Range4 != r.Mesh.Range4 || old.Mesh.Range6 != r.Mesh.Range6) {
		// What a host sends into the mesh was settled when it joined.
		b.report(fmt.Errorf("netmap: the hub claims that the mesh is %s and %s now, not %s and %s; a mesh keeps its ranges", r.Mesh.Range4, r.Mesh.Range6, old.Mesh.Range4, old.Mesh.Range6))
		b.put(old)
		return r.Kind, false
	}
	if r.Node != nil && (b.revoked(&r) || known.epoch == b.epoch && known.revoked(&r)) {
		b.report(fmt.Errorf("netmap: record of node %q: revoked", r.ID))
		return r.Kind, false
	}
	b.put(r)
	return r.Kind, true
}

// put stores a record; a revocation takes effect at once.
func (b *book) put(r Record) {
	b.recs[r.Ref()] = r
	if r.Revocation == nil {
		return
	}
	for ref, n := range b.recs {
		if n.Node != nil && b.revoked(&n) {
			delete(b.recs, ref)
		}
	}
}

// revoked reports whether a node's record was ended by a revocation that is no older.
func (b *book) revoked(n *Record) bool {
	if _, ok := b.recs[Ref{KindRevocation, "node:" + n.ID}]; ok {
		return true // ids are never used again
	}
	if n.Node.User == "" {
		return false
	}
	r, ok := b.recs[Ref{KindRevocation, "user:" + string(n.Node.User)}]
	return ok && r.Rev >= n.Rev
}

// removed reports whether the node id is gone for good.
func (b *book) removed(id string) bool {
	_, ok := b.recs[Ref{KindRevocation, "node:" + id}]
	return ok
}

// envelopes are the records as they came, for the cache.
func (b *book) envelopes() []Envelope {
	out := make([]Envelope, 0, len(b.recs))
	for _, r := range b.recs {
		out = append(out, r.Envelope)
	}
	return out
}

// build makes the Map of node self as of now. wake is when it has to be made again
// because a record begins or ends; zero: never. A Map of a node that is removed,
// expired or not known has no peers and no policy.
func (b *book) build(self string, now time.Time) (m *Map, wake time.Time) {
	m = &Map{MeshID: b.mesh, Revision: b.rev, Epoch: b.epoch}
	mesh := b.recs[Ref{KindMesh, "mesh"}].Mesh
	if mesh == nil {
		b.report(errors.New("netmap: there is no record of the mesh"))
		return m, wake
	}
	m.Mesh, m.Range4, m.Range6 = mesh.Name, mesh.Range4, mesh.Range6
	for _, f := range mesh.FormerKeys {
		m.FormerHubKeys = append(m.FormerHubKeys, f.Key)
	}
	at := func(t time.Time) {
		if !t.IsZero() && t.After(now) && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	me := b.recs[Ref{KindNode, self}].Node
	if me == nil {
		return m, wake
	}
	m.Self, m.SelfAddrs, m.Expires = b.identity(me), slices.Clone(me.Addrs), me.Until
	m.KeysSince = me.From
	if me.Rotated.After(me.From) {
		m.KeysSince = me.Rotated
	}
	at(me.Until)
	if !me.Until.IsZero() && !now.Before(me.Until) {
		return m, wake
	}
	m.Policy, m.PolicyRev = b.policy()
	if r := b.recs[Ref{KindRelays, "relays"}].Relays; r != nil {
		m.Relays = slices.Clone(r.Relays)
	}

	for _, n := range b.unique(mesh, me) {
		at(n.Until)
		if !n.Until.IsZero() && !now.Before(n.Until) {
			continue
		}
		m.Peers = append(m.Peers, Peer{Identity: b.identity(n), Key: n.WG, Control: n.Control, HostKeys: slices.Clone(n.HostKeys), Expires: n.Until})
	}
	slices.SortFunc(m.Peers, func(x, y Peer) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return m, wake
}

// unique are the nodes other than self whose keys, names and addresses are theirs
// alone and lie in the mesh. Who is who must never be a matter of order: of two that
// claim the same, neither is taken.
func (b *book) unique(mesh *MeshInfo, self *Node) []*Node {
	owner := map[any]*Node{}
	bad := map[*Node]bool{}
	var all []*Node
	claim := func(n *Node, what any) {
		o, taken := owner[what]
		if !taken {
			owner[what] = n
			return
		}
		for _, x := range []*Node{o, n} {
			if x != self && !bad[x] {
				bad[x] = true
				b.report(fmt.Errorf("netmap: nodes %q and %q both claim %v; what is not certain is left out", o.ID, n.ID, what))
			}
		}
	}
	claims := func(n *Node) {
		for _, a := range n.Addrs {
			if !mesh.Range4.Contains(a) && !mesh.Range6.Contains(a) {
				bad[n] = true
				b.report(fmt.Errorf("netmap: node %q claims %s, which is not of the mesh", n.ID, a))
			}
			claim(n, a)
		}
		claim(n, n.WG)
		claim(n, "name "+n.Name)
	}
	claims(self)
	for _, r := range b.recs {
		if r.Node != nil && r.Node.ID != self.ID {
			all = append(all, r.Node)
			claims(r.Node)
		}
	}
	return slices.DeleteFunc(all, func(n *Node) bool { return bad[n] })
}

func (b *book) identity(n *Node) policy.Identity {
	id := policy.Identity{ID: n.ID, Name: n.Name, User: n.User, Tags: slices.Clone(n.Tags), Addrs: slices.Clone(n.Addrs)}
	if n.User != "" {
		id.Role = policy.RoleMember
		if u := b.recs[Ref{KindUser, string(n.User)}].User; u != nil {
			id.Role = u.Role
		}
	}
	if len(n.Attributes) > 0 {
		id.Attributes = make(map[string]string, len(n.Attributes))
		for k, v := range n.Attributes {
			id.Attributes[k] = v
		}
	}
	return id
}

// policy parses the policy once per revision. One that this version does not
// understand is none: it denies.
func (b *book) policy() (*policy.Policy, int64) {
	r, ok := b.recs[Ref{KindPolicy, "policy"}]
	if !ok || r.Policy == nil {
		b.parsed, b.parsedRev = nil, 0
		return nil, 0
	}
	if b.parsedRev == r.Rev {
		return b.parsed, r.Rev
	}
	p, problems := policy.Parse("policy", []byte(r.Policy.Text))
	for _, x := range problems {
		if !x.Warning {
			b.report(fmt.Errorf("netmap: the policy at revision %d is not understood here and denies everything: %w", r.Rev, x))
			p = nil
			break
		}
	}
	b.parsed, b.parsedRev = p, r.Rev
	return p, r.Rev
}
