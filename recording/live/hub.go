package live

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// pingEvery is how often a hub asks a host that is silent for life; after three times as long
// the connection is given up.
const pingEvery = 20 * time.Second

const writeTime = 15 * time.Second

// ErrAway says that the host has no connection to this hub now.
var ErrAway = errors.New("live: the host is not connected to the hub at the moment")

// HubConfig is how a Hub is set up.
type HubConfig struct {
	// HostOf gives the node id that the connection proved. It is asked again with every ping,
	// so that a host that was removed is hung up on.
	HostOf func(*http.Request) (hostID string, ok bool)
	Clock  func() time.Time // nil is time.Now
	Log    *slog.Logger     // nil discards
}

// Hub is the hub's side: an http.Handler for Path, and what viewers call.
type Hub struct {
	cfg HubConfig

	mu      sync.Mutex
	hosts   map[string]*hostConn
	watched map[string]*watched // by session
}

// hostConn is the connection of one host.
type hostConn struct {
	conn net.Conn
	out  chan toHost
	gone chan struct{} // closed with the connection

	mu   sync.Mutex
	next uint64
	wait map[uint64]chan toHub
	open []Open // sessions that are not recorded
}

// watched is a session that somebody watches.
type watched struct {
	host    string
	who     []*watching // in the order they came
	changed map[chan struct{}]bool
}

type watching struct {
	Watcher
	refs int
}

// NewHub makes a Hub.
func NewHub(cfg HubConfig) (*Hub, error) {
	if cfg.HostOf == nil {
		return nil, errors.New("live: a hub must know its hosts")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, hosts: map[string]*hostConn{}, watched: map[string]*watched{}}, nil
}

// Host finds a host that is connected.
func (h *Hub) Host(is func(id string) bool) (id string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.hosts {
		if is(id) {
			return id, true
		}
	}
	return "", false
}

// ServeHTTP takes the connection of a host, and returns when it is over.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, ok := h.cfg.HostOf(r)
	switch {
	case !ok || host == "":
		http.Error(w, "this hub does not know this host", http.StatusForbidden)
		return
	case r.Method != http.MethodGet || r.Header.Get("Upgrade") != Protocol:
		http.Error(w, "this is for hosts of the mesh", http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(writeTime))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n"); err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	c := &hostConn{conn: conn, out: make(chan toHost, queued), gone: make(chan struct{}), wait: map[uint64]chan toHub{}}
	h.join(host, c)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the connection
		defer conn.Close()
		h.write(c, func() bool { now, ok := h.cfg.HostOf(r); return ok && now == host })
	})
	err = c.read(rw.Reader)
	h.leave(host, c)
	conn.Close()
	wg.Wait()
	h.cfg.Log.Debug("live: host gone", "host", host, "err", err)
}

// Close hangs up on all hosts.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.hosts {
		c.conn.Close()
	}
}

func (h *Hub) join(host string, c *hostConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.hosts[host]; old != nil {
		old.conn.Close()
	}
	h.hosts[host] = c
	state := []Watched{}
	for id, w := range h.watched {
		if w.host == host && len(state) < maxWatched {
			state = append(state, w.told(id))
		}
	}
	c.out <- toHost{State: &state} // the first of an empty queue
}

func (h *Hub) leave(host string, c *hostConn) {
	h.mu.Lock()
	if h.hosts[host] == c {
		delete(h.hosts, host)
	}
	h.mu.Unlock()
	close(c.gone)
}

func (h *Hub) write(c *hostConn, known func() bool) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		var m toHost
		select {
		case m = <-c.out:
		case <-tick.C:
			if !known() {
				return
			}
			m = toHost{Ping: true}
		case <-c.gone:
			return
		}
		b, err := line(m)
		if err != nil {
			h.cfg.Log.Error("live: message not sent", "err", err)
			continue
		}
		_ = c.conn.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := c.conn.Write(b); err != nil {
			return
		}
	}
}

// read hands answers to whoever waits for them, until the connection ends.
func (c *hostConn) read(r io.Reader) error {
	in := newLines(r)
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(3 * pingEvery))
		var m toHub
		if err := in.next(&m); err != nil {
			return err
		}
		c.mu.Lock()
		if m.Open != nil {
			c.open = nil
			for _, o := range (*m.Open)[:min(len(*m.Open), maxOpen)] {
				if o.bounded() {
					c.open = append(c.open, o)
				}
			}
		}
		ch := c.wait[m.N]
		delete(c.wait, m.N)
		c.mu.Unlock()
		if ch != nil {
			ch <- m // capacity 1
		}
	}
}

