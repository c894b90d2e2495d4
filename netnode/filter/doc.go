// Package filter decides which packets of the mesh reach a node. It stands between
// WireGuard and the network device:
//
//	peer -> WireGuard (decrypts; source address belongs to the key) -> Device.Write
//	     -> Filter.In: own address? a peer's? may the policy's rules let it in? -> device
//	device -> Device.Read -> Filter.Out: own address? remember the flow -> WireGuard -> peer
//
// # Trust
//
// A peer is a member of the mesh and nothing more: every byte of its packets is hostile.
// That the source address is one of the peer's own is WireGuard's doing (allowed IPs). All
// else is decided here, on the receiving node, from the policy in force now. Without
// rules nothing passes.
//
// # Rules for packets from peers
//
//	anything          for another address than the node's own, or from an address that is no
//	                  peer's, or with a source route: dropped. So a peer never reaches other
//	                  addresses of the host, whatever the host routes.
//	TCP               judged by (peer, port), every segment, not only the first: what the policy
//	                  stops allowing ends with the next segment. Segments for a port that is not
//	                  allowed pass only as answers: with ACK or RST, in a flow this node began.
//	UDP, SCTP, others judged by (peer, protocol, port), every packet; answers to flows this node
//	                  began pass.
//	echo requests     the policy is asked for ICMP, port 0.
//	echo replies      only to a request of this node.
//	ICMP errors       only from the peer that the quoted packet was for, and only if that packet
//	                  was in a flow this node began or one the peer may begin.
//	other ICMP        dropped: a mesh interface has no neighbours, routers or multicast.
//	fragments         TCP: dropped. Others: the first one must hold the ports and decides; the rest
//	                  must come after it, within half a minute. Overlaps with the header (RFC 3128)
//	                  are dropped.
//	IPv6 extensions   hop-by-hop and destination options are skipped, six headers at most; routing
//	                  headers of any kind, authentication and mobility are dropped.
//
// Packets to peers pass if they come from the node's own address and go to a peer. A
// packet that the host only forwards (from a container, say) carries another source
// address and is dropped.
//
// # State, and what a restart does to it
//
// Flows that peers begin need no memory, since every packet is judged; so TCP connections
// into the node go on over a restart of the daemon. What is remembered are the flows the
// node began: at most 32768, TCP for a day without a packet from the peer and all else
// for five minutes; a full table forgets the oldest of a sample. Also remembered, for at
// most 1024 flows of each peer, is that a UDP flow was begun by the peer: a service that
// keeps sending to a peer that lost its right would otherwise look like the beginning of
// a new flow and let the peer's packets in again.
//
// Connections that the host itself opened before the daemon restarted are not in the
// table. Letting in every segment with ACK would mend that, but it would also keep open,
// for a peer that lost its right, every connection it has. Instead the node asks the
// kernel at the start which connections there are and tells them with Begun, so that also
// one in which only the peer sends goes on. In userspace the connections end with the
// process and there is nothing to tell.
//
// # Port rewrite
//
// Rewriter is the way to serve the SSH port where it cannot have a network namespace of
// its own: it changes the port in both directions and mends the checksums as RFC 1624 says,
// in ICMP errors too. Rules.HiddenPort keeps the mesh from the port that really listens.
package filter
