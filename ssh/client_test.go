package ssh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func (h *host) config() Config {
	return Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", h.addr)
		},
		Host: "web", User: "alice", HostKeys: []gossh.PublicKey{h.key.PublicKey()},
	}
}

func (h *host) dial(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func wantError(t *testing.T, err error, code, words string) {
	t.Helper()
	e, ok := asError(err)
	if !ok || e.Code != code || !strings.Contains(e.Words, words) {
		t.Fatalf("got %v (%+v), want [%s] with %q", err, e, code, words)
	}
	if strings.ContainsAny(e.Words, "\x1b\n\r\x07") {
		t.Fatalf("words are not plain: %q", e.Words)
	}
}

func TestRunStreamsAndStatus(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	var out, errb buffer
	x, err := c.Run(t.Context(), Session{Command: "cat; echo err >&2; exit 7", Stdin: strings.NewReader("through"), Stdout: &out, Stderr: &errb})
	if err != nil || x.Code() != 7 || out.String() != "through" || errb.String() != "err\n" {
		t.Fatalf("%+v %v %q %q", x, err, out.String(), errb.String())
	}
	// All output is there before Run returns, and a second session runs on the connection.
	out = buffer{}
	x, err = c.Run(t.Context(), Session{Command: "head -c 3000000 /dev/zero", Stdout: &out})
	if err != nil || x.Code() != 0 || len(out.String()) != 3000000 {
		t.Fatalf("%+v %v %d", x, err, len(out.String()))
	}
}

func TestExitBySignal(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	x, err := c.Run(t.Context(), Session{Command: "kill -TERM $$"})
	if err != nil || x.Code() != 143 || x.Signal != "TERM" || x.Message != "gone[31m" {
		t.Fatalf("%+v %v", x, err)
	}
}

func TestExitCodes(t *testing.T) {
	for e, want := range map[Exit]int{{}: 0, {Status: 255}: 255, {Signal: "KILL"}: 137, {Signal: "ODD"}: 255, {Signal: "HUP"}: 129} {
		if got := e.Code(); got != want {
			t.Errorf("%+v: %d, want %d", e, got, want)
		}
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	h := (&host{}).start(t)
	c := h.dial(t)
	sig := make(chan Signal, 1)
	out := &notify{want: "ready", hit: func() { sig <- "INT" }}
	x, err := c.Run(t.Context(), Session{Command: "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done", Stdout: out, Signals: sig})
	if err != nil || x.Code() != 9 || !strings.Contains(out.String(), "caught") {
		t.Fatalf("%+v %v %q", x, err, out.String())
	}
}

// A program that does not listen is left after the second signal.
func TestSecondSignalLeaves(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	sig := make(chan Signal, 2)
	out := &notify{want: "ready", hit: func() { sig <- "INT"; sig <- "INT" }}
	_, err := c.Run(t.Context(), Session{Command: "trap '' INT; echo ready; while :; do sleep 0.05; done", Stdout: out, Signals: sig})
	var i *Interrupted
	if !errors.As(err, &i) || i.Code() != 130 {
		t.Fatal(err)
	}
}

// notify calls hit once, when want was written.
type notify struct {
	buffer
	once sync.Once
	want string
	hit  func()
}

func (n *notify) Write(p []byte) (int, error) {
	c, err := n.buffer.Write(p)
	if strings.Contains(n.String(), n.want) {
		n.once.Do(n.hit)
	}
	return c, err
}

func TestHostKeys(t *testing.T) {
	h := (&host{}).start(t)
	cfg := h.config()
	cfg.HostKeys = []gossh.PublicKey{newSigner(t).PublicKey()}
	_, err := Dial(t.Context(), cfg)
	wantError(t, err, CodeHostKey, "not the one the mesh has")
	cfg.HostKeys = nil
	_, err = Dial(t.Context(), cfg)
	wantError(t, err, CodeHostKey, "no host key")
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name        string
		h           *host
		code, words string
		banner      string // what else was shown
	}{
		{"sentence", &host{refuse: true, banner: "Hello.\nalice may not log in as root\x1b[2J on web.\n"}, CodeDenied, "web refused the login as alice: alice may not log in as root[2J on web.", "Hello.\n"},
		{"code", &host{refuse: true, banner: "tssh: sessions here need a recorder, and none answers [recorder]"}, CodeRecorder, "alice: sessions here need a recorder, and none answers", ""},
		{"check", &host{refuse: true, banner: "this login must be confirmed [check-needed]\n"}, CodeCheckNeeded, "must be confirmed", ""},
		{"unknown code", &host{refuse: true, banner: "no [nonsense]\n"}, CodeDenied, "no [nonsense]", ""},
		{"silent", &host{refuse: true}, CodeDenied, "web refused the login as alice", ""},
		{"prompts", &host{prompts: []string{"Password: "}}, CodeDenied, "asks for a password", "look here\n"},
		{"early", &host{early: "too many connections from this node [limit]\r\n"}, CodeLimit, "web refused the connection: too many connections from this node", ""},
		{"early silent", &host{early: "\r\n"}, CodeUnreachable, "closed the connection", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.h.start(t)
			var shown buffer
			cfg := h.config()
			cfg.Banner = &shown
			_, err := Dial(t.Context(), cfg)
			wantError(t, err, c.code, c.words)
			if shown.String() != c.banner {
				t.Errorf("shown %q, want %q", shown.String(), c.banner)
			}
		})
	}
}

