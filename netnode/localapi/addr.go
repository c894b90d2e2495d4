package localapi

import (
	"net/netip"
	"strings"
)

// ParseAddr reads an address in the forms in which programs write down their visitors: bare,
// in brackets, with a port ("100.64.0.7:53122", "[fd7a::1]:22"), with a zone, or IPv4
// mapped into IPv6. Port and zone are dropped.
func ParseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		var ap netip.AddrPort
		if ap, err = netip.ParseAddrPort(s); err == nil {
			a = ap.Addr()
		}
	}
	if inner, ok := strings.CutPrefix(s, "["); err != nil && ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if a, err = netip.ParseAddr(inner); err == nil && a.Is4() {
				return netip.Addr{}, false
			}
		}
	}
	return a.Unmap().WithZone(""), err == nil
}
