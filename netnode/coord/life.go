package coord

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// Bounds of the life of nodes and names.
const (
	personValidity = 180 * 24 * time.Hour // Config.NodeExpiry's default
	ephemeralGrace = 10 * time.Minute     // Config.EphemeralGrace's default
	maxValidity    = 10 * 366 * 24 * time.Hour
	// nameRest is how long a name that its node gave up is nobody's but that node's: what
	// is still typed or written somewhere must not come to mean another machine by itself.
	nameRest  = 7 * 24 * time.Hour
	maxSuffix = 9999
)

// until is when the membership of a node that comes in now ends; zero: never.
func (c *change) until(n *netmap.Node, k *authKey) time.Time {
	d := k.NodeExpiry
	if d == 0 && n.User != "" {
		d = c.s.c.NodeExpiry
	}
	if d <= 0 {
		return time.Time{}
	}
	return c.now.UTC().Truncate(time.Second).Add(d)
}

// RenameRequest asks for another name of a node.
type RenameRequest struct {
	Name string `json:"name"`
	New  string `json:"new"`
}

// RenameNode gives a node another name. Its id, addresses and keys stay.
func (s *Server) RenameNode(ctx context.Context, who, name, to string) error {
	err := s.change(ctx, func(c *change) error {
		n := s.st.named(name)
		if n == nil {
			return refuse(CodeNotFound, "there is no node %q", name)
		}
		if n.rec.Hub() {
			return refuse(netmap.CodeNameReserved, "the hub's own node keeps its name")
		}
		if err := netmap.CheckName(to); err != nil {
			return nameRefusal(err)
		}
		if n.rec.Name == to {
			return nil
		}
		if err := c.claimName(n.rec.ID, to); err != nil {
			return err
		}
		if err := c.restName(n.rec); err != nil {
			return err
		}
		rec := *n.rec
		rec.Name = to
		if err := c.put(&rec); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "node.rename", Who: who, Node: to, Extra: map[string]string{"id": rec.ID, "former": n.rec.Name, "owner": owner(n.rec)}})
	})
	s.drainAudit(ctx)
	return err
}

func nameRefusal(err error) error {
	if errors.Is(err, netmap.ErrNameReserved) {
		return refuse(netmap.CodeNameReserved, "%s", err)
	}
	return refuse(netmap.CodeNameInvalid, "%s", err)
}

// restName keeps the name that a node gives up for that node alone, for a while.
func (c *change) restName(n *netmap.Node) error {
	return c.tx.restFor("name/"+n.Name, n.ID, c.now.Add(nameRest))
}

// claimName takes a name for a node, or says who has it.
func (c *change) claimName(id, name string) error {
	err := c.tx.claim("name/"+name, string(netmap.KindNode), id, c.now)
	if !errors.Is(err, errTaken) {
		return err
	}
	until, err := c.tx.restsUntil("name/" + name)
	switch {
	case err != nil:
		return err
	case until.IsZero():
		return refuse(netmap.CodeNameTaken, "another node is called %s", name)
	}
	return refuse(netmap.CodeNameTaken, "another node was called %s not long ago, and the name rests until %s", name, until.UTC().Format("2 January 2006 15:04 MST"))
}

// joinName takes the name that a joining node asks for. With a key that allows it a
// taken name gets a number, and a node that has such a name keeps it.
func (c *change) joinName(n *netmap.Node, old *node, want string, suffix bool) (string, error) {
	if suffix && old != nil {
		if num, ok := strings.CutPrefix(old.rec.Name, want+"-"); ok {
			if _, err := strconv.ParseUint(num, 10, 16); err == nil {
				return old.rec.Name, nil
			}
		}
	}
	err := c.claimName(n.ID, want)
	var ref *Refusal
	if !suffix || !errors.As(err, &ref) {
		return want, err
	}
	for i := 2; i <= maxSuffix; i++ {
		end := fmt.Sprintf("-%d", i)
		name := strings.TrimRight(want[:min(len(want), 63-len(end))], "-") + end
		// Names of memory first: a fleet of thousands must not cost a query for each.
		if _, taken := c.s.st.byName[name]; taken || netmap.CheckName(name) != nil {
			continue
		}
		if err := c.claimName(n.ID, name); !errors.As(err, &ref) {
			return name, err
		}
	}
	return "", err
}

// ExtendRequest asks for a longer membership.
type ExtendRequest struct {
	Name string        `json:"name"`
	For  time.Duration `json:"for"` // from now on
}

// ExtendNode says when a node's membership ends anew, counted from now on.
func (s *Server) ExtendNode(ctx context.Context, who, name string, d time.Duration) (until time.Time, err error) {
	if d <= 0 || d > maxValidity {
		return until, refuse(netmap.CodeBad, "a membership is extended by a moment to ten years, not by %s", d)
	}
	err = s.change(ctx, func(c *change) error {
		n := s.st.named(name)
		switch {
		case n == nil:
			return refuse(CodeNotFound, "there is no node %q", name)
		case n.rec.Until.IsZero():
			return refuse(netmap.CodeBad, "the membership of node %s does not end", n.rec.Name)
		case expired(n.rec, c.now):
			return refuse(netmap.CodeExpired, "the membership of node %s has ended already; it comes back when it joins again with a new token", n.rec.Name)
		}
		rec := *n.rec
		until = c.now.UTC().Truncate(time.Second).Add(d)
		rec.Until = until
		if err := c.put(&rec); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "node.extend", Who: who, Node: rec.Name, Extra: map[string]string{"id": rec.ID, "owner": owner(&rec), "until": until.Format(time.RFC3339)}})
	})
	s.drainAudit(ctx)
	return until, err
}

// leave is a node's word that it goes. Only an ephemeral one is removed by it.
func (s *Server) leave(ctx context.Context, id string) error {
	s.mu.RLock()
	n := s.st.nodes[id]
	stays := n == nil || !n.info.Ephemeral
	s.mu.RUnlock()
	if stays {
		return nil
	}
	err := s.change(ctx, func(c *change) error {
		n := s.st.nodes[id]
		if n == nil {
			return nil
		}
		return c.revokeNode(n, owner(n.rec), "an ephemeral node said goodbye")
	})
	s.drainAudit(ctx)
	return err
}

// sweepEphemeral removes ephemeral nodes that have been away for long. One that has
// never been here counts from its join or from the hub's start: what was away may have
// been the hub. Contacts of this run carry a monotonic clock, so that a computer's clock
// that jumps removes nobody.
func (s *Server) sweepEphemeral(ctx context.Context) {
	now := s.c.Clock()
	var gone []string
	s.mu.RLock()
	for id, n := range s.st.nodes {
		if !n.info.Ephemeral || s.streams[id] != nil {
			continue
		}
		seen := n.info.Seen
		if s.start.After(seen) || seen.After(now) {
			seen = s.start
		}
		if t, ok := s.seen[id]; ok && t.After(seen) {
			seen = t
		}
		if now.Sub(seen) > s.c.EphemeralGrace {
			gone = append(gone, n.rec.ID)
		}
	}
	s.mu.RUnlock()
	for _, id := range gone {
		if err := s.RemoveNode(ctx, "hub (ephemeral)", id); err != nil {
			s.c.Log.Error("ephemeral node not removed", "node", id, "err", err)
		}
	}
}
