package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Mode is how programs on this computer learn the names.
type Mode string

const (
	Auto     Mode = "auto"     // resolved where programs ask it, else hosts
	Resolved Mode = "resolved" // systemd-resolved asks the node
	Hosts    Mode = "hosts"    // a block in /etc/hosts
	Off      Mode = "off"      // not at all; nothing listens either
)

// ParseMode reads a Mode.
func ParseMode(s string) (Mode, error) {
	if m := Mode(s); slices.Contains([]Mode{Auto, Resolved, Hosts, Off}, m) {
		return m, nil
	}
	return Off, fmt.Errorf("%q is none of auto, resolved, hosts and off", s)
}

// lookAgain is how often it is seen whether others have changed what we set.
const lookAgain = 30 * time.Second

// Config is a Service's.
type Config struct {
	Mode Mode   // empty: Off
	Link string // the TUN device, whose names these are
	Etc  string // where hosts, resolv.conf and nsswitch.conf are; empty: /etc
	Port uint16 // of the DNS server; 0: 53
	// Bus connects to the message bus of the system; nil does so at its usual place.
	Bus func() (*dbus.Conn, error)
	Log *slog.Logger
}

// Service makes the names of the mesh known on this computer for as long as Run runs.
type Service struct {
	cfg    Config
	log    *slog.Logger
	server Server
	file   *File
	wake   chan struct{} // table or own changed; capacity 1

	mu    sync.Mutex // guards what follows
	table *Table
	own   []netip.Addr // the node's addresses
	words string

	// owned by Run
	bus       *resolved
	listening map[netip.Addr]netip.AddrPort // own address: where its server is
	linked    int                           // link that resolved was told about, 0: none
	linkedFor *Table
	inFile    *Table // what the hosts file says
	left      string
}

// NewService makes a Service.
func NewService(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Etc == "" {
		cfg.Etc = "/etc"
	}
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.Mode == "" {
		cfg.Mode = Off
	}
	s := &Service{cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1), listening: map[netip.Addr]netip.AddrPort{}, words: "not yet"}
	s.server = Server{Admit: s.isOwn, Log: cfg.Log}
	s.file = NewFile(filepath.Join(cfg.Etc, "hosts"), cfg.Link)
	return s
}

// NewFile is the block of the node with the TUN device link in a hosts file.
func NewFile(path, link string) *File {
	f := &File{Path: path, ID: link}
	if h, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(h, ".")
		f.Own = []string{h, short}
	}
	return f
}

// Set gives the names and the node's own addresses. It does not block.
func (s *Service) Set(t *Table, own []netip.Addr) {
	s.mu.Lock()
	s.table, s.own = t, own
	s.mu.Unlock()
	s.server.Set(t)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Service) isOwn(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.own, a)
}

// Status says in words how names are known: "systemd-resolved", "/etc/hosts", "off", or
// why they are not.
func (s *Service) Status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.words
}

// Run works until ctx ends and then takes everything back. It returns after its last
// goroutine. What goes wrong is logged once and is in Status; names are not worth a node.
func (s *Service) Run(ctx context.Context) {
	var servers sync.WaitGroup
	defer servers.Wait()
	defer s.undo()
	// What a daemon that was killed left behind, before anything else.
	if err := s.file.Remove(); err != nil {
		s.log.Warn("old names in the hosts file", "err", err)
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	last := ""
	for {
		words, err := s.apply(ctx, &servers)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			words = "off: " + strings.TrimPrefix(err.Error(), "names: ")
		}
		s.mu.Lock()
		s.words = words
		s.mu.Unlock()
		if words != last {
			if last = words; err != nil {
				s.log.Warn("names of the mesh", "known", words)
			} else {
				s.log.Info("names of the mesh", "known", words)
			}
		}
		var signals chan *dbus.Signal
		if s.bus != nil {
			signals = s.bus.signals
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		case _, ok := <-signals:
			if !ok { // the bus is gone
				s.bus.close()
				s.bus = nil
			}
			s.linkedFor = nil // a new resolved has to be told again
		}
	}
}

// apply makes it so.
func (s *Service) apply(ctx context.Context, servers *sync.WaitGroup) (string, error) {
	s.mu.Lock()
	t, own := s.table, slices.Clone(s.own)
	s.mu.Unlock()
	if s.cfg.Mode == Off {
		return "off", nil
	}
	if t.Domain() == "" || len(own) == 0 {
		return "not yet: no map has come", nil
	}
	s.listen(ctx, servers, own)
	if s.cfg.Mode != Hosts {
		words, err := s.viaResolved(ctx, t, own)
		if err == nil {
			s.leaveFile()
			return words, nil
		}
		s.leaveResolved()
		if s.cfg.Mode == Resolved {
			return "", err
		}
		if !errors.Is(err, errNoResolved) {
			s.log.Debug("systemd-resolved is not used", "err", err)
		}
	}
	return s.viaFile(t)
}

