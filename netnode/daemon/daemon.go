package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tssh/netnode"
	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
	"tssh/netnode/serve"
	"tssh/policy"
)

// Config is a Daemon's.
type Config struct {
	State    string // folder of the node's state
	Hostname string // name to join under; empty takes the computer's
	Socket   string // of the local API; empty serves none
	OwnerUID int    // who may use the node besides root
	Version  string
	Log      *slog.Logger

	TUN        string // kernel TUN device; empty is a userspace node
	UDPPort    int
	RunDir     string
	AdmitPorts []uint16
	LocalUsers func(self policy.Identity) []uint32 // see netnode.Config
	// Loopback has the node offer 127.0.0.1 as an address to be reached at, for meshes
	// that live on one machine.
	Loopback bool
	// PortMapping has the router of a private network asked to let peers in.
	PortMapping bool

	// HostKeys are the node's SSH host keys, published with the node.
	HostKeys   []string
	Attributes map[string]string

	// RotateEvery is how old the node's keys may become before it makes others; 0: any age.
	RotateEvery time.Duration

	// OnMap is called with every map after the node works by it; it must not block.
	OnMap func(*netmap.Map)
	// Serve, when set, runs for as long as the node is up, from the first map on that says
	// who the node is, and must return when ctx ends. Its error takes the node down and Run
	// returns it.
	Serve    func(ctx context.Context, n *netnode.Node, c *netmap.Client) error
	Sessions func(ctx context.Context) ([]localapi.Session, error)
	// Metrics writes what the program itself counts; nil when it counts nothing.
	Metrics func(w io.Writer) error
	// Names says in words how other programs learn the mesh's names; nil: they do not.
	Names func() string
	// DialCommand starts a process that runs serve.HelperMain, for a daemon of root's that serves
	// programs of its owner's; nil: only what its own user asks for is served.
	DialCommand []string
}

// Daemon is a node. The zero value is not usable; New makes one.
type Daemon struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	state   *netmap.State // nil: not joined
	down    bool
	problem string // why the node is not up although it should be
	member  *member
	wake    chan struct{} // something above changed; capacity 1

	served *serve.Server
	dialer *serve.Dialer
}

// member is the node while it is up, owned by Run.
type member struct {
	node   *netnode.Node
	client *netmap.Client
	where  netmap.Where       // where the node can be reached, guarded by Daemon.mu
	tell   func(netmap.Where) // passes that on, guarded by Daemon.mu; nil before there is a client
	end    context.CancelCauseFunc
	done   chan struct{}
}

// Files of the state folder that are there or not.
const (
	downFile      = "down"
	noMappingFile = "no-port-mapping"
)

func (d *Daemon) has(file string) bool {
	_, err := os.Stat(filepath.Join(d.cfg.State, file))
	return err == nil
}

// New reads the state folder. A folder in which nothing has joined yet is fine.
func New(cfg Config) (*Daemon, error) {
	d := &Daemon{cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.served = d.newServer()
	st, err := netmap.LoadState(cfg.State)
	switch {
	case err == nil:
		d.state = st
	case !errors.Is(err, netmap.ErrNoState):
		return nil, err
	}
	d.down = d.has(downFile)
	return d, nil
}

// Joined reports whether the node is a member of a mesh.
func (d *Daemon) Joined() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state != nil
}

// SameMesh reports whether a token that is given again is for the mesh that this node is in.
func (d *Daemon) SameMesh(ctx context.Context, t netmap.Token) bool {
	d.mu.Lock()
	st := d.state
	d.mu.Unlock()
	return st != nil && st.SameMesh(ctx, t, dialHub)
}

