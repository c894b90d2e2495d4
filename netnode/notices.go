package netnode

import (
	"sync"
	"time"
)

// Notice is something on this host that is in the way of the mesh, and what mends it.
type Notice struct {
	Words string
	Mend  string // a command, or what else to do; may be empty
}

// noticeAge is how long what was found holds: looking takes the kernel some work, and
// anybody may ask for the status.
const noticeAge = 10 * time.Second

// notices remembers what was found.
type notices struct {
	mu   sync.Mutex
	when time.Time
	have []Notice

	walls walls
}

// Notices says what on this host is in the way: a firewall before WireGuard's port or the
// SSH port's substitute, another network in the mesh's range. What cannot be looked at
// (without root, on other systems than Linux) is not spoken of.
func (n *Node) Notices() []Notice {
	n.found.mu.Lock()
	defer n.found.mu.Unlock()
	if n.view.Load() == nil {
		return nil // nothing is known yet, not even for a moment
	}
	if n.found.when.IsZero() || time.Since(n.found.when) > noticeAge {
		n.found.have, n.found.when = n.lookAround(), time.Now()
	}
	return n.found.have
}
