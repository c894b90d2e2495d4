package session

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/session/control"
)

// fakeMonitor answers auth and sign, and remembers who was asked about.
type fakeMonitor struct {
	key gossh.Signer

	mu    sync.Mutex
	asked []control.AuthMsg
}

func (f *fakeMonitor) serve(c *control.Conn) {
	for {
		m, _, err := c.Receive()
		if err != nil {
			return
		}
		var answer control.Message
		switch b := m.Body.(type) {
		case *control.AuthMsg:
			f.mu.Lock()
			f.asked = append(f.asked, *b)
			f.mu.Unlock()
			answer = control.Message{Type: control.Verdict, N: m.N, Body: &control.VerdictMsg{OK: b.User == "alice", Say: "not \x1b[2Jyou"}}
		case *control.SignMsg:
			sig, err := f.key.Sign(rand.Reader, b.Data)
			if err != nil {
				return
			}
			answer = control.Message{Type: control.Signed, N: m.N, Body: &control.SignedMsg{Format: sig.Format, Blob: sig.Blob}}
		default:
			continue
		}
		if c.Send(answer, nil) != nil {
			return
		}
	}
}

// handshakeWith lets a client at a conn whose server refuses "none", so that the method
// after it counts. It returns the errors of both sides, the conn, and the banner.
func handshakeWith(t *testing.T, user string, auth ...gossh.AuthMethod) (serverErr, clientErr error, f *fakeMonitor, banner string) {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromSigner(priv)
	if err != nil {
		t.Fatal(err)
	}
	f = &fakeMonitor{key: signer}
	monEnd, file, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := control.FromFile(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer monEnd.Close()
	go f.serve(monEnd)
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	c := &conn{mon: newMonitor(ctl), channels: map[uint32]*channel{}, ctx: ctx, end: end}
	c.mon.onLost, c.mon.onRevoke = func() {}, func(control.RevokeMsg) {}
	go c.mon.listen(ctl)
	c.hostKeys = []gossh.Signer{&remoteKey{mon: c.mon, pub: signer.PublicKey()}}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		g, o, err := greet(nc)
		if err != nil {
			done <- err
			return
		}
		c.sock.Store(g)
		cfg := c.config(o)
		cfg.NoClientAuthCallback = func(gossh.ConnMetadata) (*gossh.Permissions, error) { return nil, errors.New("not by none") }
		cfg.AuthLogCallback = nil // nobody is become here
		_, _, _, err = gossh.NewServerConn(g, cfg)
		done <- err
		if err != nil {
			g.Close()
		}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	_, _, _, clientErr = gossh.NewClientConn(nc, "x", &gossh.ClientConfig{User: user, Auth: auth, HostKeyCallback: gossh.FixedHostKey(signer.PublicKey()),
		BannerCallback: func(s string) error { banner += s; return nil }})
	return <-done, clientErr, f, banner
}

// TestEveryMethod lets each method decide by itself: whoever the monitor admits gets in,
// nobody else does, and each asks with the name of its own attempt.
func TestEveryMethod(t *testing.T) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := gossh.NewSignerFromSigner(priv)
	if err != nil {
		t.Fatal(err)
	}
	for method, auth := range map[string]gossh.AuthMethod{
		"password":  gossh.Password("any"),
		"publickey": gossh.PublicKeys(key),
		"keyboard-interactive": gossh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) {
			if len(q) > 0 {
				return nil, errors.New("was asked something")
			}
			return nil, nil
		}),
	} {
		t.Run(method, func(t *testing.T) {
			serr, cerr, f, _ := handshakeWith(t, "alice", auth)
			if serr != nil || cerr != nil {
				t.Errorf("alice: %v, %v", serr, cerr)
			}
			if len(f.asked) != 1 || f.asked[0].User != "alice" || f.asked[0].Method != method {
				t.Errorf("asked %+v", f.asked)
			}
			serr, cerr, f, banner := handshakeWith(t, "root", auth)
			if serr == nil || cerr == nil || len(f.asked) != 1 || f.asked[0].User != "root" {
				t.Errorf("root: %v, %v, asked %+v", serr, cerr, f.asked)
			}
			if !strings.HasPrefix(banner, "tssh: not ") || strings.Contains(banner, "\x1b") {
				t.Errorf("banner %q", banner)
			}
		})
	}
}

// TestBoundName: a finished connection under another name than the granted one is served
// nothing.
func TestBoundName(t *testing.T) {
	ctx, end := context.WithCancelCause(context.Background())
	c := &conn{ctx: ctx, end: end, bound: "alice"}
	sc := &gossh.ServerConn{Conn: named{"root"}}
	if err := c.ready(sc); err == nil {
		t.Error("no grant, and served")
	}
	ctx, end = context.WithCancelCause(context.Background())
	c = &conn{ctx: ctx, end: end, bound: "alice"}
	c.grant.Store(&control.GoMsg{OK: true})
	if err := c.ready(sc); err == nil || ctx.Err() == nil {
		t.Errorf("root on alice's grant: %v, connection %v", err, ctx.Err())
	}
}

// named is a connection of which only the name matters.
type named struct{ user string }

func (n named) User() string                                         { return n.user }
func (named) SessionID() []byte                                      { return nil }
func (named) ClientVersion() []byte                                  { return nil }
func (named) ServerVersion() []byte                                  { return nil }
func (named) RemoteAddr() net.Addr                                   { return nil }
func (named) LocalAddr() net.Addr                                    { return nil }
func (named) SendRequest(string, bool, []byte) (bool, []byte, error) { return false, nil, os.ErrClosed }
func (named) Close() error                                           { return nil }
func (named) Wait() error                                            { return nil }
func (named) OpenChannel(string, []byte) (gossh.Channel, <-chan *gossh.Request, error) {
	return nil, nil, os.ErrClosed
}
