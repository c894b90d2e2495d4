package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tssh/policy"
)

const (
	maxServed      = 32   // ports of a node
	maxConns       = 1024 // connections of one served port
	maxConnsOfPeer = 256  // of those, from one node
	retryEvery     = 5 * time.Second
)

// Root may take away what others serve, and serve at ports below 1024 of any node.
const Root = 0

// Port is what somebody asked to have served.
type Port struct {
	Port   uint16 `json:"port"`   // on the node's mesh addresses
	Target uint16 `json:"target"` // on loopback of this computer
	TCP    bool   `json:"tcp"`    // bytes as they are; else HTTP
	UID    int    `json:"uid"`    // who asked, and as whom the target is dialled
	Keep   bool   `json:"keep"`   // also after the daemon was started anew
}

// Status is a served port as it stands.
type Status struct {
	Port
	Open    int    // connections
	Total   uint64 // connections let in since the start
	Refused uint64 // connections refused since the start
	Problem string // why it cannot be reached, "" when it can
}

// Mesh is what a Server needs of the node while that is up.
type Mesh struct {
	Listen func(network, addr string) (net.Listener, error)
	// Admits says whose a connection is and whether the policy lets it begin now.
	Admits func(remote, local netip.AddrPort) (policy.Identity, bool)
	Self   func() (self policy.Identity, mesh string)
}

// Config is a Server's.
type Config struct {
	File string // keeps what is to be kept; empty: nothing is
	// Dial connects to a port of loopback as the user. It is asked for one connection at a time and may be
	// called by many goroutines.
	Dial func(ctx context.Context, uid int, addr netip.AddrPort) (net.Conn, error)
	// May says whether the user may serve at all. It is asked for what was kept, too.
	May func(uid int) bool
	// Firewall says what on this host keeps peers from a port of the mesh addresses, "" when nothing does; may be nil.
	Firewall func(port uint16) string
	Log      *slog.Logger
}

// Refusal is an answer that the person who asked may read.
type Refusal struct {
	Kind  RefusalKind
	Words string
}

// RefusalKind is why.
type RefusalKind int

const (
	Bad RefusalKind = iota
	Forbidden
	Taken
	TooMany
	Unknown
)

func (r *Refusal) Error() string { return r.Words }

func refuse(k RefusalKind, format string, a ...any) *Refusal {
	return &Refusal{k, fmt.Sprintf(format, a...)}
}

// Server keeps the ports that are served, with the node up or down.
type Server struct {
	cfg Config
	log *slog.Logger

	change sync.Mutex // one change at a time; before mu
	mu     sync.Mutex
	ports  map[uint16]*served
	mesh   *Mesh  // nil: the node is not up
	meshID string // of the file
}

// New makes a Server that serves nothing until Run. meshID is the mesh that the node is in: what was
// kept for another one is not served, the people there are others.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, log: cfg.Log, ports: map[uint16]*served{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Run serves what was asked for while the node is up: until ctx ends, and then returns
// after the last connection.
func (s *Server) Run(ctx context.Context, meshID string, m Mesh) {
	s.change.Lock()
	if s.meshID != meshID {
		s.mu.Lock()
		clear(s.ports) // the node went to another mesh
		s.mu.Unlock()
		s.meshID = meshID
		s.load()
	}
	s.mu.Lock()
	s.mesh = &m
	list := s.listLocked()
	s.mu.Unlock()
	for _, p := range list {
		p.open()
	}
	s.change.Unlock()

	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			s.change.Lock()
			for _, p := range s.list() {
				p.open()
			}
			s.change.Unlock()
			s.Recheck() // memberships end without a change of the map
		}
	}
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	s.mesh = nil
	list = s.listLocked()
	s.mu.Unlock()
	for _, p := range list {
		p.close()
	}
}

func (s *Server) listLocked() []*served {
	var out []*served
	for _, p := range s.ports {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *served) int { return int(a.Port.Port) - int(b.Port.Port) })
	return out
}

func (s *Server) list() []*served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listLocked()
}

// up is the node, nil when it is not up.
func (s *Server) up() *Mesh {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mesh
}

