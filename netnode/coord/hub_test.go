package coord

import (
	"context"
	"database/sql"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// hub is a coordination server on a real TLS port of loopback.
type hub struct {
	*Server
	t       *testing.T
	dir     string
	key     netmap.ControlKey
	addr    string
	clock   *clock
	http    *http.Server
	db      *sql.DB
	cancel  context.CancelFunc
	done    chan struct{}
	wrap    func(http.Handler) http.Handler // from the next start on
	mu      sync.Mutex
	entries []audit.Entry
}

// clock is a clock that can be moved.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *clock) move(d time.Duration) { c.off.Add(int64(d)) }

func testLog(t *testing.T) *slog.Logger {
	if os.Getenv("TSSH_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// newHub makes a mesh "lab" in a folder of its own.
func newHub(t *testing.T, edit func(*Config)) *hub {
	t.Helper()
	key, err := netmap.NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{t: t, dir: t.TempDir(), key: key, clock: new(clock)}
	h.up("127.0.0.1:0", edit)
	t.Cleanup(h.down)
	return h
}

// up starts the hub on what its folder holds.
func (h *hub) up(addr string, edit func(*Config)) {
	h.t.Helper()
	var l net.Listener
	var err error
	for range 50 { // the port of the run before may take a moment
		if l, err = net.Listen("tcp", addr); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.db, err = sql.Open("sqlite", SQLiteDSN(filepath.Join(h.dir, "hub.db")))
	if err != nil {
		h.t.Fatal(err)
	}
	c := Config{DB: h.db, Key: h.key, Mesh: "lab", Host: h.addr, Clock: h.clock.now, Log: testLog(h.t), Ping: 5 * time.Second,
		Audit: func(e audit.Entry) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.entries = append(h.entries, e)
			return nil
		}}
	if edit != nil {
		edit(&c)
	}
	s, err := New(h.t.Context(), c)
	if err != nil {
		l.Close()
		h.db.Close()
		h.t.Fatal(err)
	}
	h.Server = s
	conf, err := netmap.ServerTLS(h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan struct{})
	handler := s.Handler(ctx)
	if h.wrap != nil {
		handler = h.wrap(handler)
	}
	h.http = &http.Server{Handler: handler, TLSConfig: conf, ReadHeaderTimeout: 5 * time.Second, TLSNextProto: noHTTP2(), ErrorLog: slog.NewLogLogger(testLog(h.t).Handler(), slog.LevelDebug)}
	go h.http.ServeTLS(l, "", "")
	go func() {
		defer close(h.done)
		s.Run(ctx)
	}()
}

// down stops the hub; it can be brought up again.
func (h *hub) down() {
	h.cancel()
	<-h.done
	h.http.Close()
	h.db.Close()
}

// audited are the entries of a kind.
func (h *hub) audited(kind string) []audit.Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []audit.Entry
	for _, e := range h.entries {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func (h *hub) user(login string) {
	h.t.Helper()
	if _, err := h.AddUser(h.t.Context(), "test", login, ""); err != nil {
		h.t.Fatal(err)
	}
}

// token makes a key and gives the parsed token.
func (h *hub) token(r KeyRequest) netmap.Token {
	h.t.Helper()
	k, err := h.CreateKey(h.t.Context(), "test", r)
	if err != nil {
		h.t.Fatal(err)
	}
	tok, err := netmap.ParseToken(k.Token)
	if err != nil {
		h.t.Fatal(err)
	}
	return tok
}

// join lets a new node in.
func (h *hub) join(name string, r KeyRequest) *netmap.State {
	h.t.Helper()
	s, err := netmap.Join(h.t.Context(), netmap.JoinConfig{Dir: filepath.Join(h.t.TempDir(), "state"), Token: h.token(r), Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// member is a running client.
type member struct {
	*netmap.Client
	t    *testing.T
	maps chan *netmap.Map
	eps  chan string
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned
	err  error         // what Run returned
}

func (h *hub) member(s *netmap.State, edit func(*netmap.ClientConfig)) *member {
	h.t.Helper()
	m := &member{t: h.t, maps: make(chan *netmap.Map, 1000), eps: make(chan string, 1000), done: make(chan struct{})}
	c := netmap.ClientConfig{State: s, Log: testLog(h.t), BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		OnMap: func(x *netmap.Map) { m.maps <- x },
		OnEndpoints: func(id string, w netmap.Where) {
			for _, e := range w.Endpoints {
				m.eps <- id + " " + e.String()
			}
		}}
	if edit != nil {
		edit(&c)
	}
	var err error
	if m.Client, err = netmap.NewClient(c); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() {
		defer close(m.done)
		m.err = m.Run(ctx)
	}()
	h.t.Cleanup(func() { cancel(); <-m.done })
	return m
}

// until waits for a map that is as wanted; the bound is generous and never slept out.
func (m *member) until(what string, ok func(*netmap.Map) bool) *netmap.Map {
	m.t.Helper()
	deadline := time.After(20 * time.Second)
	var last *netmap.Map
	for {
		select {
		case x := <-m.maps:
			last = x
			if ok(x) {
				return x
			}
		case <-deadline:
			m.t.Fatalf("no map with %s; the last one: %s; status %+v", what, show(last), m.Status())
		}
	}
}

func show(m *netmap.Map) string {
	if m == nil {
		return "none"
	}
	s := m.Self.Name + ":"
	for _, p := range m.Peers {
		s += " " + p.Name
	}
	return s
}

// peers reports whether the map has exactly these peers.
func peers(names ...string) func(*netmap.Map) bool {
	return func(m *netmap.Map) bool {
		if len(m.Peers) != len(names) {
			return false
		}
		for i, p := range m.Peers {
			if p.Name != names[i] {
				return false
			}
		}
		return true
	}
}
