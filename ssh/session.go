package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// Session is one run of a shell or a command.
type Session struct {
	Command   string   // "" is the login shell
	Subsystem string   // instead of Command
	Env       []EnvVar // the host decides which it takes
	Agent     bool     // ask for agent forwarding (ServeAgent must have been called)

	Stdin          io.Reader // nil is empty
	Stdout, Stderr io.Writer
	Terminal       *Terminal       // raw mode, sizes and modes of a pty; nil with PTY makes a pty without a terminal here
	PTY            bool            // ask for a pty
	Term           string          // TERM for the pty
	Escape         byte            // escape character of a pty session, 0 is none
	Signals        <-chan Signal   // sent to the remote program
	Notice         func(s string)  // one line for the person, from the escape commands
	Open           func() []string // what is open through forwards, for the escape command that lists it; may be nil
}

// EnvVar is one variable.
type EnvVar struct{ Name, Value string }

// Signal is the name of a signal as RFC 4254 section 6.10 has it, without SIG.
type Signal string

// Exit is how the remote program ended.
type Exit struct {
	Status  int
	Signal  string // when a signal ended it
	Message string
}

// Code is the exit status for a shell: the program's, or 128 and the signal's number.
func (e Exit) Code() int {
	if e.Signal == "" {
		return e.Status & 0xff
	}
	n := Signal(e.Signal).Number()
	if n == 0 {
		return 255
	}
	return 128 + n
}

