// Demo is the main job of tssh from nothing: it starts a hub and three nodes, logs in
// without a key, is refused as root, copies a file, and plays the recording back.
//
// As root the hosts are network namespaces with kernel TUNs, each with accounts of its
// own; otherwise they are userspace nodes on loopback, and the account is one's own.
// Every step says what it ran and checks what came of it; a step that did not do what
// it says ends the demo with status 1. On a terminal it stays up at the end until
// Ctrl-C, so that one can try things. What it made is removed when it ends.
package main
