//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"tssh/netnode"
	"tssh/netnode/daemon"
	"tssh/netnode/localapi"
	"tssh/netnode/names"
	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/ship"
	"tssh/recording/term"
	"tssh/session/launch"
	"tssh/sshd"
)

// runFlags is the command line of `tsshd run`.
type runFlags struct {
	state, socket, join, joinFile, hostname, tun, runDir string
	owner, localUsers, fallThrough, sealTo               string
	userspace, loopback, portMapping, verbose            bool
	udpPort                                              int
	spoolMax, spoolFree, spoolLow                        int64
	rotateEvery                                          time.Duration
	limits                                               sshd.Limits
	names                                                names.Mode
}

// defaultTUN is the device a root daemon makes unless told otherwise.
const defaultTUN = "tssh0"

func parseRun(args []string, stderr io.Writer) (runFlags, error) {
	var f runFlags
	root := os.Getuid() == 0
	fs := flag.NewFlagSet("tsshd run", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&f.state, "state", "/var/lib/tsshd", "folder for the node's state and recordings")
	fs.StringVar(&f.socket, "socket", "", "unix socket for tssh (root: /run/tssh/tsshd.sock)")
	fs.StringVar(&f.join, "join", "", "join token; others on this machine can see it, --join-file keeps it hidden")
	fs.StringVar(&f.joinFile, "join-file", "", "file with the join token, - for standard input")
	fs.StringVar(&f.hostname, "hostname", "", "name of the node in the mesh (default: the computer's)")
	fs.StringVar(&f.tun, "tun", "", "name of the kernel TUN device (default as root: "+defaultTUN+")")
	fs.BoolVar(&f.userspace, "userspace", false, "no kernel device: the network stack runs in this process")
	fs.IntVar(&f.udpPort, "udp-port", 41641, "UDP port of WireGuard, 0 for any")
	fs.BoolVar(&f.portMapping, "port-mapping", true, "ask a home or office router (PCP, NAT-PMP) to let peers in")
	every := fs.String("rotate-keys", "never", "make other keys when these are as old as that: 30d, 12h, never")
	fs.BoolVar(&f.loopback, "loopback", false, "be reachable at 127.0.0.1 too, for a mesh on one machine")
	fs.StringVar(&f.owner, "owner", "", "account of the person whose computer this is (default: who started this with sudo)")
	fs.StringVar(&f.localUsers, "local-users", "", "who may use the mesh on this computer: owner, any, or accounts with commas between (default: any on tagged machines, else owner; root always may)")
	fs.StringVar(&f.fallThrough, "fall-through", "", "address on loopback of this host's own SSH server, such as 127.0.0.1:22, for peers that no ssh rule is about (default: they are refused)")
	fs.BoolVar(&f.verbose, "v", false, "log more")
	known := fs.String("names", string(names.Auto), "how programs here learn the mesh's names: auto, resolved, hosts or off")
	fs.Int64Var(&f.spoolMax, "spool-max", 4<<30, "bytes of recordings kept until a recorder has them")
	fs.Int64Var(&f.spoolFree, "spool-free", 256<<20, "bytes that must be free on the disk for a new session")
	fs.Int64Var(&f.spoolLow, "spool-low", 0, "bytes of recordings from which on only those are made that must be (default: four fifths of --spool-max)")
	fs.StringVar(&f.sealTo, "seal-to", "", "file of recipients (age1... or ssh-ed25519) that recordings of this host are sealed to, beside those of the policy")
	limitFlags(fs, &f.limits)
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	if err := checkLimits(f.limits); err != nil {
		return f, err
	}
	switch {
	case fs.NArg() > 0:
		return f, fail("unexpected argument %q", fs.Arg(0)).hint("tsshd run --state DIR [--join-file FILE]")
	case f.join != "" && f.joinFile != "":
		return f, fail("--join and --join-file are both given").hint("give one of them")
	case f.tun != "" && f.userspace:
		return f, fail("--tun and --userspace are both given").hint("give one of them")
	case f.tun != "" && !root:
		return f, fail("--tun needs root").hint("run it as root, or use --userspace")
	case f.udpPort < 0 || f.udpPort > 65535:
		return f, fail("--udp-port %d is not a port", f.udpPort)
	}
	var err error
	if f.rotateEvery, err = keyAge(*every); err != nil {
		return f, err
	}
	if f.fallThrough != "" {
		if a, err := netip.ParseAddrPort(f.fallThrough); err != nil || !a.Addr().IsLoopback() || a.Port() == 0 {
			return f, fail("--fall-through %q is no address and port of this host itself", f.fallThrough).hint("for example 127.0.0.1:22")
		}
	}
	mode, err := names.ParseMode(*known)
	if err != nil {
		return f, fail("--names %v", err).hint("auto uses systemd-resolved where it runs, else /etc/hosts")
	}
	f.names = mode
	if f.tun == "" && !f.userspace {
		if !root {
			return f, fail("a kernel TUN device needs root").hint("run it as root, or use --userspace")
		}
		f.tun = defaultTUN
	}
	f.runDir = filepath.Join("/run/tssh", f.tun)
	if !root || f.userspace {
		f.runDir = filepath.Join(f.state, "run")
	}
	if f.socket == "" {
		f.socket = localapi.SystemPath
		if !root {
			f.socket = filepath.Join(f.state, "tsshd.sock")
		}
	}
	f.state, err = filepath.Abs(f.state)
	if err == nil {
		f.runDir, err = filepath.Abs(f.runDir)
	}
	return f, err
}

