package netnode

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"tssh/netnode/filter"
	"tssh/netnode/netmap"
	"tssh/netnode/path"
	"tssh/policy"
)

// maxEndpointNodes bounds what is kept for nodes that are not in the map yet.
const maxEndpointNodes = 16384

// view is what readers see of the map in force. It is never changed.
type view struct {
	self   policy.Identity
	addrs  []netip.Addr
	mesh   string
	byAddr map[netip.Addr]*policy.Identity
	byName map[string]*netmap.Peer // lower case
	byKey  map[netmap.WGPublic]*member
	member map[netip.Addr]*member
	fresh  []netmap.Peer // new with this view
	peers  []netmap.Peer // those that are in force
}

// SetMap puts m in force: first for the filter and WhoIs, so that who is gone is gone at
// once, then for the device, where only what changed is touched.
func (n *Node) SetMap(m *netmap.Map) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || m == nil {
		return
	}
	n.m = m
	for id := range n.endpoints {
		if len(n.endpoints) <= maxEndpointNodes {
			break
		}
		if _, ok := m.Peer(id); !ok {
			delete(n.endpoints, id)
		}
	}
	n.applyLocked(time.Now())
}

// applyLocked applies n.m as of now by this computer's clock. Callers hold mu.
func (n *Node) applyLocked(now time.Time) {
	m := n.m
	v, next := n.effective(m, now.Add(m.ClockOffset))
	if n.next = next; !next.IsZero() {
		n.next = next.Add(-m.ClockOffset)
	}
	ranges := validRanges(m)
	n.ranges.Store(&ranges)
	n.followKeys(v)
	n.enroll(v)
	n.view.Store(v)
	rules := &filter.Rules{Self: v.addrs, Peers: v.byAddr, AdmitPorts: n.cfg.AdmitPorts}
	if m.Policy != nil {
		self := v.self
		self.Addrs = v.addrs
		rules.Allow = m.Policy.FilterFor(self).Allow
	}
	if h, ok := n.net.(interface{ hiddenPort() uint16 }); ok {
		rules.HiddenPort = h.hiddenPort()
	}
	n.filter.SetRules(rules)
	if k, ok := n.net.(interface{ restrict([]uint32) }); ok && n.cfg.LocalUsers != nil {
		k.restrict(n.cfg.LocalUsers(v.self))
	}
	if err := n.net.configure(v.addrs, ranges); err != nil {
		n.log.Error("mesh addresses not set", "err", err)
	}
	n.applyPeersLocked(v)
	if h, ok := n.net.(interface {
		begun([]netip.Addr) []filter.Connection
	}); ok && !n.ready {
		n.filter.Begun(h.begun(v.addrs))
	}
	n.setRelays(m.Relays)
	n.ready = true
	n.gate.Ready()
	n.nudge()
}

func validRanges(m *netmap.Map) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range []netip.Prefix{m.Range4, m.Range6} {
		if r.IsValid() {
			out = append(out, r.Masked())
		}
	}
	return out
}

// effective is the part of m that is in force now, and when that changes next.
func (n *Node) effective(m *netmap.Map, now time.Time) (*view, time.Time) {
	v := &view{self: m.Self, mesh: strings.ToLower(m.Mesh), byAddr: map[netip.Addr]*policy.Identity{}, byName: map[string]*netmap.Peer{}}
	var next time.Time
	expired := func(t time.Time) bool {
		if t.IsZero() {
			return false
		}
		if !now.Before(t) {
			return true
		}
		if next.IsZero() || t.Before(next) {
			next = t
		}
		return false
	}
	ranges := validRanges(m)
	inRange := func(a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	}
	for _, a := range m.SelfAddrs {
		if a = a.Unmap(); inRange(a) {
			v.addrs = append(v.addrs, a)
		} else {
			n.log.Warn("own address outside the mesh left out", "addr", a)
		}
	}
	if expired(m.Expires) {
		n.log.Warn("this node's membership has expired")
		return v, next
	}
	self := n.keys.Load().wg.Public()
	keys := map[netmap.WGPublic]bool{self: true}
	for i := range m.Peers {
		p := m.Peers[i]
		if expired(p.Expires) || !p.Identity.Valid() {
			continue
		}
		if keys[p.Key] || p.Key.IsZero() {
			n.log.Warn("peer left out: its key is another's", "node", p.Name)
			continue
		}
		var addrs []netip.Addr
		for _, a := range p.Addrs {
			a = a.Unmap()
			if !inRange(a) || v.byAddr[a] != nil || slices.Contains(v.addrs, a) {
				n.log.Warn("address of peer left out: outside the mesh or another's", "node", p.Name, "addr", a)
				continue
			}
			addrs = append(addrs, a)
		}
		if len(addrs) == 0 {
			continue
		}
		keys[p.Key] = true
		p.Addrs = addrs
		v.peers = append(v.peers, p)
		id := p.Identity
		for _, a := range addrs {
			v.byAddr[a] = &id
		}
	}
	for i := range v.peers {
		v.byName[strings.ToLower(v.peers[i].Name)] = &v.peers[i]
	}
	return v, next
}

// SetEndpoints sets where a node said that it can be reached, by its id.
func (n *Node) SetEndpoints(node string, w netmap.Where) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	if _, known := n.endpoints[node]; !known && len(n.endpoints) > 2*maxEndpointNodes {
		return
	}
	w.Endpoints = slices.Clone(w.Endpoints[:min(len(w.Endpoints), 32)])
	n.endpoints[node] = w
	if v := n.view.Load(); v != nil {
		for _, p := range v.peers {
			if p.ID == node {
				n.bind.SetEndpoints(path.Key(p.Key), w.Endpoints)
				n.bind.SetHome(path.Key(p.Key), w.Home)
			}
		}
	}
}
