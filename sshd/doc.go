// Package sshd is the monitor: it accepts connections from the mesh, knows who is at the
// other end, starts one connection process for each, and decides everything that process
// may do. It never parses SSH.
//
//	listener --accept--> WhoIs(exact address) --limits--> conn process (fd 3 socket, fd 4 control)
//	                                                        |  hello, sign, auth, begin, ask, ...
//	policy.Evaluate <-- Request{Src, SrcAddr, User, UID} <--+
//	      |                                                 |
//	      +--> grant: account, recording, token ------------+
//
//	Changed --> every grant and every open channel evaluated again --> revoke
//
// # Trust boundary
//
// A connection process is hostile from its first byte: it is fed by the network, and
// after login it is the user. What it says is checked against session/control's table,
// counted, and never used for more than the question it is. The identity is the one of
// the address the kernel reported at accept time; it is looked up again for every
// question, and must still be the same node. The account is looked up once, and its uid
// is in the request that is evaluated and is the one dropped to.
//
// Nothing is admitted without an identity and a policy; a policy's "check" is refused in
// words until this host can do it.
//
// # Recording
//
// How a session is recorded is the rule's word (policy.Terms); which recorders it goes to, too
// (Decision.Recorder, into recording.Meta, from where package ship has it):
//
//	required          no session that cannot be recorded here; when that fails in the middle
//	                  onRecordFailure says what happens: terminate, it ends; refuse, it goes on
//	                  unrecorded; pause, it is held until it can be recorded again, and ended
//	                  after RecorderPause
//	required-remote   and none whose beginning no recorder took within RecorderWait. When
//	                  nothing is acknowledged for RecorderHold, output is held back; after
//	                  RecorderEnd the session ends (pause: it is held both ways, up to RecorderPause)
//	best-effort       it begins and goes on without a recording where there can be none
//	off               nothing is recorded; its beginning and end are audited all the same
//
// Where a session could not begin because of its recording, the rules with breakGlass are
// asked alone. Whoever is let in by one is told so, and it is audited (session.breakglass),
// as is a session that goes on unrecorded (session.unrecorded): its recording, if it had
// one, is closed with a gap that says so, and conn is told to keep nothing any more.
//
// A session that pauses takes nothing from the client and puts nothing out; what asks for
// something new is refused in words; the person is told on the channels that are open. Either
// the monitor holds it, when the recorder takes nothing or the spool has no room (compare), or
// conn itself does, when its journal cannot be written. A spool that ran full has to have a
// sixteenth of room again before a session goes on.
//
// # Revocation
//
// On every change (and every half minute, for what ends by the clock) each connection's
// login and each of its open channels are evaluated anew. What is not accepted any more,
// or not with the same rights, is ended: conn tells the person why and closes; if it has
// not ended after two seconds, it and everything it started are killed. A decision that
// gives other rights, more or fewer, is another decision and ends the session as well
// (policy.Decision.Same); one that says the same from another line of the file does not.
//
// # Who is over a session
//
// End ends one because somebody wants it. Whoever brings the wish (a hub) has it decided here
// once more by policy.Evaluate, with the session's own request and the asker as its Viewer; the
// person reads the reason, and by whom only where the rule has showWatchers. Under such a rule
// Watched tells the person who watches: a note in the recording, and the control message notice,
// which processes started by an earlier version (minor 0) do not know and are not sent.
//
// # Life of a connection
//
//	accepted --hello--> greeting --auth, begin--> running --done or exit--> finished
//	     \----------- limits, grace, refusal ------------------^
//
// A process that waits for the next connection hides what its start takes (spare.go). At most
// one waits; it is the daemon's program as it is now, has its two sockets and no connection,
// and ends with the daemon. Measured by TestSpareGain on two busy cores, 150 logins each in
// turns, connect and run true: least 11.9 ms with it and 16.1 ms without, median 25.2 and
// 30.9. It costs the memory of one process that sleeps.
//
// What a connection costs while nothing happens is 2 MiB of its process, of which 0.2 are
// in use: the rest is Go's runtime, stacks and half-filled spans. Collecting after the login
// and giving memory back was tried and gained nothing (2.20 MiB without, 2.39 with). The
// monitor had 200 KiB for each, and has about 65: no buffer waits for a message
// (session/control), and a screen has rows where something was drawn (recording/term). 200
// sessions with terminals: 41 MiB before, 14.5 after.
//
// # Surviving the daemon
//
// A connection on a kernel TCP socket goes on when the daemon stops. For each there is a
// root-only file RunDir/conns/ID.json, replaced atomically:
//
//	{"version":1,"id":ID,"pid":N,"start":TICKS,"token":SHA-256 of the token,
//	 "user":NAME,"uid":N,"gid":N,"shell":PATH,"src_id":ID,"src_name":NAME,
//	 "src_user":LOGIN,"src_tags":[TAG],"src_addr":ADDR,"dst_addr":ADDR,
//	 "remote":"ADDR:PORT","local":"ADDR:PORT","client":TEXT,"began":TIME,
//	 "keep":{how it is recorded},"key":policy.Decision.Key,"slot":TEXT,"section":TEXT,"rule":N,
//	 "minor":N,"asks":{"CHANNEL":[{"kind":TEXT,"target":TEXT}]},"ttys":{"CHANNEL":"/dev/pts/N"}}
//
// A file of another version, as after a downgrade, is not understood: its process is killed, its
// recording finished, and the log says why. So are the words for a process that comes back with
// another version of the table; one with a larger minor goes on, and is not sent what is newer.
//
// START is field 22 of /proc/PID/stat, so that a number that was given out again is not
// taken for the process it was. A new monitor takes over every file whose process lives,
// evaluates it at once, and waits on RunDir/resume.sock, a SOCK_SEQPACKET socket anybody
// may connect to: what counts there is the token, which only the connection process
// holds, together with its pid, uid (SO_PEERCRED) and start. Files without a process are
// finished as lost. The policy and the netmap must be loaded before Serve is called: what
// has no policy then is ended, like at any other time.
package sshd
