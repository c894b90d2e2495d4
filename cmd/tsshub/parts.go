package main

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
	"tssh/recording/ship"
)

// part is one role of a hub. start mounts what the role answers on h.tls and returns
// what runs until the context ends; it may refuse, in words.
type part struct {
	role  string
	start func(h *hub) (run func(context.Context) error, err error)
}

// parts are the roles that this program has, in the order they start.
func parts() []part {
	return []part{
		{"coord", startCoord},
		{"relay", startRelay},
		{"recorder", startRecorder},
	}
}

// defaultRoles are those that are there.
func defaultRoles() []string {
	var out []string
	for _, p := range parts() {
		out = append(out, p.role)
	}
	return out
}

func hasRole(role string) bool { return slices.Contains(defaultRoles(), role) }

// startCoord answers nodes: joining, the stream of records, what nodes say of themselves.
func startCoord(h *hub) (func(context.Context) error, error) {
	h.tls.Handle("/v1/", h.coord.Handler(h.ctx))
	logs, err := ship.NewAuditReceiver(ship.AuditReceiverConfig{Copies: h.copies, Log: h.log.With("part", "audit"), HostOf: func(r *http.Request) (string, string, bool) {
		key, ok := coord.PeerKey(r)
		if !ok {
			return "", "", false
		}
		n, ok := h.coord.NodeByControlKey(key)
		return n.ID, n.Name, ok
	}})
	if err != nil {
		return nil, errStart(err)
	}
	h.tls.Handle("/v1/audit", logs)
	if !h.opt.roles["relay"] {
		if err := h.coord.SetOwnRelay(h.ctx, nil); err != nil {
			return nil, errStart(err)
		}
	}
	return h.coord.Run, nil
}

// startRecorder takes recordings in on the TLS port and shows them on the mesh, where the
// hub has a node of its own, and over loopback where that was asked for.
func startRecorder(h *hub) (func(context.Context) error, error) {
	r, err := openRooms(roomsConfig{
		State: h.dir.path, Recordings: h.opt.recordingsDir(h.dir), Mesh: membersOf(h.coord, h.log), Key: h.dir.key, Former: h.coord.Mesh().FormerKeys,
		Bucket: h.opt.bucket, CacheBytes: h.opt.cache << 20, Retention: h.opt.retention, Keys: h.opt.keys,
		Audit: h.audit.Append, UDPPort: h.opt.udpPort, PerHost: h.opt.perHost, Log: h.log.With("part", "recorder"),
	})
	if err != nil {
		return nil, errStart(err)
	}
	r.mount(h.tls)
	h.rooms.Store(r)
	var replay net.Listener
	if h.opt.replay != "" {
		if replay, err = net.Listen("tcp", h.opt.replay); err != nil {
			return nil, errPortTaken(h.opt.replay, err)
		}
	}
	return func(ctx context.Context) error {
		return r.run(ctx, replay, func(url string) { sayReplay(h.say, url) }, func(ctx context.Context) error {
			return r.ownNode(ctx, func(ctx context.Context) (netmap.Token, error) { return h.coord.HubToken(ctx, ownAddr(h.listen)) })
		})
	}, nil
}

// ownAddr is where this process reaches a port of its own.
func ownAddr(listen net.Addr) string {
	ap, err := netip.ParseAddrPort(listen.String())
	if err != nil || !ap.Addr().IsUnspecified() {
		return listen.String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port()).String()
}
