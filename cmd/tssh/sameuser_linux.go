package main

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
)

// sameUser refuses clients on this computer that are another user's: through the proxy they
// would be us. The kernel says whose the other end of the connection is.
func sameUser(c net.Conn) error {
	s, err := netlink.SocketGet(c.RemoteAddr(), c.LocalAddr())
	if err != nil {
		return fmt.Errorf("it cannot be told who connects from %s: %w", c.RemoteAddr(), err)
	}
	if s.UID != 0 && int(s.UID) != os.Geteuid() {
		return fmt.Errorf("the user with uid %d may not use this proxy", s.UID)
	}
	return nil
}
