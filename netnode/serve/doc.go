// Package serve puts programs that listen on this computer's loopback on the mesh: `tssh serve`.
//
//	peer --> packet filter --> listener on the mesh addresses
//	                              | Admits: whose connection, and may it begin -> policy.Identity
//	                              v
//	            HTTP: Host, Origin; what claims an identity out, who asks in    TCP: as it is
//	                              v
//	            Dialer: as the person who asked for it, to 127.0.0.1:PORT or [::1]:PORT
//
// # Trust boundary
//
// Peers are hostile, and so are the pages that a peer's browser has open: an address is an identity
// that any page makes use of. The local program is the asking person's own affair. What is
// dialled is loopback and nothing else, by a process that is the person (root for what root
// asked), so that nothing is reached here that the person could not reach.
//
// A connection begins when the packet filter lets it and Admits says the same; a change of
// the map or of the policy asks again for every open connection, as does a clock every 5 s (for
// memberships that end), and what no longer holds is reset. The node's own addresses and the LAN's are
// nobody's and get nothing.
//
// # HTTP
//
// HTTP/1.1 and, without TLS, HTTP/2 with prior knowledge (gRPC); the program is spoken to in the version
// in which the peer spoke. Answers are passed on as they come, also while the request is still
// coming. net/http/httputil does the passing. Each connection of a peer has its own ones
// to the program.
//
//	Tssh-Login  alice@example.com      absent for machines with tags
//	Tssh-Tags   tag:ci,tag:web         absent for people's
//	Tssh-Node   laptop                 the node that asks
//	X-Forwarded-For, -Host, -Proto     written anew
//
// Incoming headers and trailers that begin with Tssh-, and those by which other proxies tell
// an identity (Remote-User, X-Forwarded-User, Tailscale-*, X-Webauth-* and others, see claims),
// are removed in any spelling: programs that get headers as variables read "_" for "-".
//
//	421  Host is none of the node's names or addresses (a name that was rebound)
//	403  changes something, or opens a WebSocket, for a page of another site: Origin is not the
//	     node's, at any port (of a machine with tags: at one that the same person serves), or
//	     Sec-Fetch-Site is not same-origin or none
//	501  an upgrade to something else than websocket: after h2c, requests would pass unseen
//	405  CONNECT
//	502  the program does not answer
//
// # Bounds
//
// 32 ports a node; of a port 1024 connections, 256 from one node; 64 KiB of request
// headers within 10 s; 100 streams of an HTTP/2 connection; 2 minutes of silence between requests; 5 s
// to reach the program; 64 dials at a time for one person. Bodies and open streams have no limit.
//
// # What is kept
//
// Served ports are in memory and come back when the node was down and is up again. Those
// asked for with --keep are also in the state folder's serve.json, mode 0600, at most 64 KiB, replaced by
// rename:
//
//	{"mesh": "MESH ID", "ports": [{"port": 3000, "target": 3000, "tcp": false, "uid": 1000, "keep": true}]}
//
// At a start they are served again if the node is still in that mesh and the uid may still serve.
//
// # The helper
//
// A daemon of root's starts one process for each person who serves, `tsshd dial`: with that
// uid and no group from its first instruction on, no environment, a socket and a pipe whose
// end is its own. It connects and passes the socket over (SCM_RIGHTS). It is the person's
// process, so what comes from it is not trusted: only the answer to a question counts, and only
// a TCP socket.
package serve
