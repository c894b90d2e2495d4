package session

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gssh "github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/recording"
	"tssh/session/control"
	"tssh/session/launch"
)

// Bounds of what a client may set on a channel before its program starts.
const (
	maxEnv      = 128
	maxEnvBytes = 64 << 10
	maxCommand  = 128 << 10 // the kernel's own bound for one argument
	maxShown    = 16 << 10  // of a command in its Open event; the rest follows as input
)

// channel is one session channel (RFC 4254 section 6). Its request loop owns the fields
// without a note.
//
//	idle --shell|exec|subsystem--> running --program ends--> draining --> closed
//	  \------------------------------- client closes, revoked ------------^
type channel struct {
	c  *conn
	id uint32
	ch gossh.Channel

	env      []string
	envBytes int
	original string    // SSH_ORIGINAL_COMMAND, where a rule's command is run instead
	pty      *terminal // nil without one; other goroutines read it under mu
	started  bool
	agent    bool      // it is to have the agent's socket
	display  string    // DISPLAY, "" without X11
	x11      *listener // of the display

	typing typing        // what the client sent
	sent   atomic.Int64  // bytes of programs and of sftp to the client
	files  chan struct{} // closed when the sftp server is over; nil without one

	mu      sync.Mutex
	shell   bool     // it runs the login shell
	notices []string // to be shown; nil when nobody is about to
	prog    *program // nil until one runs
	closing bool     // CLOSE is sent or received: start nothing
	last    sync.Once
	gone    chan struct{} // closed with closing
}

// serveSession serves one channel from open to close.
func (c *conn) serveSession(_ *gssh.Server, sc *gossh.ServerConn, nc gossh.NewChannel, _ gssh.Context) {
	if err := c.ready(sc); err != nil {
		_ = nc.Reject(gossh.Prohibited, plain(err.Error()))
		return
	}
	if c.noMore.Load() {
		c.note(0, "refused", "a session after no-more-sessions")
		_ = nc.Reject(gossh.Prohibited, "the client said that it opens no more sessions")
		return
	}
	s, reason := c.newChannel()
	if s == nil {
		c.limited(reason)
		_ = nc.Reject(gossh.ResourceShortage, reason)
		return
	}
	defer c.handlers.Done()
	ch, reqs, err := nc.Accept()
	if err != nil {
		c.forget(s)
		return
	}
	s.setChannel(ch)
	go func() { _, _ = io.Copy(io.Discard, ch.Stderr()) }() // ends with the channel; unread it would fill the window
	for req := range reqs {
		ok := s.request(req)
		if req.WantReply {
			_ = req.Reply(ok, nil)
		}
		if p := s.program(); ok && p != nil {
			p.release() // the client has its answer: output may flow
		}
	}
	// Only here is a CLOSE, or the loss of the connection, to be seen.
	s.hangup()
	s.wait()
	if s.x11 != nil {
		s.x11.terminate() // what X programs have open goes on
	}
	c.forget(s)
}

// newChannel counts a channel in, or says why not.
func (c *conn) newChannel() (*channel, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return nil, "the connection is ending"
	}
	if len(c.channels) >= c.welcome.Sessions {
		return nil, "too many sessions on one connection"
	}
	c.last++
	s := &channel{c: c, id: c.last, gone: make(chan struct{})}
	c.channels[s.id] = s
	c.handlers.Add(1)
	return s, ""
}

func (c *conn) forget(s *channel) {
	s.typedAll()
	_ = c.record(s.id, recording.KindClose, nil)
	c.mu.Lock()
	delete(c.channels, s.id)
	c.mu.Unlock()
	c.mon.tell(control.Gone, &control.GoneMsg{Channel: s.id, In: s.typing.total(), Out: s.sent.Load()})
}

// track remembers a program for the case that the connection is revoked. Those that ended
// and left nothing behind are dropped, so a long connection does not gather them.
func (c *conn) track(p *program) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.programs) >= 64 {
		c.programs = slices.DeleteFunc(c.programs, func(p *program) bool { return p.empty() })
	}
	c.programs = append(c.programs, p)
}

func (s *channel) setChannel(ch gossh.Channel) {
	s.mu.Lock()
	s.ch = ch
	s.mu.Unlock()
}

func (s *channel) program() *program {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prog
}

