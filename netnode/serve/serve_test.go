package serve_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/netnode/meshtest"
	"tssh/netnode/serve"
	"tssh/policy"
)

const openPolicy = `{"tagOwners": {"tag:ci": ["alice@example.com"]}, "acls": [
	{"action": "accept", "src": ["bob@example.com", "tag:ci"], "dst": ["alice@example.com:3000,3001"]}]}`

// lab is a mesh in which alice's laptop serves.
type lab struct {
	*meshtest.Mesh
	t    *testing.T
	s    *serve.Server
	file string
	stop func()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	m := meshtest.New(t, openPolicy,
		meshtest.Node{Name: "laptop", User: "alice@example.com"},
		meshtest.Node{Name: "desk", User: "bob@example.com"},
		meshtest.Node{Name: "runner", Tags: []policy.Tag{"tag:ci"}},
		meshtest.Node{Name: "stranger", User: "eve@example.com"})
	l := &lab{Mesh: m, t: t, file: filepath.Join(t.TempDir(), "serve.json")}
	l.start("m1")
	return l
}

// start makes a Server, as a daemon does.
func (l *lab) start(mesh string) {
	d := &serve.Dialer{}
	l.s = serve.New(serve.Config{File: l.file, Dial: d.Dial, May: func(uid int) bool { return uid == os.Getuid() }})
	ctx, cancel := context.WithCancel(context.Background())
	done, n := make(chan struct{}), l.Node("laptop")
	go func() {
		l.s.Run(ctx, mesh, serve.Mesh{Listen: n.Listen, Admits: n.Admits, Self: n.Self})
		close(done)
	}()
	l.stop = func() { cancel(); <-done; d.Close() }
	l.t.Cleanup(func() { l.stop() })
}

