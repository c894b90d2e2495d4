package session

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gssh "github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"tssh/recording"
	"tssh/session/control"
)

// Bounds of what forwards carry.
const (
	dialTime  = 30 * time.Second // for a name's look-up and the connection
	drainTime = 10 * time.Second // for what a client sent before it closed
	maxHost   = 255
	maxPath   = 107 // of a unix socket, with its final 0 within sun_path
)

// forward is a connection that is carried, or a listener of the user's on this host. It
// is counted, numbered like a channel, asked of the policy and on record.
//
//	newForward --> ask --> granted: opened --> terminate | its ends --> done
//	                  \--> refused, failed -----------------------------/
type forward struct {
	c      *conn
	id     uint32
	kind   string // of the question to the policy
	typ    string // recording.Forward.Type
	target string
	origin string

	from     *listener // that it came in by; nil: none
	begun    time.Time
	up, down atomic.Int64 // bytes from the client, and to it
	opened   bool         // its event is written; owned by who made it
	stop     func() bool  // of the watch on the connection's context

	mu     sync.Mutex
	ended  bool // terminated: what is attached now is closed at once
	closes []io.Closer
}

// newForward counts one in, or says why not. Whoever gets one calls done.
func (c *conn) newForward(kind, typ, target, origin string) (*forward, string) {
	return c.countForward(nil, kind, typ, target, origin)
}

// countForward is newForward for what came in by a listener, unless that is nil. Who connects to
// one is not the client but any account of this host, whose connections it cannot see coming: one
// listener fills at most half of the room, and all of them three quarters.
func (c *conn) countForward(from *listener, kind, typ, target, origin string) (*forward, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := c.welcome.Forwards
	switch {
	case c.ctx.Err() != nil:
		return nil, "the connection is ending"
	case len(c.forwards) >= room:
		return nil, "too many forwards on one connection"
	case from != nil && (from.in >= max(1, room/2) || c.cameIn >= max(1, room*3/4)):
		return nil, "too many connections to a listener of this connection's"
	}
	if from != nil {
		from.in++
		c.cameIn++
	}
	c.last++
	f := &forward{c: c, id: c.last, from: from, kind: kind, typ: typ, target: clip(target, 1024), origin: clip(origin, 256), begun: time.Now()}
	c.forwards[f.id] = f
	c.handlers.Add(1)
	f.stop = context.AfterFunc(c.ctx, f.connectionEnded)
	return f, ""
}

// connectionEnded closes at once what the host ends. After the client's own end what it
// sent last is still delivered: carry sees the end of its channel and is bounded.
func (f *forward) connectionEnded() {
	var e ended
	if strings.HasSuffix(f.typ, "-listen") || !errors.As(context.Cause(f.c.ctx), &e) || e.cause != causeClosed {
		f.terminate()
	}
}

// attach names what terminate closes; false when that has happened already.
func (f *forward) attach(c ...io.Closer) bool {
	f.mu.Lock()
	ended := f.ended
	if !ended {
		f.closes = append(f.closes, c...)
	}
	f.mu.Unlock()
	if ended {
		closeAll(c)
	}
	return !ended
}

func closeAll(c []io.Closer) {
	for _, x := range c {
		go x.Close() // an SSH channel's can wait for the socket, and ends with it
	}
}

// terminate ends the forward on the host's initiative. It does not wait.
func (f *forward) terminate() {
	f.mu.Lock()
	f.ended = true
	all := f.closes
	f.closes = nil
	f.mu.Unlock()
	closeAll(all)
}

// ask asks the policy whether this one may be. Words mean no, and are on record.
func (f *forward) ask() string { return f.refused(f.try(f.target)) }

func (f *forward) try(target string) string {
	say, ok := f.c.ask(f.id, f.kind, target)
	if !ok && say == "" {
		say = "not allowed"
	}
	if ok {
		return ""
	}
	return say
}

func (f *forward) refused(say string) string {
	if say != "" {
		f.note("refused", say)
	}
	return say
}

func (f *forward) note(state, words string) {
	_ = f.c.recordJSON(f.id, recording.KindForward, recording.Forward{State: state, Type: f.typ, Target: f.target, Origin: f.origin, Error: clip(words, 512)})
}

