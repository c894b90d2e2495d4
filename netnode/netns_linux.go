package netnode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

const pinName = "ssh.netns"

// errNoNamespace means that this system does not let us make one: the rewrite is used.
var errNoNamespace = errors.New("no network namespace of its own for ssh")

// inNamespace runs f on a thread that is in the network namespace ns. The thread goes back
// before anything else runs on it; if that fails it is thrown away.
func inNamespace(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netnode: enter %s: %w", ns.Name(), err)
		}
		return f()
	})
}

// onThread runs f, which may change its thread's network namespace, and brings the thread back.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() { // ends with f
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("netnode: own network namespace: %w", err)
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			// Still locked: the thread ends with this goroutine and nobody else gets it.
			done <- errors.Join(err, fmt.Errorf("netnode: leave network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// pinnedNamespace opens the namespace pinned in dir, and makes it first where there is none.
func pinnedNamespace(dir string) (*os.File, error) {
	if err := rootOnly(dir); err != nil {
		return nil, err
	}
	pin := filepath.Join(dir, pinName)
	if ns, err := openPin(pin); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ns, err
	}
	f, err := os.OpenFile(pin, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("netnode: pin namespace: %w", err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%w: unshare: %w", errNoNamespace, err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", pin, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%w: mount: %w", errNoNamespace, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(pin) // an empty file; it would only be in the way
		return nil, err
	}
	return openPin(pin)
}

// openPin opens a pinned namespace; fs.ErrNotExist when there is none. A pin of the
// namespace we are in would give the listener to the host, and is refused.
func openPin(pin string) (*os.File, error) {
	f, err := os.OpenFile(pin, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("netnode: %s: %w", pin, err)
	}
	if st.Type != unix.NSFS_MAGIC { // the empty file under the mount
		f.Close()
		return nil, fs.ErrNotExist
	}
	var theirs, ours unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &theirs)
	if err == nil {
		err = unix.Stat("/proc/self/ns/net", &ours)
	}
	if err == nil && theirs.Ino == ours.Ino && theirs.Dev == ours.Dev {
		err = errors.New("is the host's own namespace")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("netnode: %s: %w", pin, err)
	}
	return f, nil
}

// rootOnly makes dir if need be and refuses one that others could change.
func rootOnly(dir string) error {
	if dir == "" {
		return errors.New("netnode: a kernel TUN needs a run directory")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("netnode: run directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("netnode: run directory %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("netnode: run directory %s: others can change it", dir)
	}
	return nil
}