var errNoResolved = errors.New("systemd-resolved does not run here, or programs do not ask it")

func (s *Service) viaResolved(ctx context.Context, t *Table, own []netip.Addr) (string, error) {
	const words = "systemd-resolved"
	if s.cfg.Mode == Auto && !asksResolved(s.cfg.Etc) {
		return "", errNoResolved
	}
	if s.bus == nil {
		var err error
		if s.bus, err = openResolved(s.cfg.Bus); err != nil {
			return "", errNoResolved
		}
	}
	if !s.bus.runs(ctx) {
		return "", errNoResolved
	}
	var at []netip.AddrPort
	for _, a := range own {
		if l, ok := s.listening[a]; ok {
			at = append(at, l)
		}
	}
	if len(at) == 0 {
		return "", errors.New("no port can be had to answer on")
	}
	link, err := net.InterfaceByName(s.cfg.Link)
	if err != nil {
		return "", err
	}
	if s.linked == link.Index && s.linkedFor != nil && s.linkedFor.Domain() == t.Domain() && slices.Equal(s.linkedFor.ranges, t.ranges) {
		return words, nil // the hosts in it are ours to answer for
	}
	if err := s.bus.set(ctx, link.Index, at, t); err != nil {
		return "", err
	}
	s.linked, s.linkedFor = link.Index, t
	return words, nil
}

func (s *Service) viaFile(t *Table) (string, error) {
	if s.inFile != t || !s.file.Intact() {
		left, err := s.file.Apply(t)
		if err != nil {
			s.inFile = nil
			return "", err
		}
		s.inFile, s.left = t, left
	}
	if s.left != "" {
		return s.file.Path + "; " + s.left, nil
	}
	return s.file.Path, nil
}

func (s *Service) leaveFile() {
	if s.inFile == nil {
		return
	}
	if err := s.file.Remove(); err != nil {
		s.log.Warn("names stay in the hosts file", "err", err)
	}
	s.inFile = nil
}

func (s *Service) leaveResolved() {
	if s.linked == 0 || s.bus == nil {
		return
	}
	if err := s.bus.revert(context.Background(), s.linked); err != nil { // bounded by busTimeout
		s.log.Debug("systemd-resolved: the link stays as it was", "err", err)
	}
	s.linked, s.linkedFor = 0, nil
}

func (s *Service) undo() {
	s.leaveFile()
	s.leaveResolved()
	if s.bus != nil {
		s.bus.close()
		s.bus = nil
	}
	s.listening = map[netip.Addr]netip.AddrPort{} // closed with ctx
	s.mu.Lock()
	s.words, s.table = "not yet", nil
	s.mu.Unlock()
}

// listen has a server on each of the node's addresses: on port 53, or where another program
// has that, on any, which resolved can be told.
func (s *Service) listen(ctx context.Context, servers *sync.WaitGroup, own []netip.Addr) {
	for _, a := range own {
		if _, ok := s.listening[a]; ok {
			continue
		}
		for _, port := range []uint16{s.cfg.Port, 0} {
			udp, tcp, err := both(ctx, a, port)
			if err != nil {
				s.log.Debug("dns", "addr", a, "port", port, "err", err)
				continue
			}
			s.listening[a] = udp.LocalAddr().(*net.UDPAddr).AddrPort()
			servers.Go(func() { s.server.ServeUDP(ctx, udp) }) // both end with ctx
			servers.Go(func() { s.server.ServeTCP(ctx, tcp) })
			break
		}
	}
}

// both listens for UDP and TCP on one port.
func both(ctx context.Context, a netip.Addr, port uint16) (net.PacketConn, net.Listener, error) {
	var lc net.ListenConfig
	var err error
	for range 4 { // of a free UDP port the TCP one may be taken
		var udp net.PacketConn
		if udp, err = lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(a, port).String()); err != nil {
			return nil, nil, err
		}
		var tcp net.Listener
		if tcp, err = lc.Listen(ctx, "tcp", udp.LocalAddr().String()); err == nil {
			return udp, tcp, nil
		}
		udp.Close()
		if port != 0 {
			break
		}
	}
	return nil, nil, err
}
