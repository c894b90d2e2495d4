package daemon

import (
	"context"
	"time"

	"tssh/netnode"
	"tssh/netnode/localapi"
)

// noticeEvery is how often a daemon looks whether a firewall was turned on meanwhile.
const noticeEvery = time.Minute

func notices(n *netnode.Node) (out []localapi.Notice) {
	for _, x := range n.Notices() {
		out = append(out, localapi.Notice{Words: x.Words, Mend: x.Mend})
	}
	return out
}

// watchHost logs what is in the way, once for each thing, until ctx ends.
func (d *Daemon) watchHost(ctx context.Context, n *netnode.Node) {
	said := map[string]bool{}
	tick := time.NewTicker(noticeEvery)
	defer tick.Stop()
	for {
		now := map[string]bool{}
		for _, x := range n.Notices() {
			now[x.Words] = true
			if !said[x.Words] {
				d.log.Warn(x.Words, "mend", x.Mend)
			}
		}
		said = now
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
