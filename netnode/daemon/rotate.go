package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
)

// rotate gives the node other keys.
func (d *Daemon) rotate(ctx context.Context) error {
	m, _, err := d.onMesh()
	if err != nil {
		return err
	}
	return rotateError(m.client.Rotate(ctx))
}

func rotateError(err error) error {
	var ref *netmap.Refused
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ref) && ref.Code == netmap.CodeNotHub:
		return localapi.Errorf(localapi.CodeUnsupported, "the hub is older than this and does not change keys; update it")
	case errors.As(err, &ref) && ref.Code == netmap.CodeBusy:
		return localapi.Errorf(localapi.CodeLimit, "%s", ref.Say)
	case errors.As(err, &ref):
		return localapi.Errorf(localapi.CodeDenied, "the hub does not take new keys of this node: %s", ref.Say)
	}
	return localapi.Errorf(localapi.CodeUnreachable, "the hub cannot be reached now, and the keys are as they were: %v", bare(err))
}

// rotatePoll is how often the age of the keys is looked at.
const rotatePoll = 10 * time.Minute

// rotateInTime makes other keys when these are old, until ctx ends. Of many nodes that
// joined together each takes its own moment.
func (d *Daemon) rotateInTime(ctx context.Context, c *netmap.Client) {
	every := d.cfg.RotateEvery
	every -= rand.N(every/10 + 1)
	poll := min(rotatePoll, every/4+time.Millisecond)
	for {
		t := time.NewTimer(poll/2 + rand.N(poll/2+1))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		st := c.Status()
		m := c.Map()
		if st.Phase != netmap.PhaseConnected || m.KeysSince.IsZero() || time.Now().Add(st.Offset).Sub(m.KeysSince) < every {
			continue
		}
		if err := c.Rotate(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("the node's keys were not changed", "err", err)
		}
	}
}
