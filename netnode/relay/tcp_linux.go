package relay

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// keepUnsent has the kernel take little more than it can send: what waits should wait in
// the queue, where it is dropped in time, and not in front of the next ping.
func keepUnsent(c net.Conn) {
	control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10) })
}

// sinceAck is how long ago the other side's kernel last acknowledged anything.
func sinceAck(c net.Conn) (quiet time.Duration, known bool) {
	ok := control(c, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			quiet = time.Duration(info.Last_ack_recv) * time.Millisecond
		}
		return err
	})
	return quiet, ok
}

func control(c net.Conn, f func(fd int) error) bool {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	rc, err := t.SyscallConn()
	if err != nil {
		return false
	}
	var inner error
	err = rc.Control(func(fd uintptr) { inner = f(int(fd)) })
	return err == nil && inner == nil
}
