package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"tssh/netnode"
	"tssh/netnode/coord"
	"tssh/netnode/daemon"
	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/find"
	"tssh/recording/live"
	"tssh/recording/replay"
	"tssh/recording/ship"
	"tssh/recording/store"
)

// rooms is a recorder: the hub's own, or one that stands alone (recorder.go). It takes
// recordings in, shows them, and is a node of its mesh to show them there.
//
//	hosts --TLS, control key--------> ship.Receiver --> store.Store
//	      <--the same, live.Hub----- ends, watchers      |
//	                                                      |
//	members --mesh, TCP 80, WhoIs--> replay.Viewer <------+
//	loopback, token in the address -----^
type rooms struct {
	search   *find.Index // set by run
	cfg      roomsConfig
	store    *store.Store
	receiver *ship.Receiver
	live     *live.Hub
}

type roomsConfig struct {
	State      string // the hub's
	Recordings string // folder
	Bucket     string // URL of the bucket where complete recordings go too; "" for none
	CacheBytes int64  // so much of the bucket is kept in the folder
	Retention  []store.Rule
	Keys       *recording.Keys // open sealed recordings; nil: they are kept, listed and verified
	Mesh       members
	Key        netmap.ControlKey
	Former     []netmap.FormerKey // the recorder had before
	Audit      func(audit.Entry) error
	UDPPort    int   // of the recorder's own node; 0: the last one, or any
	Quota      int64 // bytes of recordings of one host; 0: no limit
	PerHost    int   // recordings of one host; 0: no limit
	Log        *slog.Logger
	CannotEnd  string // why sessions are not ended from here; "": they are
}

// members is what a recorder knows of its mesh: the hub from its database (parts.go), one that
// stands alone from verified records (recorder.go).
type members struct {
	ByKey  func(netmap.ControlPublic) (policy.Identity, bool)
	Node   func(id string) (policy.Identity, bool)
	Named  func(name string) (id string, ok bool)
	Policy func() *policy.Policy
	// Before says since when the policy is in force, and whom the one before had recordings
	// sealed to; the zero time where that is not known.
	Before func() (since time.Time, sealTo []string)
}