// Recheck asks again for every open connection whether it may be, and is called with every
// change of the map. It does not wait.
func (s *Server) Recheck() {
	for _, p := range s.list() {
		p.recheck()
	}
}

// Add serves a port. The same person may change what is served there.
func (s *Server) Add(p Port) (Status, error) {
	s.change.Lock()
	defer s.change.Unlock()
	m := s.up()
	if m == nil {
		return Status{}, refuse(Unknown, "this node is not up")
	}
	if p.Port == 0 {
		p.Port = p.Target
	}
	self, _ := m.Self()
	if err := s.check(p, self); err != nil {
		return Status{}, err
	}
	if p.Keep && s.cfg.File == "" {
		return Status{}, refuse(Bad, "this node keeps nothing")
	}
	s.mu.Lock()
	old := s.ports[p.Port]
	n := len(s.ports)
	s.mu.Unlock()
	switch {
	case old != nil && old.UID != p.UID && p.UID != Root:
		return Status{}, refuse(Taken, "port %d is served for somebody else already", p.Port)
	case old == nil && n >= maxServed:
		return Status{}, refuse(TooMany, "%d ports are served already, which is as many as there may be", n)
	}
	if old != nil && old.Port == p {
		old.open()
		return old.status(), nil
	}
	if old != nil {
		old.close()
	}
	x := newServed(s, p)
	if err := x.open(); err != nil {
		x.close()
		if old != nil {
			old.reopen()
		}
		return Status{}, taken(p, err)
	}
	s.mu.Lock()
	s.ports[p.Port] = x
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.log.Error("served ports not kept", "err", err)
		s.mu.Lock()
		delete(s.ports, p.Port)
		if old != nil {
			s.ports[p.Port] = old
		}
		s.mu.Unlock()
		x.close()
		if old != nil {
			old.reopen()
		}
		return Status{}, errors.New("serve: not kept: " + err.Error())
	}
	s.log.Info("port served", "port", p.Port, "target", p.Target, "tcp", p.TCP, "uid", p.UID, "keep", p.Keep)
	return x.status(), nil
}

// check says what speaks against serving p on a node that is self.
func (s *Server) check(p Port, self policy.Identity) error {
	switch {
	case p.Target == 0:
		return refuse(Bad, "no port of a local program given")
	case !s.cfg.May(p.UID):
		return refuse(Forbidden, "only root and the owner of this node may serve")
	case p.Port == 22 || p.Port == 53:
		return refuse(Bad, "port %d is the node's own", p.Port)
	case p.Port < 1024 && p.UID != Root && self.User == "":
		// What answers there speaks for the machine.
		return refuse(Forbidden, "on a machine with tags only root may serve at ports below 1024")
	}
	return nil
}

func taken(p Port, err error) error {
	if inUse(err) {
		return refuse(Taken, "port %d of the mesh addresses is taken: a program here listens on it for all addresses, so the mesh reaches it by itself (without identity headers); have it listen on 127.0.0.1 alone, or serve at another port", p.Port)
	}
	return refuse(Bad, "port %d cannot be listened on: %v", p.Port, bare(err))
}

func bare(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// Remove ends what uid serves at a port, at all ports with 0, and every connection of it.
// It returns how many it was.
func (s *Server) Remove(uid int, port uint16) (int, error) {
	s.change.Lock()
	defer s.change.Unlock()
	var gone []*served
	s.mu.Lock()
	for n, p := range s.ports {
		if (port == 0 || n == port) && (uid == Root || uid == p.UID) {
			gone = append(gone, p)
			delete(s.ports, n)
		}
	}
	other := port != 0 && s.ports[port] != nil
	s.mu.Unlock()
	switch {
	case other:
		return 0, refuse(Forbidden, "port %d is served for somebody else", port)
	case port != 0 && len(gone) == 0:
		return 0, refuse(Unknown, "port %d is not served", port)
	}
	for _, p := range gone {
		p.close()
		s.log.Info("port no longer served", "port", p.Port.Port, "uid", uid)
	}
	return len(gone), s.save()
}

// List is what is served, by port.
func (s *Server) List() []Status {
	out := []Status{}
	for _, p := range s.list() {
		out = append(out, p.status())
	}
	return out
}
