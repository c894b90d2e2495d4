package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"tssh/netnode"
	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
	"tssh/policy"
)

// api is the local API's view of the daemon: domain structs are copied field by field.
func (d *Daemon) api() localapi.Config {
	c := localapi.Config{
		Path: d.cfg.Socket, OwnerUID: d.cfg.OwnerUID, Userspace: d.cfg.TUN == "" && os.Getuid() != 0, Log: d.log,
		Status: d.status, WhoIs: d.whois, Resolve: d.resolve, Join: d.apiJoin, Up: d.Up, Down: d.Down, Rotate: d.rotate, Settings: d.set, Why: d.why, Ping: d.ping, Netcheck: d.netcheck, Sessions: d.cfg.Sessions, Metrics: d.cfg.Metrics,
	}
	c.ServePort, c.Served, c.ServeOff = d.apiServe, d.apiServed, d.apiServeOff
	if d.cfg.TUN == "" {
		c.Dial = d.dial
	}
	return c
}

func (d *Daemon) status(context.Context) (localapi.Status, error) {
	s := localapi.Status{Version: d.cfg.Version, Userspace: d.cfg.TUN == ""}
	d.mu.Lock()
	st, m, down := d.state, d.member, d.down
	s.Problem = d.problem
	d.mu.Unlock()
	switch {
	case st == nil:
		s.State = localapi.StateNotJoined
		return s, nil
	case down:
		s.State = localapi.StateDown
	case s.Problem == netmap.ErrExpired.Error():
		s.State = localapi.StateExpired
	case s.Problem == netmap.ErrRemoved.Error():
		s.State = localapi.StateRemoved
	default:
		s.State = localapi.StateConnecting
	}
	s.Mesh, s.Hub, s.HubKey = st.Mesh, st.Hub, st.Pin.String()
	s.Self.ID, s.Self.Name = st.NodeID, st.Name
	if m == nil {
		return s, nil
	}
	now := m.client.State() // the hub may have another key or address by now
	s.Hub, s.HubKey = now.Hub, now.Pin.String()
	hub := m.client.Status()
	s.HubOnline = hub.Phase == netmap.PhaseConnected
	if hub.Say != "" && s.Problem == "" {
		s.Problem = hub.Say
	}
	nm := m.client.Map()
	s.Revision = nm.Revision
	for _, k := range nm.FormerHubKeys {
		s.FormerHubKeys = append(s.FormerHubKeys, k.String())
	}
	if !nm.Self.Valid() {
		return s, nil
	}
	s.State = localapi.StateRunning
	s.Self, s.Expires, s.KeysSince = node(nm.Self), nm.Expires, nm.KeysSince
	if d.cfg.Names != nil {
		s.Names = d.cfg.Names()
	}
	paths := map[string]netnode.PeerStatus{}
	ns := m.node.Status()
	s.Notices = notices(m.node)
	s.Endpoints, s.HomeRelay, s.Drops = ns.Endpoints, ns.Home, ns.Drops
	for _, p := range ns.Peers {
		paths[p.Node.ID] = p
	}
	recorders := nm.Policy.Recorders()
	for _, p := range nm.Peers {
		if slices.ContainsFunc(p.Tags, func(t policy.Tag) bool { return slices.Contains(recorders, t) }) {
			s.Recorders = append(s.Recorders, localapi.Recorder{Node: node(p.Identity), Key: p.Control.String()})
		}
		q := localapi.Peer{Node: node(p.Identity), SSH: len(p.HostKeys) > 0, Expires: p.Expires}
		if x, ok := paths[p.ID]; ok {
			q.LastHandshake, q.RxBytes, q.TxBytes = x.Handshake, x.Rx, x.Tx
			if x.Path.IsValid() {
				q.Path, q.LatencyMS = x.Path.String(), ms(x.RTT)
			}
			q.Relay = x.Relay
		}
		s.Peers = append(s.Peers, q)
	}
	return s, nil
}

func node(i policy.Identity) localapi.Node {
	n := localapi.Node{ID: i.ID, Name: i.Name, User: string(i.User), Addrs: i.Addrs}
	for _, t := range i.Tags {
		n.Tags = append(n.Tags, string(t))
	}
	return n
}

// onMesh is the member's map, or why there is none.
func (d *Daemon) onMesh() (*member, *netmap.Map, error) {
	m := d.current()
	if m == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch {
		case d.state == nil:
			return nil, nil, localapi.Errorf(localapi.CodeNotJoined, "this node has not joined a mesh yet")
		case d.down:
			return nil, nil, localapi.Errorf(localapi.CodeDown, "this node is down")
		case d.problem == netmap.ErrExpired.Error():
			return nil, nil, localapi.Errorf(localapi.CodeExpired, "%s", d.problem)
		case d.problem != "":
			return nil, nil, localapi.Errorf(localapi.CodeRevoked, "%s", d.problem)
		}
		return nil, nil, localapi.Errorf(localapi.CodeUnreachable, "this node is not up yet")
	}
	nm := m.client.Map()
	if !nm.Self.Valid() {
		return nil, nil, localapi.Errorf(localapi.CodeUnreachable, "this node has not heard from its hub yet")
	}
	return m, nm, nil
}

