package netmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that Run ends with; a node cannot mend either by waiting.
var (
	ErrRemoved = errors.New("this node was removed from the mesh")
	ErrExpired = errors.New("this node's membership has expired")
)

// ClientConfig is a node's side of the hub protocol. The funcs are called from Run's
// goroutine, one at a time, and must not block for long.
type ClientConfig struct {
	State *State
	// OnMap gets every new map, the first from the cache before anything is sent.
	OnMap func(*Map)
	// OnEndpoints gets where a peer can be reached, as the hub passes it on.
	OnEndpoints func(node string, w Where)
	OnStatus    func(Status)
	// OnKeys gets the keys that the node has from now on. Peers may have heard of them already.
	OnKeys func(WGPrivate, ControlKey)
	Log    *slog.Logger
	Clock  func() time.Time
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // nil: plain TCP
	// Silence is how long the hub may say nothing before it is dialled anew; 0: 150 s.
	Silence time.Duration
	// BackoffMin and BackoffMax bound the pause between attempts; 0: 1 s and 1 min. The
	// pause is random below a bound that doubles.
	BackoffMin, BackoffMax time.Duration
}

// Phase is how things stand with the hub.
//
//	connecting <--> connected
//	connecting  --> removed | expired | refused (the last one goes on trying)
type Phase string

const (
	PhaseConnecting Phase = "connecting"
	PhaseConnected  Phase = "connected"
	PhaseRemoved    Phase = "removed"
	PhaseExpired    Phase = "expired"
	PhaseRefused    Phase = "refused"
)

// Status is for `tssh status`.
type Status struct {
	Phase    Phase
	Say      string    // why, when not connected; one sentence
	Since    time.Time // of this phase
	Contact  time.Time // when the hub was last heard
	Revision int64
	Offset   time.Duration // the hub's clock minus ours
	Dropped  int64         // records that did not verify
}

// Client keeps a node's map up to date.
type Client struct {
	c    ClientConfig
	hc   atomic.Pointer[http.Client] // another one when the node's key changes
	base string
	rot  sync.Mutex // a change of this node's keys is going on

	// owned by Run
	book     *book
	offset   time.Duration
	dirty    bool
	reported map[string]bool

	frames chan incoming
	kick   chan struct{} // something to publish, or a new connection

	state atomic.Pointer[State] // changed by Run only, as a whole
	turn  atomic.Int64          // which address is tried, counted from the first

	mu        sync.Mutex
	cur       *Map
	status    Status
	where     *Where // nil: nothing to publish
	whereDone bool
	keys      []string
	keysDone  bool
}

// incoming hands a frame, or a phase, to Run's goroutine; done gets its verdict.
type incoming struct {
	frame  *Frame
	next   ControlPublic   // a new key of the hub, proven
	passed []ControlPublic // those that it had before it
	addr   string          // where the hub answered
	edit   func(*State)    // a change of the membership that has to be durable before it counts
	err    error           // of the connection, instead of a frame
	up     bool            // a connection stands
	done   chan error
}

// NewClient reads and verifies the cache, so that Map is right from the start, with
// the hub away too.
func NewClient(c ClientConfig) (*Client, error) {
	if c.State == nil || c.Log == nil {
		return nil, errors.New("netmap: client: State and Log are needed")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Silence <= 0 {
		c.Silence = 150 * time.Second
	}
	if c.BackoffMin <= 0 {
		c.BackoffMin = time.Second
	}
	if c.BackoffMax <= 0 {
		c.BackoffMax = time.Minute
	}
	k := &Client{c: c, reported: map[string]bool{}, frames: make(chan incoming), kick: make(chan struct{}, 1)}
	k.state.Store(c.State)
	hc, base, err := k.newHTTP(c.State)
	if err != nil {
		return nil, err
	}
	k.base = base
	k.hc.Store(hc)
	k.book = newBook(c.State.Pin, c.State.MeshID, k.report)
	ch, err := c.State.loadCache()
	if err != nil {
		c.Log.Warn("cache of the mesh not used", "err", err)
	}
	k.book.load(ch, c.State.Former)
	k.offset = ch.Offset
	k.status = Status{Phase: PhaseConnecting, Since: c.Clock(), Revision: k.book.rev, Offset: k.offset}
	k.cur, _ = k.book.build(c.State.NodeID, k.now())
	k.cur.ClockOffset = k.correction()
	return k, nil
}

// newHTTP makes the client of the calls of a node that has st's keys.
func (k *Client) newHTTP(st *State) (hc *http.Client, base string, err error) {
	dial := k.c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	return pinnedClient(st, func() ControlPublic { return k.State().Pin },
		func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial(ctx, network, k.State().Hub)
		})
}

