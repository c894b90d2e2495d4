package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/recording"
	"tssh/session/launch"
)

// Output is copied in pieces of one SSH packet.
const pieceSize = 32 << 10

// idleDrain is how long output may be silent after a program's end before whoever still
// holds it open is left behind; maxDrain how much a terminal may still bring.
const (
	idleDrain = 200 * time.Millisecond
	maxDrain  = 1 << 20
)

// program is a running shell or command with its ends of the pipes, or the terminal.
type program struct {
	cmd  *exec.Cmd
	pid  int
	mark string // TSSH_SESSION=ID, in the environment of all it starts

	stdin  *os.File // write end, or the terminal's master
	stdout *os.File // read end, or the terminal's master
	stderr *os.File // read end; nil with a terminal

	scp      *scpWatch // reads along; nil where that is not what runs
	greeting []byte    // shown before the program's own output

	replied chan struct{} // closed when the client has the answer to its request
	goOnce  sync.Once
	drained chan struct{} // closed when output is over and CLOSE is sent

	mu     sync.Mutex
	reaped bool // the pid may be another's

	flow   flow        // of the terminal's output
	exited atomic.Bool // output after this is what is left over
}

func (p *program) release() { p.goOnce.Do(func() { close(p.replied) }) }

// start starts the account's shell, with the command or as a login shell.
func (s *channel) start(kind, command string) (*program, error) {
	acc := s.c.acc
	base := filepath.Base(acc.Shell)
	cmd := &exec.Cmd{Path: acc.Shell, Args: []string{"-" + base}, Dir: acc.Home, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if kind == "exec" {
		cmd.Args = []string{base, "-c", command}
	}
	homeless := ""
	if err := unix.Access(acc.Home, unix.X_OK); err != nil {
		cmd.Dir, homeless = "/", fmt.Sprintf("your home directory %s cannot be entered (%v); this is /", acc.Home, err)
	}
	g := s.c.grant.Load()
	facts := launch.EnvFacts{Account: acc, RemoteAddr: hostPort(s.c.welcome.Remote), LocalAddr: hostPort(s.c.welcome.Local),
		Person: g.Person, Node: g.Node, Session: g.ID, Client: s.env}
	p := &program{cmd: cmd, replied: make(chan struct{}), drained: make(chan struct{}), mark: "TSSH_SESSION=" + g.ID}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if t := s.pty; t != nil {
		facts.TTY, facts.Term = t.name, t.term
		slave := t.takeSlave()
		if slave == nil {
			return nil, errors.New("the terminal is closed")
		}
		theirs = append(theirs, slave)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setctty = true
		p.stdin, p.stdout = t.master, t.master
	} else {
		var err error
		var in, out, errw *os.File
		if in, p.stdin, err = pipe(false); err != nil {
			return nil, err
		}
		theirs = append(theirs, in)
		if p.stdout, out, err = pipe(true); err != nil {
			p.closePipes()
			return nil, err
		}
		theirs = append(theirs, out)
		if p.stderr, errw, err = pipe(true); err != nil {
			p.closePipes()
			return nil, err
		}
		theirs = append(theirs, errw)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errw
	}
	if s.original != "" {
		facts.Client = append(slices.Clone(s.env), "SSH_ORIGINAL_COMMAND="+s.original)
	}
	cmd.Env = append(launch.Environment(facts), s.forwardEnv()...)
	if homeless != "" {
		_ = s.say(homeless)
	}
	if err := s.c.starter.Start(cmd); err != nil {
		if s.pty == nil {
			p.closePipes()
		}
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// pipe makes a pipe whose end on this side does not block, so that it can be closed
// under a read; the program's end does.
func pipe(weRead bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	ours := fds[1]
	if weRead {
		ours = fds[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// hostPort turns "host:port" into the words of SSH_CONNECTION.
func hostPort(s string) string {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return ""
	}
	return strings.Trim(s[:i], "[]") + " " + s[i+1:]
}

// run copies until the program has ended and its output is drained, then says how it
// ended and closes the channel: data, exit-status or exit-signal, EOF, CLOSE.
func (p *program) run(s *channel) {
	defer close(p.drained)
	select {
	case <-p.replied:
	case <-s.c.ctx.Done():
	}
	if len(p.greeting) > 0 && s.c.record(s.id, recording.KindOutput, p.greeting) == nil {
		_, _ = s.ch.Write(p.greeting)
	}
	go p.input(s) // ends with the channel, or when the program reads no more
	out := p.output(s, recording.KindOutput, p.stdout, s.ch)
	errs := out
	if p.stderr != nil {
		errs = p.output(s, recording.KindStderr, p.stderr, s.ch.Stderr())
	}
	exited := make(chan recording.Exit, 1)
	go func() { exited <- p.reap() }() // ends with the program
	var exit recording.Exit
	select {
	case exit = <-exited:
	case <-s.closed(out, errs):
		// The client went, and its pipes with it. The program may go on; say how it
		// ended if that is still during this connection.
		go func() { // ends with the program or the process
			_ = s.c.recordJSON(s.id, recording.KindExit, <-exited)
		}()
		return
	}
	p.exited.Store(true)
	if p.stderr == nil {
		_ = p.stdout.SetReadDeadline(time.Now().Add(idleDrain))
		<-out.done
		p.untitle(s)
	} else {
		settled(out, errs)
	}
	if s.c.recordJSON(s.id, recording.KindExit, exit) != nil {
		return
	}
	sendExit(s.ch, exit)
	<-out.done
	<-errs.done
	_ = s.ch.CloseWrite()
	_ = s.ch.Close()
}

// closed is closed when the channel was hung up and its output is over. It never is for
// a channel that goes on.
func (s *channel) closed(outs ...*pump) <-chan struct{} {
	c := make(chan struct{})
	go func() { // ends with the channel, whose request loop hangs up at its end
		for _, o := range outs {
			<-o.done
		}
		<-s.gone
		close(c)
	}()
	return c
}

// pump is one direction of output.
type pump struct {
	done    chan struct{}
	reading atomic.Int64 // since when it waits for the program, UnixNano; 0 while it writes
}

// output starts a pump: program -> journal -> client.
func (p *program) output(s *channel, kind recording.Kind, from *os.File, to io.Writer) *pump {
	o := &pump{done: make(chan struct{})}
	go func() { // ends when the program's end closes, or the journal or the client fails
		defer close(o.done)
		keep := func(b []byte) error { return s.c.record(s.id, kind, b) }
		if p.stderr != nil {
			st := recording.NewStream(s.c.journal, s.id, kind)
			keep = func(b []byte) error { return s.c.recorded(st.Append(b)) }
			defer func() { _ = s.c.recorded(st.Close()) }()
		}
		// Two in turn: what is counted of one may still be going on while the next is read.
		buf, other := make([]byte, pieceSize), make([]byte, pieceSize)
		left := maxDrain
		hold, let := func() {}, func([]byte) {}
		if p.stderr == nil { // notices are written between
			hold, let = p.flow.mu.Lock, func(b []byte) { p.flow.feed(b); p.flow.mu.Unlock() }
		}
		for {
			buf, other = other, buf
			o.reading.Store(time.Now().UnixNano())
			n, err := from.Read(buf)
			o.reading.Store(0)
			if err == nil && p.stderr == nil && n >= floodSize {
				n += more(from, buf[n:])
			}
			if n > 0 {
				if p.stderr != nil {
					s.c.touch()
				}
				hold()
				kept, werr := keep(buf[:n]) == nil, error(nil)
				if kept {
					if p.scp != nil && kind == recording.KindOutput {
						p.scp.fromHost(buf[:n])
					}
					s.c.mayFlow()
					var m int
					m, werr = to.Write(buf[:n])
					s.sent.Add(int64(m))
				}
				let(buf[:n])
				if werr != nil {
					p.stopOutput()
				}
				if !kept || werr != nil {
					return
				}
			}
			if err != nil {
				return
			}
			if p.exited.Load() && p.stderr == nil {
				if left -= n; left <= 0 {
					return
				}
				_ = from.SetReadDeadline(time.Now().Add(idleDrain))
			}
		}
	}()
	return o
}

// floodSize is how much at once shows that a terminal is flooded: it gives about a page for
// each read, and what it has beyond that is worth asking for. A key's echo never waits.
const floodSize = 1 << 10

// more reads what a terminal has at the moment.
func more(from *os.File, buf []byte) (n int) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Read(func(fd uintptr) bool { // a deadline or a hang-up shows at the next read
		for n < len(buf) {
			got, err := unix.Read(int(fd), buf[n:])
			if err != nil || got <= 0 {
				break
			}
			n += got
		}
		return true
	})
	return n
}

// settled waits until every pump is done or has had nothing to read for a while: what
// the program wrote before it ended is then with the client.
func settled(pumps ...*pump) {
	start := time.Now()
	for _, o := range pumps {
		for over := false; !over; {
			select {
			case <-o.done:
				over = true
			case <-time.After(20 * time.Millisecond):
				since := o.reading.Load()
				over = since != 0 && time.Since(time.Unix(0, since)) > idleDrain && time.Since(start) > idleDrain
			}
		}
	}
}

// input copies the client's bytes to the program; the client's EOF closes a pipe, and
// leaves a terminal alone.
func (p *program) input(s *channel) {
	buf, other := make([]byte, pieceSize), make([]byte, pieceSize)
	for {
		buf, other = other, buf // what is counted of one may still be going on
		n, err := s.ch.Read(buf)
		if n > 0 {
			s.c.touch()
			s.c.mayCome()
			if s.typed(buf[:n]) != nil {
				break
			}
			if p.scp != nil {
				p.scp.fromClient(buf[:n])
			}
			if _, werr := p.stdin.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if s.pty == nil {
		p.stdin.Close()
		// A program that reads no more must not stop the client's other channels.
	}
	_, _ = io.Copy(io.Discard, s.ch)
}

// reap waits for the program itself.
func (p *program) reap() recording.Exit {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || err != nil && p.cmd.ProcessState == nil {
		return recording.Exit{Status: 255}
	}
	if ws.Signaled() {
		return recording.Exit{Status: 128 + int(ws.Signal()), Signal: signalName(ws.Signal()), Core: ws.CoreDump()}
	}
	return recording.Exit{Status: ws.ExitStatus()}
}

// sendExit tells the client (RFC 4254 section 6.10).
func sendExit(ch gossh.Channel, e recording.Exit) {
	if e.Signal == "" {
		_, _ = ch.SendRequest("exit-status", false, gossh.Marshal(struct{ Status uint32 }{uint32(e.Status)}))
		return
	}
	_, _ = ch.SendRequest("exit-signal", false, gossh.Marshal(struct {
		Signal string
		Core   bool
		Text   string
		Lang   string
	}{e.Signal, e.Core, "", ""}))
}

// signal sends to the program's process group: with a terminal to the one in front.
func (p *program) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	if p.stderr == nil {
		if raw, err := p.stdout.SyscallConn(); err == nil {
			front := 0
			if raw.Control(func(fd uintptr) { front, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) }) == nil && front > 1 {
				return unix.Kill(-front, sig)
			}
		}
	}
	return unix.Kill(-p.pid, sig)
}

// stopOutput closes our read end, so that the program gets SIGPIPE on its next write.
func (p *program) stopOutput() {
	if p.stderr != nil {
		p.stdout.Close()
	}
}

// closePipes closes all our ends, a terminal's excepted.
func (p *program) closePipes() {
	p.release()
	if p.stdin != nil && p.stdin == p.stdout {
		return
	}
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// empty reports whether the program ended and its process group is gone too.
func (p *program) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reaped && errors.Is(unix.Kill(-p.pid, 0), unix.ESRCH)
}

// killSession kills what is left of the program's kernel session. After the leader was
// reaped its number may be another's, so members must carry our mark.
func (p *program) killSession() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || sessionOf(d) != p.pid {
			continue
		}
		if env, err := os.ReadFile(d + "/environ"); !p.reaped || err == nil && strings.Contains("\x00"+string(env), "\x00"+p.mark+"\x00") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// sessionOf reads the session id of a process from proc_pid_stat(5); 0 when it is gone.
func sessionOf(dir string) int {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 4 {
		return 0
	}
	n, _ := strconv.Atoi(f[3])
	return n
}
