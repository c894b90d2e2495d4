package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/netnode/localapi"
	"tssh/ssh"
)

// loginName is the account to log in as: the one asked for, else the name of the person here.
func (a *app) loginName(asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		name := u.Username
		if i := strings.LastIndexByte(name, '\\'); i >= 0 {
			name = name[i+1:] // DOMAIN\name
		}
		return name, nil
	}
	if n := a.getenv("USER"); n != "" {
		return n, nil
	}
	return "", failed("cannot tell who you are on this computer").withHint("tssh -l USER HOST")
}

// dialHost opens a connection to a host: through the node where the network is inside it,
// else as any program does.
func dialHost(ctx context.Context, c *localapi.Client, st localapi.Status, r localapi.Resolved, port uint16) (net.Conn, error) {
	if len(r.Node.Addrs) == 0 {
		return nil, failed("%s has no address", r.Node.Name).withCode("unreachable")
	}
	if st.Userspace {
		conn, err := c.Dial(ctx, r.Node.Addrs[0].String(), port)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(r.Node.Addrs[0].String(), strconv.Itoa(int(port))))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, failed("%s has nothing listening on port %d, or the policy does not let you reach it", r.Node.Name, port).withCode("unreachable")
	case err != nil:
		return nil, failed("%s does not answer on port %d", r.Node.Name, port).withCode("unreachable").withHint("tssh status")
	}
	return conn, nil
}

