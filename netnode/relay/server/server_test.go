package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/types/key"

	"tssh/netnode/relay"
)

// certificate makes one for a new Ed25519 key.
func certificate(t testing.TB) (tls.Certificate, [32]byte) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, [32]byte(pub)
}

func peer(cs *tls.ConnectionState) (k [32]byte) {
	if cs != nil && len(cs.PeerCertificates) > 0 {
		copy(k[:], cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey))
	}
	return k
}

// testRelay is a relay on a TLS port of loopback; its members are a table.
type testRelay struct {
	*Server
	at   relay.Server
	stop func()

	mu      sync.Mutex
	members map[[32]byte]relay.Key // WireGuard key by control key
}

func newRelay(t testing.TB, id string, edit func(*Config)) *testRelay {
	t.Helper()
	r := &testRelay{members: map[[32]byte]relay.Key{}}
	c := Config{
		Member: func(q *http.Request) (string, relay.Key, bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			control := peer(q.TLS)
			wg, ok := r.members[control]
			return fmt.Sprintf("%x", control[:4]), wg, ok
		},
		Still: func(node string, wg relay.Key) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			for control, m := range r.members {
				if fmt.Sprintf("%x", control[:4]) == node {
					return m == wg
				}
			}
			return false
		},
	}
	if edit != nil {
		edit(&c)
	}
	var err error
	if r.Server, err = New(c); err != nil {
		t.Fatal(err)
	}
	cert, pin := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/derp", r.Server)
	srv := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	wg.Go(func() { r.Server.Run(ctx) })
	r.stop = sync.OnceFunc(func() { cancel(); srv.Close(); wg.Wait() })
	t.Cleanup(r.stop)
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	r.at = relay.Server{ID: id, Host: host, Port: uint16(n), Pin: pin}
	return r
}

func (r *testRelay) admit(n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[n.control] = n.key
}

func (r *testRelay) remove(n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members, n.control)
}

// node is a client of relays.
type node struct {
	*relay.Client
	key     relay.Key
	priv    [32]byte
	control [32]byte
	cert    tls.Certificate
	got     chan string // "FROM PACKET", FROM by the first bytes of its key
	home    chan string
}

func short(k relay.Key) string { return fmt.Sprintf("%x", k[:4]) }

// newNode makes a client with new keys, and runs it.
func newNode(t testing.TB, edit func(*relay.ClientConfig)) *node {
	t.Helper()
	wg, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{key: relay.Key(wg.PublicKey().Bytes()), priv: [32]byte(wg.Bytes()), got: make(chan string, 10_000), home: make(chan string, 100)}
	n.cert, n.control = certificate(t)
	c := relay.ClientConfig{
		Private: n.priv, TLS: n.tls,
		OnPacket: func(from relay.Key, p []byte) {
			select {
			case n.got <- short(from) + " " + string(p):
			default:
			}
		},
		OnHome: func(id string) { n.home <- id },
	}
	if edit != nil {
		edit(&c)
	}
	if n.Client, err = relay.NewClient(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func (n *node) tls(s relay.Server) (*tls.Config, error) {
	return &tls.Config{Certificates: []tls.Certificate{n.cert}, InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		if peer(&cs) != s.Pin {
			return errors.New("the relay shows another key")
		}
		return nil
	}}, nil
}

func (n *node) atHome(t testing.TB, want string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-n.home:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("not at home at %q: %+v", want, n.Status())
		}
	}
}

// exchange sends until the packet arrives: the first ones may find nobody at home yet.
func exchange(t testing.TB, from, to *node, at, text string) {
	t.Helper()
	want := short(from.key) + " " + text
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		from.Send(to.key, at, []byte(text))
		select {
		case got := <-to.got:
			if got == want {
				return
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%q did not arrive: %+v and %+v", text, from.Status(), to.Status())
}

// leaks fails the test when goroutines are left at its end.
func leaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Fatalf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
			}
		}
	})
}

