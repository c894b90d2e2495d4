package localapi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// listen makes the socket. Its directory must be the caller's own and writable by nobody
// else: whoever can replace the socket can hand out host keys. public opens the socket to
// every local user (each call is then judged by uid); otherwise only the owner connects.
func listen(path string, public bool) (*net.UnixListener, func(), error) {
	if len(path) > 100 {
		return nil, nil, fmt.Errorf("localapi: socket path %q is longer than a unix socket allows (100)", path)
	}
	dir := filepath.Dir(path)
	mode := os.FileMode(0o700)
	if public {
		mode = 0o755
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, nil, fmt.Errorf("localapi: socket directory: %w", err)
	}
	if err := SafeDir(dir); err != nil {
		return nil, nil, err
	}
	// The lock outlives the socket file, so two daemons that start together cannot both
	// find a stale socket and remove each other's.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("localapi: lock: %w", err)
	}
	if err := tryLock(lock); err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("localapi: %s: %w", path, ErrInUse)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		lock.Close()
		return nil, nil, fmt.Errorf("localapi: %s: %w", path, ErrInUse)
	}
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&os.ModeSocket == 0 {
			lock.Close()
			return nil, nil, fmt.Errorf("localapi: %s is there and is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			lock.Close()
			return nil, nil, fmt.Errorf("localapi: stale socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("localapi: %w", err)
	}
	perm := os.FileMode(0o600)
	if public {
		perm = 0o666
	}
	if err := os.Chmod(path, perm); err != nil {
		l.Close()
		lock.Close()
		return nil, nil, fmt.Errorf("localapi: %w", err)
	}
	return l, func() { l.Close(); lock.Close() }, nil
}

// ErrInUse says that another daemon has the socket.
var ErrInUse = errors.New("another daemon is listening there")
