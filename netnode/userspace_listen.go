package netnode

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	stackBacklog = 256
	// As the kernel's listeners have it: a peer that vanished is noticed after two minutes
	// of silence.
	keepaliveIdle  = 30 * time.Second
	keepaliveEvery = 15 * time.Second
	keepaliveCount = 6
)

// stackListener is a TCP listener of the userspace stack. gonet's own has no way to turn
// keepalive on, without which connections of peers that went away stay for ever.
type stackListener struct {
	ep   tcpip.Endpoint
	wq   *waiter.Queue
	addr net.Addr
	done chan struct{}
	once sync.Once
}

func (u *userspace) listen(_ string, a netip.AddrPort) (net.Listener, error) {
	f, proto := full(a)
	var wq waiter.Queue
	ep, terr := u.stack.NewEndpoint(tcp.ProtocolNumber, proto, &wq)
	if terr != nil {
		return nil, fmt.Errorf("%v", terr)
	}
	if terr = ep.Bind(f); terr == nil {
		terr = ep.Listen(stackBacklog)
	}
	if terr != nil {
		ep.Close()
		return nil, fmt.Errorf("port %d: %v", a.Port(), terr)
	}
	if local, err := ep.GetLocalAddress(); err == nil {
		a = netip.AddrPortFrom(a.Addr(), local.Port)
	}
	addr := &net.TCPAddr{IP: a.Addr().AsSlice(), Port: int(a.Port())}
	return &stackListener{ep: ep, wq: &wq, addr: addr, done: make(chan struct{})}, nil
}

func (l *stackListener) Addr() net.Addr { return l.addr }

func (l *stackListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.ep.Close()
	})
	return nil
}

func (l *stackListener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, terr := l.ep.Accept(nil)
		if terr == nil {
			keepAlive(ep)
			return gonet.NewTCPConn(wq, ep), nil
		}
		if _, wait := terr.(*tcpip.ErrWouldBlock); !wait {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
		select {
		case <-ready:
		case <-l.done:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
	}
}

// keepAlive sets what cannot fail but for a connection that is already over.
func keepAlive(ep tcpip.Endpoint) {
	idle, every := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveEvery)
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&every)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	ep.SocketOptions().SetKeepAlive(true)
}