func TestBannerOfALogin(t *testing.T) {
	h := (&host{banner: "be good\x07\x1b]0;x\x07\n"}).start(t)
	var shown buffer
	cfg := h.config()
	cfg.Banner = &shown
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if shown.String() != "be good]0;x\n" {
		t.Errorf("shown %q", shown.String())
	}
}

func TestUnreachable(t *testing.T) {
	h := (&host{}).start(t)
	cfg := h.config()
	cfg.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("no route\x1b[1m") }
	_, err := Dial(t.Context(), cfg)
	wantError(t, err, CodeUnreachable, "web cannot be reached: no route[1m")

	// Something that accepts and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.Dial = func(context.Context) (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	cfg.ConnectTimeout = 200 * time.Millisecond
	_, err = Dial(t.Context(), cfg)
	wantError(t, err, CodeUnreachable, "does not answer within 200ms")
}

func TestConnectionLost(t *testing.T) {
	h := (&host{}).start(t)
	c := h.dial(t)
	out := &notify{want: "ready", hit: h.cut}
	_, err := c.Run(t.Context(), Session{Command: "echo ready; sleep 60", Stdout: out})
	wantError(t, err, CodeUnreachable, "the connection to web was lost")
}

func TestEndedByTheHost(t *testing.T) {
	h := (&host{end: &ended{"revoked", "the policy no longer allows it\x1b[2J"}}).start(t)
	_, err := h.dial(t).Run(t.Context(), Session{Command: "sleep 60"})
	wantError(t, err, CodeRevoked, "web ended the session: the policy no longer allows it[2J")
	h = (&host{end: &ended{"whatever", "no"}}).start(t)
	_, err = h.dial(t).Run(t.Context(), Session{Command: "sleep 60"})
	wantError(t, err, CodeDenied, "web ended the session: no")
}

func TestRefusedCommandAndVanishedSession(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	_, err := c.Run(t.Context(), Session{Command: "forbidden"})
	wantError(t, err, CodeDenied, "web refused this command for alice")
	_, err = c.Run(t.Context(), Session{Command: "vanish"})
	wantError(t, err, CodeUnreachable, "without an exit status")
}

func TestKeepaliveNoticesADeadHost(t *testing.T) {
	h := (&host{deaf: true}).start(t)
	cfg := h.config()
	cfg.KeepaliveInterval, cfg.KeepaliveMax = 20*time.Millisecond, 3
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Run(t.Context(), Session{Command: "sleep 60"})
	wantError(t, err, CodeUnreachable, "has not answered for")
}

// An answering host is not left, however long it is silent otherwise.
func TestKeepaliveOfALiveHost(t *testing.T) {
	h := (&host{}).start(t)
	cfg := h.config()
	cfg.KeepaliveInterval, cfg.KeepaliveMax = 20*time.Millisecond, 3
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if x, err := c.Run(t.Context(), Session{Command: "sleep 0.5"}); err != nil || x.Code() != 0 {
		t.Fatal(x, err)
	}
}

