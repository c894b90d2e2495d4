package netmap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxRotations is how many changes of its keys a node remembers, and a hub follows at once.
const MaxRotations = 16

// rotationType is what a KeyStep is signed as; it is no record.
const rotationType = "application/vnd.tssh.keystep.v1+json"

// KeyStep says what keys a node has after others. The control key that it had before
// signs it; that it has the next one the connection proves by which it is sent. So neither
// a key that was stolen later nor the hub alone can make one.
type KeyStep struct {
	Mesh   string        `json:"mesh"`
	Node   string        `json:"node"`
	Former ControlPublic `json:"former"`
	Next   ControlPublic `json:"next"`
	WG     WGPublic      `json:"wg"`
	When   time.Time     `json:"when"` // by the node's clock, for people
}

// RotateRequest is the body of PathRotate: steps that lead from the control key that the
// hub knows the node by to the one that the connection shows. There is more than one when
// the hub was put back to an earlier time.
type RotateRequest struct {
	Steps []Envelope `json:"steps"`
}

// RotateReply is the node's record with the last step's keys.
type RotateReply struct {
	Node Envelope `json:"node"`
}

// NextKeys are keys that a node is about to have. They are on its disk before the hub is
// asked, so that a node never loses what the hub has taken.
type NextKeys struct {
	WG      WGPrivate
	Control ControlKey
	Step    Envelope
}

// OpenSteps reads and checks steps: one node's of one mesh, each signed by the key before
// it, beginning with the step from known, which may be any of them. It returns that step
// and those after it.
func OpenSteps(mesh string, known ControlPublic, steps []Envelope) ([]KeyStep, error) {
	if len(steps) == 0 || len(steps) > MaxRotations {
		return nil, fmt.Errorf("netmap: %d steps, 1 to %d are followed", len(steps), MaxRotations)
	}
	var out []KeyStep
	for _, e := range steps {
		var s KeyStep
		if err := json.Unmarshal(e.Payload, &s); err != nil {
			return nil, errors.New("netmap: step: not readable")
		}
		if len(out) == 0 && s.Former != known {
			continue
		}
		if n := len(out); n > 0 && (s.Former != out[n-1].Next || s.Node != out[n-1].Node) {
			return nil, errors.New("netmap: step: it does not go on from the one before it")
		}
		if err := e.verifyAs(rotationType, s.Former); err != nil {
			return nil, fmt.Errorf("netmap: step: %w", err)
		}
		if s.Mesh != mesh || s.Node == "" || s.Next.IsZero() || s.WG.IsZero() || s.Next == s.Former {
			return nil, errors.New("netmap: step: not of this mesh, or it leads nowhere")
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("netmap: no step goes on from the key that is known")
	}
	return out, nil
}

// newNext makes keys and the step to them.
func (s *State) newNext(now time.Time) (*NextKeys, error) {
	wg, err := NewWGPrivate()
	if err != nil {
		return nil, err
	}
	ck, err := NewControlKey()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(KeyStep{Mesh: s.MeshID, Node: s.NodeID, Former: s.Control.Public(), Next: ck.Public(), WG: wg.Public(), When: now.UTC().Truncate(time.Second)})
	if err != nil {
		return nil, fmt.Errorf("netmap: step: %w", err)
	}
	e, err := signAs(s.Control, rotationType, b)
	if err != nil {
		return nil, err
	}
	return &NextKeys{WG: wg, Control: ck, Step: e}, nil
}

// Rotate gives the node another WireGuard key and another control key. It works while Run
// does. After an error the node has the keys it had; one whose answer was lost is made
// good as soon as the hub is reached again.
func (k *Client) Rotate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	k.rot.Lock()
	defer k.rot.Unlock()
	if k.State().Next == nil {
		next, err := k.State().newNext(k.c.Clock())
		if err != nil {
			return err
		}
		if err := k.edit(ctx, func(s *State) { s.Next = next }); err != nil {
			return err
		}
	}
	return k.takeNext(ctx)
}

