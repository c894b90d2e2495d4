package sshd_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/sshd"
)

// inProcess is a Server of this process, serving what is sent to its listener: pipes, as
// a userspace mesh would.
type inProcess struct {
	*sshd.Server
	conns chan net.Conn
	once  sync.Once
	stop  context.CancelFunc
	done  chan error

	mu      sync.Mutex
	entries []audit.Entry
}

func (p *inProcess) audited(e audit.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries = append(p.entries, e)
}

// Accept, Close and Addr make it a net.Listener.
func (p *inProcess) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *inProcess) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *inProcess) Addr() net.Addr { return &net.TCPAddr{} }

// pipeEnd is a pipe with a mesh address.
type pipeEnd struct{ net.Conn }

func (pipeEnd) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("100.64.0.2:50022"))
}
func (pipeEnd) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("100.64.0.1:22"))
}

func newInProcess(t *testing.T, spool bool) (*inProcess, *rig) {
	t.Helper()
	return newInProcessUnder(t, spool, usual())
}

func newInProcessUnder(t *testing.T, spool bool, text string) (*inProcess, *rig) {
	t.Helper()
	r := newRig(t, text)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pol, problems := policy.Parse("policy", []byte(text))
	if pol == nil {
		t.Fatal(problems)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var sp *recording.Spool
	spoolDone := make(chan error, 1)
	if spool {
		if sp, err = recording.OpenSpool(recording.SpoolConfig{Dir: r.spool(), MinFree: 1}); err != nil {
			t.Fatal(err)
		}
		go func() { spoolDone <- sp.Run(ctx) }()
	} else {
		spoolDone <- nil
	}
	peer := netip.MustParseAddr("100.64.0.2")
	p := &inProcess{conns: make(chan net.Conn), stop: cancel, done: make(chan error, 1)}
	srv, err := sshd.New(sshd.Config{
		Self: func() policy.Identity {
			return policy.Identity{ID: "n-web", Name: "web", Tags: []policy.Tag{"tag:web"}, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}}
		},
		WhoIs: func(a netip.Addr) (policy.Identity, bool) {
			return policy.Identity{ID: "n-l", Name: "laptop", User: "alice@example.com", Addrs: []netip.Addr{peer}}, a == peer
		},
		Policy: func() *policy.Policy { return pol }, HostSigners: hostKeys(r.Dir), Spool: sp, ConnCommand: []string{exe, "conn"}, RunDir: filepath.Join(r.Dir, "run"),
		Audit: p.audited, OwnUserOnly: os.Getuid() != 0, SelfAttested: os.Getuid() != 0, Utmp: "/nonexistent", Wtmp: "/nonexistent",
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Server = srv
	go func() {
		err := srv.Serve(ctx, p)
		cancel()
		<-spoolDone
		p.done <- err
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-p.done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(15 * time.Second):
			t.Error("Serve did not return")
		}
	})
	return p, r
}

func (p *inProcess) dial(t *testing.T, user string) (*gossh.Client, string, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	p.conns <- pipeEnd{theirs}
	var banner string
	cfg := &gossh.ClientConfig{User: user, HostKeyCallback: gossh.InsecureIgnoreHostKey(), BannerCallback: func(s string) error { banner += s; return nil }}
	c, chans, reqs, err := gossh.NewClientConn(ours, "web", cfg)
	if err != nil {
		ours.Close()
		return nil, banner, err
	}
	cl := gossh.NewClient(c, chans, reqs)
	t.Cleanup(func() { cl.Close() })
	return cl, banner, nil
}

