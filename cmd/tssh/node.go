package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tssh/netnode/daemon"
	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
)

// backgroundVerb is how tssh starts itself as one's own node. No host name has underscores.
const backgroundVerb = "__node"

// joinPatience is how long a background node that has not joined waits for somebody to join it.
const joinPatience = 3 * time.Minute

// node finds the node to talk to: --socket, the machine's daemon if this person may use it,
// else one's own, which is started if start is set.
func (a *app) node(ctx context.Context, start bool) (*localapi.Client, localapi.Status, error) {
	if a.socket != "" {
		c := localapi.NewClient(a.socket)
		st, err := c.Status(ctx)
		if localapi.NotRunning(err) {
			return nil, st, failed("no daemon is listening at %s", a.socket).withCode("unreachable")
		}
		return c, st, err
	}
	c := localapi.NewClient(localapi.SystemPath)
	st, err := c.Status(ctx)
	if may := st.MayDial && st.State != localapi.StateNotJoined || st.MayManage; err == nil && may {
		return c, st, nil
	}
	if err != nil && !localapi.NotRunning(err) {
		return nil, st, err
	}
	c = localapi.NewClient(localapi.UserPath())
	if st, err = c.Status(ctx); err == nil || !localapi.NotRunning(err) {
		return c, st, err
	}
	if !start {
		return nil, st, failed("no node is running on this computer").withCode("unreachable").withHint("tssh up")
	}
	if _, err := netmap.LoadState(a.stateDir()); errors.Is(err, netmap.ErrNoState) {
		return nil, st, failed("this computer is not in a mesh yet").withCode("unreachable").withHint(joinHint)
	} else if err != nil {
		return nil, st, err
	}
	st, err = a.startNode(ctx, c)
	return c, st, err
}

func (m *mistake) withCode(c string) *mistake { m.code = c; return m }

// stateDir is the folder of one's own node.
func (a *app) stateDir() string {
	base := a.getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			home = string(filepath.Separator)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "tssh", "node")
}

// startNode starts one's own node in the background and waits until its socket answers.
// Two that start together are decided by the socket's lock: one serves, the other ends.
func (a *app) startNode(ctx context.Context, c *localapi.Client) (localapi.Status, error) {
	exe, err := self()
	if err != nil {
		return localapi.Status{}, failed("cannot find this program to start the node: %v", err)
	}
	logPath := filepath.Join(filepath.Dir(c.Path()), "node.log")
	logFile, err := openLog(logPath)
	if err != nil {
		return localapi.Status{}, err
	}
	defer logFile.Close()
	cmd := exec.Command(exe, backgroundVerb, "--state", a.stateDir(), "--at", c.Path())
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Dir = string(filepath.Separator) // keeps no file system busy
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return localapi.Status{}, failed("the node did not start: %v", err)
	}
	a.fresh = true
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the node, or with us
	a.stopNode = func() {
		if cmd.Process.Signal(syscall.SIGTERM) == nil {
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
			}
		}
	}
	deadline := time.After(20 * time.Second)
	for {
		st, err := c.Status(ctx)
		if err == nil {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return st, context.Cause(ctx)
		case <-ended:
			if st, err := c.Status(ctx); err == nil { // another one was first
				return st, nil
			}
			return st, failed("the node ended at once: %s", lastLogLine(logPath)).withHint("its log is " + logPath)
		case <-deadline:
			return st, failed("the node does not answer: %v", err).withHint("its log is " + logPath)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// openLog appends to the log beside the node's socket, whose folder it makes, and begins it
// anew when it has grown.
func openLog(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, failed("folder of the node's socket: %v", err)
	}
	// Where there is no home it is below /tmp, and somebody else may have been there first.
	if err := localapi.SafeDir(dir); err != nil {
		return nil, failed("folder of the node's socket: %s", strings.TrimPrefix(err.Error(), "localapi: socket directory ")).withHint("set XDG_RUNTIME_DIR to a folder of your own")
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if fi, err := os.Lstat(path); err == nil && fi.Size() > 4<<20 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, failed("log of the node: %v", err)
	}
	return f, nil
}

func lastLogLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > 2000 {
		f.Seek(-2000, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, 2000))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return oneLine(lines[len(lines)-1])
}

// background is the node itself: `tssh __node --state DIR --at SOCKET`. It serves no SSH. It
// ends with SIGTERM, or when nobody joins it in time.
func (a *app) background(args []string) error {
	fs := flag.NewFlagSet(backgroundVerb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	state, at := fs.String("state", "", ""), fs.String("at", "", "")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || *state == "" || *at == "" {
		return usage("%s is started by tssh itself", backgroundVerb)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// The terminal it was started from may go; it does not.
	signal.Ignore(syscall.SIGHUP)
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo}))
	d, err := daemon.New(daemon.Config{State: *state, Socket: *at, OwnerUID: os.Getuid(), Version: version, Log: log, PortMapping: true})
	if err != nil {
		return failed("%v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unclaimed := time.AfterFunc(joinPatience, func() {
		if !d.Joined() {
			cancel()
		}
	})
	defer unclaimed.Stop()
	if err := d.Run(ctx); err != nil {
		return failed("%v", err)
	}
	return nil
}