// Number is the portable number of a signal that RFC 4254 names, 0 for another.
func (s Signal) Number() int {
	return max(0, slices.Index([]Signal{"", "HUP", "INT", "QUIT", "ILL", "", "ABRT", "", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM"}, s))
}

// ErrDisconnected is the person's "~.".
var ErrDisconnected = errors.New("disconnected by the escape character")

// request payloads, RFC 4254 section 6.
type (
	ptyRequest struct { // 6.2
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	windowChange struct{ Cols, Rows, Width, Height uint32 } // 6.7
	envRequest   struct{ Name, Value string }               // 6.4
	oneString    struct{ S string }                         // 6.5, 6.9
	exitStatus   struct{ Status uint32 }                    // 6.10
	exitSignal   struct {                                   // 6.10
		Signal        string
		Core          bool
		Message, Lang string
	}
)

// Run runs one session to its end. An error is an *Error, ErrDisconnected, ctx's cause, or
// what went wrong with the local streams.
func (c *Client) Run(ctx context.Context, s Session) (Exit, error) {
	ch, reqs, err := c.conn.OpenChannel("session", nil)
	if err != nil {
		return Exit{}, c.openError("a session", err)
	}
	defer ch.Close()
	r := &run{c: c, s: s, ch: ch}
	r.ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	return r.session(reqs)
}

// run is one session in progress.
type run struct {
	c    *Client
	s    Session
	ch   gossh.Channel
	ctx  context.Context
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // all goroutines but the reader of standard input

	exit   Exit
	exited bool // an exit-status or exit-signal came; owned by requests until reqs is closed
}

func (r *run) session(reqs <-chan *gossh.Request) (Exit, error) {
	// The channel closes when the run is told to stop, which ends every copy below.
	closed := make(chan struct{})
	end := context.AfterFunc(r.ctx, func() { r.close(closed) })
	defer end()
	r.wg.Go(func() { defer close(closed); r.requests(reqs) })
	defer r.wg.Wait()
	defer r.close(closed)

	if err := r.ask(); err != nil {
		return Exit{}, err
	}
	if t := r.s.Terminal; t != nil {
		if err := t.Raw(); err != nil {
			return Exit{}, err
		}
		defer t.Restore()
		stopSizes := t.onResize(func(sz Size) {
			r.ch.SendRequest("window-change", false, gossh.Marshal(windowChange{sz.Cols, sz.Rows, sz.Width, sz.Height}))
		})
		defer stopSizes()
	}
	go r.s.Terminal.guard(r.stdin) // ends with the next read of standard input
	var out sync.WaitGroup
	out.Go(func() { r.s.Terminal.guard(func() { r.output(r.s.Stdout, r.ch) }) })
	out.Go(func() { r.s.Terminal.guard(func() { r.output(r.s.Stderr, r.ch.Stderr()) }) })
	if r.s.Signals != nil {
		r.wg.Go(func() { r.signals(closed) })
	}
	out.Wait()
	<-closed
	if cause := context.Cause(r.ctx); cause != nil {
		return Exit{}, cause
	}
	if r.exited && !r.c.announced.Load() {
		return r.exit, nil
	}
	// Without an exit the connection went, or the host closed the channel only.
	select {
	case <-r.c.Done():
		return Exit{}, r.c.Err()
	case <-time.After(time.Second):
		return Exit{}, failure(CodeUnreachable, nil, "%s closed the session without an exit status", r.c.cfg.Host)
	}
}

// close closes the channel. A host that does not close its side within two seconds loses
// the connection: nothing waits for it for ever.
func (r *run) close(closed <-chan struct{}) {
	r.ch.Close()
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
		r.c.conn.Close()
	}
}

// ask sends what makes the session: pty, environment, agent, then the program.
func (r *run) ask() error {
	if r.s.PTY {
		p := ptyRequest{Term: r.s.Term, Cols: 80, Rows: 24, Modes: modes(nil)}
		if t := r.s.Terminal; t != nil {
			sz := t.Size()
			p.Cols, p.Rows, p.Width, p.Height, p.Modes = sz.Cols, sz.Rows, sz.Width, sz.Height, modes(t)
		}
		if err := r.must("pty-req", gossh.Marshal(p), "a terminal"); err != nil {
			return err
		}
	}
	for _, e := range r.s.Env {
		if _, err := r.ch.SendRequest("env", false, gossh.Marshal(envRequest(e))); err != nil {
			return r.gone(err)
		}
	}
	if r.s.Agent {
		if ok, err := r.ch.SendRequest("auth-agent-req@openssh.com", true, nil); err != nil {
			return r.gone(err)
		} else if !ok && r.s.Notice != nil {
			r.s.Notice(r.c.cfg.Host + " does not allow agent forwarding")
		}
	}
	switch {
	case r.s.Subsystem != "":
		return r.must("subsystem", gossh.Marshal(oneString{r.s.Subsystem}), "the subsystem "+line(r.s.Subsystem))
	case r.s.Command != "":
		return r.must("exec", gossh.Marshal(oneString{r.s.Command}), "this command")
	}
	return r.must("shell", nil, "a shell")
}

func (r *run) must(kind string, payload []byte, what string) error {
	ok, err := r.ch.SendRequest(kind, true, payload)
	if err != nil {
		return r.gone(err)
	}
	if !ok {
		return failure(CodeDenied, nil, "%s refused %s for %s", r.c.cfg.Host, what, line(r.c.cfg.User))
	}
	return nil
}

// gone is the error of a request on a channel that ended meanwhile.
func (r *run) gone(err error) error {
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	select {
	case <-r.c.Done():
		return r.c.Err()
	case <-time.After(time.Second):
		return failure(CodeDenied, err, "%s closed the session before it began", r.c.cfg.Host)
	}
}

// requests takes the host's requests until the channel is closed.
func (r *run) requests(reqs <-chan *gossh.Request) {
	for q := range reqs {
		ok := false
		switch q.Type {
		case "exit-status":
			var m exitStatus
			if ok = gossh.Unmarshal(q.Payload, &m) == nil; ok && !r.exited {
				r.exit, r.exited = Exit{Status: int(m.Status & 0xff)}, true
			}
		case "exit-signal":
			var m exitSignal
			if ok = gossh.Unmarshal(q.Payload, &m) == nil; ok && !r.exited {
				r.exit, r.exited = Exit{Signal: line(m.Signal), Message: line(m.Message)}, true
			}
		}
		if q.WantReply {
			q.Reply(ok, nil)
		}
	}
}

// output copies one stream. A reader that went away ends the session, as a pipe would; what
// the host still sends is drained, so that the other stream is not held up by a full window.
func (r *run) output(w io.Writer, src io.Reader) {
	if w == nil {
		w = io.Discard
	}
	b := make([]byte, 32<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			if _, werr := w.Write(b[:n]); werr != nil {
				r.stop(fmt.Errorf("ssh: output: %w", werr))
				io.Copy(io.Discard, src)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// stdin copies standard input and passes its end on as a half-close.
func (r *run) stdin() {
	defer r.ch.CloseWrite()
	if r.s.Stdin == nil {
		return
	}
	esc := escape{char: r.s.Escape}
	b := make([]byte, 32<<10)
	for {
		n, err := r.s.Stdin.Read(b)
		data := b[:n]
		if r.s.PTY && r.s.Escape != 0 {
			var act []action
			data, act = esc.feed(data)
			for _, a := range act {
				if a == actDisconnect {
					r.stop(ErrDisconnected)
					return
				}
				r.act(a)
			}
		}
		if len(data) > 0 {
			if _, werr := r.ch.Write(data); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *run) act(a action) {
	switch a {
	case actSuspend:
		if t := r.s.Terminal; t != nil {
			t.Suspend()
		}
	case actBreak:
		r.ch.SendRequest("break", false, gossh.Marshal(struct{ Length uint32 }{1000}))
	case actHelp:
		if r.s.Notice != nil {
			e := string(rune(r.s.Escape))
			r.s.Notice(fmt.Sprintf("%[1]s. ends the connection, %[1]s^Z suspends tssh, %[1]s# lists forwards, %[1]sB sends a break, %[1]s%[1]s sends %[1]s; only at the start of a line", e))
		}
	case actList:
		if r.s.Notice == nil || r.s.Open == nil {
			return
		}
		open := r.s.Open()
		if len(open) == 0 {
			r.s.Notice("nothing is forwarded")
		}
		for _, l := range open {
			r.s.Notice(l)
		}
	}
}

// signals passes signals on until the session is over. After one that asks a program to
// end, the host has five seconds.
func (r *run) signals(closed <-chan struct{}) {
	var late <-chan time.Time
	var last Signal
	for {
		select {
		case <-closed:
			return
		case <-r.ctx.Done():
			return
		case <-late:
			r.stop(&Interrupted{last})
			return
		case sig := <-r.s.Signals:
			asksToEnd := slices.Contains([]Signal{"INT", "TERM", "HUP", "QUIT"}, sig)
			if asksToEnd && late != nil {
				r.stop(&Interrupted{sig})
				return
			}
			if asksToEnd {
				last, late = sig, time.After(5*time.Second)
			}
			r.ch.SendRequest("signal", false, gossh.Marshal(oneString{string(sig)}))
		}
	}
}

// Interrupted is a session that a local signal ended.
type Interrupted struct{ Signal Signal }

func (i *Interrupted) Error() string { return "ended by signal " + string(i.Signal) }

// Code is the exit status a shell expects for the signal.
func (i *Interrupted) Code() int { return 128 + i.Signal.Number() }

// openError is a refused channel. The host's reason is a sentence of its own.
func (c *Client) openError(what string, err error) error {
	var oe *gossh.OpenChannelError
	if !errors.As(err, &oe) {
		select {
		case <-c.Done():
			return c.Err()
		case <-time.After(time.Second):
			return failure(CodeUnreachable, err, "the connection to %s was lost", c.cfg.Host)
		}
	}
	words, code := splitCode(oe.Message)
	if code == "" {
		code = CodeDenied
		if oe.Reason == gossh.ResourceShortage {
			code = CodeLimit
		}
		if oe.Reason == gossh.ConnectionFailed {
			code = CodeUnreachable
		}
	}
	if words == "" {
		words = oe.Reason.String()
	}
	return failure(code, err, "%s refused %s: %s", c.cfg.Host, what, words)
}

// errClosed reports what a broken local pipe looks like.
func errClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// BrokenPipe reports whether a session ended because nobody reads its output any more.
func BrokenPipe(err error) bool { return errClosed(err) }
