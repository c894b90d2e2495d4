// Package netmap is what a node knows of its mesh: keys, the signed records that the
// hub hands out, the messages between node and hub, joining, and the client that keeps
// the map up to date.
//
//	           Join (token: address, key, pin)
//	 node ------------------------------------------> hub
//	  |        stream of frames: signed records        |
//	  | <----------------------------------------------+
//	  v
//	book: verify, refuse what is older, drop what is not certain
//	  |
//	  +--> netmap.json (envelopes, verified again at every start)
//	  v
//	 *Map, made once, never changed --> netnode, sshd
//
// # Trust
//
// Everything that comes in is hostile until it is verified, the hub's words included.
// The pin in the join token is the hub's Ed25519 key. It is compared in the TLS
// handshake, and every record is verified with it again, so that a copy of the hub's
// database, a cache on a disk or a proxy can alter nothing. What the pinned key signed
// is believed within bounds: a name has to be a name that means nothing else, an
// address has to lie in the mesh and be one node's alone, a host key has to be one line.
// Of two nodes that claim the same name, key or address neither is in the map. A record
// that is not good is left out and reported, and the others go on. What cannot be
// understood denies: a policy that this version cannot parse is no policy.
//
// At this level (0) the hub's key signs everything, and who owns the hub owns the mesh.
// Envelopes carry several signatures, so that policies signed by administrators and
// nodes signed elsewhere need other keys to be trusted and no other format.
//
// # Token
//
//	tssh://HOST:PORT/AUTHKEY#PIN
//
// AUTHKEY is 43 characters of base64url, PIN the hub's key in base64url without
// padding. The token is a secret.
//
// # Transport
//
// TLS 1.3 on TCP, HTTP/1.1 inside. Both sides show a self-signed certificate made from
// their Ed25519 key; nothing in it is looked at but the key, dates least of all, so that
// a node with a wrong clock can join. A node offers the ALPN protocol "tssh/1" before
// "http/1.1" and is then asked for its certificate. Calls are POSTs with JSON both ways:
// /v1/join (JoinRequest, JoinReply), /v1/leave ({}; an ephemeral node is removed at once), /v1/endpoints (Where), /v1/hostkeys
// (HostKeysRequest). What is not 200 has a Problem as its body.
//
// # Stream
//
// GET /v1/stream with "Upgrade: tssh-stream/1". After 101 both sides send frames:
//
//	byte 0       flags: 0x01 the body is zstd; all others have to be 0
//	bytes 1-3    length of the body, big endian, at most 1 MiB
//	body         Frame, JSON; at most 4 MiB unpacked
//
// The node begins with a Hello: the epoch it knows and the revision it has (since).
// The hub answers with the changes after it, or with a snapshot when it no longer has
// them. One revision counts all changes of the mesh, without gaps; a frame says from
// which to which it goes (from, rev), also where this node has nothing to do with what
// happened in between, and a node whose revision is not "from" asks for everything. A
// lower revision within an epoch is refused; a new epoch says that the hub's database
// was put back, and comes with a snapshot. A snapshot says that it is one and how many
// records it has; an empty list never means anything. Frames with ping are answered
// with pong; a node dials anew after 150 s of silence, and after a random pause below a
// bound that doubles from 1 s to 1 min. Endpoints travel in frames of their own, are
// kept in memory only, and are never part of a record. A last frame with a problem says
// why the hub hangs up; that a node was removed or has expired counts only with the
// signed record that proves it.
//
// # Records
//
// A record is a DSSE envelope (protocol v1.0.2), in JSON:
//
//	{"payloadType": "application/vnd.tssh.record.v1+json",
//	 "payload": base64, "signatures": [{"keyid": hint, "sig": base64}]}
//
// The signature is Ed25519 over "DSSEv1 SP len(type) SP type SP len(payload) SP payload",
// so over the exact bytes. The payload is a JSON object that begins with a Header (mesh,
// kind, id, rev): signed with the rest, they keep a record from being replayed in
// another mesh, as another thing, or as newer than it is. Kinds are mesh, node, user,
// policy, relays and revocation; see their structs. Fields and kinds that are not known are
// kept and mean nothing. A revocation of a node ends its id for good; one of a person
// ends the person's nodes whose records are not newer.
//
// # The hub's key and address
//
// A hub's key is followed by another in a succession record, signed by the former key:
// {header, "former", "next", "when"}, id "succession:" and the former key in base64. A node
// that meets another key than the pinned one gets GET /v1/succession, {"chain": [envelope,
// ...]}, over a connection in which nothing is trusted but the key shown, and follows if the
// chain leads from its pin to that key, in 64 steps at most and never twice over one key. It
// replaces node.json first, and from then on verifies with the new key only; a former key is
// good for nothing but for reading netmap.json again, in the folder that only the node writes.
// The mesh record names former keys (former_keys: key, until), for what they countersigned,
// and the hub's addresses (hubs), which are tried in order before the last one that worked.
//
// # A node's keys
//
// A node changes both of its keys by POST /v1/rotate {"steps": [envelope, ...]}, over a
// connection that shows the next control key, and gets its record: {"node": envelope}. A step
// is {"mesh", "node", "former", "next", "wg", "when"}, signed by the former control key as
// "application/vnd.tssh.keystep.v1+json", so never a record. The next keys and their step are
// in node.json (next_*) before the hub is asked: an answer that was lost is asked for again.
// The last 16 steps stay there (rotations): a hub that was put back to an earlier time follows
// them from the key that it knows. The membership ends when it ended before.
//
// # State folder
//
//	node.json    0600: {"format": "tssh-node/1", "hub": host:port, "pin",
//	             "former_pins": [...], "hubs": [host:port, ...], "mesh_id",
//	             "mesh", "node_id", "name", "wg_private", "control_private",
//	             "next_wg_private", "next_control_private", "next_step",
//	             "rotations": [envelope, ...]}; keys base64
//	netmap.json  0600: {"format": "tssh-netmap/1", "mesh_id", "epoch", "rev",
//	             "clock_offset": ns, "records": [envelope, ...]}
//
// Both are replaced as a whole (written beside, fsync, rename). A join writes them when
// the hub has said yes, node.json last; a join that fails leaves the folder as it was.
// A node starts from netmap.json with the hub away. What ends when is judged by the
// hub's clock as far as the node has heard it, else by its own.
package netmap
