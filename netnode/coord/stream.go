package coord

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
)

const writeTime = 30 * time.Second

// stream is one node's stream. It has no queue: it knows the revision up to which its
// node has everything, and takes what is newer from memory when it is poked. So
// nobody waits for a slow one, and one that was slow for long gets a snapshot.
type stream struct {
	node string
	wake chan struct{}
	stop context.CancelFunc
	says []string // what the node understands

	// owned by serve
	rev  int64
	view *view
	full bool // a snapshot is due

	mu  sync.Mutex
	eps map[string]bool // nodes whose endpoints changed
}

// poke says that there is something new. It never blocks.
func (t *stream) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// endpoints says that a node's endpoints changed.
func (t *stream) endpoints(id string) {
	t.mu.Lock()
	t.eps[id] = true
	t.mu.Unlock()
	t.poke()
}

// batch is what a stream has to send, taken under the lock and written without it.
type batch struct {
	epoch    string
	from     int64
	rev      int64
	snapshot bool
	carries  bool
	up       []*netmap.Envelope
	rm       []netmap.Ref
	eps      map[string]netmap.Where
	problem  *netmap.Problem
	until    time.Time // when the node's membership ends
}

// serveStream talks to one node until the connection ends or ctx does. It closes conn.
func (s *Server) serveStream(ctx context.Context, conn net.Conn, r *bufio.Reader, key netmap.ControlPublic) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(writeTime))
	first, err := netmap.ReadFrame(r, netmap.MaxCall)
	if err != nil || first.Hello == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, p := s.open(cancel, key, first.Hello)
	if p != nil {
		netmap.WriteFrame(conn, &netmap.Frame{Problem: p, Time: s.c.Clock()}, false)
		return
	}
	defer s.closeStream(t)
	conn.SetDeadline(time.Time{})
	// Ends when the connection does, which the deferred Close sees to.
	var reader sync.WaitGroup
	reader.Go(func() { s.hear(conn, r, t, cancel) })
	defer reader.Wait()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	ping := time.NewTicker(s.c.Ping)
	defer ping.Stop()
	end := time.NewTimer(time.Hour)
	defer end.Stop()
	// Said at once, so that a node whose clock is wrong knows before it judges any date.
	if s.ping(conn) != nil {
		return
	}
	for {
		b := s.collect(t)
		if err := s.send(conn, b); err != nil || b.problem != nil {
			return
		}
		end.Stop()
		if !b.until.IsZero() {
			end.Reset(min(b.until.Sub(s.c.Clock())+time.Millisecond, time.Hour))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-end.C:
		case <-ping.C:
			if s.ping(conn) != nil {
				return
			}
		}
	}
}

func (s *Server) ping(conn net.Conn) error {
	conn.SetWriteDeadline(time.Now().Add(writeTime))
	return netmap.WriteFrame(conn, &netmap.Frame{Ping: true, Time: s.c.Clock()}, false)
}

// hear reads the node's answers; a node that is silent for three pings is gone.
func (s *Server) hear(conn net.Conn, r *bufio.Reader, t *stream, cancel func()) {
	defer cancel()
	for {
		conn.SetReadDeadline(time.Now().Add(3 * s.c.Ping))
		f, err := netmap.ReadFrame(r, netmap.MaxCall)
		if err != nil || f.Carries() {
			return
		}
	}
}

// open makes the stream of the node that holds key, or says why there is none. A
// former stream of the same node is ended: its node has come back another way.
func (s *Server) open(stop context.CancelFunc, key netmap.ControlPublic, h *netmap.Hello) (*stream, *netmap.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.st
	id := st.byControl[key]
	if p := st.problem(id, s.c.Clock()); p != nil {
		return nil, p
	}
	if s.closed {
		return nil, &netmap.Problem{Code: netmap.CodeBusy, Say: "the hub is about to stop"}
	}
	t := &stream{node: id, wake: make(chan struct{}, 1), stop: stop, says: h.Understands, rev: h.Since, view: st.view, eps: map[string]bool{}}
	switch {
	case h.Epoch == st.epoch && h.Since > st.rev:
		return nil, &netmap.Problem{Code: netmap.CodeBehind, Say: "the hub is behind what this node has seen: if its database was put back, start it once with --restored"}
	case h.Epoch != st.epoch || h.Since < st.floor || h.Since <= 0 || st.policyRev > h.Since || st.nodes[id].rec.Rev > h.Since:
		t.full = true
	}
	for other := range s.endpoints {
		if n := st.nodes[other]; n != nil && other != id && st.sees(st.view, st.nodes[id].rec, n.rec) {
			t.eps[other] = true
		}
	}
	if old := s.streams[id]; old != nil {
		old.stop()
	}
	s.streams[id] = t
	s.seen[id] = s.c.Clock()
	return t, nil
}

