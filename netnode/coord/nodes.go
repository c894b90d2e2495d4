package coord

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// NodeInfo is a node for people.
type NodeInfo struct {
	ID        string           `json:"id"`
	Name      string           `json:"name"`
	User      string           `json:"user,omitempty"`
	Tags      []string         `json:"tags,omitempty"`
	Addresses []netip.Addr     `json:"addresses"`
	Online    bool             `json:"online"`
	Seen      time.Time        `json:"seen,omitzero"`
	Created   time.Time        `json:"created"`
	Expires   time.Time        `json:"expires,omitzero"`
	Expired   bool             `json:"expired"`
	Ephemeral bool             `json:"ephemeral"`
	Key       string           `json:"key"` // id of the auth key it joined with
	From      string           `json:"from,omitempty"`
	HostKeys  []string         `json:"host_keys,omitempty"`
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
}

// Nodes lists the nodes by name.
func (s *Server) Nodes() []NodeInfo {
	now := s.c.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []NodeInfo{}
	for id, n := range s.st.nodes {
		i := NodeInfo{
			ID: id, Name: n.rec.Name, User: string(n.rec.User), Tags: tagNames(n.rec.Tags), Addresses: n.rec.Addrs,
			Online: s.streams[id] != nil, Seen: n.info.Seen, Created: n.rec.Created, Expires: n.rec.Until, Expired: expired(n.rec, now),
			Ephemeral: n.info.Ephemeral, Key: n.info.Key, From: n.info.From, HostKeys: n.rec.HostKeys, Endpoints: s.endpoints[id].Endpoints,
		}
		if t, ok := s.seen[id]; ok && t.After(i.Seen) {
			i.Seen = t
		}
		if i.Online {
			i.Seen = now
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b NodeInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func sortedNodes(st *state) []string { return slices.Sorted(maps.Keys(st.nodes)) }

func (s *state) named(name string) *node {
	if n := s.nodes[s.byName[name]]; n != nil {
		return n
	}
	return s.nodes[name] // an id is never a name: names have no such length by chance
}

// revokeNode ends a node for good: its record goes, a signed revocation stays, its
// addresses rest so that logs that name them stay true, and its keys never come back.
func (c *change) revokeNode(n *node, who, why string) error {
	id := n.rec.ID
	if err := c.put(&netmap.Revocation{Header: netmap.Header{Kind: netmap.KindRevocation, ID: "node:" + id}, Node: id, Control: n.rec.Control, When: c.now}); err != nil {
		return err
	}
	if err := c.remove(n.rec.Ref()); err != nil {
		return err
	}
	if err := c.tx.remove(kindInfo, id); err != nil {
		return err
	}
	if n.rec.Relay() {
		if err := c.dropRelay(n.rec); err != nil {
			return err
		}
	}
	if err := c.tx.release("name/" + n.rec.Name); err != nil {
		return err
	}
	for _, a := range n.rec.Addrs {
		if err := c.tx.rest("addr/"+a.String(), c.now.Add(addressRest)); err != nil {
			return err
		}
	}
	c.after = append(c.after, func(*state) {
		delete(c.s.endpoints, id)
		delete(c.s.seen, id)
	})
	return c.audit(audit.Entry{Kind: "node.remove", Who: who, Node: n.rec.Name, Text: why, Extra: map[string]string{"id": id, "owner": owner(n.rec)}})
}

func owner(n *netmap.Node) string {
	if n.User != "" {
		return string(n.User)
	}
	return strings.Join(tagNames(n.Tags), ",")
}

// RemoveNode removes a node for good. The machine can join anew, as another node.
func (s *Server) RemoveNode(ctx context.Context, who, name string) error {
	err := s.change(ctx, func(c *change) error {
		n := s.st.named(name)
		if n == nil {
			return refuse(CodeNotFound, "there is no node %q", name)
		}
		return c.revokeNode(n, who, "")
	})
	s.drainAudit(ctx)
	return err
}

// ExpireNode ends a node's membership now. With a new token the same node comes back.
func (s *Server) ExpireNode(ctx context.Context, who, name string) error {
	err := s.change(ctx, func(c *change) error {
		n := s.st.named(name)
		if n == nil {
			return refuse(CodeNotFound, "there is no node %q", name)
		}
		rec := *n.rec
		rec.Until = c.now.UTC().Truncate(time.Second)
		if err := c.put(&rec); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "node.expire", Who: who, Node: n.rec.Name, Extra: map[string]string{"id": n.rec.ID, "owner": owner(n.rec)}})
	})
	s.drainAudit(ctx)
	return err
}

// setHostKeys writes a node's SSH host keys into its record.
func (s *Server) setHostKeys(ctx context.Context, id string, keys []string) error {
	if err := netmap.CheckHostKeys(keys); err != nil {
		return refuse(netmap.CodeBad, "%s", err)
	}
	s.mu.RLock()
	n := s.st.nodes[id]
	same := n != nil && slices.Equal(n.rec.HostKeys, keys)
	s.mu.RUnlock()
	if same {
		return nil
	}
	if !s.nodeLimits(id).hostKeys.Allow() {
		return errTooOften
	}
	err := s.change(ctx, func(c *change) error {
		n := s.st.nodes[id]
		if n == nil {
			return refuse(netmap.CodeUnknown, "the hub does not know this node")
		}
		rec := *n.rec
		rec.HostKeys = slices.Clone(keys)
		if err := c.put(&rec); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "node.hostkeys", Who: owner(n.rec), Node: n.rec.Name, Extra: map[string]string{"id": id, "keys": strings.Join(keys, "\n")}})
	})
	s.drainAudit(ctx)
	return err
}

