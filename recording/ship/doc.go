// Package ship brings recordings from the spool of a host to a recorder, while they run and
// after, and takes them there. It does the same for the host's audit log (at the end).
//
//	tsshd                                   tsshub
//	recording.Spool --> Sender  == TLS ==>  Receiver --> Sink (recording/store)
//	      ^                |                   |
//	      +--- Acked ------+<-- {"acked":N} ---+   only what is verified and on disk
//
// # Several recorders
//
// A Fleet has a Sender for each recorder that the rules of the recordings here name
// (recording.Meta.Recorders, which is signed and outlives rule and daemon), and gives each recording to one of
// them: the first of its list that can be had, and that one as long as it can be. One that cannot be
// reached, leaves a request without an answer for five seconds or refuses the recording loses it to
// the next, which gets it from where it is itself, most often from the beginning. Where none can be had
// all are offered it, each in its own time, and whoever answers first has it. A recording that was
// deleted at a recorder (410) goes nowhere else. An acknowledgement counts for the recorder that has the
// recording now, so what is acknowledged can become less for a while; the spool is freed when any has all.
//
// A recorder that lost a recording keeps a part, which is a beginning of the whole, byte for byte: blocks
// go out when they are durable here, and are never changed.
//
// # Requests
//
// All under the recorder's base URL, over connections on which both sides proved their keys.
// ID is a recording's id.
//
//	GET  /v1/recordings/ID             what the recorder has of it
//	PUT  /v1/recordings/ID?offset=N    the bytes from N on, at most 6 MiB
//	POST /v1/recordings/ID/start       recording.Start; the answer is recording.Countersignature
//	POST /v1/recordings/ID/progress    recording.Seen, likewise; 409 where that is not here
//
// GET and PUT answer {"acked":M,"complete":bool,"error":words}. M is how many bytes of the
// recording are verified and durable at the recorder; complete says that its end is among them.
// The recorder keeps whole blocks (see package recording): M can be less than N plus the length
// of the body, and the rest is sent again with what follows. An empty PUT says that the
// recording goes on; a Sender sends one every 30 s where nothing else was to be sent.
//
//	200  taken, as far as M says
//	400  not an id, no offset
//	403  the recorder does not know the host, or the recording is another host's
//	409  N is not where the recording ends; M is
//	413  more than 6 MiB
//	422  the bytes do not continue the recording: nothing of them was kept
//	507  no room: the host's quota, the recorder's, or its disk
//
// After any other answer, or none, the Sender takes the recorder to be away: it waits, one
// second first and a minute at last, each wait shortened by a random part, asks where the
// recorder is, and goes on there. A refusal (4xx, 507) concerns one recording, which stays in
// the spool and is tried again after a quarter of an hour at most; the others go on.
//
// # The audit log
//
//	GET  /v1/audit                  what the hub has of the log of the host that asks
//	PUT  /v1/audit?after=N[&gap=1]  whole lines (package recording/audit), at most 2 MiB
//
// Both answer {"seq":M,"hash":hex,"error":words}: the last line that is durable at the hub. N is
// the line that the first one follows; gap=1 says that there are lines between that the host
// does not have any more, which the hub notes. All lines of a request are taken or none.
//
//	200  taken
//	403  the hub does not know the host
//	409  the hub's last line is not N; it is M
//	413  more than 2 MiB
//	422  a line is not whole in itself, or does not follow
//	429  there was a gap within the last minute
//	507  no more room for the log of this host
//
// The AuditSender sends what is on disk as soon as it is, and asks nothing when there is nothing.
//
// # Trust
//
// The Receiver believes a host nothing but its identity: whose key the connection has decides
// which host's recordings may be written, and what it sends must continue the hash chain and
// carry signatures that fit. A host can send rubbish inside a recording of its own; it cannot
// change what was acknowledged, or touch another's. A countersignature says that a recording
// with this first key was announced by this host at this time by the recorder's clock, so the
// host cannot later put another in its place.
//
// The Sender believes the recorder to say how much it has, for that is what the spool is freed
// by; the recorder is the hub whose key is pinned, or a node whose signed record has a tag that the rule
// names, by the control key in that record. What it says is checked against what is here. It has no
// other power: a recorder that lies loses what it was given, and what it countersigned falsely it has signed.
//
// Memory: a Sender holds at most four appends of 512 KiB (6 MiB where one block is larger), a
// Receiver at most 24 bodies at once, and neither ever a whole recording. Of the 24 one host has
// four at most and each for a minute at most, so that requests that never end keep out nobody else.
package ship
