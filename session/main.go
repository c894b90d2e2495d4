package session

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"

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

// limits are what the process gives up until it is the user.
type limits struct{ files, core unix.Rlimit }

// preLoginFiles is enough for the sockets, the runtime and /proc.
const preLoginFiles = 64

// tighten lowers soft limits for the time before login. It goes around the standard
// library on purpose: that remembers the limit of open files it started with, and gives
// programs that one back.
func tighten() (limits, error) {
	var l limits
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &l.files); err != nil {
		return l, fmt.Errorf("limit of open files: %w", err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, nil, &l.core); err != nil {
		return l, fmt.Errorf("limit of core files: %w", err)
	}
	low := unix.Rlimit{Cur: min(preLoginFiles, l.files.Max), Max: l.files.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		return l, fmt.Errorf("limit of open files: %w", err)
	}
	none := unix.Rlimit{Cur: 0, Max: l.core.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, &none, nil); err != nil {
		return l, fmt.Errorf("limit of core files: %w", err)
	}
	return l, nil
}

// loosen gives the user the limits back. Core files stay off for this process by its
// not being dumpable.
func (l limits) loosen() error {
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &l.files, nil); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, &l.core, nil); err != nil {
		return fmt.Errorf("limit of core files: %w", err)
	}
	return nil
}
