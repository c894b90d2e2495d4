package portmap

import (
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

var errNoGateway = errors.New("portmap: no default route")

// gateway is the first IPv4 router of the interface with the least metric.
func gateway() (netip.Addr, error) {
	size := uint32(16 << 10)
	for range 3 { // it may grow between two calls
		buf := make([]byte, size)
		first := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0]))
		err := windows.GetAdaptersAddresses(windows.AF_INET, windows.GAA_FLAG_INCLUDE_GATEWAYS, 0, first, &size)
		if errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) && size <= 1<<20 {
			continue
		}
		if err != nil {
			return netip.Addr{}, err
		}
		var best netip.Addr
		metric := uint32(0)
		for a := first; a != nil; a = a.Next {
			if a.OperStatus != windows.IfOperStatusUp {
				continue
			}
			for g := a.FirstGatewayAddress; g != nil; g = g.Next {
				if ip, ok := netip.AddrFromSlice(g.Address.IP()); ok && ip.Unmap().Is4() && (!best.IsValid() || a.Ipv4Metric < metric) {
					best, metric = ip.Unmap(), a.Ipv4Metric
				}
			}
		}
		if best.IsValid() {
			return best, nil
		}
		break
	}
	return netip.Addr{}, errNoGateway
}
