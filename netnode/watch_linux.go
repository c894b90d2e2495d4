package netnode

import (
	"context"
	"log/slog"

	"github.com/vishvananda/netlink"
)

// watchNetwork says when addresses or routes of this host change, until ctx ends.
func watchNetwork(ctx context.Context, log *slog.Logger) <-chan struct{} {
	news := make(chan struct{}, 1)
	tell := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	addrs, routes := make(chan netlink.AddrUpdate, 16), make(chan netlink.RouteUpdate, 16)
	failed := func(err error) { log.Debug("news of the network", "err", err) }
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: failed}); err != nil {
		log.Warn("changes of addresses are not told, they are looked for", "err", err)
		addrs = nil
	}
	if err := netlink.RouteSubscribeWithOptions(routes, ctx.Done(), netlink.RouteSubscribeOptions{ErrorCallback: failed}); err != nil {
		log.Warn("changes of routes are not told, they are looked for", "err", err)
		routes = nil
	}
	go func() { // ends with ctx, when netlink closes both channels
		for addrs != nil || routes != nil {
			select {
			case _, ok := <-addrs:
				if !ok {
					addrs = nil
				}
			case _, ok := <-routes:
				if !ok {
					routes = nil
				}
			}
			tell()
		}
	}()
	return news
}
