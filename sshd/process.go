package sshd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// process is a connection process, ours or a former monitor's. It is held by a pidfd, so
// that neither waiting nor killing can meet another process with the same number.
type process struct {
	pid   int
	start uint64    // field 22 of /proc/PID/stat
	cmd   *exec.Cmd // nil when a former monitor started it

	mu sync.Mutex
	fd *os.File // nil once it was let go
}

func ownProcess(cmd *exec.Cmd) (*process, error) {
	start, err := startTime(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	p, err := holdProcess(cmd.Process.Pid, start)
	if err == nil {
		p.cmd = cmd
	}
	return p, err
}

// errGone means that the process is not there any more.
var errGone = errors.New("process is gone")

// holdProcess takes hold of a process that started at start.
func holdProcess(pid int, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	p := &process{pid: pid, start: start, fd: os.NewFile(uintptr(fd), "pidfd")}
	// Looked at after the pidfd is ours: from here on the number is pinned to it.
	if now, err := startTime(pid); err != nil || now != start {
		p.fd.Close()
		return nil, errGone
	}
	return p, nil
}

// wait returns true when the process has ended, and false after letGo.
func (p *process) wait() bool {
	p.mu.Lock()
	f := p.fd
	p.mu.Unlock()
	if f == nil {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	first := true
	err = raw.Read(func(fd uintptr) bool { // a pidfd becomes readable when its process ends
		if first {
			first = false
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(fds, 0)
			return n > 0
		}
		return true
	})
	if err != nil {
		return false
	}
	if p.cmd != nil {
		_ = p.cmd.Wait()
	}
	return true
}

// letGo ends a wait and closes the pidfd; the process goes on.
func (p *process) letGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd != nil {
		p.fd.Close()
		p.fd = nil
	}
}

// kill kills the process, and with tree everything it started that is still its
// descendant or in a session of its children. Those are found first: once it is gone,
// nothing leads to them.
func (p *process) kill(tree bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd == nil {
		return
	}
	var rest []*process
	if tree {
		rest = descendants(p.pid)
	}
	if raw, err := p.fd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
	for _, d := range rest {
		d.kill(false)
		d.letGo()
	}
}

// descendants holds the processes below pid, and those of the sessions its children lead.
func descendants(pid int) []*process {
	type stat struct{ ppid, session int }
	all := map[int]stat{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		f, err := statFields(d)
		n, nerr := strconv.Atoi(filepath.Base(d))
		if err != nil || nerr != nil {
			continue
		}
		ppid, _ := strconv.Atoi(f[1])
		session, _ := strconv.Atoi(f[3])
		all[n] = stat{ppid, session}
	}
	found := map[int]bool{}
	sessions := map[int]bool{}
	for grew := true; grew; {
		grew = false
		for n, st := range all {
			if found[n] || n == pid {
				continue
			}
			if st.ppid == pid || found[st.ppid] || sessions[st.session] {
				found[n], grew = true, true
				if st.ppid == pid && st.session == n {
					sessions[n] = true
				}
			}
		}
	}
	var out []*process
	for n := range found {
		if start, err := startTime(n); err == nil {
			if p, err := holdProcess(n, start); err == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// startTime is when a process started, in the kernel's ticks since boot.
func startTime(pid int) (uint64, error) {
	f, err := statFields("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// statFields returns the fields of proc_pid_stat(5) after the name, so that [0] is its
// third. The name can hold anything, a closing parenthesis included.
func statFields(dir string) ([]string, error) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, errGone
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return nil, fmt.Errorf("%s/stat has %d fields", dir, len(f)+2)
	}
	return f, nil
}
