package netnode

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// tunPort is one kernel TUN. fd is owned by the tun.Device and kept beside it for poll:
// asking the file for it would make it blocking.
type tunPort struct {
	tun.Device
	fd  int
	log *slog.Logger
}

// attachTUN attaches to the persistent TUN name in the caller's network namespace, and
// makes it first where there is none.
func attachTUN(name string, log *slog.Logger) (*tunPort, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" || strings.ContainsAny(name, "%/ ") {
		return nil, fmt.Errorf("netnode: TUN %q: not an interface name", name)
	}
	fd, err := setTUN(name, ifr)
	if err != nil {
		return nil, err
	}
	// The owner comes first: a persistent TUN without one is anybody's while nobody is attached.
	err = unix.IoctlSetInt(fd, unix.TUNSETOWNER, 0)
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netnode: TUN %q: make it root's and persistent: %w", name, err)
	}
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netnode: TUN %q: %w", name, err)
	}
	return &tunPort{dev, fd, log}, nil
}

// setTUN attaches a descriptor to the TUN, which is there from then on.
func setTUN(name string, ifr *unix.Ifreq) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("netnode: TUN %q: open /dev/net/tun: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		switch {
		case errors.Is(err, unix.EBUSY):
			return -1, fmt.Errorf("netnode: TUN %q is in use by %s: %w", name, tunUser(name), err)
		case errors.Is(err, unix.EPERM):
			return -1, fmt.Errorf("netnode: TUN %q: root is needed, or run in userspace: %w", name, err)
		case errors.Is(err, unix.EINVAL):
			return -1, fmt.Errorf("netnode: %q is an interface of another kind; choose another name: %w", name, err)
		}
		return -1, fmt.Errorf("netnode: TUN %q: %w", name, err)
	}
	return fd, nil
}

// TryTUN reports why the TUN could not be had, and leaves things as they are: one that is
// not there yet goes again.
func TryTUN(name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" || strings.ContainsAny(name, "%/ ") {
		return fmt.Errorf("netnode: TUN %q: not an interface name", name)
	}
	fd, err := setTUN(name, ifr)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// Read does not let a packet that cannot be taken apart end the device: WireGuard closes
// on errors it does not know.
func (p *tunPort) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := p.Device.Read(bufs, sizes, offset)
	switch {
	case err == nil, errors.Is(err, os.ErrClosed), errors.Is(err, tun.ErrTooManySegments):
		return n, err
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.EIO), errors.Is(err, unix.ENODEV):
		p.log.Error("the TUN is gone", "err", err)
		return 0, os.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil
	}
	p.log.Debug("packet from the TUN dropped", "err", err)
	return 0, nil
}

// tunUser names the process that is attached to a TUN, as /proc shows it. Other network
// namespaces have TUNs of the same name; a process that lives in another one than we do is
// not meant.
func tunUser(name string) string {
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "another process"
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is good
	for _, link := range fds {
		if to, err := os.Readlink(link); err != nil || to != "/dev/net/tun" {
			continue
		}
		parts := strings.Split(link, "/") // "", proc, PID, fd, N
		if ns, err := os.Readlink(filepath.Join("/proc", parts[2], "ns/net")); err != nil || ns != home {
			continue
		}
		info, err := os.ReadFile(filepath.Join("/proc", parts[2], "fdinfo", parts[4]))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "iff:" && f[1] == name {
				comm, _ := os.ReadFile(filepath.Join("/proc", parts[2], "comm")) // empty when it just ended
				return "process " + parts[2] + " (" + strconv.Quote(strings.TrimSpace(string(comm))) + ")"
			}
		}
	}
	return "another process"
}
