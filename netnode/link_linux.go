package netnode

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// meshTable holds the host's routes into meshes; rules of priority meshRule consult it
	// for packets made on this host.
	meshTable = 7373
	meshRule  = 7373
)

// configureTUN brings a TUN to the wanted state, whatever state it is in.
func configureTUN(h *netlink.Handle, name string, mtu int, addrs []netip.Addr, ranges []netip.Prefix, host bool) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("netnode: interface %s: %w", name, err)
	}
	if link.Attrs().MTU != mtu {
		if err := h.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("netnode: MTU of %s: %w", name, err)
		}
	}
	// No link-local address: nothing on a mesh would answer it. Kernels without IPv6 refuse.
	_ = h.LinkSetIP6AddrGenMode(link, 1) // IN6_ADDR_GEN_MODE_NONE
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("netnode: set %s up: %w", name, err)
		}
	}
	errs := []error{syncAddrs(h, link, addrs)}
	for _, r := range ranges {
		errs = append(errs, route(h, link, r, addrs, host))
	}
	return errors.Join(errs...)
}

func setMTU(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().MTU != mtu {
		err = netlink.LinkSetMTU(link, mtu)
	}
	if err != nil {
		return fmt.Errorf("netnode: MTU of %s: %w", name, err)
	}
	return nil
}

func linkUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err == nil && link.Attrs().Flags&net.FlagUp == 0 {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("netnode: set %s up: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// syncAddrs gives the interface exactly addrs.
func syncAddrs(h *netlink.Handle, link netlink.Link, addrs []netip.Addr) error {
	have, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("netnode: addresses of %s: %w", link.Attrs().Name, err)
	}
	var errs []error
	var there []netip.Addr
	for _, a := range have {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		if ones, bits := a.Mask.Size(); ones == bits && slices.Contains(addrs, ip) {
			there = append(there, ip)
			continue
		}
		if err := h.AddrDel(link, &a); err != nil {
			errs = append(errs, fmt.Errorf("netnode: remove %v from %s: %w", ip, link.Attrs().Name, err))
		}
	}
	for _, a := range addrs {
		if slices.Contains(there, a) {
			continue
		}
		add := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
		if a.Is6() {
			add.Flags = unix.IFA_F_NODAD // no neighbours to ask
		}
		if err := h.AddrReplace(link, add); err != nil {
			errs = append(errs, fmt.Errorf("netnode: add %v to %s: %w", a, link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

// route sends a range into the TUN. On the host that is for the host's own packets only.
func route(h *netlink.Handle, link netlink.Link, r netip.Prefix, addrs []netip.Addr, host bool) error {
	family := netlink.FAMILY_V4
	if r.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	rt := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r), Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_STATIC}
	for _, a := range addrs {
		if a.Is4() == r.Addr().Is4() {
			rt.Src = a.AsSlice()
		}
	}
	if rt.Src == nil {
		return nil // no address of this family
	}
	if host {
		rt.Table = meshTable
	}
	if err := h.RouteReplace(rt); err != nil {
		return fmt.Errorf("netnode: route %v through %s: %w", r, link.Attrs().Name, err)
	}
	if !host {
		return nil
	}
	rules, err := h.RuleList(family)
	if err != nil {
		return fmt.Errorf("netnode: routing rules: %w", err)
	}
	for _, x := range rules {
		if x.Priority == meshRule && x.Table == meshTable && x.IifName == "lo" && x.Dst != nil && x.Dst.String() == ipNet(r).String() {
			return nil
		}
	}
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Table, rule.IifName, rule.Dst = family, meshRule, meshTable, "lo", ipNet(r)
	if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("netnode: routing rule for %v: %w", r, err)
	}
	return nil
}

// Uninstall removes the persistent TUNs, the SSH namespace with every connection in it, and
// the routes. It refuses while a daemon is attached. What is not there is fine.
func Uninstall(tun, runDir string) error {
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("netnode: netlink: %w", err)
	}
	defer h.Close()
	if err := removeTUN(h, tun); err != nil {
		return err
	}
	errs := []error{removeFence(tun)}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		errs = append(errs, removeRules(h, family))
	}
	return errors.Join(append(errs, removeNamespace(filepath.Join(runDir, pinName)))...)
}

// removeTUN attaches, which fails while another process is, and takes persistence away.
func removeTUN(h *netlink.Handle, name string) error {
	_, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("netnode: interface %s: %w", name, err)
	}
	p, err := attachTUN(name, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer p.Close()
	if err := unix.IoctlSetInt(p.fd, unix.TUNSETPERSIST, 0); err != nil {
		return fmt.Errorf("netnode: remove %s: %w", name, err)
	}
	return nil
}

// removeRules removes our rules unless another mesh's routes are in the table.
func removeRules(h *netlink.Handle, family int) error {
	// Routes of a device that was removed a moment ago may still be there.
	for try := 0; ; try++ {
		routes, err := h.RouteListFiltered(family, &netlink.Route{Table: meshTable}, netlink.RT_FILTER_TABLE)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("netnode: routes: %w", err)
		}
		if len(routes) == 0 {
			break
		}
		if try == 10 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	rules, err := h.RuleList(family)
	if err != nil {
		return fmt.Errorf("netnode: routing rules: %w", err)
	}
	for _, r := range rules {
		if r.Priority == meshRule && r.Table == meshTable {
			r.Family = family
			if err := h.RuleDel(&r); err != nil {
				return fmt.Errorf("netnode: remove routing rule: %w", err)
			}
		}
	}
	return nil
}

func removeNamespace(pin string) error {
	ns, err := openPin(pin)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("netnode: remove pin: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	s, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return fmt.Errorf("netnode: netlink in ssh namespace: %w", err)
	}
	defer s.Close()
	// Without its TUN every connection in it is at an end, even where a session still holds
	// the namespace.
	if err := inNamespace(ns, func() error { return removeTUN(s, sshTUN) }); err != nil {
		return err
	}
	if err := unix.Unmount(pin, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("netnode: unpin %s: %w", pin, err)
	}
	if err := os.Remove(pin); err != nil {
		return fmt.Errorf("netnode: remove pin: %w", err)
	}
	return nil
}
