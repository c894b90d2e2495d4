// Package localapi is the unix socket through which programs on this machine talk to the
// node: what it is, who is at an address, which host keys a name has, and a stream to a peer.
//
//	tssh, ssh's ProxyCommand --> unix socket --> Server --> funcs of Config --> the node
//	                              SO_PEERCRED      |
//	                              says the uid     v
//	                                          who may do what
//
// # Trust boundary
//
// The caller is the uid the kernel gives for the connection, nothing the caller sends. A
// caller is in one of three classes, and a class may do all that the class above it may:
//
//	anyone        metrics, status, whois, resolve (names, addresses, host keys)
//	the owner     dial, serve, sessions, why; ping and netcheck, which with a kernel TUN are anyone's
//	root          join, up, down
//
// Where the node is the owner's own userspace node (Config.Userspace) the owner may also join,
// bring up and down. An answer that the policy explains (the reason and the rule) goes to
// root, or to the owner of a userspace node, who has the policy on disk anyway; others get the
// one sentence that is meant for them.
//
// The client checks the other direction: the process behind the socket must be root's or the
// caller's own, because host keys come from it.
//
// Everything is bounded: headers 16 KiB, bodies 64 KiB, answers 16 MiB, names 255 bytes, 512
// connections per uid, and a time limit on each call but an open stream.
//
// # Format
//
// HTTP/1.1. Answers are JSON; an error is {"code":CODE,"error":WORDS} with a status of 4xx
// or 5xx; the codes are the constants Code*. Unknown members of a request are refused.
//
//	GET  /v1/status                       -> Status
//	GET  /v1/whois?addr=ADDR              -> Node
//	GET  /v1/resolve?name=NAME            -> Resolved
//	GET  /v1/sessions                     -> []Session
//	GET  /v1/policy/why?host=H&user=U     -> Why
//	POST /v1/ping?host=H                  -> Pong
//	POST /v1/netcheck                     -> Netcheck
//	GET  /v1/serve                        -> []Served
//	POST /v1/serve    ServeRequest        -> Served
//	POST /v1/serve/off?port=P             -> ServeOff, of all that the caller asked for without a port
//	POST /v1/join     JoinRequest         -> {}
//	POST /v1/up       {}                  -> {}
//	POST /v1/down     {}                  -> {}
//	POST /v1/rotate   {}                  -> {}
//	POST /v1/settings Settings            -> {}
//	POST /v1/dial?host=H&port=P           -> 101, then raw bytes
//	GET  /metrics                         -> text, as Prometheus reads it
//
// A dial asks for "Upgrade: tssh-raw". After the 101 each side's end of data is the half-close
// of the unix socket, and is passed on as the half-close of the TCP connection, both ways.
//
// ADDR is an address, or an address and port as servers log them ("100.64.0.7:53122",
// "[fd7a::1]:22"); the port does not count. A name is a node's name, NAME.MESH.internal (a trailing dot is allowed), or a mesh address.
package localapi
