package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the caller under another uid: with CALLER set it asks
// one thing and prints the answer.
func TestMain(m *testing.M) {
	if path := os.Getenv("CALLER_SOCKET"); path != "" {
		os.Exit(callOnce(path, os.Getenv("CALLER_WHAT")))
	}
	os.Exit(m.Run())
}

func callOnce(path, what string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := NewClient(path)
	var v any
	var err error
	switch what {
	case "status":
		v, err = c.Status(ctx)
	case "whois":
		v, err = c.WhoIs(ctx, "100.64.0.2")
	case "resolve":
		v, err = c.Resolve(ctx, "web")
	case "sessions":
		v, err = c.Sessions(ctx)
	case "why":
		v, err = c.Why(ctx, WhyRequest{Host: "web", User: "root"})
	case "join":
		err = c.Join(ctx, JoinRequest{Token: "t"})
	case "up":
		err = c.Up(ctx)
	case "down":
		err = c.Down(ctx)
	case "dial":
		var conn *Conn
		if conn, err = c.Dial(ctx, "web", 22); err == nil {
			conn.Close()
		}
	}
	var e *Error
	if errors.As(err, &e) {
		fmt.Println("code", e.Code, e.Words)
		return 0
	}
	if err != nil {
		fmt.Println("error", err)
		return 0
	}
	fmt.Print("ok ")
	json.NewEncoder(os.Stdout).Encode(v)
	return 0
}

// start serves cfg at a socket that every uid can reach, and checks at the end that Serve
// came back.
func start(t *testing.T, cfg Config) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg.Path = filepath.Join(dir, "s", "tssh.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not return")
		}
	})
	for range 200 {
		if c, err := net.Dial("unix", cfg.Path); err == nil {
			c.Close()
			return cfg.Path
		}
		select {
		case err := <-done:
			t.Fatalf("Serve: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the socket does not answer")
	return ""
}

func node() Node {
	return Node{ID: "n1", Name: "web", Tags: []string{"tag:web"}, Addrs: []netip.Addr{netip.MustParseAddr("100.64.0.2")}}
}

// full offers everything; dialled connections are echoed with half-close.
func full(t *testing.T) Config {
	rule := 3
	return Config{
		OwnerUID: -1,
		Log:      slog.New(slog.DiscardHandler),
		Status: func(context.Context) (Status, error) {
			return Status{State: StateRunning, Mesh: "lab", Userspace: true}, nil
		},
		WhoIs: func(_ context.Context, a netip.Addr) (Node, error) {
			if a != netip.MustParseAddr("100.64.0.2") {
				return Node{}, Errorf(CodeNotFound, "nobody is at %s", a)
			}
			return node(), nil
		},
		Resolve: func(_ context.Context, name string) (Resolved, error) {
			if name != "web" {
				return Resolved{}, Errorf(CodeNotFound, "no host %q in this mesh", name)
			}
			return Resolved{Node: node(), HostKeys: []string{"ssh-ed25519 AAAA"}}, nil
		},
		Dial: func(_ context.Context, host string, port uint16) (net.Conn, error) {
			return echo(t), nil
		},
		Join:     func(context.Context, JoinRequest) error { return nil },
		Up:       func(context.Context) error { return nil },
		Down:     func(context.Context) error { return nil },
		Sessions: func(context.Context) ([]Session, error) { return nil, nil },
		Why: func(_ context.Context, r WhyRequest) (Why, error) {
			return Why{Verdict: "deny", Say: "you may not", Reason: "rule three", Section: "ssh", Rule: &rule, Host: r.Host, User: r.User}, nil
		},
	}
}

// echo is one end of a TCP connection whose other end sends back all it got, after the
// half-close only: a stream that loses half-closes hangs here.
func echo(t *testing.T) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		c.Write(b)
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCallersByUID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test calls as other users and must be run as root")
	}
	const nobodyUID, ownerUID = 65534, 12345
	cfg := full(t)
	cfg.OwnerUID = ownerUID
	path := start(t, cfg)
	ask := func(uid uint32, what string) string {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"CALLER_SOCKET=" + path, "CALLER_WHAT=" + what}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("call %s as %d: %v\n%s", what, uid, err, out)
		}
		return string(out)
	}
	for _, c := range []struct {
		what                string
		nobody, owner, root bool
	}{
		{"status", true, true, true},
		{"whois", true, true, true},
		{"resolve", true, true, true},
		{"sessions", false, true, true},
		{"why", false, true, true},
		{"dial", false, true, true},
		{"join", false, false, true},
		{"up", false, false, true},
		{"down", false, false, true},
	} {
		for _, who := range []struct {
			uid uint32
			may bool
		}{{nobodyUID, c.nobody}, {ownerUID, c.owner}, {0, c.root}} {
			want := "code forbidden"
			if who.may {
				want = "ok "
			}
			if got := ask(who.uid, c.what); !strings.HasPrefix(got, want) {
				t.Errorf("%s as uid %d: %q, want %q", c.what, who.uid, got, want)
			}
		}
	}
	// The sentence goes to the owner, the rule to root alone.
	if got := ask(ownerUID, "why"); strings.Contains(got, "rule") || !strings.Contains(got, "you may not") {
		t.Errorf("why as the owner: %s", got)
	}
	if got := ask(0, "why"); !strings.Contains(got, `"rule":3`) || !strings.Contains(got, "rule three") {
		t.Errorf("why as root: %s", got)
	}
	if got := ask(nobodyUID, "status"); !strings.Contains(got, `"may_dial":false`) {
		t.Errorf("status as nobody: %s", got)
	}
	if got := ask(ownerUID, "status"); !strings.Contains(got, `"may_dial":true`) || !strings.Contains(got, `"may_manage":false`) {
		t.Errorf("status as the owner: %s", got)
	}
}

