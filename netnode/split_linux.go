package netnode

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"tssh/netnode/filter"
)

// split is one tun.Device over two TUNs: the host's, and the one in the SSH namespace, which
// gets TCP for the SSH port and the ICMP errors about it.
//
// Read waits in poll(2) for either and reads straight into WireGuard's buffers.
// Only WireGuard's one reader reads, so what poll announced is there.
type split struct {
	host, ssh *tunPort
	mtu       int
	events    chan tun.Event
	wake      int // eventfd: Close says so to poll
	closed    atomic.Bool
	scratch   sync.Pool // *[2][][]byte

	reading  sync.Mutex // held by Read; Close takes it before it closes descriptors
	deadline time.Time  // of both files, owned by Read
	sshFirst bool       // owned by Read: takes turns when both have something
	once     sync.Once
}

func newSplit(host, ssh *tunPort, mtu int) (*split, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("netnode: eventfd: %w", err)
	}
	s := &split{host: host, ssh: ssh, mtu: mtu, events: make(chan tun.Event), wake: wake}
	s.scratch.New = func() any { return new([2][][]byte) }
	return s, nil
}

func (s *split) File() *os.File           { return nil }
func (s *split) MTU() (int, error)        { return s.mtu, nil }
func (s *split) Name() (string, error)    { return s.host.Name() }
func (s *split) Events() <-chan tun.Event { return s.events }
func (s *split) BatchSize() int           { return conn.IdealBatchSize }

func (s *split) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	fds := []unix.PollFd{
		{Fd: int32(s.host.fd), Events: unix.POLLIN},
		{Fd: int32(s.ssh.fd), Events: unix.POLLIN},
		{Fd: int32(s.wake), Events: unix.POLLIN},
	}
	for {
		if s.closed.Load() {
			return 0, os.ErrClosed
		}
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR || err == unix.EAGAIN {
				continue
			}
			return 0, fmt.Errorf("netnode: poll: %w", err)
		}
		if fds[2].Revents != 0 {
			return 0, os.ErrClosed
		}
		p := s.host
		if fds[1].Revents != 0 && (s.sshFirst || fds[0].Revents == 0) {
			p = s.ssh
		} else if fds[0].Revents == 0 {
			continue
		}
		s.sshFirst = p == s.host
		s.guard()
		n, err := p.Read(bufs, sizes, offset)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// guard keeps a far deadline on both files, so that a packet that poll saw and that is gone
// when we read (the kernel flushes the queue when the interface goes down) delays the other
// TUN by seconds and not for ever.
func (s *split) guard() {
	now := time.Now()
	if s.deadline.Sub(now) > time.Second {
		return
	}
	s.deadline = now.Add(3 * time.Second)
	for _, p := range []*tunPort{s.host, s.ssh} {
		if err := p.File().SetReadDeadline(s.deadline); err != nil {
			p.log.Debug("no read deadline on the TUN", "err", err)
		}
	}
}

// Write runs for several peers at once.
func (s *split) Write(bufs [][]byte, offset int) (int, error) {
	n := 0
	for _, b := range bufs {
		if filter.BelongsTo(b[offset:], SSHPort) {
			n++
		}
	}
	switch n {
	case 0:
		return s.host.Write(bufs, offset)
	case len(bufs):
		return s.ssh.Write(bufs, offset)
	}
	parts := s.scratch.Get().(*[2][][]byte)
	defer s.scratch.Put(parts)
	parts[0], parts[1] = parts[0][:0], parts[1][:0]
	for _, b := range bufs {
		i := 0
		if filter.BelongsTo(b[offset:], SSHPort) {
			i = 1
		}
		parts[i] = append(parts[i], b)
	}
	_, err := s.ssh.Write(parts[1], offset)
	if _, err2 := s.host.Write(parts[0], offset); err == nil {
		err = err2
	}
	clear(parts[0])
	clear(parts[1])
	return len(bufs), err
}

// Close detaches from both TUNs, which stay.
func (s *split) Close() error {
	var err error
	s.once.Do(func() {
		s.closed.Store(true)
		if _, werr := unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); werr != nil {
			err = fmt.Errorf("netnode: wake reader: %w", werr)
		}
		s.reading.Lock()
		defer s.reading.Unlock()
		close(s.events)
		if cerr := s.host.Close(); err == nil {
			err = cerr
		}
		if cerr := s.ssh.Close(); err == nil {
			err = cerr
		}
		unix.Close(s.wake)
	})
	return err
}
