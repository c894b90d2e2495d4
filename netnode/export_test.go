package netnode

import "golang.zx2c4.com/wireguard/device"

// Taken is how many peers WireGuard has.
func Taken(n *Node) int {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	have := 0
	for _, m := range n.members {
		if m.has.Load() {
			have++
		}
	}
	if in := len(n.readDevice()); in != have {
		panic("the device has other peers than are noted")
	}
	return have
}

// Trim looks for idle peers now.
func Trim(n *Node) { n.trim() }

// Age makes the session keys that a node has as old as they are when a peer was idle for long:
// a peer is only ever forgotten by then, and whoever still has it begins anew.
func Age(n *Node) {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	for k, m := range n.members {
		if p := n.dev.LookupPeer(device.NoisePublicKey(k)); m.has.Load() && p != nil {
			p.ExpireCurrentKeypairs()
		}
	}
}