func TestUserspaceSocketIsTheOwnersAlone(t *testing.T) {
	cfg := full(t)
	cfg.OwnerUID, cfg.Userspace = os.Getuid(), true
	path := start(t, cfg)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("socket mode: %v %v", fi.Mode(), err)
	}
	di, err := os.Stat(filepath.Dir(path))
	if err != nil || di.Mode().Perm() != 0o700 {
		t.Fatalf("directory mode: %v %v", di.Mode(), err)
	}
	if err := NewClient(path).Down(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A client must not take host keys from a socket that a stranger made.
func TestClientRefusesAStrangersSocket(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test calls as other users and must be run as root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The credentials of a listener are those of listen(2); make it a stranger's by calling
	// from an effective uid that is neither root nor the listener's.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"CALLER_SOCKET=" + path, "CALLER_WHAT=status"}
	os.Chmod(path, 0o666)
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	stranger := exec.Command("/proc/self/exe", "-test.run", "^TestHelperListen$")
	stranger.Env = []string{"LISTEN_AT=" + filepath.Join(dir, "sub", "s")}
	os.Mkdir(filepath.Join(dir, "sub"), 0o777)
	os.Chmod(filepath.Join(dir, "sub"), 0o777)
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}, Pdeathsig: syscall.SIGKILL}
	out, err := stranger.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Wait()
	defer stranger.Process.Kill()
	io.ReadFull(out, make([]byte, 1)) // it listens
	cmd.Env[0] = "CALLER_SOCKET=" + filepath.Join(dir, "sub", "s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	got, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(got), "belongs to uid 12345, neither root nor you") {
		t.Fatalf("%v %s", err, got)
	}
}

