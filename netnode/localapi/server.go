package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	maxHeader   = 16 << 10
	maxBody     = 64 << 10
	maxName     = 255
	maxCalls    = 512 // connections of one uid at a time, streams included
	maxRefusing = 16  // refused connections that get an answer at a time
	callTimeout = 30 * time.Second
	joinTimeout = 2 * time.Minute
	protocol    = "tssh-raw" // the Upgrade token of a dial
	statusCall  = "GET /v1/status"
)

// Config is a Server's. A func that is nil answers "unsupported". Funcs return *Error for
// what the caller should read; any other error becomes "internal", with its words in the log only.
type Config struct {
	Path      string // of the socket; SystemPath for the daemon of the whole machine
	OwnerUID  int    // who may dial besides root; -1 is nobody
	Userspace bool   // the owner's own node: the owner may also join, up and down, and no other uid may connect
	Log       *slog.Logger
	Listening func() // nil, or called once the socket is there

	Status   func(ctx context.Context) (Status, error)
	WhoIs    func(ctx context.Context, a netip.Addr) (Node, error)
	Resolve  func(ctx context.Context, name string) (Resolved, error)
	Dial     func(ctx context.Context, host string, port uint16) (net.Conn, error)
	Join     func(ctx context.Context, r JoinRequest) error
	Up, Down func(ctx context.Context) error
	Rotate   func(ctx context.Context) error
	Settings func(ctx context.Context, s Settings) error
	Sessions func(ctx context.Context) ([]Session, error)
	Why      func(ctx context.Context, r WhyRequest) (Why, error)
	Ping     func(ctx context.Context, host string) (Pong, error)
	Netcheck func(ctx context.Context) (Netcheck, error)
	Metrics  func(w io.Writer) error // in the text format of Prometheus

	// The uid is the caller's.
	ServePort func(ctx context.Context, uid int, r ServeRequest) (Served, error)
	ServeOff  func(ctx context.Context, uid int, port uint16) (ended int, err error)
	Served    func(ctx context.Context) ([]Served, error)
}

type server struct {
	cfg Config
	log *slog.Logger

	large gate            // answers that list the mesh
	wg    sync.WaitGroup  // streams, which are not the http.Server's any more
	done  context.Context // ends with Serve
}

// Serve listens at cfg.Path until ctx ends, and returns after the last connection is closed.
func Serve(ctx context.Context, cfg Config) error {
	l, release, err := listen(cfg.Path, !cfg.Userspace)
	if err != nil {
		return err
	}
	defer release()
	if cfg.Listening != nil {
		cfg.Listening()
	}
	return serve(ctx, l, cfg)
}

type uidKey struct{}

// caller is who called. It is the one value kept in a request's context, put there by the
// kernel's word about the connection, before any byte of the request is read.
func caller(r *http.Request) int {
	uid, ok := r.Context().Value(uidKey{}).(int)
	if !ok {
		return -1
	}
	return uid
}

func serve(ctx context.Context, l *net.UnixListener, cfg Config) error {
	s := &server{cfg: cfg, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	callers := &callers{UnixListener: l, log: s.log, open: map[int]int{}}
	var stop context.CancelFunc
	s.done, stop = context.WithCancel(ctx)
	defer stop()
	h := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      joinTimeout + 30*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, uidKey{}, c.(*callConn).uid)
		},
	}
	// Ends with ctx, or with the listener.
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		<-s.done.Done()
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if h.Shutdown(end) != nil {
			h.Close()
		}
	}()
	err := h.Serve(callers)
	stop()
	<-closed
	s.wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("localapi: %w", err)
}

// class of a caller, in rising order.
type class int

const (
	nobody class = iota
	anyone
	owner
	manager
)

func (s *server) class(uid int) class {
	switch {
	case uid < 0:
		return nobody
	case uid == 0:
		return manager
	case uid == s.cfg.OwnerUID && s.cfg.Userspace:
		return manager
	case uid == s.cfg.OwnerUID:
		return owner
	}
	return anyone
}

func (s *server) routes() http.Handler {
	m := http.NewServeMux()
	// handle is the one place that judges a caller: no route without a class.
	handle := func(pattern string, need class, limit time.Duration, f func(ctx context.Context, r *http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if e := s.admit(r, need); e != nil {
				writeError(w, e)
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			if pattern == statusCall {
				leave, ok := s.large.enter(ctx, caller(r))
				if !ok {
					writeError(w, Errorf(CodeLimit, "too many of these calls at a time (%d)", maxAnswers))
					return
				}
				defer leave() // once the caller has read it
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			v, err := f(ctx, r)
			if err != nil {
				writeError(w, s.public(r, err))
				return
			}
			writeJSON(w, 200, v)
		})
	}
	handle(statusCall, anyone, callTimeout, s.status)
	handle("GET /v1/whois", anyone, callTimeout, s.whois)
	handle("GET /v1/resolve", anyone, callTimeout, s.resolve)
	handle("GET /v1/sessions", owner, callTimeout, s.sessions)
	handle("GET /v1/policy/why", owner, callTimeout, s.why)
	handle("POST /v1/ping", anyone, pingTime, s.ping)
	handle("POST /v1/netcheck", anyone, pingTime, s.netcheck)
	handle("POST /v1/join", manager, joinTimeout, s.join)
	handle("POST /v1/up", manager, callTimeout, s.plain(s.cfg.Up))
	handle("POST /v1/down", manager, callTimeout, s.plain(s.cfg.Down))
	s.serveRoutes(func(pattern string, need class, f func(context.Context, *http.Request) (any, error)) {
		handle(pattern, need, callTimeout, f)
	})
	handle("POST /v1/rotate", manager, joinTimeout, s.plain(s.cfg.Rotate))
	handle("POST /v1/settings", manager, callTimeout, s.settings)
	m.HandleFunc("POST /v1/dial", s.dial)
	m.HandleFunc("GET /metrics", s.metrics)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, Errorf(CodeNotFound, "no such call"))
	})
	return m
}