func TestBrokenOutput(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	r, w := io.Pipe()
	r.Close()
	_, err := c.Run(t.Context(), Session{Command: "yes", Stdout: w})
	if !BrokenPipe(err) {
		t.Fatal(err)
	}
}

func TestStreamHalfClose(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	want := strings.Repeat("x", 300000)
	var out buffer
	if err := c.Stream(t.Context(), "db", 80, strings.NewReader(want), &out); err != nil || out.String() != want {
		t.Fatalf("%v, %d bytes", err, len(out.String()))
	}
	wantError(t, c.Stream(t.Context(), "nowhere", 80, strings.NewReader(""), &out), CodeUnreachable, "web refused a connection to nowhere:80: no such place[2J")
	wantError(t, c.Stream(t.Context(), "secret", 80, strings.NewReader(""), &out), CodeDenied, "forwarding is not allowed")
}

func TestForwards(t *testing.T) {
	c := (&host{}).start(t).dial(t)
	notices := make(chan string, 4)
	f := c.NewForwards(func(s string) { notices <- s })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.Local(l, Endpoint{Host: "db", Port: 5432})
	echo := func(addr string, before []byte, after int) string {
		n, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		n.SetDeadline(time.Now().Add(10 * time.Second))
		n.Write(before)
		if after > 0 {
			if _, err := io.ReadFull(n, make([]byte, after)); err != nil {
				return err.Error()
			}
		}
		io.WriteString(n, "hello")
		n.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(n)
		return string(b)
	}
	if got := echo(l.Addr().String(), nil, 0); got != "hello" {
		t.Errorf("local: %q", got)
	}
	d, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.Dynamic(d)
	if got := echo(d.Addr().String(), append([]byte{5, 1, 0, 5, 1, 0, 3, 2}, "db\x00\x50"...), 12); got != "hello" {
		t.Errorf("dynamic: %q", got)
	}
	if got := echo(d.Addr().String(), append([]byte{5, 1, 0, 5, 1, 0, 3, 7}, "nowhere\x00\x50"...), 12); got != "" {
		t.Errorf("dynamic to nowhere: %q", got)
	}
	if n := <-notices; !strings.Contains(n, "nowhere:80") {
		t.Errorf("notice %q", n)
	}
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if port, err := f.Remote(Endpoint{Host: "127.0.0.1"}, Endpoint{Host: "127.0.0.1", Port: uint16(back.Addr().(*net.TCPAddr).Port)}); err != nil || port != 4321 {
		t.Fatal(port, err)
	}
	back.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	n, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(n)
	n.Close()
	if string(b) != "from the host" {
		t.Errorf("remote: %q", b)
	}
	if open := f.Open(); !slices.ContainsFunc(open, func(s string) bool { return strings.HasPrefix(s, "listens on "+l.Addr().String()) }) {
		t.Errorf("open: %q", open)
	}
	f.Close()
	if open := f.Open(); len(open) != 0 {
		t.Errorf("open after the end: %q", open)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, out, act string }{
		{"plain\r", "plain\r", ""},
		{"~.", "", "."},
		{"a~.", "a~.", ""},
		{"ls\r~.more", "ls\r", "."},
		{"~~.", "~.", ""},
		{"~x", "~x", ""},
		{"\n~?\r~B~\x1a", "\n\r", "?B\x1a"},
		{"~#x", "x", "#"},
	} {
		for cut := 0; cut <= len(c.in); cut++ { // pieces do not matter
			e := escape{char: '~'}
			o1, a1 := e.feed([]byte(c.in[:cut]))
			out, act := string(o1), a1
			if len(a1) == 0 || a1[len(a1)-1] != actDisconnect {
				o2, a2 := e.feed([]byte(c.in[cut:]))
				out, act = out+string(o2), append(act, a2...)
			}
			got := ""
			for _, a := range act {
				got += string(rune(a))
			}
			if out != c.out || got != c.act {
				t.Errorf("%q cut at %d: %q %q, want %q %q", c.in, cut, out, got, c.out, c.act)
			}
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b[2Jb\u202e\r\nc")
	f.Add("\xff\xfe\u0085\u009b2J")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Plain(s) {
			if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e') {
				t.Fatalf("%q passed in %q", r, s)
			}
		}
		if strings.Contains(line(s), "\n") {
			t.Fatal("line has a line end")
		}
	})
}
