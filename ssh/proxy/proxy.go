// Package proxy is a SOCKS 5 and HTTP proxy on one port, through which programs reach a
// mesh that their own computer has no network device for.
//
//	curl, git, a browser --SOCKS 5 CONNECT-------\
//	                     --HTTP CONNECT-----------+--> Config.Dial(host, port) --> the mesh
//	                     --GET http://host/...---/
//
// # Trust
//
// Everybody who can connect to the listener acts as the one who runs it, so Config.Admit
// is asked about each connection first. A web page cannot make a browser speak SOCKS or
// CONNECT to a port of loopback, but it can have it send an ordinary request there, under
// a name of the page's own that was bound to 127.0.0.1 for the purpose. Such a request has
// a path where a proxy's has a whole URL, and is refused; a whole URL is followed to the
// host it names and nowhere else, whatever the Host header says (RFC 9112, section 3.2.2).
//
// Bounded: 256 connections at a time, 30 s for what a client has to say first, headers of
// 64 KiB. The protocol is told by the first byte: 5 is SOCKS.
package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"tssh/ssh/socks"
)

const (
	maxConns  = 256
	patience  = 30 * time.Second
	maxHeader = 64 << 10
)

// Refusal is an error of Dial that says no host may be reached there, in words for the client.
type Refusal struct{ Words string }

func (r *Refusal) Error() string { return r.Words }

// Config is what Serve needs.
type Config struct {
	// Dial connects to a host as the client named it. It checks the name: it comes from the client.
	Dial func(ctx context.Context, host string, port uint16) (net.Conn, error)
	// Admit says whether the client of a connection may use the proxy; nil: yes.
	Admit func(net.Conn) error
	// Refused is told what was not done, one line of clean words each time; may be nil.
	Refused func(host string, err error)
	Log     *slog.Logger
}

type server struct {
	cfg Config
	web *queue
}

// Serve answers on l until ctx ends. It returns after its last connection.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{cfg: cfg, web: &queue{Listener: l, conns: make(chan net.Conn), done: ctx.Done()}}
	h := &http.Server{Handler: s.handler(ctx), ReadHeaderTimeout: patience, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	var wg sync.WaitGroup
	wg.Go(func() { h.Serve(s.web) }) // ends with ctx, through the queue
	stop := context.AfterFunc(ctx, func() { l.Close(); h.Close() })
	defer stop()
	slots := make(chan struct{}, maxConns)
	var err error
	for {
		var c net.Conn
		if c, err = l.Accept(); err != nil {
			break
		}
		select {
		case slots <- struct{}{}:
		default:
			cfg.Log.Warn("proxy: too many connections", "limit", maxConns)
			c.Close()
			continue
		}
		held := &conn{Conn: c, gone: make(chan struct{})}
		wg.Go(func() { // ends with the connection
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { held.Close() })
			defer stop()
			s.serve(ctx, held)
			<-held.gone
		})
	}
	cancel()
	h.Close()
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// conn is a client's connection, of which a byte was looked at.
type conn struct {
	net.Conn
	r    *bufio.Reader
	once sync.Once
	gone chan struct{} // closed by Close
}

func (c *conn) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.gone) })
	return err
}
func (c *conn) CloseWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return c.Close()
}

// queue hands the HTTP connections to the http.Server.
type queue struct {
	net.Listener
	conns chan net.Conn
	done  <-chan struct{}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (s *server) serve(ctx context.Context, c *conn) {
	if s.cfg.Admit != nil {
		if err := s.cfg.Admit(c.Conn); err != nil {
			s.refused("", err)
			c.Close()
			return
		}
	}
	c.r = bufio.NewReader(c.Conn)
	c.SetDeadline(time.Now().Add(patience))
	first, err := c.r.Peek(1)
	if err != nil {
		c.Close()
		return
	}
	if first[0] != socks.Version {
		c.SetDeadline(time.Time{})
		select {
		case s.web.conns <- c:
		case <-ctx.Done():
			c.Close()
		}
		return
	}
	defer c.Close()
	host, port, err := socks.Request(c)
	if err != nil {
		s.refused("", err)
		return
	}
	far, err := s.dial(ctx, host, port)
	if err != nil {
		code := socks.Unreachable
		if isRefusal(err) {
			code = socks.NotAllowed
		}
		socks.Reply(c, code)
		return
	}
	defer far.Close()
	if socks.Reply(c, socks.Granted) != nil {
		return
	}
	c.SetDeadline(time.Time{})
	join(ctx, c, far)
}

func (s *server) dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	if port == 0 {
		return nil, &Refusal{"port 0 is no port"}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := s.cfg.Dial(ctx, host, port)
	if err != nil {
		s.refused(host, err)
	}
	return c, err
}

func (s *server) refused(host string, err error) {
	if s.cfg.Refused != nil {
		s.cfg.Refused(host, err)
	}
}

func isRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

// handler is the HTTP half.
func (s *server) handler(ctx context.Context) http.Handler {
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		host, port, err := split(addr)
		if err != nil {
			return nil, err
		}
		return s.dial(ctx, host, port)
	}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(*httputil.ProxyRequest) {}, // as it came, without the hop-by-hop headers
		Transport:     &http.Transport{DialContext: dial, MaxIdleConns: 32, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, err error) { tell(w, err) },
	}
	context.AfterFunc(ctx, forward.Transport.(*http.Transport).CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect:
			s.tunnel(ctx, w, r)
		case r.URL.IsAbs() && r.URL.Scheme == "http" && r.URL.Host != "" && r.URL.User == nil:
			forward.ServeHTTP(w, r)
		case r.URL.IsAbs():
			tell(w, &Refusal{"only http URLs are forwarded; others go through CONNECT"})
		default:
			http.Error(w, "tssh: this is a proxy and no web server", http.StatusMisdirectedRequest)
		}
	})
}

// tell answers a request that was not carried out.
func tell(w http.ResponseWriter, err error) {
	code := http.StatusBadGateway
	if isRefusal(err) {
		code = http.StatusForbidden
	}
	http.Error(w, "tssh: "+words(err), code)
}

// words is the innermost of what went wrong: net/http wraps it in its own.
func words(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Words
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// tunnel is CONNECT.
func (s *server) tunnel(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	host, port, err := split(r.Host)
	if err != nil {
		http.Error(w, "tssh: "+err.Error(), http.StatusBadRequest)
		return
	}
	far, err := s.dial(r.Context(), host, port)
	if err != nil {
		tell(w, err)
		return
	}
	defer far.Close()
	near, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	near.SetDeadline(time.Time{})
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	early, _ := buf.Reader.Peek(buf.Reader.Buffered())
	if _, err := far.Write(early); err != nil {
		return
	}
	join(ctx, near, far)
}

func split(addr string) (string, uint16, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil || host == "" || strings.ContainsAny(host, "/@") {
		return "", 0, &Refusal{"HOST:PORT is wanted"}
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil || port == 0 {
		return "", 0, &Refusal{"HOST:PORT is wanted"}
	}
	return host, uint16(port), nil
}

// join copies both ways until both directions have ended, one has failed, or ctx has ended.
func join(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		_, err := io.Copy(dst, src)
		if hc, ok := dst.(interface{ CloseWrite() error }); ok && err == nil && hc.CloseWrite() == nil {
			return
		}
		a.Close()
		b.Close()
	}
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
}