func (s *Server) closeStream(t *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[t.node] == t {
		delete(s.streams, t.node)
		if s.st.nodes[t.node] != nil {
			s.seen[t.node] = s.c.Clock()
		}
	}
}

// hangUp ends all streams and waits until they are over.
func (s *Server) hangUp() {
	s.mu.Lock()
	s.closed = true
	for _, t := range s.streams {
		t.stop()
	}
	s.mu.Unlock()
	s.conns.Wait()
}

// problem is why a node is not served, with the signed record that proves it.
func (s *state) problem(id string, now time.Time) *netmap.Problem {
	if n := s.nodes[id]; n != nil {
		if expired(n.rec, now) {
			return &netmap.Problem{Code: netmap.CodeExpired, Say: "this node's membership has expired; join again with a new token", Proof: n.env}
		}
		return nil
	}
	if r := s.revoked["node:"+id]; r != nil {
		return &netmap.Problem{Code: netmap.CodeRemoved, Say: "this node was removed from the mesh", Proof: &r.Envelope}
	}
	return &netmap.Problem{Code: netmap.CodeUnknown, Say: "the hub does not know this node; if its database was put back from an earlier time, join again"}
}

// collect takes what the stream's node does not have yet.
func (s *Server) collect(t *stream) batch {
	now := s.c.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.st
	b := batch{epoch: st.epoch, from: t.rev, rev: st.rev}
	if b.problem = st.problem(t.node, now); b.problem != nil {
		return b
	}
	me := st.nodes[t.node].rec
	b.until = me.Until
	switch {
	case t.full || t.rev < st.floor || me.Rev > t.rev:
		s.snapshot(&b, t, me, now)
	case t.view != st.view:
		s.policyDelta(&b, t, me)
	case t.rev < st.rev:
		s.delta(&b, t, me)
	}
	t.rev, t.view, t.full = st.rev, st.view, false
	s.collectEndpoints(&b, t, me)
	return b
}

// pick adds a node's record, and its owner's.
func (s *state) pick(b *batch, have map[netmap.Ref]bool, n *node) {
	ref := n.rec.Ref()
	if have[ref] {
		return
	}
	have[ref] = true
	if u := s.users[n.rec.User]; u != nil && !have[u.rec.Ref()] {
		have[u.rec.Ref()] = true
		b.up = append(b.up, u.env)
	}
	b.up = append(b.up, n.env)
}

func (s *Server) snapshot(b *batch, t *stream, me *netmap.Node, now time.Time) {
	st := s.st
	b.snapshot, b.carries = true, true
	b.up = append(b.up, st.meshEnv, st.policyEnv)
	if st.relaysEnv != nil {
		b.up = append(b.up, st.relaysEnv)
	}
	for _, r := range st.revoked {
		if now.Sub(r.Revocation.When) < revokedSent {
			b.up = append(b.up, &r.Envelope)
		}
	}
	have := map[netmap.Ref]bool{}
	for id, n := range st.nodes {
		if st.sees(st.view, me, n.rec) {
			st.pick(b, have, n)
			t.want(id)
		}
	}
}

// delta is what changed since t.rev under the same policy.
func (s *Server) delta(b *batch, t *stream, me *netmap.Node) {
	st := s.st
	b.carries = true
	have := map[netmap.Ref]bool{}
	done := map[netmap.Ref]bool{}
	for _, it := range st.log[t.rev-st.floor:] {
		if done[it.ref] {
			continue
		}
		done[it.ref] = true
		switch it.ref.Kind {
		case netmap.KindNode:
			n := st.nodes[it.ref.ID]
			switch {
			case n != nil && st.sees(st.view, me, n.rec):
				st.pick(b, have, n)
				t.want(it.ref.ID)
			case it.old == nil && n != nil && n.rec.From.Equal(n.rec.Created):
				// It came, and this node has nothing to do with it.
			case it.old == nil || st.sees(st.view, me, it.old.rec):
				b.rm = append(b.rm, it.ref)
			}
		case netmap.KindUser:
			st.userDelta(b, have, me, it.ref)
		case netmap.KindRevocation:
			if r := st.revoked[it.ref.ID]; r != nil {
				b.up = append(b.up, &r.Envelope)
			}
		case netmap.KindMesh:
			b.up = append(b.up, st.meshEnv)
		case netmap.KindRelays:
			b.up = append(b.up, st.relaysEnv)
		}
	}
}

