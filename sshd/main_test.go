package sshd_test

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/term"
	"tssh/session"
	"tssh/session/launch"
	"tssh/sshd"
)

// The test binary is also the programs under test: a connection process, a monitor on
// standard input and output, and a daemon on a TCP port.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "conn":
			os.Exit(session.Main(os.Stderr))
		case "hostile":
			os.Exit(hostile(os.Args[2]))
		case "inetd":
			os.Exit(monitorMain(os.Args[2], false))
		case "daemon":
			os.Exit(monitorMain(os.Args[2], true))
		}
	}
	code := m.Run()
	removeAccount()
	os.Exit(code)
}

// setup is what a monitor under test is told, as JSON in a file.
type setup struct {
	Dir      string // state, spool, run, audit, log; the policy is in DIR/policy
	Login    policy.Login
	Peer     string // mesh address of the client
	Self     string
	ConnArgs []string
	Conn     string // the program of connection processes; this one unless set
	Spare    bool
	Limits   sshd.Limits
	Spool    string // DIR/spool unless set
	SpoolMax int64  // bytes of it
	SealTo   string // recipients of its recordings; none: they are not sealed
	SpoolLow int64  // from which on only what must be is recorded
	Recorder bool   // a recorder takes what is in the spool while the file DIR/recorder is there
	Addr     string // where the daemon listens
	FallThru string // the host's own server
}

func (s setup) sealTo() (*recording.Recipients, error) {
	if s.SealTo == "" {
		return nil, nil
	}
	return recording.ParseRecipients(s.SealTo)
}

// databases are stand-ins, where the test has put them.
func (s setup) databases() *launch.Databases {
	at := func(name string) string { return filepath.Join(s.Dir, "db", name) }
	return &launch.Databases{Wtmp: at("wtmp.db"), Last: at("lastlog2.db"), WtmpTool: at("wtmpdb"), LastTool: at("lastlog2")}
}

func (s setup) file() string { return filepath.Join(s.Dir, "setup.json") }

func (s setup) save(t *testing.T) {
	t.Helper()
	b, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(s.file(), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func monitorMain(file string, daemon bool) int {
	b, err := os.ReadFile(file)
	var s setup
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil {
		err = monitor(s, daemon)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "monitor:", err)
		return 1
	}
	return 0
}

func monitor(s setup, daemon bool) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	if !daemon {
		signal.Ignore(syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPIPE) // ssh ends its ProxyCommand so
	}
	logFile, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(logFile, &slog.HandlerOptions{Level: slog.LevelDebug}))
	aud, err := os.OpenFile(filepath.Join(s.Dir, "audit"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	spoolDir := s.Spool
	if spoolDir == "" {
		spoolDir = filepath.Join(s.Dir, "spool")
	}
	spool, err := recording.OpenSpool(recording.SpoolConfig{Dir: spoolDir, MinFree: 1, MaxBytes: s.SpoolMax, SealTo: s.sealTo, Low: s.SpoolLow,
		Keyframer: func(c, r int) recording.Keyframer { return term.New(c, r) }, Log: log})
	if err != nil {
		return err
	}
	peer, self := netip.MustParseAddr(s.Peer), netip.MustParseAddr(s.Self)
	load := func() *policy.Policy {
		text, err := os.ReadFile(filepath.Join(s.Dir, "policy"))
		if err != nil {
			return nil
		}
		p, problems := policy.Parse("policy", text)
		for _, pr := range problems {
			log.Error("policy", "err", pr.Error())
		}
		return p
	}
	pol := make(chan *policy.Policy, 1)
	pol <- load()
	changed := make(chan struct{}, 1)
	gone := filepath.Join(s.Dir, "peer-gone")
	var shipNow func()
	if s.Recorder {
		shipNow = func() {} // it looks all the time
	}
	srv, err := sshd.New(sshd.Config{
		Self: func() policy.Identity {
			return policy.Identity{ID: "n-web", Name: "web", Tags: []policy.Tag{"tag:web"}, Addrs: []netip.Addr{self}}
		},
		WhoIs: func(a netip.Addr) (policy.Identity, bool) {
			if _, err := os.Stat(gone); err == nil || a != peer {
				return policy.Identity{}, false
			}
			return policy.Identity{ID: "n-laptop", Name: "laptop", User: s.Login, Addrs: []netip.Addr{peer}}, true
		},
		Policy:  func() *policy.Policy { p := <-pol; pol <- p; return p },
		Changed: changed, HostSigners: hostKeys(s.Dir), Spool: spool, ShipNow: shipNow,
		ConnCommand: append([]string{cmp.Or(s.Conn, "/proc/self/exe")}, s.ConnArgs...), Spare: s.Spare, RunDir: filepath.Join(s.Dir, "run"),
		Audit: func(e audit.Entry) {
			b, _ := json.Marshal(e)
			_, _ = aud.Write(append(b, '\n'))
		},
		Limits: s.Limits, FallThrough: s.FallThru, Log: log, Mesh: "test", SelfAttested: os.Getuid() != 0, OwnUserOnly: os.Getuid() != 0,
		Utmp: filepath.Join(s.Dir, "utmp"), Wtmp: filepath.Join(s.Dir, "wtmp"), Lastlog: filepath.Join(s.Dir, "lastlog"), Databases: s.databases(),
	})
	if err != nil {
		return err
	}
	if s.Recorder {
		go fakeRecorder(s.Dir, spool) // ends with the process
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	spoolDone := make(chan error, 1)
	go func() { spoolDone <- spool.Run(ctx) }()
	if !daemon {
		err := srv.ServeConn(ctx, &stdio{peer: net.TCPAddrFromAddrPort(netip.AddrPortFrom(peer, 50022)), self: net.TCPAddrFromAddrPort(netip.AddrPortFrom(self, 22))})
		cancel()
		<-spoolDone
		return err
	}
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "addr.tmp"), []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(s.Dir, "addr.tmp"), filepath.Join(s.Dir, "addr")); err != nil {
		return err
	}
	go func() {
		for sig := range signals {
			if sig == syscall.SIGTERM {
				cancel()
				return
			}
			<-pol
			pol <- load()
			changed <- struct{}{}
		}
	}()
	err = srv.Serve(ctx, l)
	cancel()
	<-spoolDone
	return err
}

