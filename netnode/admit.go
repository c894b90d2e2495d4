package netnode

import (
	"net/netip"

	"tssh/policy"
)

// Admits says which peer a TCP connection between these two is from, and whether the policy
// that is in force now lets it begin. Programs that keep connections ask again when the map
// changes: what was let in once stays open by itself.
func (n *Node) Admits(remote, local netip.AddrPort) (policy.Identity, bool) {
	return n.filter.Admits(remote.Addr().Unmap(), local.Addr().Unmap(), local.Port())
}

// Self is who this node is, with its addresses, and the name of its mesh.
func (n *Node) Self() (self policy.Identity, mesh string) {
	v := n.view.Load()
	if v == nil {
		return policy.Identity{}, ""
	}
	self = v.self
	self.Addrs = v.addrs
	return self, v.mesh
}
