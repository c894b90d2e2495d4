package netnode

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tssh/netnode/netmap"
	"tssh/netnode/path"
)

// trimEvery is how often idle peers are looked for; one goes that was idle at two looks.
const trimEvery = 5 * time.Minute

// member is a node of the mesh. WireGuard has it as a peer only while the two talk: a peer
// costs it 30 KiB and two goroutines, which in a mesh of thousands would be most of what the
// daemon is. A packet for the member, or its handshake, waits for the moment that it takes.
type member struct {
	key netmap.WGPublic
	has atomic.Bool // WireGuard has it; changed under memberMu

	// Guarded by memberMu.
	allowed []netip.Prefix
	gone    bool    // a member no more
	before  counter // of the times that WireGuard had it before
	last    counter // at the last look, since WireGuard has it now
	idle    int     // looks without a change
}

type admission struct {
	m    *member
	done chan<- struct{}
}

// enroll makes the members of v. Callers hold mu; v is not in force yet.
func (n *Node) enroll(v *view) {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	v.byKey = make(map[netmap.WGPublic]*member, len(v.peers))
	v.member = make(map[netip.Addr]*member, len(v.byAddr))
	for _, p := range v.peers {
		m := n.members[p.Key]
		if m == nil {
			m = &member{key: p.Key, allowed: alone(p.Addrs)}
			n.members[p.Key] = m
			n.bind.AddPeer(path.Key(p.Key))
			v.fresh = append(v.fresh, p)
		}
		v.byKey[p.Key] = m
		for _, a := range p.Addrs {
			v.member[a] = m
		}
	}
}

// alone are the networks of single addresses.
func alone(addrs []netip.Addr) (out []netip.Prefix) {
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// applyPeersLocked brings the members, and of them those that WireGuard has, to v. Callers
// hold mu, and v is in force.
func (n *Node) applyPeersLocked(v *view) {
	n.memberMu.Lock()
	var ipc strings.Builder
	for _, p := range v.peers {
		m := v.byKey[p.Key]
		if allowed := alone(p.Addrs); !slices.Equal(m.allowed, allowed) {
			m.allowed = allowed
			if m.has.Load() {
				m.describe(&ipc)
			}
		}
	}
	var left []*member
	for k, m := range n.members {
		if v.byKey[k] != nil {
			continue
		}
		if m.gone = true; m.has.Swap(false) {
			fmt.Fprintf(&ipc, "public_key=%s\nremove=true\n", k.Hex())
		}
		left = append(left, m)
		delete(n.members, k)
	}
	if ipc.Len() > 0 {
		if err := n.dev.IpcSet(ipc.String()); err != nil {
			n.log.Error("peers not set", "err", err)
		}
	}
	n.memberMu.Unlock()
	for _, p := range v.fresh {
		if former, ok := n.rekeyed[p.Key]; ok {
			n.bind.Inherit(path.Key(p.Key), path.Key(former))
		}
	}
	for _, m := range left {
		n.bind.RemovePeer(path.Key(m.key))
	}
	for _, p := range v.fresh {
		k := path.Key(p.Key)
		old := n.saved.Peers[p.Key]
		n.bind.SetEndpoints(k, slices.Concat(n.endpoints[p.ID].Endpoints, old))
		n.bind.SetHome(k, n.endpoints[p.ID].Home)
		// A peer of the last run still sends into the old session; tell it about the new one.
		if _, ok := n.rekeyed[p.Key]; ok || len(old) > 0 {
			n.take(v.byKey[p.Key])
			n.greet(p.Key)
		}
	}
	n.rekeyed = nil
}

// describe writes m for IpcSet. Callers hold memberMu.
func (m *member) describe(ipc *strings.Builder) {
	// The endpoint in the same set as the peer is made, or WireGuard would roam by itself.
	fmt.Fprintf(ipc, "public_key=%s\nendpoint=%s\nreplace_allowed_ips=true\n", m.key.Hex(), m.key.Hex())
	for _, a := range m.allowed {
		fmt.Fprintf(ipc, "allowed_ip=%s\n", a)
	}
}

// memberKeys are all members.
func (n *Node) memberKeys() iter.Seq[netmap.WGPublic] {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	return slices.Values(slices.Collect(maps.Keys(n.members)))
}

// take gives m to WireGuard.
func (n *Node) take(m *member) {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	if m.gone || m.has.Load() || n.members[m.key] != m {
		return
	}
	var ipc strings.Builder
	m.describe(&ipc)
	if err := n.dev.IpcSet(ipc.String()); err != nil {
		n.log.Error("peer not set", "key", m.key.String(), "err", err)
		return
	}
	m.last, m.idle = counter{}, 0
	m.has.Store(true)
}

// need returns when WireGuard has m, or stop is closed. The device's own goroutines must
// neither configure it themselves nor wait for a lock that is held meanwhile: it waits for
// them while it closes.
func (n *Node) need(m *member, stop <-chan struct{}) {
	done := make(chan struct{})
	select {
	case n.admits <- admission{m, done}:
	case <-stop:
		return
	case <-n.ended:
		return
	}
	select {
	case <-done:
	case <-stop:
	case <-n.ended:
	}
}

// leaving is told where a packet goes, by the device's TUN reader.
func (n *Node) leaving(dst netip.Addr, stop <-chan struct{}) {
	m := n.toward.m
	if n.toward.dst != dst || !m.has.Load() {
		v := n.view.Load()
		if v == nil {
			return
		}
		if m = v.member[dst]; m == nil {
			return
		}
		n.toward.dst, n.toward.m = dst, m
	}
	if !m.has.Load() {
		n.need(m, stop)
	}
}

// initiated is told of a handshake that k begins, before WireGuard gets it.
func (n *Node) initiated(k path.Key, stop <-chan struct{}) {
	v := n.view.Load()
	if v == nil {
		return
	}
	if m := v.byKey[netmap.WGPublic(k)]; m != nil && !m.has.Load() {
		n.need(m, stop)
	}
}

// keepMembers gives WireGuard the members that are needed, and takes back those that are
// idle.
func (n *Node) keepMembers(ctx context.Context) {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		select {
		case a := <-n.admits:
			n.take(a.m)
			close(a.done)
		case <-t.C:
			n.trim()
		case <-ctx.Done():
			return
		}
	}
}

// trim takes from WireGuard the peers without traffic since the look before last. Their
// session keys were too old to be used again anyway.
func (n *Node) trim() {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	now := n.readDevice()
	var ipc strings.Builder
	for k, m := range n.members {
		if !m.has.Load() {
			continue
		}
		c := now[k]
		if c != m.last {
			m.last, m.idle = c, 0
			continue
		}
		if m.idle++; m.idle < 2 {
			continue
		}
		m.before = m.before.plus(c)
		m.has.Store(false)
		fmt.Fprintf(&ipc, "public_key=%s\nremove=true\n", k.Hex())
	}
	if ipc.Len() == 0 {
		return
	}
	if err := n.dev.IpcSet(ipc.String()); err != nil {
		n.log.Error("idle peers not taken back", "err", err)
	}
}
