// Package live is what a hub and a host say to each other about sessions that run: who
// watches one, and that somebody wants one ended.
//
//	viewer --POST end--> Hub ==TLS, host's own connection==> Host --> sshd.Server.End
//	       --stream----> Hub.Watch  ----- "watch" ------->   Host --> Spool.Watch, sshd.Server.Watched
//
// A host opens one connection to its hub (GET /v1/live, Upgrade: tssh-live/1) on which both
// sides have proved their keys, and keeps it open; nothing listens on the host. Both then
// write JSON objects, one a line of at most MaxLine bytes:
//
//	hub to host   {"n":7,"end":{"session":ID,"by":{...},"reason":WORDS}}
//	              {"watch":{"session":ID,"watchers":[{"by":{...},"since":TIME}]}}
//	              {"state":[{"session":ID,"watchers":[...]}]}      first of all: all that are watched
//	              {"ping":true}
//	host to hub   {"n":7,"done":true}, {"n":7,"code":CODE,"say":WORDS}, {"pong":true}
//	              {"open":[{"session":ID,"of":{...},"local_user":NAME,"uid":N,"since":TIME,"why":WORDS}]}
//
// The last is all sessions that run and are not recorded (at most 256, the latest), first of all and when they are others
// (seen within two seconds). The hub knows no other way that they are; it takes it as the host's word, shows them, and
// orders can be about them as about those that are recorded.
//
// CODE is denied, gone (there is no such session any more) or failed. Fields that a side does
// not know are passed over, so that either may be of a later version.
//
// # Who decides
//
// The viewer has asked policy.Evaluate before it sends an end, and the host asks again, with
// its own policy, its own session and its own clock (sshd.Server.End): an order by itself ends
// nothing. The question needs to know who asks. A host takes that from its own signed records
// where it has the asker's node, and the hub's word where it has not, as it is for an auditor
// whose machine may not reach the host: By is then believed because it came over the connection
// whose hub key is pinned. That gives a hub nothing it does not have: at the present level the
// same key signs the records of nodes, persons and policy. An order can only be about sessions
// of the host it was sent to, since the host looks for nothing else.
//
// A recorder that stands alone is told who watches at it and says so over a connection of the
// same kind; the host refuses its ends. Ending a session whose recording is elsewhere is asked of
// the hub all the same, which finds the host by the mark in the id (recording.MarkedBy) and leaves
// the decision to it.
//
// What is told about watchers decides nothing on the host: it closes frames earlier, and where
// the rule has showWatchers the person is told.
//
// # Bounds
//
// One connection a host; a later one takes the place of the former. Lines are bounded both
// ways, as are orders under way (maxOrders) and what waits to be written (queued): a host that
// does not read is hung up on, and comes back. What is known of watchers is dropped at the host
// when no hub has answered for Forget.
package live
