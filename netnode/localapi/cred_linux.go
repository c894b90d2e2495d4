package localapi

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID is the uid of the process that connected (or, seen from the client, that listens),
// as the kernel noted it at that moment.
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("localapi: credentials of the caller: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return -1, fmt.Errorf("localapi: credentials of the caller: %w", err)
	}
	if cerr != nil {
		return -1, fmt.Errorf("localapi: credentials of the caller: %w", cerr)
	}
	// A peer from another user namespace that has no name here shows as the overflow uid,
	// and one without credentials as -1: neither is anybody's owner or root.
	if cred.Uid == ^uint32(0) {
		return -1, fmt.Errorf("localapi: the caller has no credentials")
	}
	return int(cred.Uid), nil
}
