package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
)

// hub is what the roles of one tsshub share. A role's start func (parts.go) mounts what
// it answers and returns what it runs.
type hub struct {
	opt   options
	dir   *stateDir
	log   *slog.Logger
	say   io.Writer // words for whoever started it
	audit *audit.Log
	// copies are the audit logs of the hosts.
	copies *audit.Copies
	coord  *coord.Server
	db     *sql.DB
	// tls answers on the TLS port, below everything; patterns as of net/http.
	tls *http.ServeMux
	// listen is where the TLS port is, as this process reaches it itself.
	listen net.Addr
	ctx    context.Context       // ends when the hub stops
	rooms  atomic.Pointer[rooms] // nil without recordings here
}

const stopTime = 10 * time.Second

// serve is `tsshub serve`. What can be wrong with the command line, the folder and the
// port is found out before anything is written.
func (c *cli) serve(args []string) error {
	opt, err := parseServe(args)
	if err != nil {
		return err
	}
	if opt.alone() {
		syscall.Umask(0o077)
		if opt.roles["recorder"] {
			return c.recorder(opt)
		}
		return c.standalone(opt)
	}
	syscall.Umask(0o077) // databases and sockets are the hub's alone
	dir, err := inspect(opt.state)
	if err != nil {
		return err
	}
	defer func() {
		if dir.lock != nil {
			dir.lock.Close()
		}
	}()
	if dir.first && opt.mesh == "" {
		opt.mesh = "mesh"
	}
	text, err := readPolicy(opt.policy)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", opt.listen)
	if err != nil {
		return errPortTaken(opt.listen, err)
	}
	defer l.Close()
	if err := opt.finish(l.Addr()); err != nil {
		return err
	}
	if dir.first {
		if err := checkRange(opt, c.err); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := dir.prepare(); err != nil {
		dir.undo()
		return err
	}
	h := &hub{opt: opt, dir: dir, log: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: opt.level})), say: c.err, tls: http.NewServeMux(), listen: l.Addr(), ctx: ctx}
	defer h.close()
	if err := h.open(text); err != nil {
		h.close()
		dir.undo()
		return err
	}
	up := false
	err = h.run(ctx, l, func() {
		up = true
		sayUp(c.err, h.coord.Mesh().Name, opt.url, dir.path, dir.first)
	})
	if err != nil && !up {
		h.close()
		dir.undo()
	}
	return err
}

func readPolicy(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, errFile("the policy", name, err)
	}
	if len(text) == 0 {
		return nil, problems{name + ": the file is empty"}
	}
	if p, ps := policy.Parse(name, text); p == nil {
		return nil, lines(ps)
	}
	return text, nil
}

func lines(ps []policy.Problem) problems {
	var out problems
	for _, p := range ps {
		out = append(out, p.Error())
	}
	return out
}

// open brings up what all roles need: the audit log, the database, coordination.
func (h *hub) open(text []byte) (err error) {
	if h.audit, err = audit.Open(h.dir.file("audit")); err != nil {
		return errStart(err)
	}
	if h.copies, err = audit.OpenCopies(audit.CopiesConfig{Dir: h.dir.file("audit-hosts"), Noted: h.audit.Append}); err != nil {
		return errStart(err)
	}
	if h.db, err = sql.Open("sqlite", coord.SQLiteDSN(h.opt.dbFile(h.dir))); err != nil {
		return errStart(err)
	}
	if err := h.dir.settleKey(h.ctx, h.db); err != nil {
		return errStart(err)
	}
	h.coord, err = coord.New(h.ctx, coord.Config{
		DB: h.db, Key: h.dir.key, Mesh: h.opt.mesh, Range4: h.opt.range4, Host: h.opt.host, Policy: text, PolicyName: h.opt.policy, Restored: h.opt.restored,
		Announce: h.opt.announce, NodeExpiry: h.opt.nodeExpiry, EphemeralGrace: h.opt.ephemeralGrace,
		Audit: h.audit.Append, ReadAudit: h.readAudit, Log: h.log.With("part", "coord"),
	})
	var ref *coord.Refusal
	if errors.As(err, &ref) && ref.Code == coord.CodePolicy {
		return problems(strings.Split(ref.Say, "\n"))
	}
	if err != nil {
		return errStart(err)
	}
	return nil
}

// readAudit is what the hub decided and what all hosts did.
func (h *hub) readAudit(f audit.Filter, fn func(audit.Record) error) error {
	return audit.ReadAll(h.audit.Dir(), h.copies, f, fn)
}

func (h *hub) close() {
	if h.db != nil {
		h.db.Close()
		h.db = nil
	}
	if h.audit != nil {
		h.audit.Close()
		h.audit = nil
	}
}

// run serves until a signal comes or something breaks, and returns after the last
// goroutine.
func (h *hub) run(signals context.Context, l net.Listener, ready func()) error {
	ctx, cancel := context.WithCancelCause(signals)
	h.ctx = ctx
	var wg sync.WaitGroup
	// Ends when fn does, which all of them do soon after ctx.
	start := func(name string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	stop := func(err error) error {
		cancel(err)
		wg.Wait()
		return err
	}
	admin, err := h.adminListener()
	if err != nil {
		return stop(err)
	}
	defer admin.Close() // a part that refuses ends all before it is served
	for _, p := range parts() {
		if !h.opt.roles[p.role] {
			continue
		}
		fn, err := p.start(h)
		if err != nil {
			return stop(err)
		}
		start(p.role, fn)
	}
	start("admin", func(ctx context.Context) error { return serveHTTP(ctx, h.adminServer(), admin) })
	conf, err := netmap.ServerTLS(h.dir.key)
	if err != nil {
		return stop(err)
	}
	srv := &http.Server{
		Handler: h.tls, TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true) // streams take the connection over
	start("tls", func(ctx context.Context) error { return serveTLS(ctx, srv, newGuard(l)) })
	start("reload", h.reloads)
	ready()
	<-ctx.Done()
	wg.Wait()
	if signals.Err() != nil {
		return nil
	}
	return errStopped(context.Cause(ctx))
}

func serveTLS(ctx context.Context, srv *http.Server, l net.Listener) error {
	return serveWith(ctx, srv, func() error { return srv.ServeTLS(l, "", "") })
}

func serveHTTP(ctx context.Context, srv *http.Server, l net.Listener) error {
	return serveWith(ctx, srv, func() error { return srv.Serve(l) })
}

// serveWith serves until ctx ends, then lets open requests finish for a while.
func serveWith(ctx context.Context, srv *http.Server, serve func() error) error {
	done := make(chan error, 1)
	go func() { done <- serve() }() // ends with Shutdown below
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if srv.Shutdown(end) != nil {
		srv.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// adminListener is the administrators' socket, in the state folder. The folder is
// locked, so what lies there from before is nobody's.
func (h *hub) adminListener() (net.Listener, error) {
	name := socketPath(h.dir.path)
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errNotWritable(h.dir.path, err)
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, errSocket(name, err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close()
		return nil, errSocket(name, err)
	}
	return l, nil
}

func socketPath(state string) string { return filepath.Join(state, "admin.sock") }

// reloads reads the policy file again at every SIGHUP.
func (h *hub) reloads(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		if h.opt.policy == "" {
			h.log.Warn("SIGHUP: there is no --policy to read again")
			continue
		}
		text, err := readPolicy(h.opt.policy)
		if err == nil {
			err = h.coord.Reload(ctx, text)
		}
		if err != nil {
			h.log.Error("the policy stays as it was", "err", err)
			continue
		}
		h.log.Info("policy read again", "file", h.opt.policy)
	}
}
