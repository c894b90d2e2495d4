package names

import (
	"net/netip"
	"slices"
	"strings"
)

// Host is one name of the mesh.
type Host struct {
	Name  string // a single label
	Addrs []netip.Addr
}

// Table is what the names of a mesh mean at one moment. It is never changed; a new map
// makes a new one. The nil Table knows no name.
type Table struct {
	mesh   string
	domain string // MESH.internal
	ranges []netip.Prefix
	hosts  []Host // by name
	byName map[string][]netip.Addr
	byAddr map[netip.Addr]string
}

// Limits of what is taken from a map.
const (
	maxTable = 100_000
	maxAddrs = 4 // of one host
)

// New makes a Table of a mesh. What is not a plain label, means something on every computer
// (localhost, wpad), lies outside the mesh's ranges, or stands there twice is left out,
// whoever has signed it: the names come from another machine.
func New(mesh string, ranges []netip.Prefix, hosts []Host) *Table {
	t := &Table{byName: map[string][]netip.Addr{}, byAddr: map[netip.Addr]string{}}
	if !isLabel(mesh) {
		return t
	}
	t.mesh, t.domain = mesh, mesh+".internal"
	for _, r := range ranges {
		if r.IsValid() && r.Bits() > 0 {
			t.ranges = append(t.ranges, r.Masked())
		}
	}
	for _, h := range hosts {
		if len(t.byName) == maxTable {
			break
		}
		if !isLabel(h.Name) || slices.Contains(notOurs(), h.Name) || t.byName[h.Name] != nil {
			continue
		}
		var addrs []netip.Addr
		for _, a := range h.Addrs {
			a = a.Unmap()
			if t.inRange(a) && t.byAddr[a] == "" && len(addrs) < maxAddrs {
				addrs = append(addrs, a)
				t.byAddr[a] = h.Name
			}
		}
		if len(addrs) > 0 {
			t.byName[h.Name] = addrs
			t.hosts = append(t.hosts, Host{h.Name, addrs})
		}
	}
	slices.SortFunc(t.hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return t
}

// notOurs are names that must mean the same on every computer.
func notOurs() []string {
	return []string{"localhost", "localdomain", "local", "internal", "broadcasthost", "ip6-localhost", "ip6-loopback",
		"ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts", "wpad", "isatap", "metadata", "instance-data"}
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	letter := false
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z':
			letter = true
		case c == '-':
			letter = true
		case c < '0' || c > '9':
			return false
		}
	}
	// Resolvers take "123" and "0x7f" for addresses.
	return letter && !(strings.HasPrefix(s, "0x") && strings.Trim(s[2:], "0123456789abcdef") == "")
}

func (t *Table) inRange(a netip.Addr) bool {
	return t != nil && slices.ContainsFunc(t.ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Domain is MESH.internal, "" when there is no mesh.
func (t *Table) Domain() string {
	if t == nil {
		return ""
	}
	return t.domain
}

// Lookup is the addresses of host or host.MESH.internal, with or without a final dot, in
// any case; nil when the mesh has no such host.
func (t *Table) Lookup(name string) []netip.Addr {
	if t == nil || t.domain == "" || len(name) > 254 {
		return nil
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	return t.byName[strings.TrimSuffix(name, "."+t.domain)]
}

// Reverse is the full name of the host with an address, "" when there is none.
func (t *Table) Reverse(a netip.Addr) string {
	if t == nil {
		return ""
	}
	if n := t.byAddr[a.Unmap()]; n != "" {
		return n + "." + t.domain
	}
	return ""
}

// reverseZones are the zones of the mesh's ranges in in-addr.arpa and ip6.arpa, cut at the
// label boundary at or below each range: 100.64.0.0/10 is 64 zones.
func (t *Table) reverseZones() []string {
	if t == nil {
		return nil
	}
	var out []string
	for _, r := range t.ranges {
		step := 8
		if r.Addr().Is6() {
			step = 4
		}
		bits := (r.Bits() + step - 1) / step * step
		a := r.Addr().AsSlice()
		for i := range 1 << (bits - r.Bits()) {
			b := slices.Clone(a)
			last := bits/8 - 1
			if bits%8 != 0 { // IPv6, in the middle of a byte
				last = bits / 8
				b[last] |= byte(i << 4)
			} else {
				b[last] |= byte(i)
			}
			out = append(out, arpa(b, bits))
		}
	}
	return out
}

const hexDigits = "0123456789abcdef"

// arpa is the reverse name of the first bits of an address.
func arpa(a []byte, bits int) string {
	var b strings.Builder
	if len(a) == 4 {
		for i := bits/8 - 1; i >= 0; i-- {
			b.WriteString(netip.AddrFrom4([4]byte{0, 0, 0, a[i]}).String()[len("0.0.0."):])
			b.WriteByte('.')
		}
		return b.String() + "in-addr.arpa"
	}
	for i := bits/4 - 1; i >= 0; i-- {
		d := a[i/2] >> 4
		if i%2 == 1 {
			d = a[i/2] & 15
		}
		b.WriteByte(hexDigits[d])
		b.WriteByte('.')
	}
	return b.String() + "ip6.arpa"
}

// fromArpa reads a reverse name, in lower case and without its final dot: the address as
// far as it goes, and how many bits of it are given.
func fromArpa(name string) (netip.Prefix, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		if len(labels) > 4 {
			return netip.Prefix{}, false
		}
		var a [4]byte
		for i, l := range labels {
			n := 0
			for _, c := range []byte(l) {
				if c < '0' || c > '9' || len(l) > 3 {
					return netip.Prefix{}, false
				}
				n = n*10 + int(c-'0')
			}
			if l == "" || n > 255 || len(l) > 1 && l[0] == '0' {
				return netip.Prefix{}, false
			}
			a[len(labels)-1-i] = byte(n)
		}
		return netip.PrefixFrom(netip.AddrFrom4(a), 8*len(labels)), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok {
		return netip.Prefix{}, false
	}
	labels := strings.Split(rest, ".")
	if len(labels) > 32 {
		return netip.Prefix{}, false
	}
	var a [16]byte
	for i, l := range labels {
		d := -1
		if len(l) == 1 {
			d = strings.IndexByte(hexDigits, l[0])
		}
		if d < 0 {
			return netip.Prefix{}, false
		}
		n := len(labels) - 1 - i
		a[n/2] |= byte(d << (4 * (1 - n%2)))
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 4*len(labels)), true
}

// reverseZone is the zone of ours that a reverse name is in.
func (t *Table) reverseZone(p netip.Prefix) (string, bool) {
	if t == nil {
		return "", false
	}
	for _, r := range t.ranges {
		if p.Addr().BitLen() != r.Addr().BitLen() || p.Bits() < r.Bits() || !r.Contains(p.Addr()) {
			continue
		}
		step := 8
		if r.Addr().Is6() {
			step = 4
		}
		bits := (r.Bits() + step - 1) / step * step
		return arpa(p.Addr().AsSlice(), bits), true
	}
	return "", false
}