// Leave tells the hub that this node goes, so that an ephemeral one need not be waited for.
func (k *Client) Leave(ctx context.Context) error {
	return call(ctx, k.hc.Load(), k.base+PathLeave, struct{}{}, nil)
}

// Map is the latest map, never nil.
func (k *Client) Map() *Map {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cur
}

// Status is how things stand.
func (k *Client) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// HTTP is a client with both sides' keys checked, and the base of the hub's URLs, for
// recordings and the audit log.
func (k *Client) HTTP() (*http.Client, string) { return k.hc.Load(), k.base }

// PublishEndpoints tells peers, by way of the hub, where this node's WireGuard socket
// can be reached. It is repeated by itself when the hub has forgotten.
func (k *Client) PublishEndpoints(w Where) {
	w.Endpoints = slices.Clone(w.Endpoints[:min(len(w.Endpoints), MaxEndpoints)])
	k.mu.Lock()
	if k.where == nil || !k.where.Equal(w) {
		k.where, k.whereDone = &w, false
	}
	k.mu.Unlock()
	k.wake()
}

// PublishHostKeys has the node's SSH host keys written into its record; lines as in
// authorized_keys, without options and comment.
func (k *Client) PublishHostKeys(keys []string) error {
	if err := CheckHostKeys(keys); err != nil {
		return fmt.Errorf("netmap: publish host keys: %w", err)
	}
	k.mu.Lock()
	k.keys, k.keysDone = append([]string{}, keys...), false
	k.mu.Unlock()
	k.wake()
	return nil
}

func (k *Client) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run keeps the map up to date until ctx ends (then nil), or until the node is out of
// the mesh for good (ErrRemoved, ErrExpired). It returns after its last goroutine.
func (k *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { k.connector(ctx) }) // ends with ctx
	wg.Go(func() { k.publisher(ctx) }) // ends with ctx
	defer func() {
		cancel()
		wg.Wait()
		k.hc.Load().CloseIdleConnections()
		if k.dirty {
			k.save()
		}
	}()
	k.setStatus(PhaseConnecting, "")
	timer := time.NewTimer(0)
	defer timer.Stop()
	saver := time.NewTicker(time.Second)
	defer saver.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-saver.C:
			if k.dirty {
				k.save()
			}
		case <-timer.C:
			k.deliver(timer)
			if err := k.over(); err != nil {
				return err
			}
		case in := <-k.frames:
			err := k.handle(in, timer)
			if in.done != nil {
				in.done <- err
			}
			if end := k.over(); end != nil {
				return end
			}
		}
	}
}

// over reports whether the records say that this node is out.
func (k *Client) over() error {
	id := k.c.State.NodeID
	if k.book.removed(id) {
		k.setStatus(PhaseRemoved, ErrRemoved.Error())
		return ErrRemoved
	}
	// A record with other keys than the node has is of before it joined again, and says nothing
	// about it: the former stay may have written its cache last.
	if n := k.book.recs[Ref{KindNode, id}].Node; n != nil && n.WG == k.State().WG.Public() && !n.Until.IsZero() && !k.now().Before(n.Until) {
		k.setStatus(PhaseExpired, ErrExpired.Error())
		return ErrExpired
	}
	return nil
}

// handle takes in one event of the connection.
func (k *Client) handle(in incoming, timer *time.Timer) error {
	switch {
	case in.edit != nil:
		return k.edited(in.edit)
	case !in.next.IsZero():
		return k.followed(in.next, in.passed)
	case in.up:
		k.reached(in.addr)
		k.mu.Lock()
		k.whereDone = false // a hub that was restarted has forgotten them
		k.status.Contact = k.c.Clock()
		k.mu.Unlock()
		k.setStatus(PhaseConnected, "")
		k.wake()
		return nil
	case in.frame == nil:
		k.book.next = nil
		phase, say := k.explain(in.err)
		k.setStatus(phase, say)
		return nil
	}
	f := in.frame
	if k.heard(f.Time) && !f.Carries() {
		k.deliver(timer) // what has expired is another thing now
	}
	if f.Problem != nil {
		k.proof(f.Problem, timer)
		return &Refused{Problem: Problem{Code: f.Problem.Code, Say: plain(f.Problem.Say)}}
	}
	if f.Carries() {
		urgent, err := k.book.apply(f)
		if err != nil {
			k.book.next = nil
			return err
		}
		if !f.Snapshot || !f.More {
			k.dirty = true
			k.moved()
			if urgent {
				k.save()
			}
			k.deliver(timer)
		}
	}
	if k.c.OnEndpoints != nil {
		for id, w := range f.Endpoints {
			if len(w.Endpoints) <= MaxEndpoints && len(w.Home) <= maxRelayID && id != k.c.State.NodeID {
				k.c.OnEndpoints(id, w)
			}
		}
	}
	return nil
}

