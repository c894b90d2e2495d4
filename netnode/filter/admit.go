package filter

import (
	"net/netip"
	"slices"

	"tssh/policy"
)

// Admits reports whose a TCP connection from src to one of the node's own addresses would be
// and whether it may begin, by the rules that are in force now. It counts nothing.
func (f *Filter) Admits(src, dst netip.Addr, port uint16) (policy.Identity, bool) {
	r := f.rules.Load()
	if r == nil || !slices.Contains(r.Self, dst) || r.HiddenPort != 0 && port == r.HiddenPort {
		return policy.Identity{}, false
	}
	id := r.Peers[src]
	if id == nil || !r.admits(&packet{src: src, dst: dst, proto: protoTCP, dstPort: port, first: true}) {
		return policy.Identity{}, false
	}
	return *id, true
}