// token is the join token of the command line, if there is one.
func (f runFlags) token(stdin io.Reader) (netmap.Token, bool, error) {
	text := f.join
	switch f.joinFile {
	case "":
	case "-":
		b, err := io.ReadAll(io.LimitReader(stdin, 4096))
		if err != nil {
			return netmap.Token{}, false, fmt.Errorf("join token from standard input: %w", err)
		}
		text = string(b)
	default:
		b, err := os.ReadFile(f.joinFile)
		if err != nil {
			return netmap.Token{}, false, fmt.Errorf("join token: %w", err)
		}
		text = string(b)
	}
	if text = strings.TrimSpace(text); text == "" {
		if f.joinFile != "" {
			return netmap.Token{}, false, fail("the join token is empty").hint("make one on the hub: tsshub key create --tag tag:NAME")
		}
		return netmap.Token{}, false, nil
	}
	t, err := netmap.ParseToken(text)
	if err != nil {
		return t, false, fail("%s", strings.TrimPrefix(err.Error(), "netmap: ")).hint("copy the whole line that tsshub key create printed")
	}
	return t, true, nil
}

func runCommand(args []string, stdin io.Reader, stderr io.Writer) int {
	f, err := parseRun(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = run(f, stdin, stderr)
	}
	return explain(stderr, err)
}

func run(f runFlags, stdin io.Reader, stderr io.Writer) error {
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	token, wants, err := f.token(stdin)
	if err != nil {
		return err
	}
	unlockDevice, err := available(&f, log)
	if err != nil {
		return err
	}
	defer unlockDevice()
	owner, saveOwner, err := ownerUID(context.Background(), f.state, f.owner)
	if err != nil {
		return err
	}
	users, err := localUsers(context.Background(), f.localUsers, owner, log)
	if err != nil {
		return err
	}
	keys, err := loadHostKeys(f.state)
	if err != nil {
		return err
	}
	own, err := readSealFile(f.sealTo)
	if err != nil {
		return err
	}
	h := &host{flags: f, made: f.tun != "" && makes(f), keys: keys, log: log, changed: make(chan struct{}, 1)}
	h.seal = &sealing{own: own, policy: func() *policy.Policy { return h.policy.Load() }}
	conf := daemon.Config{
		State: f.state, Hostname: f.hostname, Socket: f.socket, OwnerUID: owner, LocalUsers: users, Version: version, Log: log,
		TUN: f.tun, UDPPort: f.udpPort, RunDir: f.runDir, Loopback: f.loopback, PortMapping: f.portMapping && !f.loopback,
		RotateEvery: f.rotateEvery, HostKeys: keys.lines(), Attributes: map[string]string{"node:os": runtime.GOOS, "node:tsshVersion": version},
		DialCommand: []string{"/proc/self/exe", "dial"},
		OnMap:       h.onMap, Serve: h.serve, Sessions: h.sessions, Metrics: h.metrics,
	}
	if f.tun != "" {
		h.names = names.NewService(names.Config{Mode: f.names, Link: f.tun, Log: log})
		conf.Names = h.names.Status
	}
	h.daemon, err = daemon.New(conf)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := h.join(ctx, token, wants); err != nil {
		return err
	}
	unlock, err := lockState(f.state)
	if err != nil {
		return err
	}
	defer unlock()
	if os.Getuid() == 0 {
		if err := h.leaveFormer(); err != nil {
			return err
		}
	}
	if err := errors.Join(keys.save(f.state), saveOwner()); err != nil {
		return err
	}
	if err := h.openStores(); err != nil {
		return err
	}
	defer h.audit.Close()
	err = h.daemon.Run(ctx)
	h.audited(audit.Entry{Kind: "daemon.stop", Text: "tsshd stopped"})
	return err
}

