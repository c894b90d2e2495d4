package portmap

import (
	"errors"
	"net/netip"

	"golang.org/x/net/route"
	"golang.org/x/sys/unix"
)

var errNoGateway = errors.New("portmap: no default route")

// gateway is the router of the first default route of IPv4.
func gateway() (netip.Addr, error) {
	rib, err := route.FetchRIB(unix.AF_INET, route.RIBTypeRoute, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	msgs, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, m := range msgs {
		r, ok := m.(*route.RouteMessage)
		if !ok || r.Flags&unix.RTF_GATEWAY == 0 || len(r.Addrs) <= unix.RTAX_GATEWAY {
			continue
		}
		dst, ok1 := r.Addrs[unix.RTAX_DST].(*route.Inet4Addr)
		gw, ok2 := r.Addrs[unix.RTAX_GATEWAY].(*route.Inet4Addr)
		if ok1 && ok2 && dst.IP == [4]byte{} {
			return netip.AddrFrom4(gw.IP), nil
		}
	}
	return netip.Addr{}, errNoGateway
}