// open records that the forward came to be. Nothing is carried before that.
func (f *forward) open() error {
	f.opened = true
	return f.c.recordJSON(f.id, recording.KindForward, recording.Forward{State: "open", Type: f.typ, Target: f.target, Origin: f.origin})
}

// done counts the forward out.
func (f *forward) done() {
	f.stop()
	f.terminate()
	if f.opened {
		_ = f.c.recordJSON(f.id, recording.KindForward, recording.Forward{State: "closed", Type: f.typ, Target: f.target, Origin: f.origin,
			Sent: f.up.Load(), Received: f.down.Load(), Millis: time.Since(f.begun).Milliseconds()})
	}
	f.c.mu.Lock()
	delete(f.c.forwards, f.id)
	if f.from != nil {
		f.from.in--
		f.c.cameIn--
	}
	f.c.mu.Unlock()
	f.c.mon.tell(control.Gone, &control.GoneMsg{Channel: f.id, In: f.up.Load(), Out: f.down.Load()})
	f.c.handlers.Done()
}

// stream is a connection whose two ways end one by one.
type stream interface {
	net.Conn
	CloseWrite() error
}

// carry joins the client's channel and a connection on this host until both ways have
// ended, or either side is gone. The channel's end of data becomes the connection's, and
// the other way round.
func (f *forward) carry(ch gossh.Channel, reqs <-chan *gossh.Request, far stream) {
	if !f.attach(ch, far) {
		go gossh.DiscardRequests(reqs)
		return
	}
	up := make(chan struct{})
	go func() { // ends with the client's end of data, or the channel
		defer close(up)
		if copyCounted(far, ch, &f.up, f.c.touch, f.c.mayCome) != nil {
			// The far end takes no more. It may still have something to say, so the
			// channel stays, and what comes is dropped lest its window fill.
			_, _ = io.Copy(io.Discard, ch)
		}
		_ = far.CloseWrite()
	}()
	closed := make(chan struct{})
	go func() { // ends with CLOSE, or the loss of the connection; only here they are seen
		defer close(closed)
		gossh.DiscardRequests(reqs)
		select {
		case <-up:
		case <-time.After(drainTime):
		}
		far.Close()
	}()
	if copyCounted(ch, far, &f.down, f.c.touch, f.c.mayFlow) != nil {
		ch.Close()
	} else {
		_ = ch.CloseWrite()
	}
	<-up
	ch.Close()
	<-closed
}

// copyCounted copies to the end of src, which is no error. It is written out because
// io.Copy would hand the work to the socket and its larger buffers. may waits until dst may have more.
func copyCounted(dst io.Writer, src io.Reader, n *atomic.Int64, touch, may func()) error {
	buf := make([]byte, pieceSize)
	for {
		r, err := src.Read(buf)
		if r > 0 {
			may()
			w, werr := dst.Write(buf[:r])
			n.Add(int64(w))
			touch()
			if werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// direct is what a direct-tcpip channel asks for (RFC 4254 section 7.2).
type direct struct {
	host       string
	port       uint32
	origin     string
	originPort uint32
}

func parseDirect(p payload) (direct, bool) {
	host, ok1 := p.str()
	port, ok2 := p.u32()
	origin, ok3 := p.str()
	originPort, ok4 := p.u32()
	if !ok1 || !ok2 || !ok3 || !ok4 || !goodHost(string(host)) || port < 1 || port > 65535 {
		return direct{}, false
	}
	return direct{string(host), port, string(origin), originPort & 0xffff}, true
}

// goodHost accepts what can be a name or an address, a zone included, and nothing that
// could read as something else in a log or a policy.
func goodHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_' || c == ':' || c == '%') {
			return false
		}
	}
	return true
}

func hostAndPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// goodPath accepts a path that says where it leads: from the root, without detours, short
// enough for an address. A leading @ would name a socket outside the file system.
func goodPath(s string) bool {
	return filepath.IsAbs(s) && len(s) <= maxPath && filepath.Clean(s) == s && strings.IndexByte(s, 0) < 0
}

