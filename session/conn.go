package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gssh "github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"tssh/recording"
	"tssh/session/control"
	"tssh/session/launch"
)

// Causes of an end, as the recording's End event and the audit log have them.
const (
	causeClosed   = "closed"          // the client, or the network
	causeRevoked  = "revoked"         // the monitor took the right away
	causeRecorder = "recorder-failed" // the journal took no more
	causeShutdown = "shutdown"        // no monitor, and it cannot or must not go on
	causeTimeout  = "timeout"         // the client no longer answers
	causeIdle     = "idle"            // longer than the rule allows
	causeExpired  = "expired"         // the monitor: longer, or at another time, than the rule allows
	causeEnded    = "terminated"      // the monitor: somebody who may ended it
)

// conn is one SSH connection.
type conn struct {
	mon      *monitor
	welcome  control.WelcomeMsg
	hostKeys []gossh.Signer
	tight    limits

	// The monitor's words can come at any time, also in the middle of the handshake.
	sock    atomic.Pointer[greeted]
	preAuth atomic.Pointer[gossh.ServerPreAuthConn]
	grant   atomic.Pointer[control.GoMsg] // nil until the process is the user

	// Written during the handshake by its goroutine, before grant; read by others only
	// after they saw a grant.
	bound   string // the login name that the grant is about
	acc     launch.Account
	starter *launch.Starter
	journal *recording.Journal

	handlers sync.WaitGroup                   // channels being served
	alive    sync.Once                        // starts what runs beside the channels
	server   atomic.Pointer[gossh.ServerConn] // from the first channel on

	active atomic.Int64 // when something happened last, for the idle limit; UnixNano

	ctx context.Context // its cause is why the connection ended
	end context.CancelCauseFunc

	held, paused gate         // output and forwards; what the client sends
	full         atomic.Int64 // since when the journal has no room, UnixNano; 0: it has
	stopping     atomic.Bool  // stop was called

	pieces     pieces       // files that go through several handles of sftp
	agentMu    sync.Mutex   // one session at a time asks for the agent; before mu
	noMore     atomic.Bool  // the client will open no more sessions
	limitNotes atomic.Int32 // notes about limits in the recording

	mu        sync.Mutex
	channels  map[uint32]*channel  // open ones
	forwards  map[uint32]*forward  // open ones, listeners included
	listeners map[string]*listener // those that the client can take back
	cameIn    int                  // of the forwards, those that came in by a listener
	agentAt   string               // path of the agent's socket, "" without one
	last      uint32               // number of the newest channel or forward
	programs  []*program           // started ones that may still run something
}

// ended is the cause of ctx.
type ended struct{ cause, text string }

func (e ended) Error() string { return e.cause + ": " + e.text }

// serve is the connection from its socket to its end.
func serve(nc net.Conn, ctl *control.Conn, tight limits) error {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	c := &conn{mon: newMonitor(ctl), tight: tight, channels: map[uint32]*channel{}, forwards: map[uint32]*forward{}, listeners: map[string]*listener{}, ctx: ctx, end: end}
	c.mon.onRevoke = c.revoked
	c.mon.onKeep = c.keep
	c.mon.onNotice = c.notice
	c.mon.onLost = c.lost
	go c.mon.listen(ctl) // ends with the socket, which the end of the process closes

	body, _, err := c.mon.call(control.Hello, &control.HelloMsg{Version: control.Version})
	if err != nil {
		return err
	}
	w, ok := body.(*control.WelcomeMsg)
	if !ok || w.Version != control.Version {
		return fmt.Errorf("monitor of another version, or %T as its welcome", body)
	}
	c.welcome = *w
	for i, b := range w.HostKeys {
		pub, err := gossh.ParsePublicKey(b)
		if err != nil {
			return fmt.Errorf("host key %d: %w", i, err)
		}
		c.hostKeys = append(c.hostKeys, &remoteKey{mon: c.mon, n: i, pub: pub})
	}
	if err := nc.SetDeadline(time.Now().Add(w.Grace)); err != nil {
		return fmt.Errorf("deadline: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { closeGently(nc) })
	defer stop()
	g, algorithms, err := greet(&peerConn{nc, addr(w.Remote), addr(w.Local)})
	if err != nil {
		c.mon.close(causeClosed, err.Error())
		return nil // not an error of ours: the client's first words were none
	}
	if err := nc.SetDeadline(time.Now().Add(w.Grace)); err != nil {
		return fmt.Errorf("deadline: %w", err)
	}
	c.sock.Store(g)

	failed := error(nil)
	srv := &gssh.Server{
		ServerConfigCallback: func(lib gssh.Context) *gossh.ServerConfig {
			go c.awaitLogin(lib) // ends with the login, or the connection
			return c.config(algorithms)
		},
		ConnectionFailedCallback: func(_ net.Conn, err error) { failed = err },
		ChannelHandlers: map[string]gssh.ChannelHandler{
			"session":                        c.serveSession,
			"direct-tcpip":                   c.serveDirectTCP,
			"direct-streamlocal@openssh.com": c.serveDirectUnix,
			"default":                        c.refuseChannel,
		},
		RequestHandlers: map[string]gssh.RequestHandler{
			"default": c.globalRequest,
		},
	}
	srv.HandleConn(g)
	if sc := c.server.Load(); sc != nil {
		failed = broken(sc.Wait())
	}
	c.finish(failed)
	return nil
}

// broken is what a client did against the protocol, of the error that its connection ended
// with; nil when the connection is just over. The library has no types for these.
func broken(err error) error {
	var left *net.OpError
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &left) || strings.HasPrefix(err.Error(), "ssh: disconnect, reason ") {
		return nil
	}
	return fmt.Errorf("the client broke the protocol: %w", err)
}

// partTime is how long a client gets to close its side after ours.
const partTime = 500 * time.Millisecond

// closeGently ends a connection so that the client can read what was written last: closed
// with bytes of the client's unread, TCP would reset it and our last words would be lost.
func closeGently(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		time.AfterFunc(partTime, func() { nc.Close() })
		return
	}
	nc.Close()
}

