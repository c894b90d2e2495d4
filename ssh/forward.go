package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
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

// Endpoint is one end of a forward. As the far end of -R it may also be nothing: then the
// connections speak SOCKS here and say themselves where to.
type Endpoint struct {
	Host string
	Port uint16
	Path string // of a unix socket, instead of both
}

func (e Endpoint) String() string {
	if e.Path != "" {
		return line(e.Path)
	}
	return line(net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
}

// dial connects from here.
func (e Endpoint) dial() (net.Conn, error) {
	if e.Path != "" {
		return net.Dial("unix", e.Path)
	}
	return net.Dial("tcp", net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
}

// Connect opens one TCP connection from the host to host:port.
func (c *Client) Connect(host string, port uint16) (gossh.Channel, error) {
	return c.ConnectTo(Endpoint{Host: host, Port: port}, nil)
}

// ConnectTo opens one connection from the host. From is where it comes from here, for the
// host's log; nil is this program.
func (c *Client) ConnectTo(e Endpoint, from net.Addr) (gossh.Channel, error) {
	kind, extra := "direct-streamlocal@openssh.com", gossh.Marshal(struct {
		Path, Reserved string
		Port           uint32
	}{e.Path, "", 0})
	if e.Path == "" {
		origin, port := "127.0.0.1", 0
		if t, ok := from.(*net.TCPAddr); ok {
			origin, port = t.IP.String(), t.Port
		}
		kind, extra = "direct-tcpip", gossh.Marshal(directTCPIP{e.Host, uint32(e.Port), origin, uint32(port)})
	}
	ch, reqs, err := c.conn.OpenChannel(kind, extra)
	if err != nil {
		return nil, c.openError("a connection to "+e.String(), err)
	}
	go gossh.DiscardRequests(reqs) // ends with the channel
	return ch, nil
}

// Stream joins standard input and output to one TCP connection from the host (-W). It
// returns when the far end has said all it had to say.
func (c *Client) Stream(ctx context.Context, host string, port uint16, in io.Reader, out io.Writer) error {
	return c.StreamTo(ctx, Endpoint{Host: host, Port: port}, in, out)
}

// StreamTo is Stream to either kind of endpoint.
func (c *Client) StreamTo(ctx context.Context, e Endpoint, in io.Reader, out io.Writer) error {
	ch, err := c.ConnectTo(e, nil)
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
	if err := c.Err(); err != nil {
		return err // lost in the middle, not the end of it
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
	closes map[io.Closer]string // listeners and near connections that are open, in words
	wg     sync.WaitGroup
}

// NewForwards is for the connection c; Close ends and waits for all that it started.
func (c *Client) NewForwards(notice func(string)) *Forwards {
	if notice == nil {
		notice = func(string) {}
	}
	return &Forwards{c: c, Notice: notice, closes: map[io.Closer]string{}}
}

// Close ends the listeners and the connections through them.
func (f *Forwards) Close() {
	f.mu.Lock()
	f.closed = true
	all := f.closes
	f.closes = map[io.Closer]string{}
	f.mu.Unlock()
	for c := range all {
		c.Close()
	}
	f.wg.Wait()
}

// Open says what listens here and what is connected, a line each.
func (f *Forwards) Open() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Values(f.closes))
}

// keep closes c at the end; false when the end was before.
func (f *Forwards) keep(c io.Closer, words string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		c.Close()
		return false
	}
	f.closes[c] = words
	return true
}

func (f *Forwards) drop(c io.Closer) {
	c.Close()
	f.mu.Lock()
	delete(f.closes, c)
	f.mu.Unlock()
}

// Local carries connections to l on to an endpoint as seen from the host (-L).
func (f *Forwards) Local(l net.Listener, to Endpoint) {
	f.accept(l, " for "+to.String(), func(c net.Conn) (io.ReadWriteCloser, error) { return f.c.ConnectTo(to, c.RemoteAddr()) })
}

// Dynamic serves SOCKS 5 on l (-D).
func (f *Forwards) Dynamic(l net.Listener) {
	f.accept(l, " as a SOCKS proxy", func(c net.Conn) (io.ReadWriteCloser, error) {
		return dynamic(c, func(host string, port uint16) (io.ReadWriteCloser, error) {
			ch, err := f.c.ConnectTo(Endpoint{Host: host, Port: port}, c.RemoteAddr())
			if err != nil {
				return nil, err // not a nil channel in an interface
			}
			return ch, nil
		})
	})
}

func (f *Forwards) accept(l net.Listener, where string, far func(net.Conn) (io.ReadWriteCloser, error)) {
	if !f.keep(l, "listens on "+line(l.Addr().String())+where) {
		return
	}
	f.wg.Go(func() { // ends when the listener is closed
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			if !f.keep(near, "connection from "+fromWords(near)+where) {
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

// fromWords is where a connection comes from; a program at a unix socket has no name.
func fromWords(c net.Conn) string {
	if a := c.RemoteAddr(); a != nil && a.String() != "" && a.String() != "@" {
		return line(a.String())
	}
	return "a program here"
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
