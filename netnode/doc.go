// Package netnode is a node of the mesh: it makes the WireGuard device, keeps its peers
// and the packet filter as the map says, and gives the programs above it Listen, Dial
// and WhoIs.
//
//	netmap.Map --SetMap--> Node --IpcSet--> wireguard-go device
//	                        |                 |            |
//	                        |           filter.Device   path.Bind --UDP--> peers
//	                        |                 |
//	                        |        kernel TUN (root): host's TUN + TUN of the SSH namespace
//	                        |        userspace: a TCP/IP stack in this process (gVisor)
//	                        +-- WhoIs(address) -> policy.Identity
//
//	seek: own addresses, STUN, port mapping, home relay ---> peers, by the hub and by calls
//
// # Trust
//
// The map comes verified from netnode/netmap; what peers send is hostile. WireGuard pins
// each source address to one key, the filter drops what the policy does not allow, and
// WhoIs answers only for an exact address of a known, unexpired peer, never for one of the
// node's own. Addresses in the map that lie outside the mesh's ranges, or that two nodes
// claim, are left out.
//
// # Peers on demand
//
// WireGuard has a member of the mesh as a peer only while the two talk (members.go): a peer
// costs it 30 KiB and two goroutines. A packet for a member waits until WireGuard has it,
// and so does a handshake that comes: whose it is, the relay says or the message itself.
//
// # Two kinds of device
//
// A userspace node has a gVisor stack of its own under the same filter. It is not
// tun/netstack of wireguard-go but the same parts put together here, because that one
// takes its addresses once and for all when it is made (ours come with the first map),
// moves one packet at a time, hides the stack's options, and can hang or panic while
// closing. Options are those that were measured to behave: SACK, no RACK, reno.
//
// A node with a kernel TUN keeps TCP in the kernel. The persistent TUN belongs to uid 0, so
// that nobody else can attach while no daemon runs. Its routes stand in a table of their
// own which a rule consults for packets made on this host only (iif lo): packets that the
// host forwards for containers or other networks find no way into the mesh, masqueraded or
// not.
//
// The SSH port lives in a network namespace of its own with a second persistent TUN that
// carries the same mesh addresses and nothing else. The namespace is pinned by a bind
// mount at RunDir/ssh.netns and outlives the daemon, as do the connections accepted in it.
// The device hands TCP for port 22, and ICMP errors about it, to that TUN and everything
// else to the host's; it waits for both in one epoll and reads each packet straight into WireGuard's
// buffers. So the host's own sshd on 0.0.0.0:22 and our listener never meet, and no local
// process can reach ours, running or not: the only way in is the device.
//
// On bulk the namespace moved 0.97 of what the rewrite below moved per second of the
// daemon's processor time, both ways (BenchmarkSSHPort, medians of four rounds on two busy
// cores, so 0.9 to 1.05 is what can be said). With poll(2) in place of the runtime's poller it
// was 0.86 to 0.90: a blocked thread for every wait.
//
// Packets for the mesh address that come in from the LAN, not through the TUN, would reach
// services that the host itself bound to all addresses (a neighbour has to route them here
// on purpose). An nftables table of ours drops them (fence_linux.go), and datagrams that a neighbour
// sends as from a peer's mesh address to any address of the host; it stays while the
// daemon is away. Our own listener is out of their reach in any case.
//
// A node is somebody, and with a kernel device every account of the host would be that
// somebody to all peers. On a person's computer a second chain of that table lets only its
// owner and root start connections into the mesh (Config.LocalUsers); the others are refused
// at once. A tagged machine is the machine: there everybody may, unless told otherwise.
// Services that any account runs answer the mesh as ever.
//
// Where a namespace cannot be made (a container without CAP_SYS_ADMIN) the listener is in
// the host's namespace on port 922 of the mesh addresses, and the device rewrites the port
// both ways. Local processes could reach that port, so it has two guards: a socket filter
// that drops what did not come in through the TUN, and a check that the remote address is
// exactly a peer's. The port is below 1024, so that nobody but root can take it while the
// daemon is away.
//
// # Where the node can be reached
//
// One goroutine (seek) keeps that up to date: the addresses of the interfaces, how
// WireGuard's socket looks to the relays' STUN servers, the port that a home router gave
// (netnode/portmap), and the relay that the node is at home at. STUN is asked every 25 s
// while packets go to some peer, so that a NAT keeps the mapping, and every 10 minutes
// otherwise. Netlink tells of a change on Linux; elsewhere, and in any case, seek looks every
// 5 s, and takes a wall clock that ran ahead for a computer that slept. When an address
// went away or the computer slept, the relays are dialled anew, STUN and the router are
// asked again, and every path in use has to prove itself. The UDP socket stays: it is bound
// to no address. The kind of NAT is known when two relays were asked and answered.
//
// # After a restart
//
// The addresses at which peers answered are kept in Config.EndpointsFile:
//
//	{"port": 41641, "peers": {"<public key, base64>": ["192.0.2.1:41641", ...]}}
//
// written by rename, mode 0600, at most 1 MiB. A node that starts probes them and sends a
// handshake to each of those peers, because a peer that still has a session with the
// former process would go on sending into it for fifteen seconds. The TUN is read only
// after the first map, so what the kernel kept meanwhile is not lost. Sockets on the SSH
// port get TCP_USER_TIMEOUT of 15 minutes and TCP_RTO_MAX_MS of 1 s (the second shortens
// the wait after an outage but alone would also end connections after 15 s).
package netnode