// send queues a message; a host that does not read is hung up on.
func (c *hostConn) send(m toHost) {
	select {
	case c.out <- m:
	default:
		c.conn.Close()
	}
}

// End has a host end a session, and waits for its answer. The error is ErrAway, a *Refused, or
// the context's.
func (h *Hub) End(ctx context.Context, host string, e End) error {
	h.mu.Lock()
	c := h.hosts[host]
	h.mu.Unlock()
	if c == nil {
		return ErrAway
	}
	answer := make(chan toHub, 1)
	c.mu.Lock()
	if len(c.wait) >= maxOrders {
		c.mu.Unlock()
		return &Refused{CodeFailed, "too much is asked of this host at this moment; try again"}
	}
	c.next++
	n := c.next
	c.wait[n] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.wait, n)
		c.mu.Unlock()
	}()
	c.send(toHost{N: n, End: &e})
	select {
	case a := <-answer:
		if a.Done {
			return nil
		}
		return &Refused{a.Code, a.Say}
	case <-c.gone:
		return ErrAway
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Watching is one look at a session that goes on.
type Watching struct {
	// Changed gets a value when who watches the session has changed.
	Changed <-chan struct{}
	// Stop ends the look.
	Stop func()
}

// Watch notes that somebody watches a session of host, and tells the host when that is new.
// Several looks of one person at one node count as one.
func (h *Hub) Watch(host, session string, by By) Watching {
	changed := make(chan struct{}, 1)
	h.mu.Lock()
	w := h.watched[session]
	if w == nil {
		w = &watched{host: host, changed: map[chan struct{}]bool{}}
		h.watched[session] = w
	}
	w.changed[changed] = true
	h.come(w, session, by)
	h.mu.Unlock()
	var once sync.Once
	return Watching{Changed: changed, Stop: func() {
		once.Do(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(w.changed, changed)
			h.goAway(w, session, by)
		})
	}}
}

// Look is a Watch that ends by itself: somebody asked for a part of a session that runs.
func (h *Hub) Look(host, session string, by By, d time.Duration) {
	w := h.Watch(host, session, by)
	time.AfterFunc(d, w.Stop)
}

// come and goAway count, and tell when somebody is new, or was the last of his. mu is held.
func (h *Hub) come(w *watched, session string, by By) {
	for _, x := range w.who {
		if x.By.same(by) {
			x.refs++
			return
		}
	}
	w.who = append(w.who, &watching{Watcher{by, h.cfg.Clock().UTC()}, 1})
	h.tell(w, session)
}

func (h *Hub) goAway(w *watched, session string, by By) {
	i := slices.IndexFunc(w.who, func(x *watching) bool { return x.By.same(by) })
	if i < 0 {
		return
	}
	if w.who[i].refs--; w.who[i].refs > 0 {
		return
	}
	w.who = slices.Delete(w.who, i, i+1)
	h.tell(w, session)
	if len(w.who) == 0 && len(w.changed) == 0 {
		delete(h.watched, session)
	}
}

func (h *Hub) tell(w *watched, session string) {
	if c := h.hosts[w.host]; c != nil {
		m := w.told(session)
		c.send(toHost{Watch: &m})
	}
	for ch := range w.changed {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (w *watched) told(session string) Watched {
	return Watched{session, w.list()}
}

func (w *watched) list() []Watcher {
	out := []Watcher{}
	for _, x := range w.who[:min(len(w.who), maxWatchers)] {
		out = append(out, x.Watcher)
	}
	return out
}

// Watchers is who watches a session, in the order they came.
func (h *Hub) Watchers(session string) []Watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.watched[session]; w != nil {
		return w.list()
	}
	return nil
}

// Running is a session of a host that is connected, and is not recorded.
type Running struct {
	Host string // its node id
	Open
}

// Open lists what hosts say runs on them and is not recorded, the latest first. All but Host is a host's word.
func (h *Hub) Open() []Running {
	h.mu.Lock()
	hosts := maps.Clone(h.hosts)
	h.mu.Unlock()
	var out []Running
	for id, c := range hosts {
		c.mu.Lock()
		for _, o := range c.open {
			out = append(out, Running{id, o})
		}
		c.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Running) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Session, b.Session)) })
	return out
}