// joinRequest is a request to join with what the connection proved.
type joinRequest struct {
	netmap.JoinRequest
	control netmap.ControlPublic
	from    netip.AddrPort
}

// join lets a node in, or says why not. Every join is in the audit log, and so is every
// refusal, as far as limits.refused lets it.
func (s *Server) join(ctx context.Context, r joinRequest) (*netmap.JoinReply, error) {
	var reply netmap.JoinReply
	err := s.change(ctx, func(c *change) error {
		n, k, err := c.admit(&r)
		if err != nil {
			return err
		}
		reply = netmap.JoinReply{Mesh: *s.st.meshEnv, Time: c.now}
		if k == nil { // the answer was lost on the way, nothing is new
			reply.Node = *s.st.nodes[n.ID].env
			return nil
		}
		if err := c.put(n); err != nil {
			return err
		}
		if err := c.putInfo(n.ID, nodeInfo{Ephemeral: k.Ephemeral, Key: k.ID, From: r.from.Addr().String(), Seen: c.now}); err != nil {
			return err
		}
		c.after = append(c.after, func(st *state) { reply.Node = *st.nodes[n.ID].env })
		return c.audit(s.joinEntry(&r, c.now, audit.Entry{Verdict: "accept", Who: k.owner(), Extra: map[string]string{"id": n.ID, "key": k.ID, "addresses": joinAddrs(n.Addrs)}}))
	})
	var ref *Refusal
	if errors.As(err, &ref) {
		e := s.joinEntry(&r, s.c.Clock(), audit.Entry{Verdict: "deny", Rule: ref.Code, Text: ref.Say})
		if s.lim.refused(&e) {
			if aerr := s.change(ctx, func(c *change) error { return c.audit(e) }); aerr != nil {
				s.c.Log.Error("audit", "err", aerr)
			}
		}
	}
	s.drainAudit(ctx)
	if err != nil {
		return nil, err
	}
	return &reply, nil
}

// joinEntry carries both clocks: a node's may be off by days.
func (s *Server) joinEntry(r *joinRequest, now time.Time, e audit.Entry) audit.Entry {
	e.Kind, e.Node, e.Time, e.HubTime = "node.join", r.Name, now, now
	if e.Extra == nil {
		e.Extra = map[string]string{}
	}
	e.Extra["node_time"] = r.Time.UTC().Format(time.RFC3339)
	e.Extra["from"] = r.from.String()
	e.Extra["control"] = r.control.String()
	return e
}

func joinAddrs(a []netip.Addr) string {
	var s []string
	for _, x := range a {
		s = append(s, x.String())
	}
	return strings.Join(s, ",")
}

