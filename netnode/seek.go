package netnode

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tssh/netnode/netmap"
	"tssh/netnode/path"
	"tssh/netnode/portmap"
)

const (
	lookEvery = 5 * time.Second        // at the local addresses, where no news of them comes
	settle    = 300 * time.Millisecond // after news: changes come in bursts
	sleptFor  = 10 * time.Second       // the wall clock ahead of ours: the computer slept
)

// look has seek look now.
func (n *Node) look() {
	select {
	case n.looks <- struct{}{}:
	default:
	}
}

// resocket has seek open the UDP socket anew.
func (n *Node) resocket() {
	select {
	case n.broken <- struct{}{}:
	default:
	}
}

// mendSocket opens the UDP socket anew at the same port. One that cannot be opened is tried
// again when sending goes on to fail.
func (n *Node) mendSocket(why string) {
	n.log.Warn("the UDP socket is opened anew", "because", why, "port", n.port)
	if err := n.dev.IpcSet(fmt.Sprintf("listen_port=%d\n", n.port)); err != nil {
		n.log.Error("UDP socket not opened", "port", n.port, "err", err)
		return
	}
	n.bind.NetworkChanged()
}

// seek keeps known where this node can be reached, until ctx ends: its own addresses, how
// it looks from outside, and the relay it is at home at.
func (n *Node) seek(ctx context.Context) {
	news := watchNetwork(ctx, n.log)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var local []netip.AddrPort
	var told netmap.Where
	first := true
	last := time.Now()
	for {
		now := time.Now()
		slept := now.Round(0).Sub(last.Round(0))-now.Sub(last) > sleptFor
		last = now
		here := n.candidates()
		if !first && (slept || slices.ContainsFunc(local, func(a netip.AddrPort) bool { return !slices.Contains(here, a) })) {
			n.log.Info("the network changed", "slept", slept, "addresses", len(here))
			n.stun.forget()
			if n.relays != nil {
				n.relays.NetworkChanged()
			}
			n.remap()
			if slept {
				n.mendSocket("the computer slept")
			}
			n.bind.NetworkChanged()
		} else if !first && !slices.Equal(local, here) {
			n.stun.forget()
			n.remap()
			n.bind.NetworkChanged()
		}
		local = here
		if n.relays != nil && n.stun.due(now, n.bind.Awake() > 0) {
			n.stun.ask(ctx)
		}
		w := netmap.Where{Endpoints: n.reachable(here), Home: n.Home()}
		if first || !told.Equal(w) {
			told = w
			n.bind.SetOwn(path.Where{Addrs: w.Endpoints, Home: w.Home})
			if n.cfg.OnEndpoints != nil {
				n.cfg.OnEndpoints(netmap.Where{Endpoints: slices.Clone(w.Endpoints), Home: w.Home})
			}
		}
		first = false
		select {
		case <-ctx.Done():
			return
		case <-n.looks:
		case <-n.broken:
			n.mendSocket("nothing can be sent by UDP")
		case <-tick.C:
		case <-news:
			select {
			case <-ctx.Done():
				return
			case <-time.After(settle):
			}
		}
	}
}

// mapPort has the router let peers in, from when they may be elsewhere until ctx ends.
func (n *Node) mapPort(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-n.afar:
		n.mapper.Run(ctx)
	}
}

func (n *Node) remap() {
	if n.mapper != nil {
		n.mapper.NetworkChanged()
	}
}

// portMapping is what the router gave.
func (n *Node) portMapping() portmap.Mapping {
	if n.mapper == nil {
		return portmap.Mapping{}
	}
	return n.mapper.Mapping()
}

// reachable is the local addresses, the one that the router gave, and those seen from outside. The latter come first:
// when there are too many, one that works from anywhere is worth more.
func (n *Node) reachable(local []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	if a := n.portMapping().Outside; a.IsValid() && n.outside(a.Addr()) {
		out = append(out, a)
	}
	for _, m := range n.stun.seen() {
		if n.outside(m.addr.Addr()) && !slices.Contains(out, m.addr) && !slices.Contains(local, m.addr) && len(out) < maxCandidates/2 {
			out = append(out, m.addr)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	out = append(out, local...)
	return out[:min(len(out), maxCandidates)]
}