// Join enrols the node, and brings it up where Run is at work.
func (d *Daemon) Join(ctx context.Context, token netmap.Token, name string) error {
	if name == "" {
		name = d.cfg.Hostname
	}
	if name == "" {
		h, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("daemon: %w", err)
		}
		name = netmap.NameFromHostname(h)
	}
	st, err := netmap.Join(ctx, netmap.JoinConfig{Dir: d.cfg.State, Token: token, Name: name, HostKeys: d.cfg.HostKeys, Attributes: d.cfg.Attributes, Dial: dialHub})
	if err != nil {
		return err
	}
	for _, w := range st.Warnings {
		d.log.Warn(w)
	}
	d.mu.Lock()
	d.state, d.problem = st, ""
	m := d.member
	d.mu.Unlock()
	if err := d.setDown(false); err != nil {
		return err
	}
	d.poke()
	if m == nil {
		return nil
	}
	m.end(errRejoined)
	select { // what is said of the node from now on is of its new stay
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Up lets the node be on the mesh.
func (d *Daemon) Up(context.Context) error {
	if !d.Joined() {
		return localapi.Errorf(localapi.CodeNotJoined, "this node has not joined a mesh yet")
	}
	if err := d.setDown(false); err != nil {
		return err
	}
	d.poke()
	return nil
}

// Down takes the node off the mesh until Up, also across restarts.
func (d *Daemon) Down(ctx context.Context) error {
	if !d.Joined() {
		return localapi.Errorf(localapi.CodeNotJoined, "this node has not joined a mesh yet")
	}
	if err := d.setDown(true); err != nil {
		return err
	}
	d.mu.Lock()
	m := d.member
	d.mu.Unlock()
	if m == nil {
		return nil
	}
	// With the hub away it finds out by itself, later.
	lctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	if err := m.client.Leave(lctx); err != nil {
		d.log.Debug("the hub was not told", "err", err)
	}
	cancel()
	m.end(errDown)
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	errDown     = errors.New("told to be down")
	errRejoined = errors.New("joined anew")
	errSettings = errors.New("other settings")
	errDevice   = errors.New("the network device is gone")
)

// mark has a file of the state folder be there, or not.
func (d *Daemon) mark(file string, there bool) error {
	file = filepath.Join(d.cfg.State, file)
	var err error
	if there {
		err = os.WriteFile(file, nil, 0o600)
	} else if err = os.Remove(file); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	return nil
}

// set changes settings. The node leaves the mesh for a moment and comes back with them.
func (d *Daemon) set(ctx context.Context, s localapi.Settings) error {
	if s.PortMapping == nil || *s.PortMapping == !d.has(noMappingFile) {
		return nil
	}
	if !d.Joined() {
		return localapi.Errorf(localapi.CodeNotJoined, "this node has not joined a mesh yet")
	}
	if *s.PortMapping && !d.cfg.PortMapping {
		return localapi.Errorf(localapi.CodeConflict, "this daemon was started without port mapping")
	}
	if err := d.mark(noMappingFile, !*s.PortMapping); err != nil {
		return err
	}
	m := d.current()
	if m == nil {
		return nil
	}
	m.end(errSettings)
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Daemon) setDown(down bool) error {
	if err := d.mark(downFile, down); err != nil {
		return err
	}
	d.mu.Lock()
	d.down = down
	d.mu.Unlock()
	return nil
}

func (d *Daemon) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run keeps the node on the mesh and the socket answering until ctx ends. It returns
// after its last goroutine.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	go breathe(ctx) // ends with ctx
	var api chan error
	if d.cfg.Socket != "" {
		api = make(chan error, 1)
		c, listening := d.api(), make(chan struct{})
		c.Listening = func() { close(listening) }
		go func() { // ends with ctx, or when the socket cannot be had
			api <- localapi.Serve(ctx, c)
		}()
		// Config.Serve may use it at once.
		select {
		case <-listening:
		case err := <-api:
			api <- err
		}
	}
	err := d.loop(ctx, api)
	d.dialer.Close()
	cancel()
	if api != nil {
		if e := <-api; err == nil {
			err = e
		}
	}
	return err
}

func (d *Daemon) loop(ctx context.Context, api chan error) error {
	for {
		d.mu.Lock()
		st := d.state
		up := st != nil && !d.down && d.problem == ""
		d.mu.Unlock()
		if !up {
			select {
			case <-ctx.Done():
				return nil
			case err := <-api:
				api <- nil
				return err
			case <-d.wake:
			}
			continue
		}
		err := d.up(ctx, st, api)
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
			return nil
		case errors.Is(err, errDown), errors.Is(err, errRejoined), errors.Is(err, errSettings):
		case errors.Is(err, netmap.ErrRemoved), errors.Is(err, netmap.ErrExpired):
			d.log.Error("off the mesh", "err", err)
		default:
			return err
		}
	}
}

