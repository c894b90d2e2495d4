//go:build linux

package main

import (
	"context"
	"errors"
	"slices"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/live"
	"tssh/sshd"
)

// live keeps the connection over which the hub says who watches and who wants a session ended.
func (h *host) live(ctx context.Context, c *netmap.Client, srv *sshd.Server) error {
	l, err := live.NewHost(live.HostConfig{
		HTTP: c.HTTP, Log: h.log,
		End: func(e live.End) error { return endSession(c.Map(), srv, e) },
		Open: func() (out []live.Open) {
			for _, o := range srv.Unrecorded() {
				out = append(out, live.Open{Session: o.ID, Of: byOf(o.Src), Addr: o.SrcAddr.String(), LocalUser: string(o.LocalUser), UID: o.UID, Since: o.Start.UTC(), Why: o.Why})
			}
			return out
		},
		Watched: func(w live.Watched) {
			h.spool.Watch(w.Session, len(w.Watchers) > 0)
			var who []policy.Identity
			for _, x := range w.Watchers {
				id, _ := asker(c.Map(), x.By)
				who = append(who, id)
			}
			srv.Watched(w.Session, who)
		},
	})
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

func endSession(m *netmap.Map, srv *sshd.Server, e live.End) error {
	by, ok := asker(m, e.By)
	if !ok {
		return &live.Refused{Code: live.CodeDenied, Say: "the host knows this computer as somebody else's"}
	}
	err := srv.End(e.Session, by, e.Reason)
	var no *sshd.Denied
	switch {
	case errors.As(err, &no):
		return &live.Refused{Code: live.CodeDenied, Say: no.Say}
	case errors.Is(err, sshd.ErrNoSession):
		return &live.Refused{Code: live.CodeGone, Say: "this session is over, or its host does not know it"}
	}
	return err
}

// asker is who the hub says it is, as this host's own records have it where they have the
// node. It is nobody where they contradict. recording/live says why the hub is believed for
// the others.
func asker(m *netmap.Map, by live.By) (policy.Identity, bool) {
	id := policy.Identity{ID: by.ID, Name: by.Node, User: policy.Login(by.Login), Role: policy.Role(by.Role)}
	for _, t := range by.Tags {
		id.Tags = append(id.Tags, policy.Tag(t))
	}
	own, known := m.Self, m.Self.ID == by.ID && by.ID != ""
	if p, ok := m.Peer(by.ID); ok {
		own, known = p.Identity, true
	}
	if !known {
		return id, true
	}
	return own, own.User == id.User && slices.Equal(slices.Sorted(slices.Values(own.Tags)), slices.Sorted(slices.Values(id.Tags)))
}

func byOf(id policy.Identity) live.By {
	by := live.By{ID: id.ID, Node: id.Name, Login: string(id.User), Role: string(id.Role)}
	for _, t := range id.Tags {
		by.Tags = append(by.Tags, string(t))
	}
	return by
}