// request does what one channel request asks for and says whether it was done.
func (s *channel) request(req *gossh.Request) bool {
	p := payload(req.Payload)
	switch req.Type {
	case "pty-req":
		return s.requestPTY(p)
	case "env":
		return s.requestEnv(p)
	case "shell":
		return s.requestProgram("shell", "")
	case "exec":
		command, ok := p.str()
		if !ok || len(command) > maxCommand || strings.IndexByte(string(command), 0) >= 0 {
			s.c.note(s.id, "refused", "a command that is malformed or too long")
			return false
		}
		return s.requestProgram("exec", string(command))
	case "subsystem":
		name, ok := p.str()
		if !ok {
			return false
		}
		if string(name) == "sftp" {
			return s.requestSFTP()
		}
		return s.refused("subsystem", clip(string(name), 256))
	case "window-change":
		cols, rows, x, y, ok := parseWindow(&p)
		if !ok || s.pty == nil {
			return false
		}
		s.pty.resize(cols, rows, x, y)
		return s.c.recordJSON(s.id, recording.KindResize, recording.Resize{Cols: int(cols), Rows: int(rows)}) == nil
	case "signal":
		name, ok := p.str()
		return ok && s.requestSignal(string(name))
	case "break":
		return s.pty != nil && s.pty.sendBreak() == nil
	case "eow@openssh.com":
		if prog := s.program(); prog != nil && s.pty == nil {
			prog.stopOutput()
			return true
		}
		return false
	case "auth-agent-req@openssh.com":
		return s.requestAgent()
	case "x11-req":
		return s.requestX11(p)
	}
	return false
}

// refused asks the policy about what is not served, notes it, and refuses.
func (s *channel) refused(kind, target string) bool {
	s.c.askUnserved(s.id, kind, target)
	return false
}

func (s *channel) requestEnv(p payload) bool {
	name, ok1 := p.str()
	value, ok2 := p.str()
	if !ok1 || !ok2 || s.started || len(s.env) >= maxEnv || s.envBytes+len(name)+len(value) > maxEnvBytes {
		return false
	}
	if !launch.AcceptEnv(string(name), string(value), s.c.grant.Load().AcceptEnv) {
		return false
	}
	s.env = append(s.env, string(name)+"="+string(value))
	s.envBytes += len(name) + len(value)
	return true
}

func (s *channel) requestPTY(p payload) bool {
	r, ok := parsePTY(p)
	if !ok || s.pty != nil || s.started {
		return false
	}
	if say, ok := s.c.ask(s.id, "pty", ""); !ok {
		s.c.note(s.id, "refused", "pty: "+say)
		return false
	}
	t, err := openTerminal(r)
	if err != nil {
		s.c.note(s.id, "refused", "pty: "+err.Error())
		return false
	}
	s.mu.Lock()
	s.pty = t
	closing := s.closing
	s.mu.Unlock()
	if closing {
		t.close()
	}
	return true
}

// requestProgram starts a shell or a command. The client gets its answer when the
// program runs, so that a signal sent right after has somewhere to go.
func (s *channel) requestProgram(kind, command string) bool {
	if s.started {
		return false
	}
	s.started = true
	if say, ok := s.c.ask(s.id, kind, command); !ok {
		return s.denied(kind, say)
	}
	var ok bool
	if kind, command, ok = s.forced(kind, command); !ok {
		return s.sayNo(kind, "the command is too long")
	}
	if s.recordOpen(kind, command) != nil {
		return false
	}
	prog, err := s.start(kind, command)
	if err != nil {
		return s.sayNo(kind, "could not start "+s.c.acc.Shell+": "+err.Error())
	}
	if kind == "exec" && s.pty == nil && !s.c.journal.Dropped() {
		prog.scp = watchSCP(command, s.c.acc.Home, func(f recording.File) { _ = s.c.recordJSON(s.id, recording.KindFile, f) })
	}
	s.c.track(prog)
	s.mu.Lock()
	s.prog, s.shell = prog, kind == "shell"
	closing := s.closing
	s.mu.Unlock()
	if s.pty != nil {
		s.c.mon.tell(control.TTY, &control.TTYMsg{Channel: s.id, Name: s.pty.name, PID: prog.pid})
	}
	if s.pty != nil {
		prog.greeting = s.greeting(kind == "shell")
		for _, line := range s.c.grant.Load().Notices {
			_ = s.say(line) // a client that is gone shows elsewhere
		}
	}
	go prog.run(s) // ends when the program has ended and its output is drained; awaited by wait
	if closing {
		s.hangup()
	}
	return true
}