func openRooms(c roomsConfig) (*rooms, error) {
	// The list of recordings stays in memory; what reading and indexing them leaves behind may be
	// half as much again, rather than as much.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	r := &rooms{cfg: c}
	bucket, err := openBucket(c.Bucket)
	if err != nil {
		return nil, err
	}
	var former []ed25519.PublicKey
	for _, k := range c.Former {
		former = append(former, ed25519.PublicKey(k.Key[:]))
	}
	r.store, err = store.Open(store.Config{Former: former, Bucket: bucket, CacheBytes: c.CacheBytes, Retention: c.Retention, Key: c.Key.Signer(), Deleting: r.deleting,
		Dir: c.Recordings, MaxBytesPerHost: c.Quota, MaxPerHost: c.PerHost, Limited: r.limited, MinFree: 256 << 20, Check: r.claims, Sealing: r.sealing, Marked: r.marked, Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("recordings: %w", err)
	}
	r.receiver, err = ship.NewReceiver(ship.ReceiverConfig{Sink: r.store, HostOf: r.host, Key: c.Key.Signer(), Log: c.Log})
	if err != nil {
		return nil, err
	}
	r.live, err = live.NewHub(live.HubConfig{HostOf: r.host, Log: c.Log})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// host is the node that a recorder's request comes from, by the key its connection proved.
func (r *rooms) host(req *http.Request) (string, bool) {
	key, ok := coord.PeerKey(req)
	if !ok {
		return "", false
	}
	id, ok := r.cfg.Mesh.ByKey(key)
	return id.ID, ok
}

// claims refuses a recording in which a host gives itself another machine's name: that is
// what people see in the list. The name of a machine that was renamed rests for a week.
func (r *rooms) claims(m recording.Meta) error {
	if id, ok := r.cfg.Mesh.Named(m.Host); ok && id != m.HostID {
		return fmt.Errorf("another host is called %q", m.Host)
	}
	return nil
}

// mount adds the recorder to the TLS port.
func (r *rooms) mount(m *http.ServeMux) {
	m.Handle("/v1/recordings/", r.receiver)
	m.Handle(live.Path, r.live)
}

// run keeps what was recorded, and serves the page over loopback and whatever onMesh does, until
// ctx ends. l is for the page over loopback and may be nil.
func (r *rooms) run(ctx context.Context, l net.Listener, announce func(url string), onMesh func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	search, err := find.Open(find.Config{Path: filepath.Join(r.cfg.State, "search.db"), Store: r.store, Keys: r.cfg.Keys, Log: r.cfg.Log.With("part", "search")})
	if err != nil {
		return err
	}
	defer search.Close()
	defer context.AfterFunc(ctx, r.live.Close)()
	r.search = search
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { search.Run(ctx) }) // ends with ctx
	wg.Go(func() { r.keep(ctx) })     // ends with ctx
	var errs [2]error
	if l != nil {
		wg.Go(func() { // ends with ctx
			errs[0] = r.onLoopback(ctx, l, announce)
			cancel()
		})
	}
	wg.Go(func() { // ends with ctx
		errs[1] = onMesh(ctx)
		cancel()
	})
	wg.Wait()
	return errors.Join(errs[:]...)
}

// onLoopback serves the page to whoever has the token in its address.
func (r *rooms) onLoopback(ctx context.Context, l net.Listener, announce func(string)) error {
	raw := make([]byte, 24)
	if _, err := rand.Read(raw); err != nil {
		return err
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	v, err := r.viewer(replay.Config{
		Token:         token,
		TokenIdentity: administrator("loopback"),
	})
	if err != nil {
		l.Close()
		return err
	}
	defer v.Close()
	announce("http://" + l.Addr().String() + "/?token=" + token)
	return serveUntil(ctx, l, v)
}

// administrator is who can read the hub's output, or use its socket.
func administrator(where string) policy.Identity {
	return policy.Identity{ID: where, Name: where, User: "administrator@" + netmap.HubName, Role: policy.RoleAdmin}
}

func (r *rooms) viewer(c replay.Config) (*replay.Viewer, error) {
	return replay.New(r.viewerConfig(c))
}

func (r *rooms) viewerConfig(c replay.Config) replay.Config {
	c.Search, c.Live, c.CannotEnd, c.Keys = r.search, r.live, r.cfg.CannotEnd, r.cfg.Keys
	c.Store, c.Node, c.Policy, c.Audit, c.Log = r.store, r.cfg.Mesh.Node, r.cfg.Mesh.Policy, r.cfg.Audit, r.cfg.Log
	return c
}

// ownNode is the hub's own node, which shows recordings to members. token lets it in, once.
func (r *rooms) ownNode(ctx context.Context, token func(context.Context) (netmap.Token, error)) error {
	d, err := daemon.New(daemon.Config{
		State: filepath.Join(r.cfg.State, "node"), Hostname: netmap.HubName, OwnerUID: -1, UDPPort: r.cfg.UDPPort,
		AdmitPorts: []uint16{pagePort}, Log: r.cfg.Log.With("part", "node"), Serve: r.serveMesh,
	})
	if err != nil {
		return err
	}
	if !d.Joined() {
		t, err := token(ctx)
		if err != nil {
			return err
		}
		if err := d.Join(ctx, t, netmap.HubName); err != nil {
			return fmt.Errorf("the hub's own node: %w", err)
		}
	}
	return d.Run(ctx)
}

// pagePort is where recorders show their page on the mesh.
const pagePort = 80

func (r *rooms) serveMesh(ctx context.Context, n *netnode.Node, c *netmap.Client) error {
	m := c.Map()
	hosts := []string{m.Self.Name, m.Self.Name + "." + m.Mesh + ".internal"}
	var listeners []net.Listener
	for _, a := range m.SelfAddrs {
		l, err := n.Listen("tcp", netip.AddrPortFrom(a, pagePort).String())
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
		hosts = append(hosts, a.String())
	}
	v, err := r.viewer(replay.Config{AllowedHosts: hosts, WhoIs: func(req *http.Request) (policy.Identity, bool) {
		ap, err := netip.ParseAddrPort(req.RemoteAddr)
		if err != nil {
			return policy.Identity{}, false
		}
		return n.WhoIs(ap.Addr())
	}})
	if err != nil {
		return err
	}
	defer v.Close()
	var wg sync.WaitGroup
	errs := make([]error, len(listeners))
	for i, l := range listeners {
		wg.Go(func() { errs[i] = serveUntil(ctx, newGuard(l), v) }) // ends with ctx
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serveUntil serves HTTP until ctx ends.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
