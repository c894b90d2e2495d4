// Package daemon is one node as a running program: its state folder, its stream from
// the hub, its device and its local socket, wired together. tsshd, the background node
// of tssh and the hub's own node are each a Daemon with something more on top.
//
//	state folder --> netmap.Client --map--> netnode.Node --> Config.Serve(node, client)
//	                     ^    endpoints of ours <---'              (sshd, shipping, ...)
//	                     '--------- hub            ^
//	                                               |
//	                      localapi.Serve: status, whois, resolve, dial, join, up, down
//
// A Daemon goes through these states; the socket answers in all of them:
//
//	not joined --join--> connecting --first map--> running --down--> down --up--> connecting
//	                          ^------- hub away: stays running on the last map -----'
//	removed | expired: the device is closed, the socket says so, a new join mends it
//
// Trust: Dial on behalf of a caller happens only in a node without a kernel TUN, whose
// process is the caller's own or root's asked by root; with a kernel TUN everybody dials
// for themselves.
package daemon
