package netnode

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tssh/netnode/firewall"
)

// Some peer somewhere: addresses that no list of forbidden ones names.
var (
	anybody4 = netip.MustParseAddr("9.9.9.9")
	anybody6 = netip.MustParseAddr("2620:fe::9")
)

const (
	maxRoutes = 20000 // looked at
	// Routes to more than this are to the world at large, not to a network in the mesh's range.
	leastBits4, leastBits6 = 8, 16
)

// walls is the host's firewall as it was read last.
type walls struct {
	mu    sync.Mutex
	when  time.Time
	rules *firewall.Rules
	err   error
}

// firewall reads the host's rules, or has them from a moment ago.
func (n *Node) firewall() (*firewall.Rules, error) {
	w := &n.found.walls
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.when.IsZero() || time.Since(w.when) > noticeAge {
		w.rules, w.err = firewall.Read("tssh-")
		w.when = time.Now()
	}
	return w.rules, w.err
}

func (n *Node) lookAround() []Notice {
	v := n.view.Load()
	if v == nil {
		return nil
	}
	ranges := *n.ranges.Load()
	out := others(n.cfg.TUN, ranges)
	rules, err := n.firewall()
	if err != nil {
		n.log.Debug("the host's firewall was not looked at", "err", err)
		return out
	}
	for _, f := range outward(n.cfg.TUN, ranges) {
		p := firewall.Packet{In: f.name, Src: anybody4, Dst: f.addr, Port: n.port}
		if f.addr.Is6() {
			p.Src = anybody6
		}
		s, stopped := rules.Judge(p)
		if !stopped {
			continue
		}
		out = add(out, Notice{
			fmt.Sprintf("%s on this host keeps peers from UDP port %d (%s): connections to here are by the relay until this host has sent something itself", s.By, n.port, s.Where()),
			s.Mend(p, false)})
	}
	if n.cfg.TUN == "" || len(v.addrs) == 0 {
		return out
	}
	for _, own := range v.addrs {
		p := firewall.Packet{In: n.cfg.TUN, Src: neighbour(own, ranges), Dst: own, TCP: true, Port: 80}
		if s, stopped := rules.Judge(p); stopped && s.By == "Tailscale" {
			out = add(out, Notice{fmt.Sprintf("Tailscale on this host drops what comes from the mesh's addresses to services here (%s)", s.Where()), s.Mend(p, true)})
			continue
		}
		if k, ok := n.net.(interface{ hiddenPort() uint16 }); ok && k.hiddenPort() != 0 {
			p.Port = k.hiddenPort()
			if s, stopped := rules.Judge(p); stopped {
				out = add(out, Notice{fmt.Sprintf("%s on this host keeps peers from SSH, which is behind TCP port %d of %s here (%s)", s.By, p.Port, p.In, s.Where()), s.Mend(p, true)})
			}
		}
	}
	return out
}

// add appends what was not said yet: two interfaces or families may have one cause.
func add(all []Notice, x Notice) []Notice {
	if slices.ContainsFunc(all, func(y Notice) bool {
		return y.Mend == x.Mend && strings.SplitN(y.Words, "(", 2)[0] == strings.SplitN(x.Words, "(", 2)[0]
	}) {
		return all
	}
	return append(all, x)
}

// Blocked says what on this host keeps peers from a TCP port of the mesh addresses, with what mends
// it; "" when nothing does.
func (n *Node) Blocked(port uint16) string {
	v := n.view.Load()
	if v == nil || n.cfg.TUN == "" {
		return ""
	}
	rules, err := n.firewall()
	if err != nil {
		n.log.Debug("the host's firewall was not looked at", "err", err)
		return ""
	}
	for _, own := range v.addrs {
		p := firewall.Packet{In: n.cfg.TUN, Src: neighbour(own, *n.ranges.Load()), Dst: own, TCP: true, Port: port}
		if s, stopped := rules.Judge(p); stopped {
			return fmt.Sprintf("%s on this host keeps peers from port %d (%s); mend: %s", s.By, port, s.Where(), s.Mend(p, true))
		}
	}
	return ""
}

// neighbour is another address of the mesh's range that own is in.
func neighbour(own netip.Addr, ranges []netip.Prefix) netip.Addr {
	if next := own.Next(); slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(next) }) {
		return next
	}
	return own.Prev()
}

// face is an address at which peers elsewhere may reach this host.
type face struct {
	name string
	addr netip.Addr
}

// outward are the addresses of the interfaces that lead out: those with a default route, or
// all where there is none.
func outward(tun string, ranges []netip.Prefix) []face {
	leads := map[int]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		seen := 0
		_ = netlink.RouteListFilteredIter(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			seen++
			if r.Dst == nil || r.Dst.IP.IsUnspecified() && sizeOf(r.Dst) == 0 {
				leads[r.LinkIndex] = true
				for _, h := range r.MultiPath {
					leads[h.LinkIndex] = true
				}
			}
			return seen < maxRoutes
		}) // a table that cannot be read is one without routes
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []face
	for _, l := range links {
		if l.Name == tun || l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 || len(leads) > 0 && !leads[l.Index] {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			p, err := netip.ParsePrefix(x.String())
			if err != nil || !p.Addr().IsGlobalUnicast() || slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(p.Addr()) }) {
				continue
			}
			out = append(out, face{l.Name, p.Addr()})
		}
	}
	return out
}

func sizeOf(n *net.IPNet) int {
	ones, _ := n.Mask.Size()
	return ones
}

// others finds networks beside the mesh in the mesh's ranges: one notice for an interface.
func others(tun string, ranges []netip.Prefix) (out []Notice) {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	names, said := map[int]string{}, map[int]bool{}
	say := func(link int, what string, r netip.Prefix) {
		said[link] = true
		out = append(out, Notice{
			fmt.Sprintf("%s has %s, which is in this mesh's range %s: of two networks with the same addresses one is not reached from here", names[link], what, r),
			"take the other network off this host, or make the mesh with another range (tsshub serve --range4, see docs/hub.md)"})
	}
	for _, l := range links {
		if l.Name == tun || l.Flags&net.FlagUp == 0 {
			continue
		}
		names[l.Index] = l.Name
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			p, err := netip.ParsePrefix(x.String())
			if err != nil || said[l.Index] {
				continue
			}
			for _, r := range ranges {
				if p.Overlaps(r) {
					say(l.Index, "the address "+p.String(), r)
					break
				}
			}
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		seen := 0
		_ = netlink.RouteListFilteredIter(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			seen++
			if r.Dst == nil || said[r.LinkIndex] || names[r.LinkIndex] == "" || r.Type != unix.RTN_UNICAST {
				return seen < maxRoutes
			}
			ones := sizeOf(r.Dst)
			a, ok := netip.AddrFromSlice(r.Dst.IP)
			if a = a.Unmap(); !ok || a.Is4() && ones < leastBits4 || a.Is6() && ones < leastBits6 {
				return seen < maxRoutes
			}
			p := netip.PrefixFrom(a, ones)
			for _, x := range ranges {
				if p.Overlaps(x) && !said[r.LinkIndex] {
					say(r.LinkIndex, "a route to "+p.String(), x)
				}
			}
			return seen < maxRoutes
		}) // a table that cannot be read is one without routes
	}
	return out
}
