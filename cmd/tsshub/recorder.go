package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tssh/netnode"
	"tssh/netnode/coord"
	"tssh/netnode/daemon"
	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
	"tssh/recording/ship"
)

// recorder is a recorder without the rest of a hub: `tsshub serve --roles recorder`. It joins
// the mesh as a tagged machine. Rules that name one of its tags as "recorder" have hosts send
// their recordings to it, over the mesh.
//
//	hub --records--> netmap.Client --> members, policy
//	                                      |
//	hosts --mesh, TCP ship.Port, TLS, control key and address of one node--> rooms
//	people --mesh, TCP 80, WhoIs--------------------------------------------> rooms
//	hub <--what was done here, as a host's audit log-- audit
//
// # Trust
//
// A host takes for a recorder whoever has, in a record that the hub signed, a tag that the rule
// names, and speaks to the key of that record alone. The recorder takes for a host whoever has
// the key and the address of one record. Nobody's name is looked up anywhere.
//
// It signs with its control key, which is in its record: that is how others know whose signature
// it is, for as long as the policy names it. It has no say about hosts: what they believe of it
// is what it has of a recording, and who watches one; ending a session is for the hub.
func (c *cli) recorder(opt options) error {
	if _, err := netmap.LoadState(filepath.Join(opt.state, "node")); errors.Is(err, netmap.ErrNoState) && opt.joinFile == "" {
		return errRecorderToken()
	}
	dir, err := recorderDir(opt.state)
	if err != nil {
		return err
	}
	defer dir.lock.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: opt.level}))
	x := &standingRecorder{hub: &hub{opt: opt, dir: dir, log: log, say: c.err, ctx: ctx}}
	x.members.Store(&memberTable{})
	x.daemon, err = daemon.New(daemon.Config{
		State: dir.file("node"), OwnerUID: -1, UDPPort: opt.udpPort, AdmitPorts: []uint16{pagePort, ship.Port},
		Log: log.With("part", "node"), OnMap: x.onMap, Serve: x.serve,
	})
	if err != nil {
		return errRecorderStart(err)
	}
	if !x.daemon.Joined() {
		token, name, err := c.joinToken(opt)
		if err == nil {
			err = joinTrouble(x.daemon.Join(ctx, token, name))
		}
		if err != nil {
			dir.undo()
			return err
		}
	}
	return x.run(ctx)
}

// recorderDir makes and locks the state folder. One of a hub or of another node is refused.
func recorderDir(path string) (*stateDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, errNotWritable(path, err)
	}
	s := &stateDir{path: path}
	for name, what := range map[string]string{netmap.HubFile: "belongs to a hub", "node.json": "belongs to a node"} {
		if _, err := os.Stat(s.file(name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, errOtherKind(path, what)
		}
	}
	_, err = os.Stat(path)
	s.first = errors.Is(err, fs.ErrNotExist)
	if err := s.mkdirs(path); err != nil {
		return nil, errNotWritable(path, err)
	}
	if err := s.lockDir(); err != nil {
		return nil, err
	}
	return s, nil
}

// standingRecorder is a recorder that stands alone.
type standingRecorder struct {
	*hub    // of which there is: state folder, audit log, recordings, administrators' socket
	daemon  *daemon.Daemon
	key     netmap.ControlKey
	members atomic.Pointer[memberTable]
	before  atomic.Pointer[formerPolicy]
	named   atomic.Int32 // what was last said about the policy: 1 it names this recorder, 2 it does not
}

// formerPolicy is what is known of the policy before the one in force: only of changes since the
// start, since a recorder keeps no versions.
type formerPolicy struct {
	until  time.Time
	sealTo []string
}