func TestEnd(t *testing.T) {
	text := strings.Replace(usual(), `"users":`, `"end":["group:ops"],"showWatchers":true,"users":`, 1)
	p, r := newInProcessUnder(t, true, strings.Replace(text, `{"tagOwners"`, `{"groups":{"group:ops":["olga@example.com"]},"tagOwners"`, 1))
	cl, _, err := p.dial(t, account(t).Username)
	if err != nil {
		t.Fatal(err)
	}
	run := start(t, cl, true, "echo $$; exec sleep 300")
	pid := pidOf(r, run)
	all := p.Sessions()
	if len(all) != 1 || all[0].Login != "alice@example.com" || all[0].Node != "laptop" || all[0].Peer.String() != "100.64.0.2" || string(all[0].LocalUser) != account(t).Username || all[0].Channels != 1 || !alive(all[0].PID) {
		t.Errorf("sessions %+v", all)
	}
	olga := policy.Identity{ID: "n7", Name: "desk", User: "olga@example.com", Role: policy.RoleMember}
	if err := p.End("no-such", olga, "x"); !errors.Is(err, sshd.ErrNoSession) {
		t.Errorf("a session that is not there: %v", err)
	}
	var no *sshd.Denied
	for _, who := range []policy.Identity{
		{}, // nobody
		{ID: "n8", Name: "desk2", User: "root@example.com", Role: policy.RoleAdmin}, // the rule names others
		{ID: "n9", Name: "ci", Tags: []policy.Tag{"tag:web"}},
		{ID: "n7", Name: "desk", User: "olga@example.com", External: true},
	} {
		if err := p.End(all[0].ID, who, "x"); !errors.As(err, &no) || no.Say == "" {
			t.Errorf("%+v: %v", who, err)
		}
	}
	if !alive(pid) {
		t.Fatal("who may not end it has ended it")
	}
	if err := p.End(all[0].ID, olga, "the machine is needed\x1b[2J\n"); err != nil {
		t.Fatal(err)
	}
	<-run.done
	if err := p.End(all[0].ID, olga, "again"); err != nil && !errors.Is(err, sshd.ErrNoSession) {
		t.Errorf("again: %v", err)
	}
	r.until("the program ends", func() bool { return !alive(pid) })
	const said = "this session was ended by olga@example.com: the machine is needed [2J"
	if got := run.errs.String(); !strings.Contains(got, said+"\r\n") || strings.Contains(got, "\x1b") {
		t.Errorf("words %q", got)
	}
	if k := r.recordings(1)[0]; k.end.Cause != "terminated" || k.end.Text != said {
		t.Errorf("end %+v", k.end)
	}
	verdicts := ""
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		if e.Kind == "session.end" {
			verdicts += e.Verdict + " " + e.Who + " " + e.Extra["person"] + "; "
		}
	}
	if want := "accept olga@example.com alice@example.com; "; !strings.HasSuffix(verdicts, want) || strings.Count(verdicts, "deny") != 4 {
		t.Errorf("audited: %s", verdicts)
	}
	r.until("no session is listed", func() bool { return len(p.Sessions()) == 0 })
}

// TestShutdownEndsPumped: a connection that is not the kernel's ends with the daemon, in
// words, and its recording is closed.
func TestShutdownEndsPumped(t *testing.T) {
	p, r := newInProcess(t, true)
	cl, _, err := p.dial(t, account(t).Username)
	if err != nil {
		t.Fatal(err)
	}
	run := start(t, cl, false, "echo $$; exec sleep 300")
	pid := pidOf(r, run)
	p.stop()
	<-run.done
	r.until("the program ends", func() bool { return !alive(pid) })
	if !strings.Contains(run.errs.String(), "daemon of this host stopped") {
		t.Errorf("words %q", run.errs)
	}
	if k := r.recordings(1)[0]; k.end.Cause != "shutdown" {
		t.Errorf("end %+v", k.end)
	}
}

// TestNoRecorder: no spool, no session.
func TestNoRecorder(t *testing.T) {
	p, _ := newInProcess(t, false)
	if _, banner, err := p.dial(t, account(t).Username); err == nil || !strings.Contains(banner, "cannot record") {
		t.Errorf("banner %q, %v", banner, err)
	}
}
