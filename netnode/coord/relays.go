package coord

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// OwnRelay is the id of the relay that the hub itself is.
const OwnRelay = netmap.HubName

// Relays are the relays of the mesh, in the order in which nodes try them.
func (s *Server) Relays() []netmap.Relay {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.st.relays)
}

// SetOwnRelay says where the hub's own relay is; nil: it is none (any more).
func (s *Server) SetOwnRelay(ctx context.Context, r *netmap.Relay) error {
	return s.setRelays(ctx, "hub", func(rs []netmap.Relay) ([]netmap.Relay, error) {
		i := slices.IndexFunc(rs, func(r netmap.Relay) bool { return r.ID == OwnRelay })
		switch {
		case r == nil && i >= 0:
			return slices.Delete(rs, i, i+1), nil
		case r != nil && i >= 0:
			rs[i] = *r
		case r != nil:
			return append([]netmap.Relay{*r}, rs...), nil
		}
		return rs, nil
	})
}

// AddRelay adds a relay, or changes the one of that name.
func (s *Server) AddRelay(ctx context.Context, who string, r netmap.Relay) (netmap.Relay, error) {
	if r.ID == OwnRelay {
		return r, refuse(netmap.CodeNameReserved, "%s is the hub's own relay", OwnRelay)
	}
	if err := r.Check(); err != nil {
		return r, refuse(netmap.CodeBad, "%s", err)
	}
	return r, s.setRelays(ctx, who, func(rs []netmap.Relay) ([]netmap.Relay, error) {
		if i := slices.IndexFunc(rs, func(o netmap.Relay) bool { return o.ID == r.ID }); i >= 0 {
			rs[i] = r
			return rs, nil
		}
		if len(rs) >= netmap.MaxRelays {
			return nil, refuse(netmap.CodeBad, "there are %d relays already", len(rs))
		}
		return append(rs, r), nil
	})
}

// RemoveRelay removes a relay; nodes at home there find another one.
func (s *Server) RemoveRelay(ctx context.Context, who, id string) error {
	return s.setRelays(ctx, who, func(rs []netmap.Relay) ([]netmap.Relay, error) {
		i := slices.IndexFunc(rs, func(r netmap.Relay) bool { return r.ID == id })
		switch {
		case i < 0:
			return nil, refuse(CodeNotFound, "there is no relay %q", id)
		case id == OwnRelay:
			return nil, refuse(netmap.CodeBad, "that is the hub itself: start it without the role relay (--roles)")
		}
		return slices.Delete(rs, i, i+1), nil
	})
}

func (s *Server) setRelays(ctx context.Context, who string, edit func([]netmap.Relay) ([]netmap.Relay, error)) error {
	err := s.change(ctx, func(c *change) error {
		rs, err := edit(slices.Clone(s.st.relays))
		if err != nil || len(rs) == len(s.st.relays) && (len(rs) == 0 || reflect.DeepEqual(rs, s.st.relays)) {
			return err
		}
		if err := c.put(&netmap.Relays{Header: netmap.Header{Kind: netmap.KindRelays, ID: "relays"}, Relays: rs}); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "relay.set", Who: who, Text: relayNames(rs)})
	})
	s.drainAudit(ctx)
	return err
}

// RelayMember says which live node sent a request to the relay, and its WireGuard key.
func (s *Server) RelayMember(r *http.Request) (node string, wg netmap.WGPublic, ok bool) {
	key, ok := PeerKey(r)
	if !ok {
		return "", wg, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.st.nodes[s.st.byControl[key]]
	if n == nil || n.rec.Control != key || expired(n.rec, s.c.Clock()) {
		return "", wg, false
	}
	return n.rec.ID, n.rec.WG, true
}

// StillMember says whether a node is in the mesh, not expired, and has that WireGuard key.
func (s *Server) StillMember(node string, wg netmap.WGPublic) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.st.nodes[node]
	return n != nil && n.rec.WG == wg && !expired(n.rec, s.c.Clock())
}

// dropRelay takes the relay that a removed node was off the list: no node can get in there
// any more.
func (c *change) dropRelay(n *netmap.Node) error {
	was := c.s.st.relays
	rs := slices.DeleteFunc(slices.Clone(was), func(r netmap.Relay) bool { return r.Pin == n.Control })
	if len(rs) == len(was) {
		return nil
	}
	if err := c.put(&netmap.Relays{Header: netmap.Header{Kind: netmap.KindRelays, ID: "relays"}, Relays: rs}); err != nil {
		return err
	}
	return c.audit(audit.Entry{Kind: "relay.set", Who: "hub", Text: relayNames(rs), Extra: map[string]string{"removed_with": n.ID}})
}

func relayNames(rs []netmap.Relay) string {
	var names []string
	for _, r := range rs {
		names = append(names, r.ID)
	}
	return strings.Join(names, " ")
}
