package netnode

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
