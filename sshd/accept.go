package sshd

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/session/control"
)

// handle is one connection from accept to its end.
func (s *Server) handle(c net.Conn) {
	addr, ok := addrOf(c.RemoteAddr())
	var who policy.Identity
	if ok {
		who, ok = s.cfg.WhoIs(addr)
	}
	self := s.cfg.Self()
	if !ok || !who.Valid() || slices.Contains(self.Addrs, addr) {
		// Not a peer, or this host itself: no word to it.
		c.Close()
		s.counters.add(countConns, "result", "no-peer")
		s.cfg.Log.Warn("connection from no peer", "addr", c.RemoteAddr())
		return
	}
	if say := s.enter(owner(who)); say != "" {
		s.counters.add(countConns, "result", "limit")
		s.counters.add(countLimits, "limit", limitOf(say))
		if e := (audit.Entry{Kind: "session.limit", Who: who.Who(), Node: who.Name, Verdict: "deny", Text: say}); s.hush.allow(who, &e) {
			s.cfg.Log.Warn("limit reached", "node", who.Name, "say", say)
			s.audit(e)
		}
		// A line before the version line is allowed (RFC 4253 section 4.2), and clients
		// show it when asked to be verbose.
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, "tssh: "+say+"\r\n")
		c.Close()
		return
	}
	l := &link{s: s, src: who, srcAddr: addr, remote: c.RemoteAddr().String(), local: c.LocalAddr().String(), state: control.Start, minor: control.Minor, handshaking: true, asks: map[uint32][]ask{}, ttys: map[uint32]string{}, over: make(chan struct{})}
	if a, ok := addrOf(c.LocalAddr()); ok && slices.Contains(self.Addrs, a) {
		l.dstAddr = a
	}
	s.counters.add(countConns, "result", "accepted")
	if l.handsOver() {
		s.handOver(l, c)
		return
	}
	if err := l.spawn(c); err != nil {
		c.Close()
		s.leave(l)
		s.cfg.Log.Error("start of a connection process", "node", who.Name, "err", err)
		return
	}
	s.mu.Lock()
	s.links[l] = struct{}{}
	s.mu.Unlock()
	grace := time.AfterFunc(s.cfg.Limits.LoginGrace+2*time.Second, l.graceOver)
	defer grace.Stop()
	l.serve()
}

func addrOf(a net.Addr) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}, false
	}
	return ap.Addr().Unmap().WithZone(""), true
}

func (s *Server) audit(e audit.Entry) {
	e.Time = s.cfg.Now()
	e.Host = s.cfg.Self().Name
	s.cfg.Audit(e)
}

// enter counts a connection in, or says why not.
func (s *Server) enter(who string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byPeer[who]
	if u == nil {
		u = &usage{}
	}
	lim := s.cfg.Limits
	switch {
	case u.conns >= lim.ConnsPerPeer:
		return sayTooManyConns
	case u.handshakes >= lim.HandshakesPerPeer:
		return sayTooManyLogins
	case s.handshakes >= lim.Handshakes || len(s.links) >= lim.Conns:
		return sayBusy
	}
	u.conns++
	u.handshakes++
	s.handshakes++
	s.byPeer[who] = u
	return ""
}

// loggedIn moves a connection out of the handshakes.
func (s *Server) loggedIn(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked(l)
	s.spares.wanted()
}

func (s *Server) settleLocked(l *link) {
	if l.handshaking {
		l.handshaking = false
		s.handshakes--
		if u := s.byPeer[owner(l.src)]; u != nil {
			u.handshakes--
		}
	}
}

// leave counts a connection out.
func (s *Server) leave(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked(l)
	if u := s.byPeer[owner(l.src)]; u != nil {
		if u.conns--; u.conns <= 0 {
			delete(s.byPeer, owner(l.src))
		}
	}
	delete(s.links, l)
	s.spares.wanted()
}

// tcpRTOMaxMS is TCP_RTO_MAX_MS, in kernels since 6.15.
const tcpRTOMaxMS = 44

// tune makes a TCP connection outlive a restart of the daemon: the kernel goes on for 15
// minutes, and tries at least every second, so that it is back within one. The second
// without the first would make it give up after 15 seconds.
func tune(c *net.TCPConn) {
	_ = c.SetNoDelay(true)
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 30 * time.Second, Count: 10})
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 900000) == nil {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMaxMS, 1000)
		}
	})
}

// spawn starts the connection process. A kernel TCP socket becomes its own; any other
// connection is pumped through a socket pair.
func (l *link) spawn(c net.Conn) error {
	var sock *os.File
	if tcp, ok := c.(*net.TCPConn); ok {
		tune(tcp)
		f, err := tcp.File()
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		sock, l.survive = f, true
	} else {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socketpair: %w", err)
		}
		sock = os.NewFile(uintptr(fds[1]), "socket")
		ours := os.NewFile(uintptr(fds[0]), "socket")
		inner, err := net.FileConn(ours)
		ours.Close()
		if err != nil {
			sock.Close()
			return fmt.Errorf("socketpair: %w", err)
		}
		l.pumped = startPump(c, inner)
	}
	proc, ctl, err := l.s.connProcess(sock)
	sock.Close()
	if err != nil {
		if l.pumped != nil {
			l.pumped.abort()
			<-l.pumped.done
		}
		return err
	}
	l.proc, l.ctl = proc, ctl
	if l.pumped == nil {
		c.Close() // it is the process's now
	}
	return nil
}
