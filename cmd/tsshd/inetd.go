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
	"strings"
	"sync"
	"syscall"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/term"
	"tssh/sshd"
)

// inetdFlags is the command line of `tsshd inetd`, which serves one connection on its
// standard input and output with an identity that is given, not proven. It is for tests
// of the SSH side without a mesh, and runs as whoever started it.
type inetdFlags struct {
	identity, self, policy, state, peer string
	verbose                             bool
}

func inetdCommand(args []string, stdin *os.File, stdout *os.File, stderr io.Writer) int {
	var f inetdFlags
	fs := flag.NewFlagSet("tsshd inetd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&f.identity, "identity", "", "who connects: alice@example.com[,name=laptop] or tag:ci[,name=runner]")
	fs.StringVar(&f.self, "self", "", "what this host is: NAME,tag:TAG... or NAME,alice@example.com")
	fs.StringVar(&f.policy, "policy", "", "policy file")
	fs.StringVar(&f.state, "state", "", "folder for host keys and recordings")
	fs.StringVar(&f.peer, "peer-addr", "100.64.0.2", "mesh address of who connects")
	fs.BoolVar(&f.verbose, "v", false, "log to standard error")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	return explain(stderr, inetd(f, stdin, stdout, stderr))
}

func inetd(f inetdFlags, stdin, stdout *os.File, stderr io.Writer) error {
	peer, err := netip.ParseAddr(f.peer)
	if err != nil {
		return fail("--peer-addr: %v", err)
	}
	src, err := parseIdentity(f.identity, peer)
	if err != nil {
		return fail("--identity: %v", err)
	}
	self, err := parseIdentity(f.self, netip.MustParseAddr("100.64.0.1"))
	if err != nil {
		return fail("--self: %v", err)
	}
	text, err := os.ReadFile(f.policy)
	if err != nil {
		return fail("--policy: %v", err)
	}
	pol, problems := policy.Parse(f.policy, text)
	for _, p := range problems {
		fmt.Fprintln(stderr, p.Error())
	}
	if pol == nil {
		return fail("the policy does not load")
	}
	state, err := filepath.Abs(f.state)
	if err != nil || f.state == "" {
		return fail("--state is needed")
	}
	// Each of these processes is a monitor of its own, with its own spool: two that shared
	// one would take each other's sessions for leftovers.
	own := filepath.Join(state, fmt.Sprintf("%d-%d", time.Now().UnixNano(), os.Getpid()))
	if err := os.MkdirAll(own, 0o711); err != nil {
		return err
	}
	keys, err := loadHostKeys(state)
	if err != nil {
		return err
	}
	if err := keys.save(state); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if f.verbose {
		log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	aud, err := audit.Open(filepath.Join(own, "audit"))
	if err != nil {
		return err
	}
	defer aud.Close()
	spool, err := recording.OpenSpool(recording.SpoolConfig{Dir: filepath.Join(own, "spool"),
		Keyframer: func(cols, rows int) recording.Keyframer { return term.New(cols, rows) }, Log: log,
		SealTo: (&sealing{policy: func() *policy.Policy { return pol }}).recipients})
	if err != nil {
		return err
	}
	// ssh hangs up on its ProxyCommand when it is done; the recording is not, then.
	signal.Ignore(syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() {
		if err := spool.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			log.Error("spool", "err", err)
		}
	})
	defer following.Wait()
	defer cancel()
	srv, err := sshd.New(sshd.Config{
		Self:   func() policy.Identity { return self },
		WhoIs:  func(a netip.Addr) (policy.Identity, bool) { return src, a == peer },
		Policy: func() *policy.Policy { return pol }, HostSigners: keys.signers, Spool: spool,
		ConnCommand: []string{"/proc/self/exe", "conn"}, RunDir: filepath.Join(own, "run"),
		Audit: func(e audit.Entry) {
			if err := aud.Append(e); err != nil {
				log.Error("audit", "err", err)
			}
		},
		Log: log, Mesh: "inetd", SelfAttested: os.Getuid() != 0, OwnUserOnly: os.Getuid() != 0,
	})
	if err != nil {
		return err
	}
	return srv.ServeConn(ctx, newStdio(stdin, stdout, peer))
}

// parseIdentity reads NAME, owner or tags, separated by commas; name=NAME also names.
func parseIdentity(s string, addr netip.Addr) (policy.Identity, error) {
	id := policy.Identity{Addrs: []netip.Addr{addr}}
	for _, p := range strings.Split(s, ",") {
		name, named := strings.CutPrefix(p, "name=")
		switch {
		case strings.HasPrefix(p, "tag:"):
			t, err := policy.ParseTag(p)
			if err != nil {
				return id, err
			}
			id.Tags = append(id.Tags, t)
		case strings.Contains(p, "@"):
			l, err := policy.ParseLogin(p)
			if err != nil {
				return id, err
			}
			id.User = l
		case named || p != "":
			id.Name = name
		}
	}
	if id.Name == "" {
		id.Name = "client"
	}
	id.ID = "n-" + id.Name
	if !id.Valid() {
		return id, errors.New("needs either an owner or tags")
	}
	return id, nil
}

// stdio is a connection on two files.
type stdio struct {
	in, out *os.File
	peer    net.Addr
}

func newStdio(in, out *os.File, peer netip.Addr) *stdio {
	return &stdio{in, out, net.TCPAddrFromAddrPort(netip.AddrPortFrom(peer, 50022))}
}

func (s *stdio) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *stdio) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *stdio) CloseWrite() error           { return s.out.Close() }
func (s *stdio) Close() error                { return errors.Join(s.in.Close(), ignoreClosed(s.out.Close())) }
func (s *stdio) RemoteAddr() net.Addr        { return s.peer }
func (s *stdio) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("100.64.0.1:22"))
}
func (s *stdio) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (s *stdio) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (s *stdio) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
