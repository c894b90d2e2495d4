// Package coord is the coordination server: who is in the mesh, under what policy, and
// how every node comes to know the part it has to do with.
//
//	administrators --unix socket--> Admin ----+
//	                                          v
//	nodes --TLS--> /v1/join,endpoints,... --> change --> store (SQLite) --> memory
//	  ^                                       one at a time, durable first     |
//	  |                                                                        | poke
//	  +------------------ stream: takes what is newer, at its own pace <-------+
//
// # Trust
//
// A node is known by the control key that the TLS handshake proved, never by what it
// says. Before it has joined it may call /v1/join and nothing else; joins are limited in
// number, those of whoever has no auth key of this hub's apart from and below the others,
// and are in the audit log with both clocks; of a flood of refusals, the count. An
// administrator is known by the uid that the kernel names for the socket's other end:
// root, or the user that the hub runs as. The auth keys in the database are hashes, and
// the hub's private key is not in it, so that a copy of the database lets nobody in.
// What was altered in the database without the key no longer verifies: nodes and people
// are left out and reported at the start, and with an altered policy there is no start.
//
// # Store
//
// Four tables and one for versions, small enough to be had on another database:
//
//	meta  k, v                    schema, mesh (id), epoch, rev
//	obj   kind, id, rev, body     records as envelopes; "nodeinfo", "authkey" and "policyversion"
//	                              (the last 100 policies) as JSON
//	log   rev, kind, id, op, at   one row per revision, op "put" or "rm", kept for 7 days
//	uniq  key, kind, id, until    name/NAME, addr/ADDRESS, wg/KEY, control/KEY; kind
//	                              "rest" until then: not to be had
//	audit n, body                 entries on their way to the audit log
//
// A change is one transaction, committed with synchronous=FULL before anybody sees it:
// the use of a one-use key, the claim of a name and of addresses, the new records with
// the next revisions, the audit entry. So after kill -9 there is either all of it or
// nothing, and there is never a change without its entry. An entry may be in the audit
// log twice when the hub died between writing it there and forgetting it here. When a
// commit itself gives an error nobody knows what is on the disk; the server then refuses
// all changes and Run ends with an error, so that it is started again and reads. Reads
// come from memory only.
//
// A rotation of the hub's key (RotateKey) signs every record anew over the same bytes, at its
// revision, in one transaction; obj kind "succession" holds the steps, which are no part of
// the log: they are asked for by those who meet a key they do not know.
//
// # Who is in whose map
//
// Two nodes know each other when the policy lets one of them reach the other
// (policy.Adjacent) or when they are one person's. The question is asked once per pair
// of classes: owner or tags, role, attributes, routes, and the prefixes written in the
// policy that a node's addresses are in. Everybody knows the hub's own node (tag:tsshub), and
// it knows everybody. A change of the policy costs a look at every node for every
// stream: 1,000 nodes are a million look-ups, 10,000 are a hundred times that, and
// beyond it whole cells of the class matrix have to be compared instead. The person's
// record goes where one of the person's nodes goes; revocations go to all.
//
// A stream has no queue. It knows what its node has, and when poked takes what is newer
// out of memory; so a slow node holds up nobody, and one that fell behind the log gets a
// snapshot.
//
// # Decisions
//
// A name that a node has is refused to others with words, not handed out as "web-1": on
// a server a silent other name is found out too late. The old node is renamed (tsshub node
// rename, or by joining it again with --hostname), or removed. Machines made from one image
// come in with a key that says so (key create --reusable --suffix) and become web, web-2,
// web-3; one that joins again keeps its number. A name that a living node gave up rests for
// 7 days, for everybody but that node; that of a removed one is free at once, because the
// usual next step is to make the machine anew.
//
// Joining again from the same state folder, with a token for the same owner, keeps the
// node: id and addresses stay, name, WireGuard key and validity are new. That is how an expired one
// comes back. A removed one comes back as another node, with new keys.
//
// A node changes its keys by itself (/v1/rotate, see netmap) at most every ten seconds. The
// former keys stay claimed for ever, by its id: neither it nor anybody else gets in with them,
// and when it is removed none of its keys does. So their number is bounded: one change a minute
// over time, 10,000 keys a node (a change takes two), and 50,000 for all nodes that a person has.
// A node that has had them all keeps the last ones; that it is refused others is audited once.
//
// A person's nodes are members for 180 days (Config.NodeExpiry), tagged machines for good.
// An ephemeral node is removed when it says that it goes (tssh down), else after it was
// away for 10 minutes (Config.EphemeralGrace); the stop of a daemon says nothing, since it
// may be the first half of a restart. The time that the hub itself was away does not count,
// and within a run a monotonic clock does the counting. IPv4 addresses
// are random in the mesh's range; a freed one rests for 30 days, because logs name it.
// IPv6 addresses are the mesh's ULA /48 and 80 random bits.
//
// A new mesh begins with DefaultPolicy: people reach their own devices and log in there,
// not as root; everything else is closed.
//
// Removing a person revokes their nodes and keys in the same change.
//
// A database that was put back from a backup is behind what nodes have seen, and they
// refuse it. Config.Restored (tsshub serve --restored, once) begins a new epoch, and
// they take everything anew. Removals made since the backup have to be made again; nodes
// that saw them keep to them also in the new epoch, since ids are never used again.
package coord
