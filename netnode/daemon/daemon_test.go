package daemon

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"tssh/netnode"
	"tssh/netnode/coord"
	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// newHub is a coordination server on a TLS port of loopback.
func newHub(t *testing.T) *coord.Server {
	t.Helper()
	key, err := netmap.NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", coord.SQLiteDSN(filepath.Join(t.TempDir(), "hub.db")))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := coord.New(t.Context(), coord.Config{DB: db, Key: key, Mesh: "lab", Host: l.Addr().String(), Audit: func(audit.Entry) error { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := netmap.ServerTLS(key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: s.Handler(ctx), TLSConfig: conf, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	done := make(chan struct{}, 2)
	go func() { srv.ServeTLS(l, "", ""); done <- struct{}{} }()
	go func() { s.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); srv.Close(); <-done; <-done; db.Close() })
	if _, err := s.AddUser(t.Context(), "test", "alice@example.com", ""); err != nil {
		t.Fatal(err)
	}
	if r, err := s.SetPolicy(t.Context(), "test", "p", []byte(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
		"ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"], "idleLimit": "1h"}]}`), 0); err != nil || !r.OK {
		t.Fatal(r, err)
	}
	return s
}

func token(t *testing.T, s *coord.Server) string {
	t.Helper()
	k, err := s.CreateKey(t.Context(), "test", coord.KeyRequest{User: "alice@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return k.Token
}

// running is a daemon under test and its socket.
type running struct {
	*localapi.Client
	t    *testing.T
	d    *Daemon
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, dir string, edit func(*Config)) *running {
	t.Helper()
	short, err := os.MkdirTemp("", "d") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	c := Config{State: dir, Socket: filepath.Join(short, "s"), OwnerUID: os.Getuid(), Loopback: true, Version: "test"}
	if edit != nil {
		edit(&c)
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Client: localapi.NewClient(c.Socket), t: t, d: d, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.until("answering", func(localapi.Status) bool { return true })
	return r
}

// until waits for a status that is as wanted.
func (r *running) until(what string, ok func(localapi.Status) bool) localapi.Status {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		st, err := r.Status(r.t.Context())
		if err == nil && ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s: %+v %v", what, st, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *running) state(want string) localapi.Status {
	r.t.Helper()
	return r.until(want, func(st localapi.Status) bool { return st.State == want })
}

// refused wants a call to fail with a code.
func (r *running) refused(what, code string, err error) {
	r.t.Helper()
	var e *localapi.Error
	if !errors.As(err, &e) || e.Code != code {
		r.t.Errorf("%s: %v, want %s", what, err, code)
	}
}

// TestLife takes one node through all its states, with the socket answering in each.
func TestLife(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("life", func(t *testing.T) {
		hub := newHub(t)
		served := make(chan string, 10)
		var maps int
		r := start(t, filepath.Join(t.TempDir(), "node"), func(c *Config) {
			c.OnMap = func(*netmap.Map) { maps++ }
			c.Serve = func(ctx context.Context, n *netnode.Node, cl *netmap.Client) error {
				served <- "up as " + cl.Map().Self.Name
				<-ctx.Done()
				served <- "down"
				return nil
			}
		})
		ctx := t.Context()
		st := r.state(localapi.StateNotJoined)
		if st.HubKey != "" || st.Mesh != "" || r.d.Joined() {
			t.Errorf("before the join: %+v", st)
		}
		r.refused("up", localapi.CodeNotJoined, r.Up(ctx))
		r.refused("down", localapi.CodeNotJoined, r.Down(ctx))
		_, err := r.WhoIs(ctx, "100.64.0.1")
		r.refused("whois", localapi.CodeNotJoined, err)
		r.refused("a token that is none", localapi.CodeBadRequest, r.Join(ctx, localapi.JoinRequest{Token: "hunter2"}))
		r.refused("a bad name", localapi.CodeDenied, r.Join(ctx, localapi.JoinRequest{Token: token(t, hub), Hostname: "status"}))

		if err := r.Join(ctx, localapi.JoinRequest{Token: token(t, hub), Hostname: "laptop"}); err != nil {
			t.Fatal(err)
		}
		st = r.state(localapi.StateRunning)
		st = r.until("online", func(st localapi.Status) bool { return st.HubOnline })
		if st.Self.Name != "laptop" || st.Self.User != "alice@example.com" || len(st.Self.Addrs) != 2 || st.Mesh != "lab" || st.HubKey != hub.Status().Pin {
			t.Errorf("joined: %+v", st)
		}
		if got := <-served; got != "up as laptop" {
			t.Errorf("Serve: %s", got)
		}
		who, err := r.WhoIs(ctx, st.Self.Addrs[0].String())
		if err != nil || who.Name != "laptop" {
			t.Errorf("whois of oneself: %+v %v", who, err)
		}
		for _, name := range []string{"laptop", "LAPTOP.lab.internal.", st.Self.Addrs[1].String()} {
			if got, err := r.Resolve(ctx, name); err != nil || got.Node.Name != "laptop" {
				t.Errorf("%s: %+v %v", name, got, err)
			}
		}
		_, err = r.Resolve(ctx, "nosuch")
		r.refused("a name that is nobody's", localapi.CodeNotFound, err)
		_, err = r.WhoIs(ctx, "192.0.2.1")
		r.refused("an address outside the mesh", localapi.CodeNotFound, err)

		if err := r.Down(ctx); err != nil {
			t.Fatal(err)
		}
		if got := <-served; got != "down" {
			t.Errorf("Serve after down: %s", got)
		}
		if st := r.state(localapi.StateDown); st.Self.Name != "laptop" {
			t.Errorf("down: %+v", st)
		}
		_, err = r.Resolve(ctx, "laptop")
		r.refused("a name while down", localapi.CodeDown, err)
		if err := r.Down(ctx); err != nil {
			t.Errorf("down twice: %v", err)
		}
		// Down lasts over a restart.
		dir := r.d.cfg.State
		again, err := New(Config{State: dir})
		if err != nil || !again.Joined() || !again.down {
			t.Errorf("the next daemon: %+v %v", again, err)
		}
		if err := r.Up(ctx); err != nil {
			t.Fatal(err)
		}
		r.state(localapi.StateRunning)
		<-served

		// Other settings: the node comes back with them, and they last.
		off := false
		r.d.cfg.PortMapping = true
		if err := r.Set(ctx, localapi.Settings{PortMapping: &off}); err != nil {
			t.Fatal(err)
		}
		if got := <-served; got != "down" {
			t.Errorf("Serve at a change of settings: %s", got)
		}
		r.state(localapi.StateRunning)
		<-served
		if err := r.Set(ctx, localapi.Settings{PortMapping: &off}); err != nil || !r.d.has(noMappingFile) {
			t.Errorf("the same setting again: %v", err)
		}
		// Other keys, with nothing going down.
		key := r.d.state.WG.Public()
		if err := r.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		if got := r.d.current().client.State().WG.Public(); got == key {
			t.Error("the same key as before")
		}
		r.refused("other keys at once again", localapi.CodeLimit, r.Rotate(ctx))

		// Removed by the hub: off the mesh with a reason, and a new join mends it.
		if err := hub.RemoveNode(ctx, "test", "laptop"); err != nil {
			t.Fatal(err)
		}
		st = r.until("told that it was removed", func(st localapi.Status) bool { return strings.Contains(st.Problem, "removed") })
		if got := <-served; got != "down" {
			t.Errorf("Serve after the removal: %s", got)
		}
		_, err = r.Resolve(ctx, "laptop")
		r.refused("a name after the removal", localapi.CodeRevoked, err)
		if err := r.Join(ctx, localapi.JoinRequest{Token: token(t, hub), Hostname: "laptop2"}); err != nil {
			t.Fatal(err)
		}
		st = r.until("back", func(st localapi.Status) bool { return st.State == localapi.StateRunning && st.Self.Name == "laptop2" })
		if st.Problem != "" {
			t.Errorf("back, with a problem: %q", st.Problem)
		}
		<-served
		if maps < 3 {
			t.Errorf("%d maps", maps)
		}
	})
	// Everything that ran has ended, HTTP's idle connections included.
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
		}
	}
}

// TestDialThroughTheSocket carries bytes between two userspace nodes, the way ssh's
// ProxyCommand does.
func TestDialThroughTheSocket(t *testing.T) {
	hub := newHub(t)
	web := start(t, filepath.Join(t.TempDir(), "web"), func(c *Config) {
		c.Serve = func(ctx context.Context, n *netnode.Node, cl *netmap.Client) error {
			l, err := n.Listen("tcp", netip.AddrPortFrom(cl.Map().SelfAddrs[0], 7).String())
			if err != nil {
				return err
			}
			defer context.AfterFunc(ctx, func() { l.Close() })()
			for {
				c, err := l.Accept()
				if err != nil {
					return nil
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}
	})
	laptop := start(t, filepath.Join(t.TempDir(), "laptop"), nil)
	for r, name := range map[*running]string{web: "web", laptop: "laptop"} {
		if err := r.Join(t.Context(), localapi.JoinRequest{Token: token(t, hub), Hostname: name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*running{web, laptop} {
		r.until("with a peer", func(st localapi.Status) bool { return len(st.Peers) > 0 && st.HubOnline })
	}
	_, err := laptop.Dial(t.Context(), "nosuch", 7)
	laptop.refused("dialling nobody", localapi.CodeNotFound, err)
	var c *localapi.Conn
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err = laptop.Dial(t.Context(), "web.lab.internal", 7); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	if _, err := c.Write([]byte("there and back")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || string(b) != "there and back" {
		t.Errorf("%q %v", b, err)
	}
	st := laptop.until("bytes counted", func(st localapi.Status) bool { return st.Peers[0].RxBytes > 0 && st.Peers[0].Path != "" })
	if st.Peers[0].LastHandshake.IsZero() {
		t.Errorf("%+v", st.Peers[0])
	}
	w, err := laptop.Why(t.Context(), localapi.WhyRequest{Host: "web", User: "deploy"})
	if err != nil || w.Verdict != "accept" || w.Terms != "idle at most 1h" {
		t.Errorf("why: %+v %v", w, err)
	}
	if w, err = laptop.Why(t.Context(), localapi.WhyRequest{Host: "web", User: "root"}); err != nil || w.Verdict != "deny" || w.Terms != "" {
		t.Errorf("why not: %+v %v", w, err)
	}
}