// serveDirectTCP connects the client to an address as seen from this host.
func (c *conn) serveDirectTCP(_ *gssh.Server, sc *gossh.ServerConn, nc gossh.NewChannel, _ gssh.Context) {
	d, ok := parseDirect(nc.ExtraData())
	if !ok {
		c.refuseForward(nc, sc, "the address to connect to is malformed")
		return
	}
	c.serveDirect(sc, nc, "forward-local", "local", "tcp", hostAndPort(strings.ToLower(d.host), d.port), hostAndPort(d.origin, d.originPort))
}

// serveDirectUnix connects the client to a unix socket of this host (OpenSSH's PROTOCOL
// section 2.4).
func (c *conn) serveDirectUnix(_ *gssh.Server, sc *gossh.ServerConn, nc gossh.NewChannel, _ gssh.Context) {
	p := payload(nc.ExtraData())
	path, ok := p.str()
	if !ok || !goodPath(string(path)) {
		c.refuseForward(nc, sc, "the path of a unix socket must begin with / and have no detours")
		return
	}
	c.serveDirect(sc, nc, "forward-unix", "unix", "unix", string(path), "")
}

func (c *conn) refuseForward(nc gossh.NewChannel, sc *gossh.ServerConn, say string) {
	if c.ready(sc) == nil {
		c.note(0, "refused", clip(nc.ChannelType(), 64)+": "+say)
	}
	_ = nc.Reject(gossh.ConnectionFailed, say)
}

func (c *conn) serveDirect(sc *gossh.ServerConn, nc gossh.NewChannel, kind, typ, network, target, origin string) {
	if err := c.ready(sc); err != nil {
		_ = nc.Reject(gossh.Prohibited, plain(err.Error()))
		return
	}
	f, say := c.newForward(kind, typ, target, origin)
	if f == nil {
		c.limited(say)
		_ = nc.Reject(gossh.ResourceShortage, say)
		return
	}
	defer f.done()
	to, say := f.where(network)
	if say != "" {
		_ = nc.Reject(gossh.Prohibited, say)
		return
	}
	far, err := f.dial(network, to)
	if err != nil {
		f.note("failed", plainError(err))
		_ = nc.Reject(gossh.ConnectionFailed, plainError(err))
		return
	}
	if f.open() != nil {
		far.Close()
		_ = nc.Reject(gossh.Prohibited, "this session cannot be recorded any more")
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		far.Close()
		return
	}
	f.carry(ch, reqs, far)
}

// maxAddrs is how many addresses of a name are asked about.
const maxAddrs = 4

// where is what may be connected to: the target as the client named it, or where the
// policy has not the name, the first address of it that it has.
func (f *forward) where(network string) (to, say string) {
	named := f.target
	say = f.try(named)
	host, port, err := net.SplitHostPort(named)
	if say == "" || network != "tcp" || err != nil {
		return named, f.refused(say)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return named, f.refused(say)
	}
	ctx, cancel := context.WithTimeout(f.c.ctx, dialTime)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return named, f.refused(say)
	}
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		to := net.JoinHostPort(a.Unmap().String(), port)
		if f.try(to) == "" {
			return to, ""
		}
	}
	return named, f.refused(say)
}

// dial connects as the user; by the rules of this host what a program of the user's may
// reach, this may.
func (f *forward) dial(network, to string) (stream, error) {
	ctx, cancel := context.WithTimeout(f.c.ctx, dialTime)
	defer cancel()
	if !f.attach(closeFunc(cancel)) {
		return nil, errors.New("not allowed any more")
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	far, ok := nc.(stream)
	if !ok {
		nc.Close()
		return nil, errors.ErrUnsupported
	}
	return far, nil
}

type closeFunc func()

func (c closeFunc) Close() error { c(); return nil }

// plainError says what went wrong with a connection and leaves addresses out: the client
// named them.
func plainError(err error) string {
	var dns *net.DNSError
	var no syscall.Errno
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host name"
	case errors.As(err, &dns):
		return "the host name cannot be looked up"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &no):
		return no.Error()
	}
	return plain(clip(err.Error(), 256))
}

// maxLimitNotes bounds what one connection writes about its limits into its recording.
const maxLimitNotes = 20

func (c *conn) limited(say string) {
	if c.limitNotes.Add(1) <= maxLimitNotes {
		c.note(0, "limit", say)
	}
}