// settled waits a moment for a node that has just started to have its netmap. One that was
// started by this very run also gets a moment to hear from its hub what changed meanwhile.
func (a *app) settled(ctx context.Context, c *localapi.Client, st localapi.Status) (localapi.Status, error) {
	begun := time.Now()
	deadline := begun.Add(15 * time.Second)
	for {
		switch {
		case st.State == localapi.StateRunning && (!a.fresh || st.HubOnline || time.Since(begun) > 2*time.Second):
			return st, nil
		case st.State == localapi.StateNotJoined:
			return st, failed("this computer is not in a mesh yet").withCode("unreachable").withHint(joinHint)
		case st.State == localapi.StateDown:
			return st, failed("this node is down").withCode("unreachable").withHint("tssh up")
		case st.Problem != "" && time.Now().After(deadline), strings.Contains(st.Problem, "removed"), strings.Contains(st.Problem, "expired"):
			m := failed("%s", st.Problem).withCode("unreachable").withHint(joinHint)
			if strings.Contains(st.Problem, "removed") {
				m.code = "revoked"
			}
			if strings.Contains(st.Problem, "expired") {
				m.code = "expired"
			}
			return st, m
		case time.Now().After(deadline):
			return st, failed("this node has not heard from its hub %s yet", st.Hub).withCode("unreachable").withHint("tssh status")
		}
		select {
		case <-ctx.Done():
			return st, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		var err error
		if st, err = c.Status(ctx); err != nil {
			return st, err
		}
	}
}

// up joins, or comes back.
func (a *app) up(ctx context.Context, args []string) error {
	fs := a.flags("up")
	token := fs.String("join", "", "")
	file := fs.String("join-file", "", "")
	hostname := fs.String("hostname", "", "")
	rotate := fs.Bool("rotate", false, "")
	mapping := fs.Bool("port-mapping", true, "")
	if err := fs.parse(args, 0, 0, "up [--join-file FILE|-] [--hostname NAME] [--port-mapping=false] | up --rotate"); err != nil {
		return err
	}
	var settings localapi.Settings
	fs.Visit(func(f *flag.Flag) {
		if f.Name == "port-mapping" {
			settings.PortMapping = mapping
		}
	})
	if *rotate && (*token != "" || *file != "") {
		return usage("--rotate and a token are both given: joining again gives the node another key anyway")
	}
	if *file != "" {
		if *token != "" {
			return usage("--join and --join-file are both given")
		}
		t, err := readToken(*file, a.in)
		if err != nil {
			return err
		}
		*token = t
	}
	if *token != "" {
		if _, err := netmap.ParseToken(*token); err != nil {
			return failed("%s", strings.TrimPrefix(err.Error(), "netmap: ")).withHint("copy the whole line that tsshub key create printed")
		}
	}
	c, st, err := a.node(ctx, *token == "")
	if err != nil && *token != "" && a.socket == "" {
		if m := explain(err); m.code != "unreachable" {
			return err
		}
		c = localapi.NewClient(localapi.UserPath())
		st, err = a.startNode(ctx, c)
	}
	if err != nil {
		return err
	}
	if !st.MayManage {
		return failed("only root may do that: the node of this computer is root's").withHint("sudo tssh up").withCode("denied")
	}
	if *token != "" {
		a.fresh = true
		if err = c.Join(ctx, localapi.JoinRequest{Token: *token, Hostname: *hostname}); err != nil && a.stopNode != nil {
			a.stopNode() // a node that did not get in has nothing to do
		}
	} else if *hostname != "" {
		return usage("--hostname goes with --join-file")
	} else {
		a.fresh = true
		err = c.Up(ctx)
	}
	if err == nil && settings.PortMapping != nil {
		err = c.Set(ctx, settings)
	}
	if err != nil {
		return err
	}
	if st, err = c.Status(ctx); err != nil {
		return err
	}
	if st.State != localapi.StateRunning {
		st.State = localapi.StateConnecting // Up takes effect in a moment
	}
	if st, err = a.waitRunning(ctx, c, st); err != nil {
		return err
	}
	if *rotate {
		if err := c.Rotate(ctx); err != nil {
			return err
		}
		fmt.Fprintln(a.out, "this node has new keys, and the hub has told the others")
	}
	fmt.Fprintf(a.out, "%s is up in %s: %s\n", oneLine(st.Self.Name), oneLine(st.Mesh), addresses(st.Self))
	return nil
}

func (a *app) waitRunning(ctx context.Context, c *localapi.Client, st localapi.Status) (localapi.Status, error) {
	for i := 0; st.State == localapi.StateDown || st.State == localapi.StateConnecting && i < 3; i++ {
		time.Sleep(20 * time.Millisecond)
		var err error
		if st, err = c.Status(ctx); err != nil || i > 100 {
			return st, err
		}
	}
	return a.settled(ctx, c, st)
}

func (a *app) down(ctx context.Context, args []string) error {
	if err := a.flags("down").parse(args, 0, 0, "down"); err != nil {
		return err
	}
	c, st, err := a.node(ctx, false)
	if err != nil {
		return err
	}
	if !st.MayManage {
		return failed("only root may do that: the node of this computer is root's").withHint("sudo tssh down").withCode("denied")
	}
	return c.Down(ctx)
}

// readToken reads a join token from a file or standard input, so that it is no argument
// that others on the machine could see.
func readToken(file string, stdin io.Reader) (string, error) {
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(io.LimitReader(stdin, 4096))
	} else {
		var f *os.File
		if f, err = os.Open(file); err == nil {
			b, err = io.ReadAll(io.LimitReader(f, 4096))
			f.Close()
		}
	}
	if err != nil {
		return "", failed("join token: %v", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" {
		return "", failed("the join token is empty").withHint("make one on the hub: tsshub key create --user YOU")
	}
	return t, nil
}