func (s *server) admit(r *http.Request, need class) *Error {
	got := s.class(caller(r))
	if got >= need {
		return nil
	}
	s.log.Info("local call refused", "uid", caller(r), "call", r.URL.Path)
	switch {
	case need == manager && s.cfg.Userspace:
		return Errorf(CodeForbidden, "only the owner of this node may do that")
	case need == manager:
		return Errorf(CodeForbidden, "only root may do that")
	}
	return Errorf(CodeForbidden, "only root and the owner of this node may do that")
}

// public turns what a func returned into what the caller may read.
func (s *server) public(r *http.Request, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Errorf(CodeUnreachable, "no answer in time")
	}
	s.log.Error("local call", "call", r.URL.Path, "uid", caller(r), "err", err)
	return Errorf(CodeInternal, "the daemon could not do that, its log says why")
}

func (s *server) status(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.Status == nil {
		return nil, unsupported()
	}
	st, err := s.cfg.Status(ctx)
	if err != nil {
		return nil, err
	}
	c := s.class(caller(r))
	// With a kernel TUN everybody dials for themselves, without this socket.
	st.MayDial, st.MayManage = c >= owner || !st.Userspace, c >= manager
	return st, nil
}

func (s *server) whois(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.WhoIs == nil {
		return nil, unsupported()
	}
	a, ok := ParseAddr(r.URL.Query().Get("addr"))
	if !ok {
		return nil, Errorf(CodeBadRequest, "%q is not an address", short(r.URL.Query().Get("addr")))
	}
	return s.cfg.WhoIs(ctx, a)
}

func (s *server) resolve(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.Resolve == nil {
		return nil, unsupported()
	}
	name, e := nameArg(r.URL.Query().Get("name"))
	if e != nil {
		return nil, e
	}
	return s.cfg.Resolve(ctx, name)
}

func (s *server) sessions(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.Sessions == nil {
		return nil, unsupported()
	}
	v, err := s.cfg.Sessions(ctx)
	if v == nil {
		v = []Session{}
	}
	return v, err
}

func (s *server) why(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.Why == nil {
		return nil, unsupported()
	}
	q := r.URL.Query()
	host, e := nameArg(q.Get("host"))
	if e != nil {
		return nil, e
	}
	user := q.Get("user")
	if user == "" || len(user) > maxName {
		return nil, Errorf(CodeBadRequest, "no local user given")
	}
	y, err := s.cfg.Why(ctx, WhyRequest{Host: host, User: user})
	if err != nil {
		return nil, err
	}
	if s.class(caller(r)) < manager {
		y.Reason, y.Section, y.Rule = "", "", nil
	}
	return y, nil
}

func (s *server) join(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.Join == nil {
		return nil, unsupported()
	}
	var q JoinRequest
	if err := decode(r.Body, &q); err != nil {
		return nil, err
	}
	if q.Token == "" {
		return nil, Errorf(CodeBadRequest, "no join token given")
	}
	return struct{}{}, s.cfg.Join(ctx, q)
}

func (s *server) settings(ctx context.Context, r *http.Request) (any, error) {
	if s.cfg.Settings == nil {
		return nil, unsupported()
	}
	var q Settings
	if err := decode(r.Body, &q); err != nil {
		return nil, err
	}
	return struct{}{}, s.cfg.Settings(ctx, q)
}

// metrics is text, for a collector that is pointed at the socket. It has counts only.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	if e := s.admit(r, anyone); e != nil {
		writeError(w, e)
		return
	}
	if s.cfg.Metrics == nil {
		writeError(w, unsupported())
		return
	}
	var b bytes.Buffer
	if err := s.cfg.Metrics(&b); err != nil {
		writeError(w, s.public(r, err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(b.Bytes()) // the caller may be gone; nothing depends on it
}

func (s *server) plain(f func(context.Context) error) func(context.Context, *http.Request) (any, error) {
	return func(ctx context.Context, r *http.Request) (any, error) {
		if f == nil {
			return nil, unsupported()
		}
		return struct{}{}, f(ctx)
	}
}

func unsupported() *Error { return Errorf(CodeUnsupported, "this daemon does not offer that") }

// nameArg lets through what can be a host name or an address, and makes it plain.
func nameArg(s string) (string, *Error) {
	if s == "" || len(s) > maxName {
		return "", Errorf(CodeBadRequest, "no host name given, or one longer than %d bytes", maxName)
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("/\\@\"'`<>$;&|(){}", c) >= 0 {
			return "", Errorf(CodeBadRequest, "%q is not a host name", short(s))
		}
	}
	return strings.ToLower(strings.TrimSuffix(s, ".")), nil
}

func portArg(s string) (uint16, *Error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil || p == 0 {
		return 0, Errorf(CodeBadRequest, "%q is not a port", short(s))
	}
	return uint16(p), nil
}

// short bounds and cleans what is quoted back; %q has made it printable.
func short(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}

// decode reads one JSON value, whole and known.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(CodeBadRequest, "the request is not what this call takes")
	}
	if _, err := d.Token(); err != io.EOF {
		return Errorf(CodeBadRequest, "the request has more than one value")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // the caller may be gone; nothing depends on it
}

func writeError(w http.ResponseWriter, e *Error) { writeJSON(w, statusOf(e.Code), e) }