// addr is an address in words.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

// peerConn is the socket with the addresses of the connection it stands for: with a
// userspace mesh the socket itself only leads to the monitor.
type peerConn struct {
	net.Conn
	remote, local addr
}

func (p *peerConn) RemoteAddr() net.Addr { return p.remote }
func (p *peerConn) LocalAddr() net.Addr  { return p.local }

func (p *peerConn) CloseWrite() error {
	if h, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// begin runs when an attempt has succeeded, before the client is told: it binds the login
// name, gets the account and the journal, and becomes the user. When it cannot, the
// connection is over before a channel could be opened.
func (c *conn) begin(m gossh.ConnMetadata) {
	say, err := c.becomeUser(m.User(), string(m.ClientVersion()))
	if err == nil {
		err = c.sock.Load().SetDeadline(time.Time{})
	}
	if err == nil {
		return
	}
	if say == "" {
		say = "this host could not start your session"
	}
	fmt.Fprintln(os.Stderr, "tsshd conn: begin:", err)
	c.grant.Store(nil)
	c.refuse(say)
	c.end(ended{causeShutdown, err.Error()})
}

func (c *conn) becomeUser(user, client string) (say string, err error) {
	body, file, err := c.mon.call(control.Begin, &control.BeginMsg{User: user, Client: clip(client, 255)})
	if err != nil {
		return "", err
	}
	g, ok := body.(*control.GoMsg)
	if !ok {
		return "", fmt.Errorf("monitor: %T as the answer to begin", body)
	}
	if !g.OK {
		return g.Say, errors.New("monitor: refused at begin")
	}
	switch {
	case file == nil && g.Unrecorded:
		c.journal = recording.NewJournal(io.Discard, g.Start)
		c.journal.Drop()
	case file == nil || g.Unrecorded:
		return "", errors.New("monitor: a journal where there should be none, or none where there should be")
	default:
		c.journal = recording.NewJournal(file, g.Start)
	}
	c.acc = launch.Account{Name: g.Account.Name, UID: g.Account.UID, GID: g.Account.GID, Groups: g.Account.Groups, Home: g.Account.Home, Shell: g.Account.Shell}
	c.starter = launch.NewStarter(c.acc.UID)
	if err := c.starter.SELinux(c.acc); err != nil {
		return "this host could not find the SELinux context of your account", err
	}
	if err := launch.Become(c.acc); err != nil {
		return "", err
	}
	if err := c.tight.loosen(); err != nil {
		return "", err
	}
	syscall.Umask(launch.Umask())
	c.bound = user
	c.grant.Store(g)
	if g.Pause > 0 {
		c.journal.OnFull(c.awaitRoom)
	}
	return "", nil
}

// awaitLogin starts what runs beside the channels also for a client that opens none and
// asks for nothing. The library has no word for the end of the handshake; it shows by the
// connection being there, which is all that is taken from its context.
func (c *conn) awaitLogin(lib gssh.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		if sc, ok := lib.Value(gssh.ContextKeyConn).(*gossh.ServerConn); ok {
			_ = c.ready(sc)
			return
		}
	}
}

