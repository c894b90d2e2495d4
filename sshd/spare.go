package sshd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tssh/session/control"
)

// A spare is a connection process that was started before there is a connection for it:
// what starting a program takes is over when a client comes. It knows nothing and serves
// one connection, as any other. At most one waits.
//
//	none --start--> waiting --a connection--> its connection's process
//	                   \------ the daemon ends, another program is in its place --> none
//
// Its descriptor 3 is a socket over which the connection's comes; when the other end of
// that is closed, by whatever, it ends.
type spare struct {
	proc   *process
	ctl    *control.Conn
	handTo *os.File    // our end of its descriptor 3
	exe    os.FileInfo // the program as it was then
}

// spares are the one that waits, and what starts the next.
type spares struct {
	s    *Server
	wake chan struct{} // a login is over, or a connection: time to start another

	mu   sync.Mutex
	one  *spare // nil while there is none
	done bool   // no further one
}

// startConn starts a connection process with the file as its descriptor 3.
func (s *Server) startConn(sock *os.File) (p *process, ctl *control.Conn, err error) {
	ctl, theirs, err := control.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	defer func() {
		if err != nil {
			ctl.Close()
		}
	}()
	// Whatever this process was started with, and did not mark, stays here.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil, nil, fmt.Errorf("close-on-exec: %w", err)
	}
	log, err := s.connLog()
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	argv := s.cfg.ConnCommand
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Env: []string{}, Dir: "/", Stderr: log,
		ExtraFiles: []*os.File{sock, theirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	// The daemon may be protected from the OOM killer; what users run must not be.
	_ = os.WriteFile("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/oom_score_adj", []byte("0"), 0)
	if p, err = ownProcess(cmd); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, nil, err
	}
	return p, ctl, nil
}

// connProcess gives a connection its process: the spare, or one that is started now.
func (s *Server) connProcess(sock *os.File) (*process, *control.Conn, error) {
	if w := s.spares.take(); w != nil {
		if err := w.hand(sock); err == nil {
			return w.proc, w.ctl, nil
		}
		w.end() // it was killed while it waited
	}
	return s.startConn(sock)
}

// run keeps one waiting until stop is closed. Owned by Serve.
func (s *spares) run(stop <-chan struct{}) {
	defer s.end()
	for {
		if err := s.start(); err != nil {
			s.s.cfg.Log.Warn("spare connection process", "err", err)
		}
		select {
		case <-stop:
			return
		case <-s.wake:
		}
		// Not beside the handshake that took the last one: that is what it is there for.
		select {
		case <-stop:
			return
		case <-time.After(sparePause):
		}
	}
}

// sparePause keeps the start of the next one out of the way of a login that is on, and
// bounds how many are made.
const sparePause = 50 * time.Millisecond

// wanted is said when the one that waited is needed no more for a login that is on.
func (s *spares) wanted() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *spares) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.one != nil || s.done {
		return nil
	}
	exe, err := os.Stat(s.s.cfg.ConnCommand[0])
	if err != nil {
		return err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "hand"), os.NewFile(uintptr(fds[1]), "hand")
	defer theirs.Close()
	p, ctl, err := s.s.startConn(theirs)
	if err != nil {
		ours.Close()
		return err
	}
	s.one = &spare{p, ctl, ours, exe}
	return nil
}

// take gives away the one that waits, if it is still of the program that would be started
// now.
func (s *spares) take() *spare {
	s.mu.Lock()
	w := s.one
	s.one = nil
	s.mu.Unlock()
	if w == nil {
		return nil
	}
	now, err := os.Stat(s.s.cfg.ConnCommand[0])
	if err != nil || !os.SameFile(now, w.exe) || !now.ModTime().Equal(w.exe.ModTime()) || now.Size() != w.exe.Size() {
		w.end()
		return nil
	}
	return w
}

func (s *spares) end() {
	s.mu.Lock()
	w := s.one
	s.one, s.done = nil, true
	s.mu.Unlock()
	if w != nil {
		w.end()
	}
}

// hand gives it its connection.
func (w *spare) hand(sock *os.File) error {
	defer w.handTo.Close()
	return unix.Sendmsg(int(w.handTo.Fd()), []byte{0}, unix.UnixRights(int(sock.Fd())), nil, unix.MSG_NOSIGNAL)
}

// end ends one that is not used. It has started nothing.
func (w *spare) end() {
	w.handTo.Close()
	w.ctl.Close()
	w.proc.kill(false)
	w.proc.wait()
	w.proc.letGo()
}
