package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// listener is a forward whose connections come from this host: tcpip-forward, its unix
// form, the agent's socket, X11.
type listener struct {
	*forward
	sc      *gossh.ServerConn
	key     string // in conn.listeners; "" when the client cannot take it back
	channel string // type of the channels it opens
	each    string // recording.Forward.Type of its connections
	extra   func(net.Conn) []byte
	single  bool // one connection and no more
	ls      []net.Listener
	over    func()    // takes away what the file system has of it
	once    sync.Once // for over
	in      int       // its connections; guarded by conn.mu
}

// bind is the payload of tcpip-forward and its cancellation (RFC 4254 section 7.1).
type bind struct {
	host string
	port uint32
}

func parseBind(p payload) (bind, bool) {
	host, ok1 := p.str()
	port, ok2 := p.u32()
	if !ok1 || !ok2 || port > 65535 || len(host) > 0 && string(host) != "*" && !goodHost(string(host)) {
		return bind{}, false
	}
	return bind{string(host), port}, true
}

// target is the address in the words of the policy: * is every address of this host.
func (b bind) target() string {
	switch h := strings.ToLower(b.host); h {
	case "", "*", "0.0.0.0", "::":
		return hostAndPort("*", b.port)
	default:
		return hostAndPort(h, b.port)
	}
}

func (b bind) key() string { return "tcp " + hostAndPort(b.host, b.port) }

// forwardTCP listens where the client asks; the answer to port 0 is the port taken.
func (c *conn) forwardTCP(sc *gossh.ServerConn, raw []byte) (bool, []byte) {
	b, ok := parseBind(raw)
	if !ok {
		c.note(0, "refused", "tcpip-forward: malformed")
		return false, nil
	}
	l := &listener{sc: sc, channel: "forwarded-tcpip", each: "remote", key: b.key()}
	if !c.listenFor(l, "forward-remote", "remote-listen", b.target(), func() error {
		ls, err := listenTCP(c.ctx, b)
		l.ls = ls
		return err
	}) {
		return false, nil
	}
	port := uint32(l.ls[0].Addr().(*net.TCPAddr).Port)
	l.extra = func(nc net.Conn) []byte {
		from, fromPort := addrPort(nc.RemoteAddr())
		return gossh.Marshal(struct {
			Addr     string
			Port     uint32
			From     string
			FromPort uint32
		}{b.host, port, from, fromPort})
	}
	if b.port == 0 {
		c.rekey(l, bind{b.host, port}.key())
	}
	l.start()
	if b.port == 0 {
		return true, binary.BigEndian.AppendUint32(nil, port)
	}
	return true, nil
}

func addrPort(a net.Addr) (string, uint32) {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String(), uint32(t.Port)
	}
	return "127.0.0.1", 0
}

