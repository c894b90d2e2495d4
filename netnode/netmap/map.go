package netmap

import (
	"net/netip"
	"time"

	"tssh/policy"
)

// Map is what a node knows about its mesh at one revision: itself, the nodes it may
// have to do with, and the policy. It is made once and never changed, slices and maps
// included; a change makes a new Map.
type Map struct {
	Self      policy.Identity
	SelfAddrs []netip.Addr // one of each family
	// Peers are the nodes that may reach this one or be reached by it, by name. Self is
	// not among them; nodes whose Expires has passed are left out when the Map is made.
	Peers []Peer
	// Policy is nil until the first one came; nil denies.
	Policy    *policy.Policy
	PolicyRev int64
	Mesh      string // the mesh's name; host names end in MESH.internal
	MeshID    string
	Revision  int64 // of the hub's log
	Epoch     string
	Range4    netip.Prefix // every IPv4 address of the mesh is in it
	Range6    netip.Prefix
	// FormerHubKeys are keys that the hub had before, for what they signed then.
	FormerHubKeys []ControlPublic
	Relays        []Relay   // in the order in which they are tried
	Expires       time.Time // when this node's own record ends; zero: never
	// ClockOffset is what to add to this computer's clock before it judges times of the map.
	ClockOffset time.Duration
	KeysSince   time.Time // since when this node has the keys that it has
}

// Peer is another node of the mesh.
type Peer struct {
	policy.Identity
	Key      WGPublic
	Control  ControlPublic
	HostKeys []string  // SSH host keys, lines as in authorized_keys without options
	Expires  time.Time // zero: never
}

// Peer looks a node up by its id.
func (m *Map) Peer(id string) (Peer, bool) {
	for _, p := range m.Peers {
		if p.ID == id {
			return p, true
		}
	}
	return Peer{}, false
}
