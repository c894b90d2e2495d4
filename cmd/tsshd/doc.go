// Command tsshd is the daemon of a host: a node of the mesh and an SSH server that only
// the mesh reaches.
//
//	tsshd run      the daemon: mesh node, SSH monitor, spool of recordings, local API
//	tsshd conn     one SSH connection; started by run, once for each, never by hand
//	tsshd dial     connects to loopback as somebody who serves a program; started by run
//	tsshd rotate-keys  has the running daemon make other keys for the node
//	tsshd uninstall  takes away what outlives the daemon: device, routes, SSH namespace
//	tsshd inetd    one SSH connection on standard input and output, with an identity that
//	               is given and not proven: for tests of the SSH side without a mesh
//
// conn is entered before anything else is done: it must start in milliseconds, and what
// it needs comes on descriptors 3 (the client's socket) and 4 (the monitor), not from
// arguments or the environment.
//
// # Trust boundary
//
// run is root, or a user who then serves only that user's account. It reads its own state
// folder, records that the hub signed, and what peers send; conn reads what peers send,
// as root until login and as the user from then on. See packages sshd and session.
//
// inetd trusts who starts it entirely: it runs with the caller's rights and gives the
// session to whoever it was told connects. Each inetd process is a monitor with a spool,
// an audit log and a run directory of its own below --state.
package main