// admit decides about a join and takes what it needs: the key's use, the name, the
// addresses. A nil key means that this very join was answered before.
func (c *change) admit(r *joinRequest) (*netmap.Node, *authKey, error) {
	st := c.s.st
	if _, gone := st.byControl[r.control]; gone && st.nodes[st.byControl[r.control]] == nil {
		return nil, nil, refuse(netmap.CodeRemoved, "this node was removed from the mesh")
	}
	old := st.nodes[st.byControl[r.control]]
	k := st.keys[hashKey(r.AuthKey)]
	switch {
	case k == nil:
		return nil, nil, refuse(netmap.CodeKeyUnknown, "the hub does not know this token's key")
	case !k.Reusable && k.Uses > 0 && old != nil && k.UsedBy == old.rec.ID && old.rec.WG == r.WG && !expired(old.rec, c.now):
		return old.rec, nil, nil
	case !k.Reusable && k.Uses > 0:
		return nil, nil, refuse(netmap.CodeKeyUsed, "this token was used already, and it is good for one node")
	case !c.now.Before(k.Expires):
		return nil, nil, refuse(netmap.CodeKeyExpired, "this token expired on %s", k.Expires.UTC().Format("2 January 2006 15:04 MST"))
	case k.User != "" && st.users[k.User] == nil:
		return nil, nil, refuse(netmap.CodeKeyUnknown, "the person this token is for is no longer in the mesh")
	case r.WG.IsZero():
		return nil, nil, refuse(netmap.CodeBad, "the node sent no key")
	}
	if err := netmap.CheckHostKeys(r.HostKeys); err != nil {
		return nil, nil, refuse(netmap.CodeBad, "%s", err)
	}
	if err := netmap.CheckAttributes(r.Attributes); err != nil {
		return nil, nil, refuse(netmap.CodeBad, "%s", err)
	}
	n := &netmap.Node{Control: r.control, User: k.User, Tags: k.Tags}
	if err := netmap.CheckName(r.Name); err != nil && !(r.Name == netmap.HubName && n.Hub()) {
		return nil, nil, nameRefusal(err)
	}
	if old != nil {
		if old.rec.User != k.User || !slices.Equal(old.rec.Tags, k.Tags) {
			return nil, nil, refuse(netmap.CodeOwner, "this node is in the mesh already and belongs to somebody else")
		}
		cp := *old.rec
		n = &cp
	} else if err := c.fresh(n); err != nil {
		return nil, nil, err
	}
	// Only the hub itself makes keys for its own node. When it died before it had kept
	// what it was given, the node of then is nobody's, and must not be in its way.
	if was := st.nodes[st.byName[netmap.HubName]]; n.Hub() && old == nil && was != nil {
		if err := c.revokeNode(was, "hub", "the hub's node was made anew"); err != nil {
			return nil, nil, err
		}
	}
	name, err := c.joinName(n, old, r.Name, k.Suffix)
	if err == nil {
		err = c.take(n, old, r, name)
	}
	if err != nil {
		return nil, nil, err
	}
	r.Name = name // what the audit log says
	n.Name, n.WG, n.HostKeys, n.Attributes = r.Name, r.WG, r.HostKeys, r.Attributes
	n.From = c.now.UTC().Truncate(time.Second)
	n.Until = c.until(n, k)
	used := *k
	used.Uses++
	used.UsedBy = n.ID
	return n, &used, c.putKey(&used)
}

// fresh gives a new node its id and its addresses.
func (c *change) fresh(n *netmap.Node) (err error) {
	if n.ID, err = randomID("n"); err != nil {
		return err
	}
	n.Kind, n.Created = netmap.KindNode, c.now.UTC().Truncate(time.Second)
	n.Addrs, err = c.newAddresses(n.ID)
	return err
}

// take claims the keys, and gives the former name back.
func (c *change) take(n *netmap.Node, old *node, r *joinRequest, name string) error {
	for _, x := range []struct{ key, code, say string }{
		{"wg/" + r.WG.String(), netmap.CodeBad, "another node has this WireGuard key"},
		{"control/" + r.control.String(), netmap.CodeBad, "another node has this control key"},
	} {
		err := c.tx.claim(x.key, string(netmap.KindNode), n.ID, c.now)
		if errors.Is(err, errTaken) {
			return refuse(x.code, "%s", x.say)
		}
		if err != nil {
			return err
		}
	}
	// A former WireGuard key stays taken: it never becomes another node's.
	if old != nil && old.rec.Name != name {
		return c.restName(old.rec)
	}
	return nil
}

// setEndpoints notes where a node can be reached and tells those who see it. This is
// never written down.
func (s *Server) setEndpoints(id string, where netmap.Where) error {
	eps := where.Endpoints
	if len(eps) > netmap.MaxEndpoints {
		return refuse(netmap.CodeBad, "%d endpoints, at most %d", len(eps), netmap.MaxEndpoints)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.st.nodes[id]
	if n == nil {
		return refuse(netmap.CodeUnknown, "the hub does not know this node")
	}
	for _, e := range eps {
		a := e.Addr().Unmap()
		if !e.IsValid() || e.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || s.st.mesh.Range4.Contains(a) || s.st.mesh.Range6.Contains(a) || len(a.Zone()) > 32 {
			return refuse(netmap.CodeBad, "%s is not where a node can be reached", e)
		}
	}
	if where.Home != "" && !s.st.relay(where.Home) {
		return refuse(netmap.CodeBad, "there is no relay %.40q", where.Home)
	}
	if s.endpoints[id].Equal(where) {
		return nil
	}
	s.endpoints[id] = netmap.Where{Endpoints: slices.Clone(eps), Home: where.Home}
	for other, t := range s.streams {
		if m := s.st.nodes[other]; m != nil && other != id && s.st.sees(s.st.view, m.rec, n.rec) {
			t.endpoints(id)
		}
	}
	return nil
}
