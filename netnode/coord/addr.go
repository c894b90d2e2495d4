package coord

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"tssh/netnode/netmap"
)

// DefaultRange4 is where a mesh's IPv4 addresses are from, unless it is told otherwise.
var DefaultRange4 = netip.MustParsePrefix("100.64.0.0/10")

// reserved4 are parts of 100.64.0.0/10 that others use on the same machines:
// containers of ChromeOS, and the service addresses of another mesh and of a cloud.
func reserved4() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("100.115.92.0/23"),
		netip.MustParsePrefix("100.100.100.0/24"),
		netip.MustParsePrefix("100.100.0.0/24"),
		netip.MustParsePrefix("100.101.102.0/24"),
	}
}

// CheckRange4 says what speaks against r as the IPv4 range of a mesh. Hosts refuse a mesh with
// public addresses; a few hundred are the least with which addresses can rest.
func CheckRange4(r netip.Prefix) error {
	switch {
	case !r.IsValid() || !r.Addr().Is4():
		return fmt.Errorf("coord: %s is not an IPv4 range", r)
	case r != r.Masked():
		return fmt.Errorf("coord: %s is not the first address of its range, which is %s", r, r.Masked())
	case r.Bits() > 24:
		return fmt.Errorf("coord: %s is too small: a mesh has at least a /24, addresses of removed nodes rest for 30 days", r)
	case !netmap.PrivateRange(r):
		return fmt.Errorf("coord: %s is not inside one of the private ranges 100.64.0.0/10, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15", r)
	}
	for _, p := range reserved4() {
		if p.Contains(r.Addr()) && p.Bits() <= r.Bits() {
			return fmt.Errorf("coord: %s is in use for something else on many machines", r)
		}
	}
	return nil
}

// newRange6 is a random unique local /48 (RFC 4193 section 3.2.1).
func newRange6() (netip.Prefix, error) {
	var b [16]byte
	if _, err := rand.Read(b[:6]); err != nil {
		return netip.Prefix{}, fmt.Errorf("coord: %w", err)
	}
	b[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(b), 48), nil
}

// random4 picks an address of the range that no network, broadcast or other use has.
func random4(r netip.Prefix) (netip.Addr, error) {
	host := 32 - r.Bits()
	if !r.Addr().Is4() || host < 2 {
		return netip.Addr{}, fmt.Errorf("coord: range %s is too small", r)
	}
	base := r.Masked().Addr().As4()
	for range 1000 {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return netip.Addr{}, fmt.Errorf("coord: %w", err)
		}
		n := binary.BigEndian.Uint32(b[:]) & (1<<host - 1)
		if n == 0 || n == 1<<host-1 {
			continue
		}
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])|n)
		a := netip.AddrFrom4(b)
		// .0 and .255 work, and still are what careless software trips over.
		free := host < 8 || b[3] != 0 && b[3] != 255
		for _, p := range reserved4() {
			free = free && !p.Contains(a)
		}
		if free {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("coord: no address found in the range")
}

// random6 picks an address: the mesh's /48 and 80 random bits, none of them a subnet
// router's (all zero).
func random6(r netip.Prefix) (netip.Addr, error) {
	b := r.Masked().Addr().As16()
	if _, err := rand.Read(b[6:]); err != nil {
		return netip.Addr{}, fmt.Errorf("coord: %w", err)
	}
	b[15] |= 1
	return netip.AddrFrom16(b), nil
}

// newAddresses claims one address of each family for a node.
func (c *change) newAddresses(node string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, pick := range []func() (netip.Addr, error){
		func() (netip.Addr, error) { return random4(c.s.st.mesh.Range4) },
		func() (netip.Addr, error) { return random6(c.s.st.mesh.Range6) },
	} {
		a, err := c.claimOne(node, pick)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (c *change) claimOne(node string, pick func() (netip.Addr, error)) (netip.Addr, error) {
	for range 200 {
		a, err := pick()
		if err != nil {
			return netip.Addr{}, err
		}
		err = c.tx.claim("addr/"+a.String(), string(netmap.KindNode), node, c.now)
		if err == nil {
			return a, nil
		}
		if !errors.Is(err, errTaken) {
			return netip.Addr{}, err
		}
	}
	return netip.Addr{}, errors.New("coord: the mesh's addresses are used up")
}