// TestHelperListen is the stranger of the test above; alone it does nothing.
func TestHelperListen(t *testing.T) {
	at := os.Getenv("LISTEN_AT")
	if at == "" {
		return
	}
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(at, 0o777)
	os.Stdout.WriteString("x")
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

func TestDialHalfClose(t *testing.T) {
	path := start(t, full(t))
	c, err := NewClient(path).Dial(t.Context(), "WEB.", 22)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := strings.Repeat("0123456789abcdef", 64<<10)
	go func() {
		io.WriteString(c, want)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want {
		t.Fatalf("%d bytes back of %d, %v", len(got), len(want), err)
	}
}

// What the far end says at once may come with the 101, and must not be lost however the
// stream is read.
func TestDialGreeting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tssh-raw\r\n\r\ngreeting")
	}()
	c, err := NewClient(path).Dial(t.Context(), "web", 22)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A pipe, as a program's standard output is one: there the kernel may do the copying.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = w.ReadFrom(c)
	w.Close()
	if got, _ := io.ReadAll(r); err != nil || string(got) != "greeting" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestDialErrors(t *testing.T) {
	cfg := full(t)
	var err error
	cfg.Dial = func(context.Context, string, uint16) (net.Conn, error) { return nil, err }
	path := start(t, cfg)
	for _, c := range []struct {
		err  error
		code string
	}{
		{Errorf(CodeRevoked, "this node was removed from the mesh"), CodeRevoked},
		{context.DeadlineExceeded, CodeUnreachable},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, CodeUnreachable},
	} {
		err = c.err
		_, got := NewClient(path).Dial(t.Context(), "web", 22)
		var e *Error
		if !errors.As(got, &e) || e.Code != c.code {
			t.Errorf("%v: got %v", c.err, got)
		}
	}
	for _, bad := range []string{"", "a b", "a/b", "a\n", strings.Repeat("x", 300), "$(id)"} {
		_, got := NewClient(path).Dial(t.Context(), bad, 22)
		var e *Error
		if !errors.As(got, &e) || e.Code != CodeBadRequest {
			t.Errorf("name %q: got %v", bad, got)
		}
	}
	_, got := NewClient(filepath.Join(t.TempDir(), "none")).Dial(t.Context(), "web", 22)
	if !NotRunning(got) {
		t.Errorf("no daemon: %v", got)
	}
}

func TestInternalErrorsStayInTheLog(t *testing.T) {
	cfg := full(t)
	cfg.Resolve = func(context.Context, string) (Resolved, error) { return Resolved{}, errors.New("secret path /root/x") }
	_, err := NewClient(start(t, cfg)).Resolve(t.Context(), "web")
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeInternal || strings.Contains(e.Words, "secret") {
		t.Fatalf("%v", err)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	cfg := full(t)
	var got string
	cfg.Join = func(_ context.Context, r JoinRequest) error { got = r.Token; return nil }
	path := start(t, cfg)
	hc := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	defer hc.CloseIdleConnections()
	for body, want := range map[string]int{
		`{"token":"` + strings.Repeat("x", 100<<10) + `"}`: 400,
		`{"token":"a","other":1}`:                          400,
		`{"token":"a"} {"token":"b"}`:                      400,
		`{"token":""}`:                                     400,
		`{"token":"good"}`:                                 200,
	} {
		resp, err := hc.Post("http://x/v1/join", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%.40s: %d, want %d", body, resp.StatusCode, want)
		}
	}
	if got != "good" {
		t.Errorf("token %q", got)
	}
}

func TestOneUIDCannotTakeAllConnections(t *testing.T) {
	path := start(t, full(t))
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range maxCalls {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	var e *Error
	if _, err := NewClient(path).Status(t.Context()); !errors.As(err, &e) || e.Code != CodeLimit {
		t.Fatalf("over the limit: %v", err)
	}
	open[0].Close()
	for range 100 {
		if _, err := NewClient(path).Status(t.Context()); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("a closed connection does not make room")
}

func TestSocketIsNotTakenOver(t *testing.T) {
	path := start(t, full(t))
	if err := Serve(t.Context(), Config{Path: path}); !errors.Is(err, ErrInUse) {
		t.Fatalf("second daemon: %v", err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), Config{Path: filepath.Join(dir, "s")}); err == nil || !strings.Contains(err.Error(), "written to by others") {
		t.Fatalf("open directory: %v", err)
	}
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, nil, 0o600)
	if err := Serve(t.Context(), Config{Path: file}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Fatalf("a file in the way: %v", err)
	}
}

// A socket file left by a killed daemon is replaced.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg := full(t)
	cfg.Path = path
	go func() { done <- Serve(ctx, cfg) }()
	for range 100 {
		if _, err = NewClient(path).Status(ctx); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if e := <-done; err != nil || e != nil {
		t.Fatal(err, e)
	}
}