// up is one stay on the mesh.
func (d *Daemon) up(parent context.Context, st *netmap.State, api chan error) error {
	ctx, end := context.WithCancelCause(parent)
	defer end(nil)
	m := &member{end: end, done: make(chan struct{})}
	node, err := netnode.New(netnode.Config{
		PrivateKey: st.WG, Control: st.Control, UDPPort: d.cfg.UDPPort, TUN: d.cfg.TUN, RunDir: d.cfg.RunDir, AdmitPorts: d.cfg.AdmitPorts, LocalUsers: d.cfg.LocalUsers,
		EndpointsFile: filepath.Join(st.Dir, "endpoints.json"), Log: d.log, Loopback: d.cfg.Loopback, PortMapping: d.cfg.PortMapping && !d.has(noMappingFile),
		OnEndpoints: func(w netmap.Where) { d.publish(m, w) },
	})
	if err != nil {
		return err
	}
	m.node = node
	known := make(chan struct{}) // closed when the node works by a map that says who it is
	var once sync.Once
	client, err := netmap.NewClient(netmap.ClientConfig{
		State: st, Log: d.log, Dial: dialHub,
		OnMap: func(nm *netmap.Map) {
			node.SetMap(nm)
			d.served.Recheck()
			if nm.Self.Valid() {
				once.Do(func() { close(known) })
			}
			if d.cfg.OnMap != nil {
				d.cfg.OnMap(nm)
			}
		},
		OnEndpoints: node.SetEndpoints,
		OnKeys: func(wg netmap.WGPrivate, control netmap.ControlKey) {
			if err := node.SetKeys(wg, control); err != nil {
				end(err)
			}
		},
	})
	if err != nil {
		return errors.Join(err, node.Close())
	}
	d.enter(m, client, client.PublishEndpoints)
	if len(d.cfg.HostKeys) > 0 {
		if err := m.client.PublishHostKeys(d.cfg.HostKeys); err != nil {
			d.log.Error("host keys not published", "err", err)
		}
	}

	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx, or when the node is out of the mesh
		if err := m.client.Run(ctx); err != nil {
			end(err)
		}
	})
	wg.Go(func() { // ends with ctx
		select {
		case <-known:
			d.serve(ctx, st.MeshID, node)
		case <-ctx.Done():
		}
	})
	if d.cfg.RotateEvery > 0 {
		wg.Go(func() { d.rotateInTime(ctx, client) }) // ends with ctx
	}
	wg.Go(func() { // ends with ctx
		select {
		case <-known:
			d.watchHost(ctx, node)
		case <-ctx.Done():
		}
	})
	if d.cfg.Serve != nil {
		wg.Go(func() { // ends with ctx
			select {
			case <-known:
			case <-ctx.Done():
				return
			}
			if err := d.cfg.Serve(ctx, node, m.client); err != nil {
				end(err)
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-node.Done(): // somebody deleted the device
		end(errDevice)
	case err := <-api:
		api <- nil
		end(err)
	}
	wg.Wait()
	cause := context.Cause(ctx)
	d.mu.Lock()
	d.member = nil
	if d.state == st { // else it has joined anew meanwhile
		d.state = client.State()
		if errors.Is(cause, netmap.ErrRemoved) || errors.Is(cause, netmap.ErrExpired) {
			d.problem = cause.Error() // from now on, that is why it is not up
		}
	}
	d.mu.Unlock()
	if err := node.Close(); err != nil {
		d.log.Error("node did not close", "err", err)
	}
	close(m.done)
	return cause
}

// publish passes our endpoints on; those that come before there is a client are kept for it.
func (d *Daemon) publish(m *member, w netmap.Where) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.where = w
	if m.tell != nil {
		m.tell(w)
	}
}

// enter makes m the member that is up, and passes on what was kept for its client. That is
// told under mu, so that no later endpoints are overwritten by them.
func (d *Daemon) enter(m *member, client *netmap.Client, tell func(netmap.Where)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.client, m.tell, d.member = client, tell, m
	tell(m.where)
}

// current is the member, nil when the node is not up.
func (d *Daemon) current() *member {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.member
}