func TestTwoNodes(t *testing.T) {
	leaks(t)
	r := newRelay(t, "hub", nil)
	a, b := newNode(t, nil), newNode(t, nil)
	for _, n := range []*node{a, b} {
		r.admit(n)
		n.SetServers([]relay.Server{r.at})
		n.atHome(t, "hub")
	}
	exchange(t, a, b, "hub", "hello")
	exchange(t, b, a, "", "hello yourself") // where it was heard
	big := strings.Repeat("x", 1400)
	for i := range 200 { // few at a time: a relay drops what its reader is slow to take
		if !a.Send(b.key, "hub", []byte(strconv.Itoa(i)+big)) {
			t.Fatalf("packet %d was not taken", i)
		}
		if i%8 != 7 {
			continue
		}
		for j := i - 7; j <= i; j++ {
			if got := <-b.got; got != short(a.key)+" "+strconv.Itoa(j)+big {
				t.Fatalf("packet %d: %.20q", j, got)
			}
		}
	}
	if a.Send(b.key, "hub", make([]byte, 70_000)) {
		t.Error("a packet that no relay takes was taken")
	}
	if a.Send(b.key, "nowhere", []byte("x")); a.Home() != "hub" {
		t.Errorf("home %q", a.Home())
	}
	if st := a.Status(); len(st) != 1 || !st[0].Connected || !st[0].Home || st[0].Latency <= 0 {
		t.Errorf("status %+v", st)
	}
}

// TestHomeDies kills one of two relays under traffic.
func TestHomeDies(t *testing.T) {
	leaks(t)
	one, two := newRelay(t, "one", nil), newRelay(t, "two", nil)
	a, b := newNode(t, nil), newNode(t, nil)
	for _, n := range []*node{a, b} {
		one.admit(n)
		two.admit(n)
		n.SetServers([]relay.Server{one.at, far(t, two.at, 20*time.Millisecond)})
		n.atHome(t, "one")
	}
	exchange(t, a, b, "one", "before")
	died := time.Now()
	one.stop()
	for _, n := range []*node{a, b} {
		n.atHome(t, "two")
	}
	exchange(t, a, b, "two", "after")
	exchange(t, b, a, "one", "for one whose move was not heard of")
	took := time.Since(died)
	t.Logf("at home elsewhere, and a packet across, after %v", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestOtherHome: two nodes that are at home at different relays reach each other.
func TestOtherHome(t *testing.T) {
	leaks(t)
	one, two := newRelay(t, "one", nil), newRelay(t, "two", nil)
	a, b := newNode(t, nil), newNode(t, nil)
	for _, n := range []*node{a, b} {
		one.admit(n)
		two.admit(n)
	}
	a.SetServers([]relay.Server{one.at})
	b.SetServers([]relay.Server{two.at})
	a.atHome(t, "one")
	b.atHome(t, "two")
	a.SetServers([]relay.Server{one.at, two.at})
	exchange(t, a, b, "two", "from afar")
	if a.Home() != "one" {
		t.Errorf("moved house to %q", a.Home())
	}
}

// TestStrangers are refused, and a member cannot take another's place.
func TestStrangers(t *testing.T) {
	leaks(t)
	r := newRelay(t, "hub", nil)
	victim, thief, stranger := newNode(t, nil), newNode(t, nil), newNode(t, nil)
	r.admit(victim)
	r.admit(thief)
	victim.SetServers([]relay.Server{r.at})
	victim.atHome(t, "hub")

	stranger.SetServers([]relay.Server{r.at})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st := stranger.Status(); st[0].Err != "" {
			if !strings.Contains(st[0].Err, "403") || st[0].Connected {
				t.Errorf("a stranger: %+v", st)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("a stranger is not told anything")
		}
	}
	if r.Clients() != 1 {
		t.Errorf("%d clients", r.Clients())
	}

	// The thief is a member, and claims the victim's key in DERP's own handshake.
	conf, err := thief.tls(r.at)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", net.JoinHostPort(r.at.Host, strconv.Itoa(int(r.at.Port))), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
	br := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	dc, err := derp.NewClient(key.NodePrivateFromRaw32(mem.B(victim.priv[:])), conn, bufio.NewReadWriter(br, bufio.NewWriter(conn)), t.Logf)
	if err == nil {
		_, err = dc.Recv()
	}
	if err == nil {
		t.Error("a member took another member's place")
	}

	// The wrong relay: its key is not the pinned one.
	other := newRelay(t, "hub", nil)
	other.admit(victim)
	moved := other.at
	moved.Pin = r.at.Pin
	victim.SetServers([]relay.Server{moved})
	victim.atHome(t, "")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st := victim.Status(); strings.Contains(st[0].Err, "another key") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", victim.Status())
		}
	}
	if other.Clients() != 0 {
		t.Error("a node went to a relay with another key")
	}
}

