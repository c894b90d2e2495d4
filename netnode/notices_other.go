//go:build !linux

package netnode

type walls struct{}

// lookAround sees nothing here.
func (n *Node) lookAround() []Notice { return nil }

// Blocked sees nothing here.
func (n *Node) Blocked(uint16) string { return "" }
