// Package lab makes hosts out of network namespaces and runs the real programs on
// them: a hub, nodes with tsshd, and stock clients. The end-to-end tests, the
// benchmarks and the demo stand on it.
//
//	namespace P-sw: bridge 198.18.x.0/24, 2001:db8:x::/64
//	  |veth          |veth          |veth
//	P-hub          P-web          P-laptop        each: own /run, /etc/passwd, /var/log
//	tsshub         tsshd, sshd    tsshd, ssh
//
// A host is a network namespace and a mount namespace held open by one sleeping
// process; commands enter both with nsenter, so that what a daemon mounts or writes
// under /run is there for the next daemon on the same host, as on a machine. Accounts
// are written to a copy of the account files that only this host sees. Without root
// there are no namespaces: then a host is a folder, and its node is userspace.
//
// A host can also be in the LAN of a router, a namespace with nftables between a LAN of
// its own (192.168.1.0/24 behind every one) and the switch, or another router's LAN:
//
//	switch --- P-cafe: masquerade, drop unasked --- bridge 192.168.1.0/24 --- P-guest
//
// Routing says what the router does: the two kinds of NAT, client isolation, nothing but
// TCP 443, short timeouts, IPv6; Router can forget its mappings, take another port or
// block UDP while all runs, and Host can move. A Wire gives a host's cable delay and loss.
//
// Nothing leaves the machine: there is no route out of the namespaces. Everything is
// removed by Close, also after a test that failed.
package lab