// hostKeys reads what the mesh has for a host. A line that is no key is left out: the host
// then has to show one of the others.
func hostKeys(r localapi.Resolved) []gossh.PublicKey {
	var keys []gossh.PublicKey
	for _, l := range r.HostKeys {
		if k, _, _, _, err := gossh.ParseAuthorizedKey([]byte(l)); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// connect logs in to a host.
func (a *app) connect(ctx context.Context, c *command) (*ssh.Client, error) {
	api, st, err := a.ready(ctx)
	if err != nil {
		return nil, err
	}
	r, err := api.Resolve(ctx, c.host)
	if err != nil {
		return nil, err
	}
	name, err := a.loginName(c.user)
	if err != nil {
		return nil, err
	}
	if words := endsSoon(st.Expires, time.Now()); words != "" && !c.quiet {
		fmt.Fprintf(a.err, "tssh: note: %s\n", words)
	}
	var banner io.Writer = a.err
	if c.quiet {
		banner = nil
	}
	cl, err := ssh.Dial(ctx, ssh.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			conn, err := dialHost(ctx, api, st, r, c.port)
			if err != nil && ctx.Err() == nil { // its words, not the library's
				m := explain(err)
				if m.code == "" {
					m.code = ssh.CodeUnreachable
				}
				return nil, &ssh.Error{Code: m.code, Words: oneLine(m.words), Err: err}
			}
			return conn, err
		},
		Host: oneLine(r.Node.Name), User: name, HostKeys: hostKeys(r), Banner: banner, Log: a.log,
		ConnectTimeout: c.connect, KeepaliveInterval: c.alive, KeepaliveMax: c.aliveMax,
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause
	}
	return cl, err
}

// login is a session, from the connection to the exit status.
func (a *app) login(c *command) (int, error) {
	ctx, stop := untilSignal()
	cl, err := a.connect(ctx, c)
	stop()
	if d, ok := asDied(err); ok {
		return 128 + int(d.sig), nil
	}
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	notice := func(s string) {
		if !c.quiet {
			fmt.Fprintf(a.err, "tssh: %s\r\n", oneLine(s))
		}
	}
	if c.agent {
		if sock := a.getenv("SSH_AUTH_SOCK"); sock == "" {
			notice("there is no ssh agent here to forward")
			c.agent = false
		} else if err := cl.ServeAgent(sock); err != nil {
			return 0, err
		}
	}
	fw := cl.NewForwards(notice)
	defer fw.Close()
	if err := openForwards(fw, c, notice); err != nil {
		return 0, err
	}
	if c.background {
		a.inBackground()
	}
	status, err := a.session(cl, c, fw, notice)
	return a.ended(c, status, err)
}

// session runs what was asked for.
func (a *app) session(cl *ssh.Client, c *command, fw *ssh.Forwards, notice func(string)) (int, error) {
	var in io.Reader = a.in
	if c.noInput {
		in = nil
	}
	if c.stream != "" || c.noCommand {
		ctx, stop := untilSignal()
		defer stop()
		if c.stream != "" {
			to := ssh.Endpoint{Path: c.stream}
			if !strings.HasPrefix(c.stream, "/") {
				var err error
				if to.Host, to.Port, err = splitHostPort(c.stream); err != nil {
					return 0, err
				}
				to.Path = ""
			}
			if in == nil {
				in = strings.NewReader("")
			}
			return 0, cl.StreamTo(ctx, to, in, a.out)
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-cl.Done():
			return 0, cl.Err()
		}
	}
	s := ssh.Session{Command: c.remote, Env: a.environment(c), Agent: c.agent, Stdin: in, Stdout: a.out, Stderr: a.err, Notice: notice, Open: fw.Open}
	if c.subsystem {
		s.Command, s.Subsystem = "", c.remote
	}
	term, isTerm := ssh.OpenTerminal(a.in)
	if c.noInput {
		isTerm = false
	}
	switch c.tty {
	case ttyForce:
		s.PTY = true
	case ttyYes:
		if s.PTY = isTerm; !isTerm {
			notice("no terminal is asked for, since standard input is none here (-tt asks all the same)")
		}
	case ttyAuto:
		s.PTY = isTerm && c.remote == ""
	}
	if s.PTY {
		if isTerm {
			s.Terminal = term
			s.Escape = c.escape
		}
		if s.Term = a.getenv("TERM"); s.Term == "" {
			s.Term = "dumb"
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sig, stop := a.sessionSignals(s.Terminal != nil, cancel)
	defer stop()
	s.Signals = sig
	x, err := cl.Run(ctx, s)
	if err != nil {
		return 0, err
	}
	if x.Signal != "" && !c.quiet {
		words := "the remote program was ended by signal " + x.Signal
		if x.Message != "" {
			words += ": " + x.Message
		}
		notice(words)
	}
	return x.Code(), nil
}

// sessionSignals says what signals do: with a terminal of ours, keys are the remote
// program's business and a signal means us; without one, signals go to the remote program.
func (a *app) sessionSignals(raw bool, cancel context.CancelCauseFunc) (<-chan ssh.Signal, func()) {
	out := make(chan ssh.Signal, 4)
	in := make(chan os.Signal, 4)
	signal.Notify(in, sessionSignalList()...)
	done := make(chan struct{})
	go func() { // ends with the stop func
		for {
			select {
			case <-done:
				return
			case s := <-in:
				sig, _ := s.(syscall.Signal)
				if raw {
					if sig != userSignal1 && sig != userSignal2 {
						cancel(&died{sig})
					}
					continue
				}
				select {
				case out <- signalName(sig):
				default: // nobody takes them any more, or five are waiting
				}
			}
		}
	}()
	return out, func() { signal.Stop(in); close(done) }
}

func signalName(s syscall.Signal) ssh.Signal {
	switch s {
	case syscall.SIGINT:
		return "INT"
	case syscall.SIGTERM:
		return "TERM"
	case syscall.SIGHUP:
		return "HUP"
	case syscall.SIGQUIT:
		return "QUIT"
	case userSignal1:
		return "USR1"
	}
	return "USR2"
}

// ended turns the end of a session into an exit status.
func (a *app) ended(c *command, status int, err error) (int, error) {
	var in *ssh.Interrupted
	switch {
	case err == nil:
		return status, nil
	case errors.As(err, &in):
		return in.Code(), nil
	case ssh.BrokenPipe(err):
		return 128 + int(syscall.SIGPIPE), nil
	case errors.Is(err, ssh.ErrDisconnected):
		if !c.quiet {
			fmt.Fprintln(a.err, "tssh: disconnected")
		}
		return statusNoSession, nil
	}
	if d, ok := asDied(err); ok {
		return 128 + int(d.sig), nil
	}
	return 0, err
}

// environment is what is offered to the host: what SetEnv says, and the variables that
// SendEnv or the custom of ssh name.
func (a *app) environment(c *command) []ssh.EnvVar {
	env := append([]ssh.EnvVar(nil), c.setEnv...)
	set := map[string]bool{}
	for _, e := range env {
		set[e.Name] = true
	}
	patterns := append([]string{"LANG", "LC_*", "COLORTERM"}, c.sendEnv...)
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if set[name] || name == "" {
			continue
		}
		for _, p := range patterns {
			if ok, err := path.Match(p, name); err == nil && ok {
				env = append(env, ssh.EnvVar{Name: name, Value: value})
				break
			}
		}
	}
	return env
}

// proxy is one connection on standard input and output, for ssh's ProxyCommand.
func (a *app) proxy(ctx context.Context, args []string) error {
	f := a.flags("proxy")
	listen := f.String("listen", "", "")
	direct := f.Bool("direct", false, "")
	if err := f.parse(args, 0, 2, proxyForm); err != nil {
		return err
	}
	switch {
	case *listen != "" && len(f.rest) == 0:
		return a.listenProxy(ctx, *listen, *direct)
	case *listen != "" || *direct || len(f.rest) != 2:
		return usage("wrong number of arguments").withHint("tssh " + proxyForm)
	}
	port, err := parsePort(f.rest[1])
	if err != nil {
		return err
	}
	c, st, err := a.ready(ctx)
	if err != nil {
		return err
	}
	r, err := c.Resolve(ctx, f.rest[0])
	if err != nil {
		return err
	}
	conn, err := dialHost(ctx, c, st, r, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() { // ends with the next read of standard input
		_, err := io.Copy(conn, a.in)
		if hc, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			hc.CloseWrite()
		}
	}()
	_, err = io.Copy(a.out, conn)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil && !ssh.BrokenPipe(err) {
		return failed("connection to %s: %v", r.Node.Name, err).withCode("unreachable")
	}
	return nil
}