// add serves, once the node is up.
func (l *lab) add(p serve.Port) serve.Status {
	l.t.Helper()
	p.UID = os.Getuid()
	for end := time.Now().Add(20 * time.Second); ; {
		st, err := l.s.Add(p)
		if err == nil {
			return st
		}
		if time.Now().After(end) || !strings.Contains(err.Error(), "not up") {
			l.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// client is a browser on a node: HTTP/1.1, or HTTP/2 without TLS.
func (l *lab) client(node string, two bool) *http.Client {
	var v http.Protocols
	v.SetHTTP1(!two)
	v.SetUnencryptedHTTP2(two)
	tr := &http.Transport{Protocols: &v, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return l.Node(node).Dial(ctx, "tcp", addr)
	}}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// program is what is served: it tells what it was asked.
func program(t *testing.T) uint16 {
	t.Helper()
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		json.NewEncoder(w).Encode(map[string]any{"proto": r.Proto, "host": r.Host, "path": r.URL.RequestURI(), "headers": r.Header, "body": string(b), "trailer": r.Trailer})
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { // every line as it comes
		http.NewResponseController(w).EnableFullDuplex()
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			fmt.Fprintln(w, s.Text())
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(buf, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Login: %s\r\n\r\n", r.Header.Get("Tssh-Login"))
		buf.Flush()
		io.Copy(c, buf)
	})
	srv := &http.Server{Handler: mux, Protocols: &both}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

type seen struct {
	Proto, Host, Path, Body string
	Headers                 http.Header
	Trailer                 http.Header
}

func get(t *testing.T, c *http.Client, r *http.Request) (seen, int, string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	json.Unmarshal(b, &s)
	return s, resp.StatusCode, string(b)
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHTTP(t *testing.T) {
	l := newLab(t)
	target := program(t)
	l.add(serve.Port{Port: 3000, Target: target})

	for _, two := range []bool{false, true} {
		for _, c := range []struct {
			node, addr, login, tags string
		}{
			{"desk", "laptop:3000", "bob@example.com", ""},
			{"desk", netip.AddrPortFrom(l.Addr6("laptop"), 3000).String(), "bob@example.com", ""},
			{"runner", netip.AddrPortFrom(l.Addr("laptop"), 3000).String(), "", "tag:ci"},
		} {
			r := request(t, "POST", "http://"+c.addr+"/a%2Fb?x=1;y", "hello")
			// What would be somebody else, in all the ways that programs read it.
			for _, k := range []string{"Tssh-Login", "tssh-login", "TSSH-LOGIN", "Tssh_Login", "Tssh-Tags", "Tssh-Node", "Tssh-Role", "Tssh.Login", "Tailscale-User-Login", "X-Forwarded-User", "X_Forwarded_User", "Remote-User", "X-Webauth-User", "X-Forwarded-For", "X-Real-Ip"} {
				r.Header[k] = []string{"admin@example.com"}
			}
			r.Header.Set("X-Other", "kept")
			if !two { // a proxy takes out what Connection names, and must not take out its own
				r.Header.Set("Connection", "keep-alive, Tssh-Login, Tssh-Tags, Tssh-Node, X-Forwarded-For")
			}
			s, code, text := get(t, l.client(c.node, two), r)
			if code != 200 || s.Body != "hello" || s.Path != "/a%2Fb?x=1;y" || s.Host != c.addr || (s.Proto == "HTTP/2.0") != two {
				t.Errorf("from %s: %d %s", c.node, code, text)
			}
			if strings.Contains(text, "admin@example.com") {
				t.Errorf("a forged header went through: %s", text)
			}
			if got := s.Headers; got.Get("Tssh-Login") != c.login || got.Get("Tssh-Tags") != c.tags || got.Get("Tssh-Node") != c.node || got.Get("X-Other") != "kept" {
				t.Errorf("headers from %s: %v", c.node, got)
			}
			if n := len(s.Headers["Tssh-Node"]); n != 1 {
				t.Errorf("%d times Tssh-Node", n)
			}
			if a := s.Headers.Get("X-Forwarded-For"); a != l.Addr(c.node).String() && a != l.Addr6(c.node).String() {
				t.Errorf("forwarded for %q", a)
			}
		}
	}
	if st := l.s.List(); len(st) != 1 || st[0].Total == 0 || st[0].Problem != "" {
		t.Errorf("status: %+v", st)
	}

	// Who may not does not get that far: the packet filter lets nothing in.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if c, err := l.Node("stranger").Dial(ctx, "tcp", "laptop:3000"); err == nil {
		c.Close()
		t.Error("a stranger was let in")
	}

	// Pages of other sites use the reader's address.
	for _, c := range []struct {
		what, method, host string
		headers            map[string]string
		code               int
	}{
		{"rebound name", "GET", "evil.example:3000", nil, 421},
		{"another site's form", "POST", "laptop:3000", map[string]string{"Origin": "http://evil.example"}, 403},
		{"another site's form, no origin", "POST", "laptop:3000", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"a sandbox", "POST", "laptop:3000", map[string]string{"Origin": "null"}, 403},
		{"another site's socket", "GET", "laptop:3000", map[string]string{"Origin": "http://evil.example", "Connection": "Upgrade", "Upgrade": "websocket"}, 403},
		{"a way past the headers", "GET", "laptop:3000", map[string]string{"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}, 501},
		{"its own page", "POST", "laptop.test.internal:3000", map[string]string{"Origin": "http://laptop.test.internal:3000", "Sec-Fetch-Site": "same-origin"}, 200},
		{"its own page at another port", "POST", "laptop:3000", map[string]string{"Origin": "http://laptop:5173", "Sec-Fetch-Site": "same-site"}, 200},
		{"a link from elsewhere", "GET", "laptop:3000", map[string]string{"Sec-Fetch-Site": "cross-site"}, 200},
	} {
		r := request(t, c.method, "http://laptop:3000/", "")
		r.Host = c.host
		for k, v := range c.headers {
			r.Header.Set(k, v)
		}
		if _, code, text := get(t, l.client("desk", false), r); code != c.code || code != 200 && !strings.HasPrefix(text, "tssh: ") {
			t.Errorf("%s: %d %s", c.what, code, text)
		}
	}

	// The program goes: a sentence.
	l.add(serve.Port{Port: 3001, Target: unused(t)})
	if _, code, text := get(t, l.client("desk", false), request(t, "GET", "http://laptop:3001/", "")); code != 502 || !strings.Contains(text, "does not answer: it is not running") {
		t.Errorf("no program: %d %s", code, text)
	}
}

func unused(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestStreams has answers begin while the request is still coming, and an upgraded connection.
func TestStreams(t *testing.T) {
	l := newLab(t)
	l.add(serve.Port{Port: 3000, Target: program(t)})
	for _, two := range []bool{false, true} {
		pr, pw := io.Pipe()
		r, err := http.NewRequest("POST", "http://laptop:3000/echo", pr)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { // the first line brings the answer's head
			_, err := io.WriteString(pw, "line 0\n")
			sent <- err
		}()
		resp, err := l.client("desk", two).Do(r)
		if err != nil || <-sent != nil {
			t.Fatal(two, err)
		}
		lines := bufio.NewScanner(resp.Body)
		for i := range 5 {
			if !lines.Scan() || lines.Text() != "line "+strconv.Itoa(i) {
				t.Fatalf("HTTP/2 %v: line %d is %q", two, i, lines.Text())
			}
			io.WriteString(pw, fmt.Sprintf("line %d\n", i+1))
		}
		pw.Close()
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	c, br := socket(t, l)
	defer c.Close()
	for _, s := range []string{"one\n", "two\n"} {
		io.WriteString(c, s)
		if got, err := br.ReadString('\n'); got != s {
			t.Fatalf("socket: %q %v", got, err)
		}
	}
	// The right goes: the socket ends, with nothing said by the peer.
	l.SetPolicy(`{"acls": []}`)
	l.s.Recheck()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := br.ReadByte(); err == nil || os.IsTimeout(err) {
		t.Errorf("still open after the right went: %v", err)
	}
	if st := l.s.List()[0]; st.Open != 0 {
		deadline := time.Now().Add(10 * time.Second)
		for ; st.Open != 0 && time.Now().Before(deadline); st = l.s.List()[0] {
			time.Sleep(10 * time.Millisecond)
		}
		if st.Open != 0 {
			t.Errorf("%d connections counted after the last ended", st.Open)
		}
	}
}

// socket is a WebSocket's connection after the handshake.
func socket(t *testing.T, l *lab) (net.Conn, *bufio.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := l.Node("desk").Dial(ctx, "tcp", "laptop:3000")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: laptop:3000\r\nOrigin: http://laptop:3000\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nTssh-Login: root\r\n\r\n")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("X-Login") != "bob@example.com" {
		t.Fatalf("upgrade: %+v %v", resp, err)
	}
	return c, br
}

func TestTCP(t *testing.T) {
	l := newLab(t)
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() { // ends with the listener
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			go func() { // a program that answers at the end of the question
				b, _ := io.ReadAll(c)
				c.Write(append([]byte("got "), b...))
				c.Close()
			}()
		}
	}()
	port := uint16(back.Addr().(*net.TCPAddr).Port)
	l.add(serve.Port{Port: 3000, Target: port, TCP: true})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := l.Node("desk").Dial(ctx, "tcp", "laptop:3000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "bytes")
	c.(interface{ CloseWrite() error }).CloseWrite()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(c); string(b) != "got bytes" {
		t.Fatalf("%q %v", b, err)
	}

	// Off ends what is open, and nothing answers any more.
	c2, err := l.Node("desk").Dial(ctx, "tcp", "laptop:3000")
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	for end := time.Now().Add(20 * time.Second); l.s.List()[0].Open == 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if n, err := l.s.Remove(os.Getuid(), 3000); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c2.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(c2); len(b) > 0 || os.IsTimeout(err) {
		t.Errorf("after off: %q %v", b, err)
	}
	if c, err := l.Node("desk").Dial(ctx, "tcp", "laptop:3000"); err == nil {
		c.Close()
		t.Error("answers after off")
	}
}

// TestOnePeerTakesNothingFromOthers has one node open as many connections as it can.
func TestOnePeerTakesNothingFromOthers(t *testing.T) {
	l := newLab(t)
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	var held sync.WaitGroup
	defer held.Wait()
	held.Go(func() { // ends with the listener; what it holds ends with the peers
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			held.Go(func() { io.Copy(c, c); c.Close() })
		}
	})
	l.add(serve.Port{Port: 3000, Target: uint16(back.Addr().(*net.TCPAddr).Port), TCP: true})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// echoes reports whether a new connection of a node is served.
	echoes := func(node string) bool {
		c, err := l.Node(node).Dial(ctx, "tcp", "laptop:3000")
		if err != nil {
			return false
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(30 * time.Second))
		io.WriteString(c, "x")
		_, err = io.ReadFull(c, make([]byte, 1))
		if os.IsTimeout(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	const each = 256
	for i := range each {
		if !echoes("desk") {
			t.Fatalf("connection %d is not served", i)
		}
	}
	if echoes("desk") {
		t.Error("one more is served")
	}
	if !echoes("runner") {
		t.Error("another node is not served")
	}
	if st := l.s.List()[0]; st.Open != each+1 || st.Refused == 0 {
		t.Errorf("%+v", st)
	}
	l.s.Remove(os.Getuid(), 0)
	back.Close()
}

func TestWhoMayServe(t *testing.T) {
	l := newLab(t)
	l.add(serve.Port{Port: 3000, Target: 9})
	me := os.Getuid()
	for _, c := range []struct {
		p    serve.Port
		want string
	}{
		{serve.Port{Target: 3002, UID: me + 1}, "only root and the owner"},
		{serve.Port{Port: 22, Target: 3002, UID: me}, "port 22 is the node's own"},
		{serve.Port{Port: 53, Target: 3002, UID: me}, "port 53 is the node's own"},
		{serve.Port{UID: me}, "no port"},
	} {
		if _, err := l.s.Add(c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
	if _, err := l.s.Remove(me+1, 3000); err == nil {
		t.Error("somebody else's port was taken away")
	}
	if _, err := l.s.Remove(me, 4000); err == nil {
		t.Error("a port that is not served was taken away")
	}
	other, err := l.Node("laptop").Listen("tcp", ":3005")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := l.s.Add(serve.Port{Target: 3005, UID: me}); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a taken port: %v", err)
	}
	for i := range 31 {
		l.add(serve.Port{Target: uint16(4000 + i)})
	}
	if _, err := l.s.Add(serve.Port{Target: 5000, UID: me}); err == nil || !strings.Contains(err.Error(), "as many as") {
		t.Errorf("the 33rd port: %v", err)
	}
}

func TestKept(t *testing.T) {
	l := newLab(t)
	l.add(serve.Port{Port: 3000, Target: 9, Keep: true})
	l.add(serve.Port{Port: 3001, Target: 9})
	ports := func() (out []uint16) {
		for _, s := range l.s.List() {
			out = append(out, s.Port.Port)
		}
		return out
	}
	l.stop()
	l.start("m1")
	l.add(serve.Port{Port: 3003, Target: 9}) // it is up
	if got := ports(); !slices.Equal(got, []uint16{3000, 3003}) {
		t.Errorf("after a start: %v", got)
	}
	if st := l.s.List()[0]; st.Problem != "" || !st.Keep {
		t.Errorf("kept: %+v", st)
	}
	l.stop()
	l.start("m2") // another mesh: other people
	l.add(serve.Port{Port: 3003, Target: 9})
	if got := ports(); !slices.Equal(got, []uint16{3003}) {
		t.Errorf("in another mesh: %v", got)
	}
	if fi, err := os.Stat(l.file); err == nil && fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	if _, err := l.s.Remove(os.Getuid(), 0); err != nil {
		t.Fatal(err)
	}
	l.stop()
	for _, bad := range []string{"{", `{"mesh":"m1","ports":[{"port":0,"target":1},{"port":3000,"target":9,"uid":1000000}]}`, strings.Repeat(" ", 100<<10)} {
		if err := os.WriteFile(l.file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		l.start("m1")
		l.add(serve.Port{Port: 3003, Target: 9})
		if got := ports(); !slices.Equal(got, []uint16{3003}) {
			t.Errorf("%.20q: %v", bad, got)
		}
		l.stop()
	}
}

// TestNobody connects from an address that is no peer's, as local programs and the LAN can
// where the listener is the kernel's: the program is not even asked.
func TestNobody(t *testing.T) {
	dialled := false
	s := serve.New(serve.Config{May: func(int) bool { return true }, Dial: func(context.Context, int, netip.AddrPort) (net.Conn, error) {
		dialled = true
		return nil, net.ErrClosed
	}})
	at := make(chan net.Addr, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		s.Run(ctx, "m", serve.Mesh{
			Listen: func(string, string) (net.Listener, error) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err == nil {
					at <- l.Addr()
				}
				return l, err
			},
			Admits: func(netip.AddrPort, netip.AddrPort) (policy.Identity, bool) { return policy.Identity{}, false },
			Self: func() (policy.Identity, string) {
				return policy.Identity{Name: "laptop", User: "alice@example.com"}, "test"
			},
		})
		close(done)
	}()
	l := &lab{t: t, s: s}
	l.add(serve.Port{Port: 3000, Target: 9})
	// It may be reset before it is seen to be open.
	c, err := net.Dial("tcp", (<-at).String())
	if err == nil {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: laptop\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
			t.Errorf("nobody is answered: %q %v", b, err)
		}
		c.Close()
	} else if !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); s.List()[0].Refused == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not counted as refused: %+v", s.List()[0])
		}
	}
	cancel()
	<-done
	if dialled {
		t.Error("the program was connected to for nobody")
	}
}
