package serve

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tssh/policy"
)

// The headers that say who asks. Everything that begins with headerPrefix is ours.
const (
	headerPrefix = "Tssh-"
	HeaderLogin  = "Tssh-Login" // a person's login; absent for a machine with tags
	HeaderTags   = "Tssh-Tags"  // of a machine, with commas between
	HeaderNode   = "Tssh-Node"  // the name of the node that asks
)

const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
	maxStreams = 100 // at a time, of one HTTP/2 connection
)

// oneConn is a listener that gives one connection, and ends when that does.
type oneConn struct {
	c     *conn
	given sync.Once
}

func (o *oneConn) Accept() (c net.Conn, err error) {
	o.given.Do(func() { c = o.c })
	if c != nil {
		return c, nil
	}
	<-o.c.gone
	return nil, net.ErrClosed
}

func (o *oneConn) Close() error   { return nil }
func (o *oneConn) Addr() net.Addr { return o.c.LocalAddr() }

// serveHTTP answers the requests of one connection. Server and transport are its own: who
// asks is a value here, and no connection to the program is shared by two peers.
func (p *served) serveHTTP(m *Mesh, x *conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the connection
		<-x.gone
		cancel()
	}()
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	h := &handler{p: p, m: m, x: x, one: p.transport(false), two: p.transport(true)}
	defer h.one.CloseIdleConnections()
	defer h.two.CloseIdleConnections()
	quiet := slog.NewLogLogger(p.s.log.Handler(), slog.LevelDebug)
	h.proxy = &httputil.ReverseProxy{Rewrite: h.rewrite, Transport: h, FlushInterval: -1, ErrorHandler: h.failed, ErrorLog: quiet}
	srv := &http.Server{
		Handler: h, Protocols: &both, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams}, ErrorLog: quiet,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew: // before its goroutine starts
				h.wg.Add(1)
			case http.StateClosed, http.StateHijacked:
				h.wg.Done()
			}
		},
	}
	srv.Serve(&oneConn{c: x}) // ends with the connection
	h.wg.Wait()
}

// transport reaches the program in the version of HTTP in which the peer asked.
func (p *served) transport(two bool) *http.Transport {
	var v http.Protocols
	v.SetHTTP1(!two)
	v.SetUnencryptedHTTP2(two)
	return &http.Transport{
		Protocols: &v, DisableCompression: true, IdleConnTimeout: idleTime, MaxIdleConnsPerHost: 4, MaxResponseHeaderBytes: 1 << 20,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := p.dial(ctx)
			if err != nil {
				return nil, &downError{err}
			}
			return c, nil
		},
	}
}

// downError is that the program does not take connections.
type downError struct{ err error }

func (e *downError) Error() string { return e.err.Error() }
func (e *downError) Unwrap() error { return e.err }

// handler is for one connection.
type handler struct {
	p        *served
	m        *Mesh
	x        *conn
	proxy    *httputil.ReverseProxy
	one, two *http.Transport
	wg       sync.WaitGroup
}

func (h *handler) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.ProtoMajor == 2 {
		return h.two.RoundTrip(r)
	}
	return h.one.RoundTrip(r)
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.wg.Add(1)
	defer h.wg.Done()
	if status, words := h.refuse(r); status != 0 {
		say(w, status, words)
		return
	}
	if r.ProtoMajor == 1 {
		// Answers may begin while the request is still coming, as with the program itself.
		http.NewResponseController(w).EnableFullDuplex()
	}
	h.proxy.ServeHTTP(w, r)
}

// refuse is for requests that a browser makes on behalf of a page from elsewhere: the
// address that they come from is the person's, and the page is not.
func (h *handler) refuse(r *http.Request) (int, string) {
	if r.Method == http.MethodConnect {
		return http.StatusMethodNotAllowed, "CONNECT is not offered here"
	}
	if r.Host != "" && !h.own(r.Host) {
		return http.StatusMisdirectedRequest, "this is not the host that was asked for: use the name or the mesh address of this node"
	}
	up := upgrades(r.Header)
	if up != "" && !strings.EqualFold(up, "websocket") {
		// Behind another one could come requests that nobody looks at.
		return http.StatusNotImplemented, "of protocols to upgrade to, websocket alone is offered here; tssh serve --tcp passes on everything"
	}
	if up == "" && slices.Contains([]string{"GET", "HEAD", "OPTIONS"}, r.Method) {
		return 0, ""
	}
	origins := r.Header["Origin"]
	if len(origins) > 0 {
		u, err := url.Parse(origins[0])
		if len(origins) != 1 || err != nil || u.Scheme != "http" && u.Scheme != "https" || !h.ownPage(u) {
			return http.StatusForbidden, "a page of another site may not do that here"
		}
		return 0, ""
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return http.StatusForbidden, "a page of another site may not do that here"
	}
	return 0, ""
}

