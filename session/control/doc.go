// Package control is the closed table of messages between the monitor (root) and a
// connection process (before login: able to become anyone, fed by the network; after it:
// the user). It is the whole surface that a taken-over connection process has towards
// root, so it is small, typed, bounded, and says for every message in which state it may
// be sent.
//
//	conn                                monitor
//	 | hello              --------------> |   any state: first message
//	 | <-------------- welcome            |   host keys, peer, limits
//	 | sign{key,alg,data} --------------> |   exchange hashes only, counted
//	 | prove{key,session} --------------> |   hostkeys-prove-00, counted with them
//	 | auth{user,method}  --------------> |   may this peer be USER?
//	 | begin{user,client} --------------> |   login done: account, decision, token, journal (fd)
//	 | ask{kind,target}   --------------> |   every channel, subsystem, forward
//	 | tty, gone, done    --------------> |   told, not asked
//	 | unkept{why}        --------------> |   the journal takes no more, and the rule lets it go on;
//	 |                                    |   or waits for room, and has it
//	 | <-------------- revoke, keep, ping |
//	 | pong               --------------> |
//
// After the monitor died, conn connects to the socket it was told in the answer to begin
// and says resume{id, token} first, instead of hello.
//
// # Wire
//
// A SOCK_SEQPACKET unix socket; one message is one datagram of at most MaxMessage bytes:
// a JSON object {"t": type, "n": number, "b": body}. Answers carry the number of what
// they answer, everything else its own. Unknown types, unknown fields, a body of another
// type's shape, data after the object, a message in a state where it may not be sent:
// each ends the connection. One file descriptor travels with the answer to begin
// (SCM_RIGHTS): the journal, write-only and append-only. Descriptors with any other
// message are closed unread and end the connection.
//
// # States
//
//	Start --hello--> Open --begin--> Running --done--> Ended
//	Start --resume--> Running
package control
