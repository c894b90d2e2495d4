package localapi

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID is the uid of the process at the other end, as the kernel noted it.
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("localapi: credentials of the caller: %w", err)
	}
	var cred *unix.Xucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); err != nil {
		return -1, fmt.Errorf("localapi: credentials of the caller: %w", err)
	}
	if cerr != nil {
		return -1, fmt.Errorf("localapi: credentials of the caller: %w", cerr)
	}
	return int(cred.Uid), nil
}
