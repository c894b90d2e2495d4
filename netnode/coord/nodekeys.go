package coord

import (
	"context"
	"errors"
	"net/http"
	"time"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// rotatePause is how long after a change of its keys a node has to wait for the next.
const rotatePause = 10 * time.Second

func (s *Server) handleRotate(w http.ResponseWriter, r *http.Request) {
	key, ok := PeerKey(r)
	if !ok {
		answer(w, http.StatusUnauthorized, netmap.Problem{Code: netmap.CodeUnknown, Say: "this is for nodes of the mesh"})
		return
	}
	var req netmap.RotateRequest
	if !body(w, r, &req) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), joinWait)
	defer cancel()
	if !s.turn(ctx, s.knowsKey(key, req.Steps)) {
		answer(w, http.StatusTooManyRequests, netmap.Problem{Code: netmap.CodeBusy, Say: "too many nodes ask at this moment"})
		return
	}
	reply, err := s.rotate(r.Context(), key, req.Steps)
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, reply)
}

// knowsKey reports whether a change of keys is shown, or signed, with a key of a member's.
func (s *Server) knowsKey(shown netmap.ControlPublic, steps []netmap.Envelope) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if _, ok := s.st.byControl[shown]; ok {
		return true
	}
	_, _, err := s.st.steps(steps)
	return err == nil
}

// rotate gives a node the keys of the last of steps. shown is the control key of the
// connection: without it steps that somebody has copied are worth nothing. A membership
// is neither longer nor shorter for it. The former keys stay taken for ever, so that they
// never become another node's, nor this one's again.
func (s *Server) rotate(ctx context.Context, shown netmap.ControlPublic, steps []netmap.Envelope) (*netmap.RotateReply, error) {
	var reply netmap.RotateReply
	var full *netmap.Node // said for the first time that it may have no more keys
	err := s.change(ctx, func(c *change) error {
		if n := s.st.nodes[s.st.byControl[shown]]; n != nil { // the answer was lost on the way
			reply.Node = *n.env
			return nil
		}
		n, path, err := s.st.steps(steps)
		if err != nil {
			return err
		}
		last := path[len(path)-1]
		if p := s.st.problem(n.rec.ID, c.now); p != nil {
			return refuse(p.Code, "%s", p.Say)
		}
		if d := c.now.Sub(n.rec.Rotated); d >= 0 && d < rotatePause && len(path) == 1 {
			return refuse(netmap.CodeBusy, "this node changed its keys a moment ago; try again in a few seconds")
		}
		lim := s.lim.of(n.rec.ID, len(s.st.nodes))
		if !lim.rotations.AllowN(time.Now(), len(path)) { // also where several steps come at once
			return errTooOften
		}
		if last.Next != shown {
			return refuse(netmap.CodeBad, "the connection does not show the key that the node is to have")
		}
		if err := c.roomForKeys(n.rec, 2*len(path)); err != nil {
			if !lim.full {
				lim.full, full = true, n.rec
			}
			return err
		}
		for _, st := range path {
			for _, key := range []string{"wg/" + st.WG.String(), "control/" + st.Next.String()} {
				if err := c.claimKey(n.rec.ID, key); err != nil {
					return err
				}
			}
		}
		rec := *n.rec
		rec.Control, rec.WG, rec.Rotated = last.Next, last.WG, c.now.UTC().Truncate(time.Second)
		if err := c.put(&rec); err != nil {
			return err
		}
		c.after = append(c.after, func(st *state) {
			reply.Node = *st.nodes[rec.ID].env
			// Whoever holds it showed the former key.
			if t := s.streams[rec.ID]; t != nil {
				t.stop()
			}
		})
		return c.audit(audit.Entry{Kind: "node.rotate", Who: owner(&rec), Node: rec.Name, Extra: map[string]string{
			"id": rec.ID, "control": rec.Control.String(), "former": n.rec.Control.String(), "wireguard": rec.WG.String(),
		}})
	})
	if full != nil {
		if aerr := s.change(ctx, func(c *change) error {
			return c.audit(audit.Entry{Kind: "node.rotate", Who: owner(full), Node: full.Name, Verdict: "deny", Text: err.Error(), Extra: map[string]string{"id": full.ID}})
		}); aerr != nil {
			s.c.Log.Error("audit", "err", aerr)
		}
	}
	s.drainAudit(ctx)
	if err != nil {
		return nil, err
	}
	return &reply, nil
}

// roomForKeys refuses keys beyond those that a node, and all nodes of a person's, may ever have
// had: they stay taken, and would fill the hub's disk.
func (c *change) roomForKeys(rec *netmap.Node, more int) error {
	had, err := c.tx.keysOf(rec.ID)
	if err != nil {
		return err
	}
	if had+more > c.s.lim.keysPerNode {
		return refuse(netmap.CodeBusy, "this node has had %d keys, and none may have more than %d; it has to come back as another node (on the hub: tsshub node remove %s)", had, c.s.lim.keysPerNode, rec.Name)
	}
	if rec.User == "" {
		return nil // a machine of its own
	}
	for id, n := range c.s.st.nodes {
		if n.rec.User != rec.User || id == rec.ID {
			continue
		}
		others, err := c.tx.keysOf(id)
		if err != nil {
			return err
		}
		had += others
	}
	if had+more > c.s.lim.keysPerPerson {
		return refuse(netmap.CodeBusy, "the nodes of %s have had %d keys, and no person's may have more than %d; one of them has to be removed (on the hub: tsshub node remove NAME)", rec.User, had, c.s.lim.keysPerPerson)
	}
	return nil
}

// claimKey takes a key that nobody may have had before.
func (c *change) claimKey(id, key string) error {
	had, err := c.tx.claimed(key)
	if err == nil && had {
		return refuse(netmap.CodeBad, "these keys were somebody's before")
	}
	if err == nil {
		err = c.tx.claim(key, string(netmap.KindNode), id, c.now)
	}
	if errors.Is(err, errTaken) {
		return refuse(netmap.CodeBad, "these keys were somebody's before")
	}
	return err
}

// steps finds the node whose key one of steps goes on from, and the steps from there.
func (s *state) steps(steps []netmap.Envelope) (*node, []netmap.KeyStep, error) {
	former, err := netmap.FormerKeys(steps)
	if err != nil {
		return nil, nil, refuse(netmap.CodeBad, "what the node says about its keys cannot be read")
	}
	for _, key := range former {
		id, ok := s.byControl[key]
		if !ok {
			continue
		}
		n := s.nodes[id]
		if n == nil {
			return nil, nil, refuse(netmap.CodeRemoved, "this node was removed from the mesh")
		}
		path, err := netmap.OpenSteps(s.mesh.Header.Mesh, key, steps)
		if err != nil || path[0].Node != id {
			return nil, nil, refuse(netmap.CodeBad, "what the node says about its keys does not add up")
		}
		return n, path, nil
	}
	return nil, nil, refuse(netmap.CodeUnknown, "the hub does not know this node; if its database was put back from an earlier time, join again")
}