// ready checks in every handler that the finished connection is the one that was
// granted, and starts the keepalive at the first.
func (c *conn) ready(sc *gossh.ServerConn) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if c.grant.Load() == nil || sc.User() != c.bound {
		c.end(ended{causeShutdown, "the login name changed"})
		return errors.New("not logged in")
	}
	c.server.Store(sc)
	c.alive.Do(func() {
		go c.watchIdle(c.grant.Load().Idle) // ends with the connection
		go c.keepalive(sc)                  // ends with the connection
		go c.offerHostKeys(sc)              // ends with a write, or the connection
	})
	return nil
}

// refuseChannel answers channel types that are not served.
func (c *conn) refuseChannel(_ *gssh.Server, sc *gossh.ServerConn, nc gossh.NewChannel, _ gssh.Context) {
	if err := c.ready(sc); err != nil {
		_ = nc.Reject(gossh.Prohibited, plain(err.Error()))
		return
	}
	c.note(0, "refused", "channel "+clip(nc.ChannelType(), 64))
	_ = nc.Reject(gossh.UnknownChannelType, "not served here")
}

// askUnserved asks the policy about what this server does not do yet, so that the
// refusal, too, is decided and on record. It returns the words for the client.
func (c *conn) askUnserved(ch uint32, kind, target string) string {
	say, ok := c.ask(ch, kind, target)
	if ok {
		say = "this is not served by this host"
	}
	c.note(ch, "refused", clip(kind+" "+target, 1024))
	return say
}

// ask asks the monitor for one more thing. The words are for the person.
func (c *conn) ask(ch uint32, kind, target string) (say string, ok bool) {
	if len(target) > maxTarget {
		// The line feed keeps a command that was cut off from being taken for a whole one.
		target = clip(target, maxTarget) + "\n(cut off)"
	}
	body, _, err := c.mon.call(control.Ask, &control.AskMsg{Channel: ch, Kind: kind, Target: target})
	if err != nil {
		if errors.Is(err, errAway) {
			return errAway.Error(), false
		}
		return "this host cannot decide at the moment", false
	}
	a, isAnswer := body.(*control.AnswerMsg)
	if !isAnswer {
		return "this host cannot decide at the moment", false
	}
	return plain(a.Say), a.OK
}

// maxTarget keeps an ask within a control message, whatever JSON makes of its bytes.
const maxTarget = 8 << 10

// record appends an event; a journal that takes no more ends the connection.
func (c *conn) record(ch uint32, k recording.Kind, data []byte) error {
	return c.recorded(c.journal.Append(ch, k, data))
}

func (c *conn) recordJSON(ch uint32, k recording.Kind, v any) error {
	return c.recorded(c.journal.AppendJSON(ch, k, v))
}

func (c *conn) recorded(err error) error {
	if err != nil {
		if g := c.grant.Load(); g != nil && g.Lossy {
			c.journal.Drop()
			c.mon.tell(control.Unkept, &control.UnkeptMsg{Why: clip(err.Error(), 256)})
			return nil
		}
		c.stop(ended{causeRecorder, "this session cannot be recorded any more: the disk is full, or a limit was reached"})
	}
	return err
}

func (c *conn) note(ch uint32, what, text string) {
	_ = c.recordJSON(ch, recording.KindNote, recording.Note{What: what, Text: text})
}

// revoked obeys the monitor. It runs on the goroutine that receives its messages and so
// must not wait.
func (c *conn) revoked(r control.RevokeMsg) {
	if r.Channel != 0 && c.grant.Load() != nil {
		c.mu.Lock()
		ch, fw := c.channels[r.Channel], c.forwards[r.Channel]
		c.mu.Unlock()
		note := func() {
			if c.full.Load() == 0 { // it would wait
				c.note(r.Channel, "revoked", r.Say)
			}
		}
		if fw != nil {
			note()
			fw.terminate()
		}
		if ch != nil {
			note()
			go ch.terminate(plain(r.Say)) // ends within goodbyeTime
		}
		return
	}
	cause := r.Cause
	if cause == "" {
		cause = causeRevoked
	}
	c.stop(ended{cause, plain(r.Say)})
}

// goodbyeTime is what a client gets to take our last words, and killTime what programs
// get between the hang-up and the end.
const (
	goodbyeTime = 300 * time.Millisecond
	killTime    = time.Second
)

