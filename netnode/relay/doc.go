// Package relay carries packets between nodes that cannot reach each other directly: the
// DERP protocol, client and server, and STUN, by which nodes learn how they look from
// outside.
//
//	node A --TLS--> relay <--TLS-- node B       frames: to KEY, bytes / from KEY, bytes
//	   \--UDP--> STUN                            "you are 203.0.113.9:41641"
//
// A node keeps one connection open, to its home relay: that is where others reach it.
// A connection to another's home is made with the first packet for it and closed when it
// has been quiet for a while. Which relay a node is at home at travels with its endpoints.
//
// Home is the relay that answered the quickest; all are measured at the start, every few
// minutes and when the network changed, and a node moves only to one that is nearer by a
// third and by 10 ms. A relay that hangs up is given 1.5 s to come back before the node
// moves. One that falls silent is noticed by pings, once a second while packets go and
// every five seconds otherwise: it is dead when for 1.5 s there is no answer and its kernel
// acknowledges nothing (asked of the socket on Linux: a relay that holds a sender back to
// its rate is slow to answer, and alive), or after 15 s without an answer at all. Measured:
// packets go another way 2.6 s after a wire was cut without a word. A peer whose home
// cannot be reached has moved, perhaps without the word of it having come (the hub may be
// what died): it is looked for at the other relays, which say when they do not have it.
//
// # Trust
//
// A relay is trusted with nothing but to carry: it sees who talks to whom and how much,
// and can drop, repeat and reorder packets, as any router can. What is in them is sealed
// by WireGuard, and probes by the pair's own keys. A packet that a relay says is from KEY
// is from KEY only once WireGuard says so.
//
// The relay's key is pinned: a client compares it in the TLS handshake before it sends a
// byte (Server.Pin for our own relays; a certificate's hash, or a name and the public
// authorities, for a stock derper). Our relay lets in members only. It knows a member by
// the control key proven in the TLS handshake, and the WireGuard key that the connection
// then claims in DERP's own handshake must be that member's: otherwise one member could
// take packets meant for another. Whoever stops being a member is cut off within a second.
// Each connection has a bandwidth limit, the number of connections a bound, and a slow
// reader loses packets, not others' time.
//
// # Wire
//
// HTTP/1.1 "GET /derp, Upgrade: DERP" over TLS on TCP, then DERP version 2: frames of one
// byte of type, four of length, and the body; see tailscale.com/derp. A node's DERP key is
// its WireGuard key. Corporate proxies are passed with CONNECT, as HTTPS_PROXY says.
//
// STUN is RFC 8489's binding request and response over UDP, both families, nothing else:
// XOR-MAPPED-ADDRESS in the answer, which is never longer than 44 bytes. Requests
// without the magic cookie, of clients as old as RFC 3489, get MAPPED-ADDRESS.
//
// # Why not derphttp
//
// The client stands on tailscale.com/derp alone (pinned to v1.102.5; later versions need a
// newer Go) and dials by itself. derp/derphttp would bring a second way to pin, DNS and
// netmon of its own into a daemon that runs as root everywhere. The server is
// derp/derpserver, and only tsshub links it (relay/server).
//
// Measured with tsshd: this package is 52 packages more than it linked without relays;
// derphttp would be 48 on top, derpserver 80. All that came with relays (paths and STUN
// too) made the stripped program 15.1 MB instead of 14.0. A packet of 1400 bytes through
// a relay costs twice what a proxy costs that only ends TLS and copies (ratio 0.48 on
// loopback, two cores: go test -bench Relay ./netnode/relay/server).
package relay
