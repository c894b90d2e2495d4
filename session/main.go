package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"tssh/session/control"
	"tssh/session/launch"
)

// Descriptors that the monitor hands over.
const (
	sockFD    = 3
	controlFD = 4
)

// Main is the whole life of `tsshd conn`; its result is the exit status. Words go to
// standard error, which is the monitor's log file or nowhere.
func Main(stderr io.Writer) int {
	launch.TakeSignals()
	tight, err := tighten()
	if err != nil {
		fmt.Fprintln(stderr, "tsshd conn:", err)
		return 1
	}
	// Connections are many and small: give memory back rather than hold it.
	debug.SetGCPercent(200)
	file := os.NewFile(sockFD, "socket")
	sock, err := net.FileConn(file)
	file.Close() // FileConn has its own
	if err != nil {
		fmt.Fprintln(stderr, "tsshd conn: is started by tsshd, not by hand:", err)
		return 2
	}
	if u, ok := sock.(*net.UnixConn); ok && u.LocalAddr().Network() == "unixpacket" {
		// Started before there is a connection for it: that comes here, or nothing does.
		if sock, err = await(u); err != nil {
			fmt.Fprintln(stderr, "tsshd conn:", err)
			return 1
		}
		if sock == nil {
			return 0
		}
	}
	defer sock.Close()
	ctl, err := control.FromFile(os.NewFile(controlFD, "control"), false)
	if err != nil {
		fmt.Fprintln(stderr, "tsshd conn:", err)
		return 2
	}
	if err := serve(sock, ctl, tight); err != nil {
		fmt.Fprintln(stderr, "tsshd conn:", err)
		return 1
	}
	return 0
}

// await receives the socket of a connection; nil when there will be none.
func await(from *net.UnixConn) (net.Conn, error) {
	defer from.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := from.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil || n == 0 {
		return nil, nil // the monitor is gone, or needs no other process
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		return nil, errors.New("no connection in what the monitor handed over")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("no connection in what the monitor handed over")
	}
	file := os.NewFile(uintptr(fds[0]), "socket")
	defer file.Close() // FileConn has its own
	return net.FileConn(file)
}

// limits are what the process gives up until it is the user.
type limits struct{ files, core unix.Rlimit }

// preLoginFiles is enough for the sockets, the runtime and /proc.
const preLoginFiles = 64

// tighten lowers soft limits for the time before login.
func tighten() (limits, error) {
	var l limits
	low, none := unix.Rlimit{}, unix.Rlimit{}
	err := prlimit(unix.RLIMIT_NOFILE, nil, &l.files)
	if err == nil {
		low = unix.Rlimit{Cur: min(preLoginFiles, l.files.Max), Max: l.files.Max}
		err = prlimit(unix.RLIMIT_NOFILE, &low, nil)
	}
	if err == nil {
		err = prlimit(unix.RLIMIT_CORE, nil, &l.core)
	}
	if err == nil {
		none.Max = l.core.Max
		err = prlimit(unix.RLIMIT_CORE, &none, nil)
	}
	return l, err
}

// loosen gives the user the limits back. Core files stay off for this process by its
// not being dumpable.
func (l limits) loosen() error {
	if err := prlimit(unix.RLIMIT_NOFILE, &l.files, nil); err != nil {
		return err
	}
	return prlimit(unix.RLIMIT_CORE, &l.core, nil)
}

// prlimit is the system call without the standard library around it. That remembers the
// limit of open files the process was started with, raises its own, and gives the first
// back to programs; but it forgets it when it hears of a change, and shells would start
// with a limit that select(2) does not survive.
func prlimit(what int, set, get *unix.Rlimit) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(what), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("limit %d: %w", what, errno)
	}
	return nil
}
