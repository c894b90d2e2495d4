package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"tssh/netnode/localapi"
)

// version is set by the build (-ldflags -X main.version=...).
var version = "dev"

// app is one run of the command.
type app struct {
	in, outFile *os.File
	out, err    io.Writer
	getenv      func(string) string
	socket      string // --socket
	verbose     bool
	args        []string // as given, for -f
	fresh       bool     // the node was started or joined by this run: its map may be a moment away
	stopNode    func()   // ends the node that this run started; nil when it started none
	log         *slog.Logger
}

func main() {
	a := &app{in: os.Stdin, outFile: os.Stdout, out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	// A reader that went away is an error like others, so that the terminal is given back.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(a.run(os.Args[1:]))
}

// run decides what the words mean and does it.
func (a *app) run(args []string) int {
	c, err := parse(args)
	if err != nil {
		return complain(a.err, err)
	}
	a.socket, a.verbose, a.args = c.socket, c.verbose, args
	a.log = slog.New(slog.DiscardHandler)
	if a.verbose {
		a.log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if c.verb != "" {
		ctx, stop := untilSignal()
		defer stop()
		return a.verb(ctx, c.verb, c.args)
	}
	login := a.login
	switch {
	case c.show:
		login = a.showLogin
	case c.background && !a.isBackground():
		login = a.goBackground
	}
	status, err := login(c)
	if err != nil {
		return complain(a.err, noSession(err))
	}
	return status
}

// died is the cause of a context that a signal ended.
type died struct{ sig syscall.Signal }

func (d *died) Error() string { return "ended by signal: " + d.sig.String() }

func asDied(err error) (*died, bool) {
	var d *died
	ok := errors.As(err, &d)
	return d, ok
}

// untilSignal ends the context with the signals that end programs.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	done := make(chan struct{})
	go func() { // ends with the stop func
		select {
		case s := <-ch:
			sig, _ := s.(syscall.Signal)
			cancel(&died{sig})
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(ch); close(done); cancel(nil) }
}

func (a *app) verb(ctx context.Context, name string, args []string) int {
	var err error
	switch name {
	case "help":
		fmt.Fprint(a.out, helpText)
	case "version":
		fmt.Fprintln(a.out, "tssh", version)
	case "policy":
		return policyCommand(args, a.in, a.out, a.err)
	case "up":
		err = a.up(ctx, args)
	case "down":
		err = a.down(ctx, args)
	case "status":
		err = a.status(ctx, args)
	case "ls":
		err = a.list(ctx, args)
	case "whois":
		err = a.whois(ctx, args)
	case "why":
		err = a.why(ctx, args)
	case "ping":
		err = a.ping(ctx, args)
	case "netcheck":
		err = a.netcheck(ctx, args)
	case "cp":
		err = a.copy(ctx, args)
	case "sftp":
		return a.exit(a.sftp(ctx, args))
	case "proxy":
		err = a.proxy(ctx, args)
	case "serve":
		err = a.serve(ctx, args)
	case "config":
		err = a.config(ctx, args)
	case "sessions":
		err = a.sessions(ctx, args)
	case "watch":
		err = a.watch(ctx, args)
	case "search":
		err = a.search(ctx, args)
	case "play", "verify":
		return a.exit(a.recording(ctx, name, args))
	case backgroundVerb:
		err = a.background(args)
	default:
		err = usage("%q is reserved for a command that this version does not have; a host of that name is reached with: tssh -- %s", name, name)
	}
	return a.exit(0, err)
}

// exit is the exit status of a verb.
func (a *app) exit(status int, err error) int {
	if err == nil {
		return status
	}
	if d, ok := asDied(err); ok {
		return 128 + int(d.sig)
	}
	return complain(a.err, err)
}

// reservedWords are never host names.
func reservedWords() []string {
	return strings.Fields("up down status ls cp sftp ping whois why sessions play watch verify search policy proxy config serve attach approve request requests exec mount netcheck inventory sign login logout help version")
}

func isVerb(s string) bool { return s == backgroundVerb || slices.Contains(reservedWords(), s) }

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return failed("output: %v", err)
	}
	return nil
}

// ready is a node that answers and is on the mesh.
func (a *app) ready(ctx context.Context) (*localapi.Client, localapi.Status, error) {
	c, st, err := a.node(ctx, true)
	if err != nil {
		return nil, st, err
	}
	st, err = a.settled(ctx, c, st)
	return c, st, err
}
