package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"

	"tssh/netnode/coord"
)

// checkRange looks at a new mesh's range from where the hub is. Hosts find each other by
// addresses outside the mesh's range, so the hub's own must not be in it.
func checkRange(o options, w io.Writer) error {
	r, chosen := o.range4, o.range4.IsValid()
	if !chosen {
		r = coord.DefaultRange4
	}
	if host, _, err := net.SplitHostPort(o.host); err == nil {
		if a, err := netip.ParseAddr(host); err == nil && r.Contains(a.Unmap()) {
			return errRange(r, "the hub's own address "+a.String()+" is in it")
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil // then nothing is known against it
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			p, err := netip.ParsePrefix(x.String())
			if err != nil || !p.Overlaps(r) {
				continue
			}
			what := fmt.Sprintf("this computer's %s has %s", l.Name, p)
			if chosen {
				return errRange(r, what)
			}
			sayRange(w, r, what)
		}
	}
	return nil
}
