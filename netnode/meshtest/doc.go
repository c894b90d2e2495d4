// Package meshtest makes whole meshes of userspace nodes in one process, for tests.
//
//	New(t, policy, Node...) -> nodes on loopback UDP with one static map; no hub
//
// Everything a test gets here is real but the hub: WireGuard, paths, filter and WhoIs.
// When the test ends all nodes are closed, and goroutines that are left fail it.
package meshtest