// recordOpen begins the channel's story. A command that is longer than an event should
// be goes on as input events: nothing of it is left out.
func (s *channel) recordOpen(kind, command string) error {
	o := recording.Open{Type: kind, Command: command}
	if s.pty != nil {
		o.PTY, o.Term, o.Cols, o.Rows = true, s.pty.term, int(s.pty.cols), int(s.pty.rows)
	}
	if len(command) <= maxShown {
		return s.c.recordJSON(s.id, recording.KindOpen, o)
	}
	o.Command = command[:maxShown]
	if err := s.c.recordJSON(s.id, recording.KindOpen, o); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(command))
	s.c.note(s.id, "command", "goes on as input; sha256 of the whole "+hex.EncodeToString(sum[:]))
	return s.c.record(s.id, recording.KindInput, []byte(command[maxShown:]))
}

// sayNo refuses a program in words that reach the person: a bare failure has none.
func (s *channel) sayNo(kind, say string) bool {
	s.c.note(s.id, "refused", clip(kind+": "+say, 1024))
	if s.say(say) == nil {
		return false
	}
	return false
}

// say writes a line of ours to the channel's standard error, on record first.
func (s *channel) say(words string) error {
	line := "tssh: " + plain(words) + "\r\n"
	if err := s.c.record(s.id, recording.KindStderr, []byte(line)); err != nil {
		return err
	}
	_, err := io.WriteString(s.ch.Stderr(), line)
	return err
}

// signals that a client may send (RFC 4254 section 6.10).
var signals = map[string]syscall.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "FPE": unix.SIGFPE, "HUP": unix.SIGHUP, "ILL": unix.SIGILL, "INT": unix.SIGINT, "KILL": unix.SIGKILL,
	"PIPE": unix.SIGPIPE, "QUIT": unix.SIGQUIT, "SEGV": unix.SIGSEGV, "TERM": unix.SIGTERM, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
}

// signalName is the wire's name of a signal.
func signalName(sig syscall.Signal) string {
	for n, s := range signals {
		if s == sig {
			return n
		}
	}
	return strings.TrimPrefix(unix.SignalName(sig), "SIG") + "@openssh.com"
}

func (s *channel) requestSignal(name string) bool {
	sig, ok := signals[name]
	prog := s.program()
	if !ok || prog == nil {
		return false
	}
	if s.c.record(s.id, recording.KindSignal, []byte(name)) != nil {
		return false
	}
	return prog.signal(sig) == nil
}

// hangup takes the terminal or the pipes away from what runs.
func (s *channel) hangup() {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.gone)
	}
	prog, t := s.prog, s.pty
	s.mu.Unlock()
	if t != nil {
		t.close() // the kernel hangs up
	}
	if prog != nil {
		prog.closePipes()
	}
}

// wait waits for the program's output to be done with. The program itself may go on.
func (s *channel) wait() {
	if s.files != nil {
		<-s.files
	}
	if prog := s.program(); prog != nil {
		<-prog.drained
	}
}

// terminate ends the channel on the host's initiative, with words.
func (s *channel) terminate(words string) {
	s.last.Do(func() {
		s.mu.Lock()
		ch, prog := s.ch, s.prog
		s.mu.Unlock()
		if ch != nil {
			said := make(chan struct{})
			go func() { // ends with the channel
				defer close(said)
				line := "\r\ntssh: " + words + "\r\n"
				if s.c.journal.Err() == nil && s.c.journal.Append(s.id, recording.KindStderr, []byte(line)) != nil {
					return
				}
				_, _ = io.WriteString(ch.Stderr(), line)
			}()
			select {
			case <-said:
			case <-time.After(goodbyeTime):
			}
		}
		if prog != nil {
			_ = prog.signal(unix.SIGHUP)
			_ = prog.signal(unix.SIGCONT)
		}
		s.hangup()
		if ch != nil {
			go ch.Close() // can wait for the socket; ends with it
		}
		if prog != nil {
			go func() { // ends after killTime
				time.Sleep(killTime)
				prog.killSession()
			}()
		}
	})
}
