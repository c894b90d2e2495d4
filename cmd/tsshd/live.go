//go:build linux

package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/live"
	"tssh/sshd"
)

// live keeps the connections over which the hub says who watches and who wants a session ended,
// and other recorders who watches.
func (h *host) live(ctx context.Context, c *netmap.Client, srv *sshd.Server) error {
	e := &eyes{host: h, srv: srv, by: map[string]map[string][]policy.Identity{}}
	hub, err := live.NewHost(live.HostConfig{
		HTTP: c.HTTP, Log: h.log,
		End: func(e live.End) error { return endSession(c.Map(), srv, e) },
		Open: func() (out []live.Open) {
			for _, o := range srv.Unrecorded() {
				out = append(out, live.Open{Session: o.ID, Of: byOf(o.Src), Addr: o.SrcAddr.String(), LocalUser: string(o.LocalUser), UID: o.UID, Since: o.Start.UTC(), Why: o.Why})
			}
			return out
		},
		Watched: func(w live.Watched) { e.watched("", c.Map(), w) },
	})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.liveAtRecorders(ctx, c, e) }) // ends with ctx
	return hub.Run(ctx)
}

const (
	lookAtRecorders = 2 * time.Second
	leaveRecorder   = time.Minute // after it last had something of what is here
)

// liveAtRecorders keeps a connection to each recorder that has something of what is here. A
// recorder tells who watches, which changes how often frames are closed and, where the rule says
// so, what the person is told. It cannot have a session ended: who somebody is, a host believes
// the hub alone.
func (h *host) liveAtRecorders(ctx context.Context, c *netmap.Client, e *eyes) {
	type one struct {
		stop context.CancelFunc
		last time.Time
	}
	on := map[string]*one{}
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(lookAtRecorders)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, x := range on {
				x.stop()
			}
			return
		case <-tick.C:
		}
		f := h.fleet.Load()
		if f == nil {
			continue
		}
		for _, r := range f.Holders() {
			if r.ID == hubID {
				continue
			}
			if x := on[r.ID]; x != nil {
				x.last = time.Now()
				continue
			}
			l, err := live.NewHost(live.HostConfig{
				HTTP: r.HTTP, Log: h.log,
				End: func(live.End) error {
					return &live.Refused{Code: live.CodeDenied, Say: "only the hub can have a session of this host ended"}
				},
				Watched: func(w live.Watched) {
					if at, ok := f.Holder(w.Session); len(w.Watchers) == 0 || ok && at.ID == r.ID {
						e.watched(r.ID, c.Map(), w)
					}
				},
			})
			if err != nil {
				h.log.Error("recorder", "recorder", r.Name, "err", err)
				continue
			}
			own, stop := context.WithCancel(ctx)
			on[r.ID] = &one{stop, time.Now()}
			wg.Go(func() { // ends with ctx, or with stop
				_ = l.Run(own) // its end is why
				e.forget(r.ID)
			})
		}
		for id, x := range on {
			if time.Since(x.last) > leaveRecorder {
				x.stop()
				delete(on, id)
			}
		}
	}
}

// eyes is who watches what, by who says so: "" is the hub.
type eyes struct {
	host *host
	srv  *sshd.Server

	mu sync.Mutex
	by map[string]map[string][]policy.Identity // of a recorder, by session
}

func (e *eyes) watched(from string, m *netmap.Map, w live.Watched) {
	var who []policy.Identity
	for _, x := range w.Watchers {
		id, _ := asker(m, x.By)
		who = append(who, id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.setLocked(from, w.Session, who)
}

// forget is that a recorder says nothing any more.
func (e *eyes) forget(from string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for session := range e.by[from] {
		e.setLocked(from, session, nil)
	}
	delete(e.by, from)
}

func (e *eyes) setLocked(from, session string, who []policy.Identity) {
	if e.by[from] == nil {
		e.by[from] = map[string][]policy.Identity{}
	}
	if e.by[from][session] = who; len(who) == 0 {
		delete(e.by[from], session)
	}
	var all []policy.Identity
	for _, of := range e.by {
		for _, x := range of[session] {
			if !slices.ContainsFunc(all, func(y policy.Identity) bool { return x.ID == y.ID && x.User == y.User }) {
				all = append(all, x)
			}
		}
	}
	e.host.spool.Watch(session, len(all) > 0)
	e.srv.Watched(session, all)
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
