package launch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Starter starts every program of a connection from one thread of its own. What the
// kernel keeps per thread and hands to children (the audit login id, the session
// keyring) is set there once.
type Starter struct {
	jobs chan job
	done chan struct{}
}

type job struct {
	do   func() error
	errc chan<- error
}

// NewStarter makes the thread. Call it before Become: setting another's audit id takes
// root where the daemon itself has one. Close ends it.
func NewStarter(uid uint32) *Starter {
	s := &Starter{jobs: make(chan job), done: make(chan struct{})}
	ready := make(chan struct{})
	go func() { // ends with Close; the thread ends with it, as it stays locked
		defer close(s.done)
		runtime.LockOSThread()
		// Both are refused in some containers and absent from some kernels; a session
		// is no less the user's without them.
		_ = os.WriteFile("/proc/thread-self/loginuid", []byte(strconv.Itoa(int(uid))), 0)
		_, _ = unix.KeyctlJoinSessionKeyring("_ses.tssh")
		close(ready)
		for j := range s.jobs {
			j.errc <- j.do()
		}
	}()
	<-ready
	return s
}

// Start starts cmd. It does not wait for it.
func (s *Starter) Start(cmd *exec.Cmd) error { return s.run(cmd.Start) }

// run does something on the thread.
func (s *Starter) run(do func() error) error {
	errc := make(chan error, 1)
	s.jobs <- job{do, errc}
	return <-errc
}

// Close ends the thread. Programs go on.
func (s *Starter) Close() {
	close(s.jobs)
	<-s.done
}

// TakeSignals makes the process survive what a terminal or a lost pipe would send it,
// and makes programs start with default dispositions: a signal that is caught is reset
// at exec, one that was ignored by whoever started the daemon (nohup, &) would stay so
// and leave shells deaf to ^C. The runtime catches all but the three that C libraries
// keep for themselves, so those are reset here.
func TakeSignals() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
		syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE)
	for sig := uintptr(32); sig <= 34; sig++ {
		// The kernel's struct sigaction: the handler comes first, all zero is the default.
		var now, byDefault [8]uintptr
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if errno == 0 && now[0] == 1 { // SIG_IGN
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		}
	}
}

// Umask is what login.defs(5) says, else 022.
func Umask() int {
	if n, err := strconv.ParseInt(loginDefs("UMASK"), 8, 32); err == nil && n >= 0 && n <= 0o777 {
		return int(n)
	}
	return 0o022
}

// OpenTerminal makes a terminal pair that belongs to the calling user. The master does
// not block, so that reads of it can be given a deadline.
func OpenTerminal() (master, slave *os.File, name string, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, nil, "", fmt.Errorf("launch: /dev/ptmx: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, "", fmt.Errorf("launch: terminal: %w", err)
	}
	name = "/dev/pts/" + strconv.Itoa(n)
	// The slave by its master, not by its name: whatever is mounted over /dev/pts here.
	sfd, err := ptPeer(fd, name)
	if err != nil {
		unix.Close(fd)
		return nil, nil, "", fmt.Errorf("launch: %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), os.NewFile(uintptr(sfd), name), name, nil
}

func ptPeer(master int, name string) (int, error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, flags)
	if errno == 0 {
		return int(fd), nil
	}
	return unix.Open(name, flags, 0) // kernels before 4.13
}
