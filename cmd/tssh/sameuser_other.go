//go:build !linux

package main

import "net"

// sameUser lets everybody on this computer in: the system has no call that says whose the
// other end of a connection is.
func sameUser(net.Conn) error { return nil }