func (x *standingRecorder) run(ctx context.Context) error {
	st, err := netmap.LoadState(x.dir.file("node"))
	if err != nil {
		return errRecorderStart(err)
	}
	x.key = st.Control
	if x.audit, err = audit.OpenBounded(x.dir.file("audit"), recorderSegments); err != nil {
		return errRecorderStart(err)
	}
	defer x.audit.Close()
	r, err := openRooms(roomsConfig{
		State: x.dir.path, Recordings: x.opt.recordingsDir(x.dir), Key: x.key,
		Mesh:   x.known(),
		Bucket: x.opt.bucket, CacheBytes: x.opt.cache << 20, Retention: x.opt.retention, PerHost: x.opt.perHost, Keys: x.opt.keys,
		Audit: x.audit.Append, Log: x.log.With("part", "recorder"), CannotEnd: sayCannotEnd,
	})
	if err != nil {
		return errRecorderStart(err)
	}
	x.rooms.Store(r)
	var page net.Listener
	if x.opt.replay != "" {
		if page, err = net.Listen("tcp", x.opt.replay); err != nil {
			return errPortTaken(x.opt.replay, err)
		}
		defer page.Close()
	}
	admin, err := x.adminListener()
	if err != nil {
		return err
	}
	defer admin.Close()
	sayRecorder(x.say, st.Name, st.Mesh, x.opt.recordingsDir(x.dir))

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for name, fn := range map[string]func(context.Context) error{ // all end with ctx
		"admin": func(ctx context.Context) error {
			return serveHTTP(ctx, coord.AdminServer(http.HandlerFunc(x.admin), x.log), admin)
		},
		"recorder": func(ctx context.Context) error {
			return r.run(ctx, page, func(url string) { sayReplay(x.say, url) }, x.daemon.Run)
		},
	} {
		wg.Go(func() {
			err := fn(ctx)
			if err == nil {
				err = context.Canceled
			}
			cancel(fmt.Errorf("%s: %w", name, err))
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return errStopped(err)
	}
	return nil
}

// recorderSegments bounds the audit log of a recorder that cannot reach its hub: 1 GiB.
const recorderSegments = 16

const sayCannotEnd = "a session is ended by way of the hub, not of its recorder: tssh sessions end ID"

func (x *standingRecorder) known() members {
	return members{
		ByKey: x.byKey, Named: x.nameOf, Policy: func() *policy.Policy { return x.members.Load().policy },
		Node: func(id string) (policy.Identity, bool) {
			who, ok := x.members.Load().who[id]
			return who, ok
		},
		Before: func() (time.Time, []string) {
			if b := x.before.Load(); b != nil {
				return b.until, b.sealTo
			}
			return time.Time{}, nil
		},
	}
}

func (x *standingRecorder) onMap(m *netmap.Map) {
	if was := x.members.Load().policy; was != nil && was != m.Policy {
		x.before.Store(&formerPolicy{time.Now(), was.SealTo()})
	}
	x.members.Store(tableOf(m))
	if !m.Self.Valid() || m.Policy == nil {
		return
	}
	names, now := m.Policy.IsRecorder(m.Self.Tags), int32(1)
	if !names {
		now = 2
	}
	switch was := x.named.Swap(now); {
	case was == now:
	case names:
		x.log.Info("rules of the policy name this recorder", "tags", tagsOf(m.Self))
	default:
		x.log.Warn("no rule of the policy names this recorder: nobody sends anything here, or sees it", "tags", tagsOf(m.Self))
	}
}

func tagsOf(id policy.Identity) string {
	var out []string
	for _, t := range id.Tags {
		out = append(out, string(t))
	}
	return strings.Join(out, " ")
}

func (x *standingRecorder) byKey(k netmap.ControlPublic) (policy.Identity, bool) {
	p, ok := x.members.Load().byControl[k]
	return p.Identity, ok
}

func (x *standingRecorder) nameOf(name string) (string, bool) {
	id, ok := x.members.Load().byName[name]
	return id, ok
}

// serve is what the recorder does while its node is up.
func (x *standingRecorder) serve(ctx context.Context, n *netnode.Node, c *netmap.Client) error {
	conf, err := netmap.ServerTLS(x.key)
	if err != nil {
		return err
	}
	r := x.rooms.Load()
	mux := http.NewServeMux()
	r.mount(mux)
	srv := &http.Server{
		Handler: x.itself(n.WhoIs, mux), TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(x.log.Handler(), slog.LevelDebug),
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true) // connections about what runs are taken over
	l, err := n.Listen("tcp", fmt.Sprintf(":%d", ship.Port))
	if err != nil {
		return err
	}
	sender, err := ship.NewAuditSender(ship.AuditSenderConfig{Audit: x.audit, HTTP: c.HTTP, Log: x.log.With("part", "audit")})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, fn := range []func(context.Context) error{ // all end with ctx
		func(ctx context.Context) error { return serveTLS(ctx, srv, newGuard(l)) },
		func(ctx context.Context) error { return r.serveMesh(ctx, n, c) },
		sender.Run,
	} {
		wg.Go(func() {
			defer cancel()
			if err := fn(ctx); !errors.Is(err, context.Canceled) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// itself lets in whose address is of the node whose key the connection proved.
func (x *standingRecorder) itself(whois func(netip.Addr) (policy.Identity, bool), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		key, ok := coord.PeerKey(req)
		byKey, known := x.byKey(key)
		ap, err := netip.ParseAddrPort(req.RemoteAddr)
		if err == nil && ok && known {
			if byAddr, there := whois(ap.Addr().Unmap()); there && byAddr.ID == byKey.ID {
				next.ServeHTTP(w, req)
				return
			}
		}
		x.log.Warn("a connection that is nobody's", "remote", req.RemoteAddr, "key", key.String())
		http.Error(w, "this recorder does not know this host", http.StatusForbidden)
	})
}

// admin answers the administrators' socket.
func (x *standingRecorder) admin(w http.ResponseWriter, r *http.Request) {
	switch _, ok := coord.Caller(r.Context()); {
	case !ok:
		sayProblem(w, http.StatusForbidden, "only root and the user that tsshub runs as may do this")
	case strings.HasPrefix(r.URL.Path, recordingPath):
		x.recordingAdmin(w, r)
	case r.URL.Path == coord.AdminAudit && r.Method == http.MethodGet:
		coord.WriteAudit(w, r, x.audit.Read, x.log)
	default:
		sayProblem(w, http.StatusNotFound, "this is a recorder: that is for the hub's own machine")
	}
}