// stop ends the connection on the host's initiative: words to every channel, hang-up,
// then the socket. It returns at once.
func (c *conn) stop(e ended) {
	c.stopping.Store(true)
	c.mu.Lock()
	open := make([]*channel, 0, len(c.channels))
	for _, ch := range c.channels {
		open = append(open, ch)
	}
	c.mu.Unlock()
	go func() { // ends within goodbyeTime
		live := c.grant.Load() != nil
		if live && c.journal.Err() == nil {
			_ = c.journal.AppendJSON(0, recording.KindNote, recording.Note{What: e.cause, Text: e.text})
		}
		c.announce(e)
		var told sync.WaitGroup
		for _, ch := range open {
			told.Go(func() { ch.terminate(e.text) })
		}
		told.Wait()
		if !live {
			c.refuse(e.text)
		}
		c.end(e)
	}()
}

// announceTime bounds how long a client may take to hear why it is about to be closed.
const announceTime = 300 * time.Millisecond

// announce tells a client of ours in a form that programs read why the connection ends:
// the global request "ended@tssh", with a code of tssh's and the words. Other clients read
// the words on their channels.
func (c *conn) announce(e ended) {
	sc := c.server.Load()
	if sc == nil || !strings.HasPrefix(string(sc.ClientVersion()), "SSH-2.0-tssh") {
		return
	}
	code := "unreachable"
	switch e.cause {
	case causeRevoked, causeEnded:
		code = "revoked"
	case causeRecorder:
		code = "recorder"
	case causeIdle, causeExpired:
		code = "expired"
	}
	heard := make(chan struct{})
	go func() { // ends with the answer, or with the connection
		_, _, _ = sc.SendRequest("ended@tssh", true, gossh.Marshal(struct{ Code, Words string }{code, e.text}))
		close(heard)
	}()
	select {
	case <-heard:
	case <-time.After(announceTime):
	}
}

// lost runs when the monitor is gone.
func (c *conn) lost() {
	g := c.grant.Load()
	if g == nil || g.Socket == "" {
		c.stop(ended{causeShutdown, "the tssh daemon of this host stopped"})
		return
	}
	go func() { // ends with a monitor, or with the connection
		ctx, cancel := context.WithTimeout(c.ctx, c.welcome.Linger)
		defer cancel()
		go keepDurable(ctx, c.journal.Sync, c.recorded) // ends with ctx
		err := c.mon.resume(ctx, g.Socket, control.ResumeMsg{Version: control.Version, ID: g.ID, Token: g.Token})
		var no errRefused
		switch {
		case err == nil || c.ctx.Err() != nil: // there again, or not needed any more
		case errors.As(err, &no):
			c.stop(ended{causeRevoked, plain(no.say)})
		default:
			c.stop(ended{causeShutdown, "the tssh daemon of this host stopped and did not come back"})
		}
	}()
}

// durableEvery is how old what the journal holds may get while no monitor makes it durable.
const durableEvery = 2 * time.Second

// keepDurable does what the monitor does while it is there: what clients have received is
// on the disk a moment later, so that a power loss takes no more than that.
func keepDurable(ctx context.Context, sync func() error, failed func(error) error) {
	tick := time.NewTicker(durableEvery)
	defer tick.Stop()
	for {
		if failed(sync()) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// finish waits for what was served, kills what was revoked, and says the last words to
// the journal and the monitor.
func (c *conn) finish(failed error) {
	c.end(ended{causeClosed, ""}) // has no effect where there is a cause already
	var e ended
	if !errors.As(context.Cause(c.ctx), &e) {
		e = ended{causeClosed, ""}
	}
	if e.cause == causeClosed && failed != nil {
		e.text = plain(clip(failed.Error(), 512))
	}
	done := make(chan struct{})
	go func() { c.handlers.Wait(); close(done) }() // ends with the process at the latest
	limit := 2 * time.Second
	forced := slices.Contains([]string{causeRevoked, causeEnded, causeRecorder, causeShutdown, causeIdle, causeExpired}, e.cause)
	if forced {
		limit = killTime
	}
	select {
	case <-done:
	case <-time.After(limit):
	}
	if forced {
		c.mu.Lock()
		programs := c.programs
		c.mu.Unlock()
		for _, p := range programs {
			p.killSession()
		}
	}
	if c.journal != nil && c.journal.Err() == nil {
		_ = c.journal.AppendJSON(0, recording.KindEnd, recording.End{Cause: e.cause, Text: e.text})
	}
	c.mon.close(e.cause, e.text)
}
