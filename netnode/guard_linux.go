package netnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// hiddenSSHPort is where the listener really is when the port is rewritten: below 1024,
	// so that nobody but root takes it while the daemon is away.
	hiddenSSHPort = 922

	userTimeoutMillis = 900_000
	rtoMaxMillis      = 1000
)

// survive sets what lets connections outlive an outage, on a listener: accepted sockets
// inherit it. The first alone is safe; the second without the first is not.
func survive(fd int) {
	if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeoutMillis) == nil {
		// Older kernels do not have it; then recovery takes longer.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, rtoMaxMillis)
	}
}

// surviving is survive for a net.Dialer.
func surviving(network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	return c.Control(func(fd uintptr) { survive(int(fd)) })
}

// listenKernel listens on a port of all addresses of the namespace the thread is in. control
// may refuse the socket before it is bound.
func listenKernel(port int, control func(fd int) error) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // socket filters do not work on MPTCP sockets
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			survive(int(fd))
			if control != nil {
				err = control(int(fd))
			}
		}); cerr != nil {
			return cerr
		}
		return err
	}
	l, err := lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// onlyThrough binds a socket to an interface and has the kernel drop what did not come in
// through it: binding alone lets local processes in.
func onlyThrough(fd int, name string, index int) error {
	if err := unix.BindToDevice(fd, name); err != nil {
		return fmt.Errorf("bind to %s: %w", name, err)
	}
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(index), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return fmt.Errorf("socket filter: %w", err)
	}
	raw := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		raw[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	f := unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &f); err != nil {
		return fmt.Errorf("socket filter: %w", err)
	}
	return nil
}

// guarded is a listener that closes what does not come from exactly a peer's address.
type guarded struct {
	*net.TCPListener
	isPeer func(netip.Addr) bool
	log    *slog.Logger
}

func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.TCPListener.AcceptTCP()
		if err != nil {
			return nil, err
		}
		remote := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		if g.isPeer(remote.Addr()) {
			return c, nil
		}
		g.log.Warn("connection to the hidden ssh port refused", "remote", remote)
		// Reset, so that refused connections leave nothing behind.
		err = errors.Join(c.SetLinger(0), c.Close())
		if err != nil {
			g.log.Debug("close refused connection", "err", err)
		}
	}
}
