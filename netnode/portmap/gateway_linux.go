package portmap

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
)

var errNoGateway = errors.New("portmap: no default route")

// gateway is the router of the default route of IPv4 that has the least metric.
func gateway() (netip.Addr, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, err
	}
	var best netip.Addr
	metric := 0
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		if a, ok := netip.AddrFromSlice(r.Gw); ok && (!best.IsValid() || r.Priority < metric) {
			best, metric = a.Unmap(), r.Priority
		}
	}
	if !best.IsValid() {
		return best, errNoGateway
	}
	return best, nil
}