// own reports whether a host, with or without a port, is this node.
func (h *handler) own(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	self, mesh := h.m.Self()
	if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return slices.Contains(self.Addrs, a.Unmap())
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name != "" && (name == self.Name || name == self.Name+"."+mesh+".internal")
}

// ownPage reports whether a page is this node's. On a person's computer that is any port: what
// is developed there has its parts at several. On a machine with tags others than those who may
// serve have accounts, and listen for the mesh too: there it is a port that the same person serves.
func (h *handler) ownPage(u *url.URL) bool {
	if !h.own(u.Host) {
		return false
	}
	if self, _ := h.m.Self(); self.User != "" {
		return true
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (uint16(n) == h.p.Port.Port || h.p.s.serves(uint16(n), h.p.UID))
}

// serves reports whether the port is served for uid.
func (s *Server) serves(port uint16, uid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[port]
	return p != nil && p.UID == uid
}

// upgrades is the protocol that a request wants to change to.
func upgrades(h http.Header) string {
	for _, v := range h["Connection"] {
		for _, t := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), "upgrade") {
				return strings.Join(h["Upgrade"], ",")
			}
		}
	}
	return ""
}

// rewrite makes the request to the program: what says who asks is ours alone.
func (h *handler) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", net.JoinHostPort("localhost", strconv.Itoa(int(h.p.Target)))
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came, also where Go could not parse it
	strip(r.Out.Header)
	strip(r.Out.Trailer)
	r.SetXForwarded()
	identify(r.Out.Header, h.x.id)
}

// strip removes what claims an identity. Programs that see headers as variables take "_"
// for "-", so a name is compared in its letters and digits.
func strip(h http.Header) {
	for k := range h {
		if claims(k) {
			delete(h, k)
		}
	}
}

func claims(name string) bool {
	plain := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, name)
	for _, p := range []string{"tssh-", "tailscale-", "x-webauth-", "x-auth-request-", "x-goog-authenticated-user-", "cf-access-", "remote-", "x-remote-", "x-authentik-"} {
		if strings.HasPrefix(plain, p) {
			return true
		}
	}
	switch plain {
	case "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username", "x-forwarded-access-token",
		"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-server", "x-real-ip", "forwarded", "x-client-ip", "true-client-ip",
		"x-user", "x-authenticated-user", "x-ssl-client-dn", "ssl-client-s-dn":
		return true
	}
	return false
}

// identify writes who asks. What is not ASCII is encoded as RFC 2047 has it.
func identify(h http.Header, id policy.Identity) {
	if id.User != "" {
		h.Set(HeaderLogin, encode(string(id.User)))
	} else {
		h.Set(HeaderTags, id.Who())
	}
	h.Set(HeaderNode, encode(id.Name))
}

// encode is RFC 2047's, also for what would be taken for an encoded word of another name.
func encode(s string) string {
	if strings.Contains(s, "=?") {
		return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
	}
	return mime.QEncoding.Encode("utf-8", s)
}

// failed answers when the program did not.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	var down *downError
	h.p.s.log.Debug("served program", "port", h.p.Port.Port, "target", h.p.Target, "err", err)
	switch {
	case r.Context().Err() != nil:
		say(w, http.StatusBadGateway, "the request was given up") // nobody reads it
	case errors.As(err, &down):
		say(w, http.StatusBadGateway, fmt.Sprintf("the program that is served here (port %d of this computer's loopback) does not answer: it is not running, or not there", h.p.Target))
	default:
		say(w, http.StatusBadGateway, "the program that is served here did not answer as HTTP has it")
	}
}

func say(w http.ResponseWriter, status int, words string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintf(w, "tssh: %s\n", words)
}