// grace is how long a start waits for a daemon that is just ending.
const grace = 3 * time.Second

// available reports what another program has of that which a daemon needs, before a join
// key is spent: the state folder first, because then the rest is taken for the same reason.
// The device is the daemon's from then on, until the returned func is called.
// A member whose UDP port is taken uses another: any local user could have taken it while
// the daemon was away, and must not keep it from coming back to its sessions.
func available(f *runFlags, log *slog.Logger) (func(), error) {
	deadline := time.Now().Add(grace)
	wait := func(try func() error) error {
		err := try()
		for ; err != nil && time.Now().Before(deadline); err = try() {
			time.Sleep(100 * time.Millisecond)
		}
		return err
	}
	err := wait(func() error {
		unlock, err := lockState(f.state)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			unlock()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	unlock := func() {}
	if f.tun != "" {
		if err := wait(func() (err error) { unlock, err = lockDevice(*f); return err }); err != nil {
			return nil, err
		}
	}
	if err := wait(func() error { return tryPort(f.udpPort) }); err != nil {
		if _, none := netmap.LoadState(f.state); none != nil {
			unlock()
			return nil, err
		}
		log.Warn("another program has the UDP port; peers are told of another one", "port", f.udpPort)
		f.udpPort = 0
	}
	if err := wait(func() error { return tryTUN(f.tun) }); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

func tryPort(port int) error {
	if port == 0 {
		return nil
	}
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return fail("UDP port %d is taken by another program", port).hint("choose another one with --udp-port, or 0 for any").because(err)
	}
	return c.Close()
}

func tryTUN(name string) error {
	if name == "" {
		return nil
	}
	if err := netnode.TryTUN(name); err != nil {
		return fail("%s", strings.TrimPrefix(err.Error(), "netnode: ")).hint("choose another device with --tun, or none with --userspace")
	}
	return nil
}

// host is a node that serves SSH.
type host struct {
	flags   runFlags
	keys    *hostKeys
	log     *slog.Logger
	made    bool // the TUN is of this node's own making
	daemon  *daemon.Daemon
	spool   *recording.Spool
	audit   *audit.Log
	names   *names.Service // nil without a kernel TUN
	changed chan struct{}  // a new map is in force
	seal    *sealing
	policy  atomic.Pointer[policy.Policy] // of the last map; nil before the first, or without one
	server  atomic.Pointer[sshd.Server]   // nil while the node is not up, as the next one
	fleet   atomic.Pointer[ship.Fleet]
}

// pinPatience bounds what a start waits for the hub, when the token's pin is not known.
const pinPatience = 10 * time.Second

// join enrols a node that is not in a mesh yet. A token that is given again on a later
// start, as in a service file, must be for the same mesh and is not used.
func (h *host) join(ctx context.Context, token netmap.Token, wants bool) error {
	if h.daemon.Joined() {
		if !wants {
			return nil
		}
		st, err := netmap.LoadState(h.flags.state)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, pinPatience)
		defer cancel()
		if !h.daemon.SameMesh(ctx, token) {
			return fail("the state folder %s belongs to the mesh %s, the join token to another one", h.flags.state, st.Mesh).
				hint("give another --state, or remove this one to leave the mesh " + st.Mesh)
		}
		return nil
	}
	if !wants {
		return fail("this node has not joined a mesh yet").hint("make a token on the hub with tsshub key create, and give it with --join-file")
	}
	if unlock, err := lockState(h.flags.state); err == nil {
		defer unlock()
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return h.daemon.Join(ctx, token, h.flags.hostname)
}

// auditSegments bounds the audit log of a host that cannot reach its hub: 1 GiB.
const auditSegments = 16

// openStores opens what is written while the node serves: recordings and the audit log.
func (h *host) openStores() error {
	var err error
	h.audit, err = audit.OpenBounded(filepath.Join(h.flags.state, "audit"), auditSegments)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	h.spool, err = recording.OpenSpool(recording.SpoolConfig{
		Dir: filepath.Join(h.flags.state, "spool"), MaxBytes: h.flags.spoolMax, MaxBytesPerPerson: h.flags.spoolMax / 2, MinFree: h.flags.spoolFree, Low: h.flags.spoolLow,
		Keyframer:   func(cols, rows int) recording.Keyframer { return term.New(cols, rows) },
		Log:         h.log,
		SealTo:      h.seal.recipients,
		Countersign: h.countersign,
		Witness:     h.witness,
		Hurry:       h.shipNow,
	})
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	h.audited(audit.Entry{Kind: "daemon.start", Text: "tsshd started"})
	return nil
}

func (h *host) audited(e audit.Entry) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if err := h.audit.Append(e); err != nil {
		h.log.Error("audit entry not written", "kind", e.Kind, "err", err)
	}
}

func (h *host) onMap(nm *netmap.Map) {
	h.policy.Store(nm.Policy)
	if h.names != nil {
		h.names.Set(tableOf(nm), nm.SelfAddrs)
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// serve is the SSH server and the shipping of recordings, for as long as the node is up.
func (h *host) serve(ctx context.Context, n *netnode.Node, c *netmap.Client) error {
	l, err := n.ListenSSH()
	if err != nil {
		return err
	}
	if h.flags.tun != "" {
		if err := h.flags.remember(h.made); err != nil {
			l.Close()
			return fmt.Errorf("keep which device is this node's: %w", err)
		}
	}
	root := os.Getuid() == 0
	srv, err := sshd.New(sshd.Config{
		Self:    func() policy.Identity { return c.Map().Self },
		WhoIs:   n.WhoIs,
		Policy:  func() *policy.Policy { return c.Map().Policy },
		Changed: h.changed, HostSigners: h.keys.signers, Spool: h.spool, ShipNow: h.shipNow,
		Databases: launch.SystemDatabases(), ConnCommand: []string{"/proc/self/exe", "conn"}, Spare: true, RunDir: filepath.Join(h.flags.runDir, "sshd"),
		FallThrough: h.flags.fallThrough, Logind: logind(root), Audit: h.audited, Limits: h.flags.limits, Log: h.log, Mesh: c.Map().Mesh, SelfAttested: !root, OwnUserOnly: !root,
	})
	if err != nil {
		l.Close()
		return err
	}
	h.server.Store(srv)
	defer h.server.Store(nil)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ends := make(chan error, 6)
	go func() { // all six end with ctx
		if h.names != nil {
			h.names.Run(ctx)
		} else {
			<-ctx.Done()
		}
		ends <- nil
	}()
	go func() { ends <- h.spool.Run(ctx) }()
	go func() { ends <- h.shipAudit(ctx, c) }()
	go func() { ends <- h.ship(ctx, n, c) }()
	go func() { ends <- h.live(ctx, c, srv) }()
	go func() { ends <- srv.Serve(ctx, l) }()
	var first error
	for range cap(ends) {
		if err := <-ends; err != nil && ctx.Err() == nil && first == nil {
			first = err
		}
		cancel(first)
	}
	return first
}

func (h *host) shipAudit(ctx context.Context, c *netmap.Client) error {
	s, err := ship.NewAuditSender(ship.AuditSenderConfig{Audit: h.audit, HTTP: c.HTTP, Log: h.log})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func (h *host) sessions(context.Context) ([]localapi.Session, error) {
	srv := h.server.Load()
	if srv == nil {
		return nil, nil
	}
	var out []localapi.Session
	for _, s := range srv.Sessions() {
		out = append(out, localapi.Session{ID: s.ID, Peer: s.Peer.String(), Node: s.Node, Login: s.Login, LocalUser: string(s.LocalUser), Start: s.Start, PID: s.PID})
	}
	return out, nil
}

// tableOf is the names of a map, this node's own included.
func tableOf(nm *netmap.Map) *names.Table {
	hosts := []names.Host{{Name: nm.Self.Name, Addrs: nm.SelfAddrs}}
	for _, p := range nm.Peers {
		hosts = append(hosts, names.Host{Name: p.Name, Addrs: p.Addrs})
	}
	return names.New(nm.Mesh, []netip.Prefix{nm.Range4, nm.Range6}, hosts)
}

// logind is systemd's, where that is what the host runs on and this daemon may speak for users.
func logind(root bool) *launch.Logind {
	if !root || !launch.Systemd() {
		return nil
	}
	return &launch.Logind{}
}