// TestRemoved: who is no member any more is cut off.
func TestRemoved(t *testing.T) {
	leaks(t)
	r := newRelay(t, "hub", nil)
	a := newNode(t, nil)
	r.admit(a)
	a.SetServers([]relay.Server{r.at})
	a.atHome(t, "hub")
	begun := time.Now()
	r.remove(a)
	for r.Clients() != 0 {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("still connected")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("cut off after %v", time.Since(begun).Round(time.Millisecond))
	a.atHome(t, "")
	r.admit(a)
	a.atHome(t, "hub") // and back
}

// TestFull: a relay has a bound for all and one for each node.
func TestFull(t *testing.T) {
	leaks(t)
	r := newRelay(t, "hub", func(c *Config) { c.MaxClients = 1 })
	a, b := newNode(t, nil), newNode(t, nil)
	r.admit(a)
	r.admit(b)
	a.SetServers([]relay.Server{r.at})
	a.atHome(t, "hub")
	b.SetServers([]relay.Server{r.at})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st := b.Status(); strings.Contains(st[0].Err, "the relay is full") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", b.Status())
		}
	}
}

// TestRate: one node cannot have all of a relay.
func TestRate(t *testing.T) {
	leaks(t)
	const rate = 200 << 10
	r := newRelay(t, "hub", func(c *Config) { c.BytesPerSecond = rate })
	a, b := newNode(t, nil), newNode(t, nil)
	for _, n := range []*node{a, b} {
		r.admit(n)
		n.SetServers([]relay.Server{r.at})
		n.atHome(t, "hub")
	}
	exchange(t, a, b, "hub", "first")
	packet := bytes.Repeat([]byte("y"), 32<<10)
	begun := time.Now()
	sent := 0
	for sent < 5*rate { // the burst is two seconds' worth
		if a.Send(b.key, "hub", packet) {
			sent += len(packet)
		} else {
			time.Sleep(time.Millisecond)
		}
	}
	for range sent / len(packet) {
		select {
		case <-b.got:
		case <-time.After(20 * time.Second):
			t.Fatal("packets were lost on the way")
		}
	}
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("%d bytes in %v, the rate is %d a second", sent, took, rate)
	}
}

// TestProxy reaches a relay through an HTTP proxy that knows CONNECT and wants a password.
func TestProxy(t *testing.T) {
	leaks(t)
	var tunnels atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodConnect || q.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYXNz" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		out, err := net.Dial("tcp", q.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		tunnels.Add(1)
		wg.Go(func() { io.Copy(out, in); out.Close() })
		wg.Go(func() { io.Copy(in, out); in.Close() })
	})}
	wg.Go(func() { proxy.Serve(l) })
	t.Cleanup(func() { proxy.Close(); wg.Wait() })

	r := newRelay(t, "hub", nil)
	via := func(u string) func(*relay.ClientConfig) {
		return func(c *relay.ClientConfig) { c.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse(u) } }
	}
	a, b := newNode(t, via("http://user:pass@"+l.Addr().String())), newNode(t, nil)
	for _, n := range []*node{a, b} {
		r.admit(n)
		n.SetServers([]relay.Server{r.at})
		n.atHome(t, "hub")
	}
	exchange(t, a, b, "hub", "through the proxy")
	if tunnels.Load() != 1 {
		t.Errorf("%d tunnels", tunnels.Load())
	}
	wrong := newNode(t, via("http://user:wrong@"+l.Addr().String()))
	r.admit(wrong)
	wrong.SetServers([]relay.Server{r.at})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st := wrong.Status(); strings.Contains(st[0].Err, "407") {
			if strings.Contains(st[0].Err, "wrong") {
				t.Errorf("the password is in the words: %s", st[0].Err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", wrong.Status())
		}
	}
}

// TestStockRelay uses the server that derper is made of, with a certificate of its own.
func TestStockRelay(t *testing.T) {
	s := derpserver.New(key.NewNode(), func(string, ...any) {})
	cert, pin := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(s))
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { s.Close(); srv.Close() })
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	at := relay.Server{ID: "stock", Host: host, Port: uint16(n), Pin: pin}
	a, b := newNode(t, nil), newNode(t, nil)
	for _, x := range []*node{a, b} {
		x.SetServers([]relay.Server{at})
		x.atHome(t, "stock")
	}
	exchange(t, a, b, "stock", "by way of a stock relay")
}