// takeNext asks the hub to take State.Next, and then has it. Callers hold rot.
func (k *Client) takeNext(ctx context.Context) error {
	st := *k.State()
	next := st.Next
	steps := append(slices.Clone(st.Rotations), next.Step)
	steps = steps[max(0, len(steps)-MaxRotations):]
	if err := k.tell(ctx, next.Control, next.WG.Public(), steps); err != nil {
		var ref *Refused
		if errors.As(err, &ref) && ref.Code != CodeInternal {
			return errors.Join(err, k.edit(ctx, func(s *State) { s.Next = nil }))
		}
		return err
	}
	err := k.edit(ctx, func(s *State) { s.WG, s.Control, s.Rotations, s.Next = next.WG, next.Control, steps, nil })
	if err != nil {
		return err
	}
	hc, _, err := k.newHTTP(k.State())
	if err != nil {
		return err
	}
	k.hc.Swap(hc).CloseIdleConnections()
	k.c.Log.Info("this node has other keys", "wireguard", next.WG.Public().String())
	if k.c.OnKeys != nil {
		k.c.OnKeys(next.WG, next.Control)
	}
	k.mu.Lock()
	k.whereDone = false
	k.mu.Unlock()
	k.wake()
	return nil
}

// tell sends steps by a connection that shows control, and checks the answer.
func (k *Client) tell(ctx context.Context, control ControlKey, wg WGPublic, steps []Envelope) error {
	st := *k.State()
	st.Control = control
	hc, base, err := k.newHTTP(&st)
	if err != nil {
		return err
	}
	defer hc.CloseIdleConnections()
	var reply RotateReply
	if err := call(ctx, hc, base+PathRotate, RotateRequest{Steps: steps}, &reply); err != nil {
		return err
	}
	r, err := Open(reply.Node, k.State().Pin, st.MeshID)
	if err != nil {
		return err
	}
	if r.Node == nil || r.ID != st.NodeID || r.Node.Control != control.Public() || r.Node.WG != wg {
		return errors.New("netmap: the hub's record does not have the keys it was told")
	}
	return nil
}

// rotationDue reports whether a connection ended, or is about to, because the hub knows
// this node by other keys.
func (k *Client) rotationDue(err error) bool {
	st := k.State()
	var ref *Refused
	return errors.As(err, &ref) && ref.Code == CodeUnknown && (st.Next != nil || len(st.Rotations) > 0)
}

// settleKeys makes good a change of keys whose answer was lost, or one that happened after
// the hub's last backup; false means that the hub does not know this node any more.
func (k *Client) settleKeys(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	k.rot.Lock()
	defer k.rot.Unlock()
	st := k.State()
	var err error
	if st.Next != nil {
		err = k.takeNext(ctx)
	} else {
		err = k.tell(ctx, st.Control, st.WG.Public(), st.Rotations)
	}
	if err != nil {
		k.c.Log.Warn("the hub does not take this node's keys", "err", err)
	}
	return err == nil
}

// edit has Run's goroutine change the membership.
func (k *Client) edit(ctx context.Context, f func(*State)) error {
	done := make(chan error, 1)
	if !k.give(ctx, incoming{edit: f, done: done}) {
		return ctx.Err()
	}
	return <-done
}

func (k *Client) edited(f func(*State)) error {
	st := *k.State()
	f(&st)
	if err := st.save(); err != nil {
		return err
	}
	k.state.Store(&st)
	return nil
}

// FormerKeys are the keys that steps go on from, unverified, in their order.
func FormerKeys(steps []Envelope) ([]ControlPublic, error) {
	if len(steps) == 0 || len(steps) > MaxRotations {
		return nil, fmt.Errorf("netmap: %d steps, 1 to %d are followed", len(steps), MaxRotations)
	}
	var out []ControlPublic
	for _, e := range steps {
		var s KeyStep
		if err := json.Unmarshal(e.Payload, &s); err != nil {
			return nil, errors.New("netmap: step: not readable")
		}
		out = append(out, s.Former)
	}
	return out, nil
}