func (d *Daemon) whois(_ context.Context, a netip.Addr) (localapi.Node, error) {
	_, nm, err := d.onMesh()
	if err != nil {
		return localapi.Node{}, err
	}
	if p, ok := byAddr(nm, a.Unmap()); ok {
		return node(p.Identity), nil
	}
	return localapi.Node{}, localapi.Errorf(localapi.CodeNotFound, "no node of the mesh has the address %s", a)
}

// byAddr finds a node, oneself included, by an address of its own.
func byAddr(nm *netmap.Map, a netip.Addr) (netmap.Peer, bool) {
	for _, s := range nm.SelfAddrs {
		if s == a {
			return netmap.Peer{Identity: nm.Self}, true
		}
	}
	for _, p := range nm.Peers {
		for _, x := range p.Addrs {
			if x == a {
				return p, true
			}
		}
	}
	return netmap.Peer{}, false
}

// find is what a name means: a node's name, with or without the mesh's suffix, or an address.
func find(nm *netmap.Map, name string) (netmap.Peer, error) {
	if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		if p, ok := byAddr(nm, a.Unmap()); ok {
			return p, nil
		}
		return netmap.Peer{}, localapi.Errorf(localapi.CodeNotFound, "no node of the mesh has the address %s", a)
	}
	short := strings.TrimSuffix(strings.ToLower(name), ".")
	short = strings.TrimSuffix(short, "."+nm.Mesh+".internal")
	if short == nm.Self.Name {
		return netmap.Peer{Identity: nm.Self}, nil
	}
	for _, p := range nm.Peers {
		if p.Name == short {
			return p, nil
		}
	}
	return netmap.Peer{}, localapi.Errorf(localapi.CodeNotFound, "no host called %q in the mesh, or none that you may reach", name)
}

func (d *Daemon) resolve(_ context.Context, name string) (localapi.Resolved, error) {
	_, nm, err := d.onMesh()
	if err != nil {
		return localapi.Resolved{}, err
	}
	p, err := find(nm, name)
	if err != nil {
		return localapi.Resolved{}, err
	}
	keys := p.HostKeys
	if p.ID == nm.Self.ID {
		keys = d.cfg.HostKeys
	}
	return localapi.Resolved{Node: node(p.Identity), HostKeys: keys}, nil
}

func (d *Daemon) dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	m, nm, err := d.onMesh()
	if err != nil {
		return nil, err
	}
	p, err := find(nm, host)
	if err != nil {
		return nil, err
	}
	if len(p.Addrs) == 0 {
		return nil, localapi.Errorf(localapi.CodeUnreachable, "%s has no address", p.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := m.node.Dial(ctx, "tcp", net.JoinHostPort(p.Addrs[0].String(), strconv.Itoa(int(port))))
	if err != nil {
		return nil, localapi.Errorf(localapi.CodeUnreachable, "%s does not answer on port %d: %v", p.Name, port, bare(err))
	}
	return c, nil
}

// bare is the last and plainest part of an error.
func bare(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func (d *Daemon) apiJoin(ctx context.Context, r localapi.JoinRequest) error {
	token, err := netmap.ParseToken(r.Token)
	if err != nil {
		return localapi.Errorf(localapi.CodeBadRequest, "%v", err)
	}
	err = d.Join(ctx, token, r.Hostname)
	var j *netmap.JoinError
	if errors.As(err, &j) {
		words := j.Say
		if j.Hint != "" {
			words = fmt.Sprintf("%s (%s)", j.Say, j.Hint)
		}
		code := localapi.CodeDenied
		if j.Code == netmap.CodeUnreachable {
			code = localapi.CodeUnreachable
		}
		return localapi.Errorf(code, "%s", words)
	}
	return err
}

func (d *Daemon) why(_ context.Context, r localapi.WhyRequest) (localapi.Why, error) {
	_, nm, err := d.onMesh()
	if err != nil {
		return localapi.Why{}, err
	}
	p, err := find(nm, r.Host)
	if err != nil {
		return localapi.Why{}, err
	}
	user, err := policy.ParseLocalUser(r.User)
	if err != nil {
		return localapi.Why{}, localapi.Errorf(localapi.CodeBadRequest, "%q cannot be the name of an account", r.User)
	}
	q := policy.Request{Ask: policy.AskLogin, Src: nm.Self, Dst: p.Identity, User: user, UIDUnknown: true, Now: time.Now()}
	if len(nm.SelfAddrs) > 0 {
		q.SrcAddr = nm.SelfAddrs[0]
	}
	dec := policy.Evaluate(nm.Policy, q)
	w := localapi.Why{Verdict: dec.Verdict.String(), Say: dec.Sentence(q), Reason: dec.Reason, Section: dec.Section, Host: p.Name, User: r.User}
	if dec.Verdict != policy.Deny {
		w.Terms = dec.Words()
	} else {
		accounts, others := policy.Instead(nm.Policy, q)
		for _, u := range accounts {
			w.Instead = append(w.Instead, string(u))
		}
		w.Others = others
	}
	if dec.Rule >= 0 && dec.Section != "" {
		w.Rule = &dec.Rule
	}
	return w, nil
}
