package netnode

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"tssh/netnode/filter"
)

// split is one tun.Device over two TUNs: the host's, and the one in the SSH namespace, which
// gets TCP for the SSH port and the ICMP errors about it.
//
// Read waits for either and reads straight into WireGuard's buffers. Both descriptors are in
// one epoll, and that epoll is in the Go runtime's: waiting parks the goroutine instead of
// blocking a thread. Only WireGuard's one reader reads, so what epoll announced is there.
type split struct {
	host, ssh *tunPort
	mtu       int
	events    chan tun.Event
	both      *os.File // the epoll of both; closing it ends Read
	wait      syscall.RawConn
	scratch   sync.Pool // *[2][][]byte

	reading  sync.Mutex // held by Read; Close takes it before it closes descriptors
	deadline time.Time  // of both files, owned by Read
	sshFirst bool       // owned by Read: takes turns when both have something
	once     sync.Once
}

func newSplit(host, ssh *tunPort, mtu int) (*split, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("netnode: epoll: %w", err)
	}
	for i, p := range []*tunPort{host, ssh} {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)} // Fd is ours to choose
		if err == nil {
			err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p.fd, &ev)
		}
	}
	if err == nil {
		err = unix.SetNonblock(ep, true) // or os.NewFile would not give it to the runtime
	}
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("netnode: epoll: %w", err)
	}
	s := &split{host: host, ssh: ssh, mtu: mtu, events: make(chan tun.Event), both: os.NewFile(uintptr(ep), "epoll")}
	if s.wait, err = s.both.SyscallConn(); err != nil {
		s.both.Close()
		return nil, fmt.Errorf("netnode: epoll: %w", err)
	}
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
	for {
		host, ssh, err := s.ready()
		if err != nil {
			return 0, err
		}
		p := s.host
		if ssh && (s.sshFirst || !host) {
			p = s.ssh
		}
		s.sshFirst = p == s.host
		s.guard()
		n, err := p.Read(bufs, sizes, offset)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// ready waits until a TUN has something.
func (s *split) ready() (host, ssh bool, err error) {
	cerr := s.wait.Read(func(fd uintptr) bool {
		var ev [2]unix.EpollEvent
		var n int
		n, err = unix.EpollWait(int(fd), ev[:], 0)
		if err == unix.EINTR {
			err = nil
		}
		for _, e := range ev[:max(n, 0)] {
			host, ssh = host || e.Fd == 0, ssh || e.Fd == 1
		}
		return err != nil || n > 0
	})
	if cerr != nil {
		return false, false, os.ErrClosed
	}
	if err != nil {
		return false, false, fmt.Errorf("netnode: epoll: %w", err)
	}
	return host, ssh, nil
}

// guard keeps a far deadline on both files, so that a packet that epoll saw and that is gone
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
		err = s.both.Close()
		s.reading.Lock()
		defer s.reading.Unlock()
		close(s.events)
		if cerr := s.host.Close(); err == nil {
			err = cerr
		}
		if cerr := s.ssh.Close(); err == nil {
			err = cerr
		}
	})
	return err
}