// userDelta sends a person's record to those who see one of the person's nodes.
func (s *state) userDelta(b *batch, have map[netmap.Ref]bool, me *netmap.Node, ref netmap.Ref) {
	u := s.users[policy.Login(ref.ID)]
	if u == nil {
		b.rm = append(b.rm, ref)
		return
	}
	if have[ref] {
		return
	}
	for _, n := range s.nodes {
		if n.rec.User == u.rec.Login && s.sees(s.view, me, n.rec) {
			have[ref] = true
			b.up = append(b.up, u.env)
			return
		}
	}
}

// policyDelta sends a new policy and what it changed in who sees whom, beside all else
// that is new. Its cost is the number of nodes, for every stream, at every change of
// the policy.
func (s *Server) policyDelta(b *batch, t *stream, me *netmap.Node) {
	st := s.st
	b.carries = true
	since := t.rev
	b.up = append(b.up, st.policyEnv)
	for _, r := range st.revoked {
		if r.Rev > since {
			b.up = append(b.up, &r.Envelope)
		}
	}
	have := map[netmap.Ref]bool{}
	for id, n := range st.nodes {
		was := st.sees(t.view, me, n.rec)
		switch is := st.sees(st.view, me, n.rec); {
		case is && (!was || n.rec.Rev > since):
			st.pick(b, have, n)
			t.want(id)
		case !is && (was || n.rec.Rev > since):
			b.rm = append(b.rm, n.rec.Ref())
		}
	}
	for _, it := range st.log[since-st.floor:] {
		switch {
		case it.ref.Kind == netmap.KindRelays:
			b.up = append(b.up, st.relaysEnv)
		case it.ref.Kind == netmap.KindUser:
			st.userDelta(b, have, me, it.ref)
		case it.ref.Kind == netmap.KindNode && st.nodes[it.ref.ID] == nil:
			b.rm = append(b.rm, it.ref)
		}
	}
}

// want notes that a node's endpoints have to be sent with its record.
func (t *stream) want(id string) {
	t.mu.Lock()
	t.eps[id] = true
	t.mu.Unlock()
}

func (s *Server) collectEndpoints(b *batch, t *stream, me *netmap.Node) {
	t.mu.Lock()
	ids := t.eps
	t.eps = map[string]bool{}
	t.mu.Unlock()
	b.eps = map[string]netmap.Where{}
	for id := range ids {
		n, eps := s.st.nodes[id], s.endpoints[id]
		if n != nil && id != t.node && (len(eps.Endpoints) > 0 || eps.Home != "") && s.st.sees(s.st.view, me, n.rec) {
			b.eps[id] = eps
		}
	}
}

// Frames are cut at these, well below what a node accepts.
const (
	cutBytes = 600 << 10
	cutIDs   = 1000
)

// send writes a batch as one frame or several.
func (s *Server) send(conn net.Conn, b batch) error {
	write := func(f *netmap.Frame) error {
		f.Time = s.c.Clock()
		conn.SetWriteDeadline(time.Now().Add(writeTime))
		return netmap.WriteFrame(conn, f, f.Snapshot)
	}
	if b.problem != nil {
		return write(&netmap.Frame{Problem: b.problem})
	}
	total := len(b.up)
	for b.carries {
		f := &netmap.Frame{Epoch: b.epoch, From: b.from, Rev: b.rev, Snapshot: b.snapshot}
		if b.snapshot {
			f.From = 0
		}
		size := 0
		for len(b.up) > 0 && len(f.Up) < netmap.MaxFrameRecords {
			n := len(b.up[0].Payload)*4/3 + 300
			if size += n; size > cutBytes && len(f.Up) > 0 {
				break
			}
			f.Up = append(f.Up, *b.up[0])
			b.up = b.up[1:]
		}
		n := min(len(b.rm), cutIDs)
		f.Rm, b.rm = b.rm[:n], b.rm[n:]
		f.More = len(b.up) > 0 || len(b.rm) > 0
		b.carries = f.More
		if b.snapshot {
			f.Count = total
		} else if f.More {
			f.Rev = f.From // the revision is reached with the last frame
		}
		if err := write(f); err != nil {
			return err
		}
	}
	for len(b.eps) > 0 {
		f := &netmap.Frame{Endpoints: map[string]netmap.Where{}}
		for id, eps := range b.eps {
			f.Endpoints[id] = eps
			delete(b.eps, id)
			if len(f.Endpoints) == netmap.MaxFrameRecords {
				break
			}
		}
		if err := write(f); err != nil {
			return err
		}
	}
	return nil
}
