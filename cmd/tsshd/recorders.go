//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tssh/netnode"
	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording"
	"tssh/recording/ship"
)

// ship brings recordings to the recorders that their rules name, until ctx ends.
func (h *host) ship(ctx context.Context, n *netnode.Node, c *netmap.Client) error {
	ways := &ways{node: n, client: c, known: map[string]*way{}}
	f, err := ship.NewFleet(ship.FleetConfig{Spool: h.spool, Resolve: ways.resolve, Log: h.log})
	if err != nil {
		return err
	}
	h.fleet.Store(f)
	defer h.fleet.Store(nil)
	return f.Run(ctx)
}

// shipNow has what is in the spool sent without waiting for the next look.
func (h *host) shipNow() {
	if f := h.fleet.Load(); f != nil {
		f.Kick()
	}
}

var errNoFleet = errors.New("no recorder is known yet")

// countersign has a recorder put its time and signature under the start of a recording.
func (h *host) countersign(ctx context.Context, s recording.Start) (recording.Countersignature, error) {
	f := h.fleet.Load()
	if f == nil {
		return recording.Countersignature{}, errNoFleet
	}
	return f.Countersign(ctx, s)
}

// witness has the recorder sign how much it has of a recording that runs.
func (h *host) witness(ctx context.Context, p recording.Seen) (recording.Countersignature, error) {
	f := h.fleet.Load()
	if f == nil {
		return recording.Countersignature{}, errNoFleet
	}
	return f.Witness(ctx, p)
}

// ways finds recorders in the verified map and speaks to them over the mesh.
type ways struct {
	node   *netnode.Node
	client *netmap.Client

	mu    sync.Mutex
	known map[string]*way // by node id
}

// way is the client for one recorder, and what it was made of.
type way struct {
	http     *http.Client
	own, its netmap.ControlPublic
	addr     netip.Addr
}

// resolve gives the recorders of a rule.
func (w *ways) resolve(to []string) []ship.Recorder {
	var out []ship.Recorder
	for _, p := range choose(w.client.Map(), to) {
		r := ship.Recorder{ID: p.ID, Name: p.Name, HTTP: func() (*http.Client, string) { return w.to(p.ID) }}
		if p.ID == hubID {
			r.HTTP = w.client.HTTP
		}
		out = append(out, r)
	}
	return out
}

// choose finds the recorders of a rule in the map: no list is the hub, and so is its tag in one.
// A tag that no rule of the policy names any more gets nothing, also of what began under one that did:
// whoever took a recorder out of the policy means that.
// Of several nodes with one tag each host has an order of its own, that of a hash over both ids,
// so that hosts spread over them and each keeps to one.
func choose(m *netmap.Map, to []string) []netmap.Peer {
	hub := netmap.Peer{Identity: policy.Identity{ID: hubID, Name: netmap.HubName}}
	if len(to) == 0 {
		return []netmap.Peer{hub}
	}
	var out []netmap.Peer
	have := map[string]bool{}
	for _, tag := range to {
		var of []netmap.Peer
		if policy.Tag(tag) == netmap.HubTag && !have[hubID] {
			have[hubID] = true
			of = append(of, hub)
		}
		for _, p := range m.Peers {
			if policy.Tag(tag) != netmap.HubTag && m.Policy.IsRecorder([]policy.Tag{policy.Tag(tag)}) && slices.Contains(p.Tags, policy.Tag(tag)) && len(p.Addrs) > 0 && !have[p.ID] {
				have[p.ID] = true
				of = append(of, p)
			}
		}
		slices.SortFunc(of, func(a, b netmap.Peer) int { return bytes.Compare(place(m.Self.ID, a.ID), place(m.Self.ID, b.ID)) })
		out = append(out, of...)
	}
	return out
}

func place(host, recorder string) []byte {
	h := sha256.Sum256([]byte("tssh recorder of a host\x00" + host + "\x00" + recorder))
	return h[:]
}

const hubID = "hub" // no node has such an id

const (
	dialRecorder = 5 * time.Second
	idleRecorder = 2 * time.Minute
)

// to is the client for a recorder: its address and its key are those of its signed record as it
// is now, and the other side has to show that key before anything is said.
func (w *ways) to(id string) (*http.Client, string) {
	p, ok := w.client.Map().Peer(id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ok || len(p.Addrs) == 0 {
		delete(w.known, id)
		return nil, ""
	}
	own, addr := w.client.State().Control, p.Addrs[0]
	base := "https://" + netip.AddrPortFrom(addr, ship.Port).String()
	if k := w.known[id]; k != nil {
		if k.own == own.Public() && k.its == p.Control && k.addr == addr {
			return k.http, base
		}
		k.http.CloseIdleConnections()
		delete(w.known, id)
	}
	conf, err := netmap.ClientTLS(own, p.Control)
	if err != nil {
		return nil, ""
	}
	k := &way{own: own.Public(), its: p.Control, addr: addr, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialRecorder)
				defer cancel()
				return w.node.Dial(ctx, network, to)
			},
			TLSClientConfig: conf, TLSHandshakeTimeout: dialRecorder, MaxIdleConnsPerHost: 8, IdleConnTimeout: idleRecorder,
		}}}
	w.known[id] = k
	return k.http, base
}
