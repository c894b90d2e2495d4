package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// directTCPIP opens a connection from the host to an address, RFC 4254 section 7.2.
type directTCPIP struct {
	Host       string
	Port       uint32
	Origin     string
	OriginPort uint32
}

// Connect opens one TCP connection from the host to host:port.
func (c *Client) Connect(host string, port uint16) (gossh.Channel, error) {
	ch, reqs, err := c.conn.OpenChannel("direct-tcpip", gossh.Marshal(directTCPIP{host, uint32(port), "127.0.0.1", 0}))
	if err != nil {
		return nil, c.openError(fmt.Sprintf("a connection to %s", line(net.JoinHostPort(host, strconv.Itoa(int(port))))), err)
	}
	go gossh.DiscardRequests(reqs) // ends with the channel
	return ch, nil
}

// Stream joins standard input and output to one TCP connection from the host (-W). It
// returns when the far end has said all it had to say.
func (c *Client) Stream(ctx context.Context, host string, port uint16, in io.Reader, out io.Writer) error {
	ch, err := c.Connect(host, port)
	if err != nil {
		return err
	}
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	go func() { // ends with the next read of in
		io.Copy(ch, in)
		ch.CloseWrite()
	}()
	if _, err := io.Copy(out, ch); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("ssh: stream: %w", err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return nil
}

// Forwards are the forwardings of one connection. Connections that cannot be made are told
// to Notice and do not end the others.
type Forwards struct {
	c      *Client
	Notice func(string)

	mu     sync.Mutex
	closed bool
	closes map[io.Closer]struct{} // listeners and near connections that are open
	wg     sync.WaitGroup
}

// NewForwards is for the connection c; Close ends and waits for all that it started.
func (c *Client) NewForwards(notice func(string)) *Forwards {
	if notice == nil {
		notice = func(string) {}
	}
	return &Forwards{c: c, Notice: notice, closes: map[io.Closer]struct{}{}}
}

// Close ends the listeners and the connections through them.
func (f *Forwards) Close() {
	f.mu.Lock()
	f.closed = true
	all := f.closes
	f.closes = map[io.Closer]struct{}{}
	f.mu.Unlock()
	for c := range all {
		c.Close()
	}
	f.wg.Wait()
}

// keep closes c at the end; false when the end was before.
func (f *Forwards) keep(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		c.Close()
		return false
	}
	f.closes[c] = struct{}{}
	return true
}

func (f *Forwards) drop(c io.Closer) {
	c.Close()
	f.mu.Lock()
	delete(f.closes, c)
	f.mu.Unlock()
}

// Local carries connections to l on to host:port as seen from the host (-L).
func (f *Forwards) Local(l net.Listener, host string, port uint16) {
	f.accept(l, func(c net.Conn) (io.ReadWriteCloser, error) { return f.c.Connect(host, port) })
}

// Dynamic serves SOCKS 5 on l (-D).
func (f *Forwards) Dynamic(l net.Listener) {
	f.accept(l, func(c net.Conn) (io.ReadWriteCloser, error) { return dynamic(c, f.c.Connect) })
}

// Remote asks the host to listen at bind and carries connections to addr here (-R). It
// returns the port the host took.
func (f *Forwards) Remote(bind, addr string) (int, error) {
	l, err := f.c.conn.Listen("tcp", bind)
	if err != nil {
		return 0, failure(CodeDenied, err, "%s refused to listen on %s for us", f.c.cfg.Host, line(bind))
	}
	port := 0
	if t, ok := l.Addr().(*net.TCPAddr); ok {
		port = t.Port
	}
	f.accept(l, func(net.Conn) (io.ReadWriteCloser, error) { return net.Dial("tcp", addr) })
	return port, nil
}

func (f *Forwards) accept(l net.Listener, far func(net.Conn) (io.ReadWriteCloser, error)) {
	if !f.keep(l) {
		return
	}
	f.wg.Go(func() { // ends when the listener is closed
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			if !f.keep(near) {
				return
			}
			f.wg.Go(func() { // ends with either connection
				defer f.drop(near)
				other, err := far(near)
				if err != nil {
					f.Notice(line(err.Error()))
					return
				}
				defer other.Close()
				joinStreams(near, other)
			})
		}
	})
}

// joinStreams copies both ways and passes half-closes on.
func joinStreams(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	one := func(dst, src io.ReadWriteCloser) {
		_, err := io.Copy(dst, src)
		if hc, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
			hc.CloseWrite()
			return
		}
		dst.Close()
		src.Close()
	}
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
}

// ServeAgent answers the host's questions to the ssh-agent at the socket path. It is only
// reached in sessions that asked for it.
func (c *Client) ServeAgent(path string) error {
	if err := agent.ForwardToRemote(c.conn, path); err != nil {
		return fmt.Errorf("ssh: agent: %w", err)
	}
	return nil
}