// proof takes in the signed record that comes with a refusal. Without one a refusal
// ends nothing: the node keeps what it has and goes on asking.
func (k *Client) proof(p *Problem, timer *time.Timer) {
	if p.Proof == nil {
		return
	}
	if _, ok := k.book.take(*p.Proof, k.book); ok {
		k.save()
		k.deliver(timer)
	}
}

// deliver makes the map anew, hands it on and sets the timer for the next change by time.
func (k *Client) deliver(timer *time.Timer) {
	now := k.now()
	m, wake := k.book.build(k.c.State.NodeID, now)
	if k.book.removed(k.c.State.NodeID) {
		m = &Map{MeshID: m.MeshID, Mesh: m.Mesh, Range4: m.Range4, Range6: m.Range6, Revision: m.Revision, Epoch: m.Epoch}
	}
	m.ClockOffset = k.correction()
	k.mu.Lock()
	k.cur, k.status.Revision = m, m.Revision
	k.mu.Unlock()
	timer.Stop()
	if !wake.IsZero() {
		timer.Reset(min(wake.Sub(now), time.Hour))
	}
	if k.c.OnMap != nil {
		k.c.OnMap(m)
	}
}

// now is the hub's clock as far as it is known: what ends when is said by the hub, and
// a computer whose clock is off by a day must neither drop its peers nor keep them.
func (k *Client) now() time.Time { return k.c.Clock().Add(k.correction()) }

func (k *Client) correction() time.Duration {
	if k.offset.Abs() > clockTolerance {
		return k.offset
	}
	return 0
}

// heard notes the hub's clock and reports whether it is another than was thought.
func (k *Client) heard(hub time.Time) (changed bool) {
	now := k.c.Clock()
	if !hub.IsZero() {
		off := hub.Sub(now)
		if (off - k.offset).Abs() > clockTolerance {
			k.c.Log.Warn("this computer's clock is not the hub's", "ahead", -off)
			k.dirty, changed = true, true
		}
		k.offset = off
	}
	k.mu.Lock()
	k.status.Contact, k.status.Offset = now, k.offset
	k.mu.Unlock()
	return changed
}

func (k *Client) setStatus(p Phase, say string) {
	k.mu.Lock()
	changed := k.status.Phase != p || k.status.Say != say
	if k.status.Phase != p {
		k.status.Since = k.c.Clock()
	}
	k.status.Phase, k.status.Say = p, say
	s := k.status
	k.mu.Unlock()
	if changed {
		k.c.Log.Info("hub", "phase", string(p), "say", say)
	}
	if k.c.OnStatus != nil {
		k.c.OnStatus(s)
	}
}

// report notes a record that was not taken: once in the log, always in the count.
func (k *Client) report(err error) {
	k.mu.Lock()
	k.status.Dropped++
	k.mu.Unlock()
	if len(k.reported) < 1000 && !k.reported[err.Error()] {
		k.reported[err.Error()] = true
		k.c.Log.Error("record not taken", "err", err)
	}
}

// save writes the cache; a full disk is no reason to stop.
func (k *Client) save() {
	err := k.c.State.saveCache(cache{Epoch: k.book.epoch, Rev: k.book.rev, Offset: k.offset, Records: k.book.envelopes()})
	if err != nil {
		k.c.Log.Error("cache of the mesh not written", "err", err)
		return
	}
	k.dirty = false
}

// explain puts the end of a connection into words.
func (k *Client) explain(err error) (Phase, string) {
	var ref *Refused
	switch {
	case err == nil:
		return PhaseConnecting, ""
	case errors.Is(err, ErrBehind):
		return PhaseRefused, "the hub is behind what this node has already seen: if its database was put back, start it once with --restored"
	case errors.As(err, &ref) && ref.Code != CodeBusy:
		return PhaseRefused, plain(ref.Say)
	case errors.Is(err, ErrPin):
		return PhaseRefused, "the server at " + k.hub() + " is not this mesh's hub (its key differs)"
	}
	return PhaseConnecting, "the hub at " + k.hub() + " cannot be reached: " + plain(err.Error())
}

// Dir is the node's state folder.
func (k *Client) Dir() string { return k.c.State.Dir }