// listenTCP binds every address that the name stands for, all on one port.
func listenTCP(ctx context.Context, b bind) ([]net.Listener, error) {
	type at struct{ network, host string }
	var try []at
	switch b.host {
	case "", "*":
		try = []at{{"tcp", ""}, {"tcp4", "0.0.0.0"}} // the first takes both families where there are two
	case "localhost":
		try = []at{{"tcp4", "127.0.0.1"}, {"tcp6", "::1"}}
	default:
		try = []at{{"tcp", b.host}}
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	var ls []net.Listener
	var first error
	port := b.port
	for _, a := range try {
		if len(ls) > 0 && a.network == "tcp4" {
			break
		}
		l, err := lc.Listen(ctx, a.network, hostAndPort(a.host, port))
		if err != nil {
			// ::1 may be missing, but must not be another program's while 127.0.0.1 is ours.
			if errors.Is(err, syscall.EADDRINUSE) && b.host == "localhost" {
				closeListeners(ls)
				return nil, err
			}
			first = errors.Join(first, err)
			continue
		}
		ls = append(ls, l)
		port = uint32(l.Addr().(*net.TCPAddr).Port)
	}
	if len(ls) == 0 {
		return nil, first
	}
	return ls, nil
}

func closeListeners(ls []net.Listener) {
	for _, l := range ls {
		l.Close()
	}
}

// forwardUnix listens on a path (OpenSSH's PROTOCOL section 2.4).
func (c *conn) forwardUnix(sc *gossh.ServerConn, raw []byte) bool {
	p := payload(raw)
	b, ok := p.str()
	path := string(b)
	if !ok || !goodPath(path) {
		c.note(0, "refused", "streamlocal-forward: the path must begin with / and have no detours")
		return false
	}
	l := &listener{sc: sc, channel: "forwarded-streamlocal@openssh.com", each: "remote-unix", key: "unix " + path}
	l.extra = func(net.Conn) []byte { return gossh.Marshal(struct{ Path, Reserved string }{path, ""}) }
	if !c.listenFor(l, "forward-unix", "remote-unix-listen", path, func() error {
		ln, remove, err := listenUnix(c.ctx, path)
		if err == nil {
			l.ls, l.over = []net.Listener{ln}, remove
		}
		return err
	}) {
		return false
	}
	l.start()
	return true
}

// listenUnix makes a socket that only the user can connect to. What is there already
// stays, as with OpenSSH, but for the user's own socket that nobody listens on any more.
// The returned func removes the socket if it is still the one that was made here.
func listenUnix(ctx context.Context, path string) (net.Listener, func(), error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// The mode of the socket's file is this one less the umask, from its first moment.
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && staleSocket(path) {
		if rerr := os.Remove(path); rerr != nil {
			return nil, nil, rerr
		}
		ln, err = lc.Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		ln.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return ln, func() {
		if now, err := os.Lstat(path); err == nil && os.SameFile(made, now) && made.Mode() == now.Mode() && made.ModTime().Equal(now.ModTime()) {
			// All of that, since a file made later may have got the same number.
			_ = os.Remove(path)
		}
	}, nil
}

func staleSocket(path string) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Getuid() {
		return false
	}
	nc, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		nc.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// listenFor asks, binds and records, in this order.
func (c *conn) listenFor(l *listener, kind, typ, target string, listen func() error) bool {
	f, say := c.newForward(kind, typ, target, "")
	if f == nil {
		c.limited(say)
		return false
	}
	l.forward = f
	if f.ask() != "" {
		f.done()
		return false
	}
	err := listen()
	if err == nil && !c.claim(l) {
		err = errors.New("this is forwarded already")
	}
	if err == nil {
		err = f.open()
	}
	if err != nil {
		f.note("failed", plainError(err))
		l.close()
		f.done()
		return false
	}
	return true
}

// claim remembers a listener under its key; false when there is one.
func (c *conn) claim(l *listener) bool {
	if l.key == "" {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listeners[l.key] != nil {
		l.key = ""
		return false
	}
	c.listeners[l.key] = l
	return true
}

// rekey is for a listener whose port was not known before.
func (c *conn) rekey(l *listener, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.listeners, l.key)
	l.key = key
	c.listeners[key] = l
}

// cancel takes a listener back. Connections that came through it go on.
func (c *conn) cancel(key string) bool {
	c.mu.Lock()
	l := c.listeners[key]
	c.mu.Unlock()
	if l == nil {
		return false
	}
	l.terminate()
	l.close()
	return true
}

// close frees the address and the name at once, whoever still accepts.
func (l *listener) close() {
	closeListeners(l.ls)
	if l.key != "" {
		l.c.mu.Lock()
		if l.c.listeners[l.key] == l {
			delete(l.c.listeners, l.key)
		}
		l.c.mu.Unlock()
	}
	if l.over != nil {
		l.once.Do(l.over) // only once: another socket may have the path by then
	}
}

// start accepts until the listener is closed.
func (l *listener) start() {
	for _, ln := range l.ls {
		l.attach(ln)
	}
	go func() { // ends with the listeners
		ended := make(chan struct{}, len(l.ls))
		for _, ln := range l.ls {
			go func() { l.accept(ln); ended <- struct{}{} }()
		}
		for range l.ls {
			<-ended
		}
		l.close()
		l.done()
	}()
}

func (l *listener) accept(ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || l.c.ctx.Err() != nil {
				return
			}
			select { // out of descriptors, most likely
			case <-l.c.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		far, ok := nc.(stream)
		if !ok {
			nc.Close()
			continue
		}
		host, port := addrPort(nc.RemoteAddr())
		origin := ""
		if nc.RemoteAddr().Network() == "tcp" {
			origin = hostAndPort(host, port)
		}
		f, say := l.c.countForward(l, l.kind, l.each, l.target, origin)
		if f == nil {
			l.c.limited(say)
			nc.Close()
			continue
		}
		go func() { // ends with the connection
			defer f.done()
			l.serve(f, far)
		}()
		if l.single {
			l.terminate()
			return
		}
	}
}

// serve carries one connection that came in. It is asked of the policy by itself, so that
// nothing new begins while nobody can decide.
func (l *listener) serve(f *forward, far stream) {
	defer far.Close()
	if f.ask() != "" {
		return
	}
	var extra []byte
	if l.extra != nil {
		extra = l.extra(far)
	}
	ch, reqs, err := l.sc.OpenChannel(l.channel, extra)
	if err != nil {
		words := "the client did not take it"
		var no *gossh.OpenChannelError
		if errors.As(err, &no) {
			words += ": " + plain(clip(no.Message, 256))
		}
		f.note("failed", words)
		return
	}
	if f.open() != nil {
		ch.Close()
		go gossh.DiscardRequests(reqs)
		return
	}
	f.carry(ch, reqs, far)
}