// fakeRecorder acknowledges what is in the spool while it is there.
func fakeRecorder(dir string, spool *recording.Spool) {
	for range time.Tick(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "recorder")); err != nil {
			continue
		}
		for _, p := range spool.Recordings() {
			if _, err := os.Stat(filepath.Join(dir, "free")); err == nil && p.Final {
				_ = spool.Acked(p.ID, p.Durable, true)
			} else if p.Acked < p.Durable {
				_ = spool.Acked(p.ID, p.Durable, false) // finished meanwhile: the next time
			}
		}
	}
}

func hostKeys(dir string) []gossh.Signer {
	var out []gossh.Signer
	for _, kind := range []string{"ed25519", "ecdsa"} {
		name := filepath.Join(dir, "hostkey-"+kind)
		if b, err := os.ReadFile(name); err == nil {
			if s, err := gossh.ParsePrivateKey(b); err == nil {
				out = append(out, s)
				continue
			}
		}
		var key crypto.Signer
		if kind == "ed25519" {
			_, key, _ = ed25519.GenerateKey(rand.Reader)
		} else {
			key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		s, err := gossh.NewSignerFromSigner(key)
		if err != nil {
			panic(err)
		}
		block, err := gossh.MarshalPrivateKey(key, "")
		if err == nil {
			err = os.WriteFile(name, pem.EncodeToMemory(block), 0o600)
		}
		if err != nil {
			panic(err)
		}
		out = append(out, s)
	}
	return out
}

// stdio is the connection of inetd mode.
type stdio struct{ peer, self net.Addr }

func (*stdio) Read(p []byte) (int, error)       { return os.Stdin.Read(p) }
func (*stdio) Write(p []byte) (int, error)      { return os.Stdout.Write(p) }
func (*stdio) CloseWrite() error                { return os.Stdout.Close() }
func (*stdio) Close() error                     { os.Stdout.Close(); return os.Stdin.Close() }
func (s *stdio) RemoteAddr() net.Addr           { return s.peer }
func (s *stdio) LocalAddr() net.Addr            { return s.self }
func (*stdio) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (*stdio) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (*stdio) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

var made string // the account that account made; only TestMain's process has one

// account is an account to log in to: one of its own as root, else the caller's.
func account(t *testing.T) *user.User {
	t.Helper()
	name := "tssht" + strconv.Itoa(os.Getpid())
	if os.Getuid() != 0 {
		u, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if made == "" {
		made = name
		for _, args := range [][]string{{"groupadd", name + "g"}, {"useradd", "-m", "-s", "/bin/bash", "-G", name + "g", name}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", args, out)
			}
		}
	}
	u, err := user.Lookup(made)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func removeAccount() {
	if made != "" {
		_ = exec.Command("userdel", "-r", "-f", made).Run()
		_ = exec.Command("groupdel", made+"g").Run()
	}
}

// needRoot is for what only root can show: becoming somebody else.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
}
