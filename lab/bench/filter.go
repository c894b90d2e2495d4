package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tssh/netnode/filter"
	"tssh/policy"
)

// filterCost measures the packet filter on a packet that the last of n rules lets in.
func filterCost() error {
	var ns []float64
	sizes := []int{10, 10_000}
	for _, n := range sizes {
		f, packet, err := filterWith(n)
		if err != nil {
			return err
		}
		if why := f.In(packet); why != filter.Pass {
			return fmt.Errorf("the packet is dropped: %v", why)
		}
		r := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				f.In(packet)
			}
		})
		ns = append(ns, float64(r.T.Nanoseconds())/float64(r.N))
	}
	row(fmt.Sprintf("packet filter, a packet, %d rules (%d)", sizes[1], sizes[0]), "ns", ns[1], ns[0])
	return nil
}

func filterWith(n int) (*filter.Filter, []byte, error) {
	var rules strings.Builder
	rules.WriteString(`{"tagOwners": {"tag:web": []}, "acls": [`)
	for i := range n - 1 {
		fmt.Fprintf(&rules, `{"action": "accept", "src": ["user%d@example.com"], "dst": ["tag:web:%d"]},`, i, 1000+i%50000)
	}
	rules.WriteString(`{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:22"]}]}`)
	p, problems := policy.Parse("bench", []byte(rules.String()))
	if p == nil {
		return nil, nil, fmt.Errorf("policy: %v", problems)
	}
	a, w := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	alice := &policy.Identity{ID: "a", Name: "laptop", User: "alice@example.com", Addrs: []netip.Addr{a}}
	web := &policy.Identity{ID: "w", Name: "web", Tags: []policy.Tag{"tag:web"}, Addrs: []netip.Addr{w}}
	f := filter.New()
	f.SetRules(&filter.Rules{Self: web.Addrs, Peers: map[netip.Addr]*policy.Identity{a: alice}, Allow: p.FilterFor(*web).Allow})
	b := make([]byte, 40) // IPv4 and TCP; the filter does not look at checksums
	b[0], b[8], b[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(b[2:], 40)
	copy(b[12:], a.AsSlice())
	copy(b[16:], w.AsSlice())
	binary.BigEndian.PutUint16(b[20:], 40000)
	binary.BigEndian.PutUint16(b[22:], 22)
	b[32], b[33] = 5<<4, 0x10
	return f, b, nil
}
