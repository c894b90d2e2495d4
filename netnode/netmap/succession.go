package netmap

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// MaxSuccessions bounds how often a hub's key can be followed from one to the next.
const MaxSuccessions = 64

// MaxHubs bounds the addresses of a hub.
const MaxHubs = 4

// Succession says what key a hub has after another one, and is signed by that other one.
// It is the one record that is not signed by the hub's present key. Its id is
// "succession:" and the former key.
type Succession struct {
	Header
	Former ControlPublic `json:"former"`
	Next   ControlPublic `json:"next"`
	When   time.Time     `json:"when"`
}

// NewSuccession is the record in which former names next; the rest of the header is the hub's.
func NewSuccession(former, next ControlPublic, when time.Time) *Succession {
	return &Succession{Header: Header{Kind: KindSuccession, ID: "succession:" + former.String()}, Former: former, Next: next, When: when}
}

func (s *Succession) check() error {
	if s.ID != "succession:"+s.Former.String() || s.Next.IsZero() || s.Former.IsZero() || s.Next == s.Former {
		return errors.New("it has to name two keys, one after the other")
	}
	return nil
}

// FormerKey is a key that the hub no longer has. What it signed before Until, the start of
// recordings above all, is still the hub's word; nothing else is.
type FormerKey struct {
	Key   ControlPublic `json:"key"`
	Until time.Time     `json:"until"`
}

// Successions is the answer of PathSuccession, which is for everybody.
type Successions struct {
	Chain []Envelope `json:"chain"`
}

// Resign signs the same bytes with another key, which is then the only one.
func Resign(k ControlKey, e Envelope) (Envelope, error) { return sign(k, e.Payload) }

// follow walks from pin to the key that the chain ends with. Each step is signed by the
// key before it; mesh, when it is known, is the mesh that all of them must be of.
func (s *Successions) follow(pin ControlPublic, mesh string) (next ControlPublic, passed []ControlPublic, err error) {
	if len(s.Chain) > MaxSuccessions {
		return next, nil, errors.New("netmap: too many successions")
	}
	for next = pin; ; {
		step := slices.IndexFunc(s.Chain, func(e Envelope) bool {
			r, err := Open(e, next, mesh)
			return err == nil && r.Succession != nil && r.Succession.Former == next
		})
		if step < 0 {
			break
		}
		r, err := Open(s.Chain[step], next, mesh)
		if err != nil {
			return next, nil, err
		}
		mesh = r.Header.Mesh // all of one mesh, whichever it is
		passed = append(passed, next)
		next = r.Succession.Next
		if slices.Contains(passed, next) {
			return next, nil, errors.New("netmap: the successions go in a circle")
		}
	}
	if len(passed) == 0 {
		return next, nil, ErrPin
	}
	return next, passed, nil
}

// succeed asks the server at addr, which showed another key than pin, whether it is the
// hub still: whether what pin signed leads to the key it shows. Nothing the server says
// counts but that.
func succeed(ctx context.Context, addr string, own ControlKey, pin ControlPublic, mesh string, dial func(context.Context, string, string) (net.Conn, error)) (next ControlPublic, passed []ControlPublic, err error) {
	conf, err := ClientTLS(own, pin)
	if err != nil {
		return next, nil, err
	}
	conf.VerifyConnection = nil // compared below, with what the chain ends with
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return next, nil, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return next, nil, err
	}
	shown, ok := PeerKey(conn.ConnectionState())
	if !ok {
		return next, nil, ErrPin
	}
	t := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://hub"+PathSuccession, nil)
	if err != nil {
		return next, nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return next, nil, ErrPin
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxFrame))
	var s Successions
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(b, &s) != nil {
		return next, nil, ErrPin
	}
	if next, passed, err = s.follow(pin, mesh); err != nil {
		return next, nil, err
	}
	if next != shown {
		return next, nil, ErrPin
	}
	return next, passed, nil
}

// adopt notes that the hub has the key next after those it had before.
func (s *State) adopt(next ControlPublic, passed []ControlPublic) {
	s.Former = slices.Concat(s.Former, passed)
	if n := len(s.Former) - MaxSuccessions; n > 0 {
		s.Former = s.Former[n:]
	}
	s.Pin = next
}

// Knows reports whether a token's pin is this mesh's: the hub's key, or one it had before.
func (s *State) Knows(pin ControlPublic) bool { return s.Pin == pin || slices.Contains(s.Former, pin) }

// SameMesh reports whether a token that is not needed any more is for the mesh of this node,
// although its pin is not known here: the hub may have changed its key while the node was
// away. When the hub cannot be reached, a token with its address is taken to be.
func (s *State) SameMesh(ctx context.Context, t Token, dial func(context.Context, string, string) (net.Conn, error)) bool {
	if s.Knows(t.Pin) {
		return true
	}
	addrs := append(slices.Clone(s.Hubs), s.Hub)
	if !slices.Contains(addrs, t.Host) {
		addrs = append(addrs, t.Host)
	}
	reached := false
	for _, addr := range addrs {
		next, passed, err := succeed(ctx, addr, s.Control, s.Pin, s.MeshID, dial)
		if err == nil && (next == t.Pin || slices.Contains(passed, t.Pin)) {
			return true
		}
		reached = reached || err == nil || errors.Is(err, ErrPin)
	}
	return !reached && (s.Hub == t.Host || slices.Contains(s.Hubs, t.Host))
}

// followed has Run's goroutine take over a new key of the hub. node.json is replaced
// before anything is believed that the new key signed.
func (k *Client) followed(next ControlPublic, passed []ControlPublic) error {
	st := *k.State()
	st.Former = slices.Clone(st.Former)
	st.adopt(next, passed)
	if err := st.save(); err != nil {
		return err
	}
	k.c.Log.Warn("the hub has a new key, and its former one says so", "key", next.String(), "former", st.Former[len(st.Former)-1].String())
	k.state.Store(&st)
	k.book.pin, k.book.next = next, nil
	return nil
}

// moved keeps the addresses that the hub's record of the mesh names.
func (k *Client) moved() {
	m := k.book.recs[Ref{KindMesh, "mesh"}].Mesh
	st := *k.State()
	if m == nil || len(m.Hubs) == 0 || slices.Equal(m.Hubs, st.Hubs) {
		return
	}
	st.Hubs = slices.Clone(m.Hubs)
	k.keep(&st)
}

func (k *Client) keep(st *State) {
	if err := st.save(); err != nil {
		k.c.Log.Error("node.json not written", "err", err)
		return
	}
	k.state.Store(st)
}

// reached notes that the hub answered at addr. Until then the former address is kept.
func (k *Client) reached(addr string) {
	k.turn.Store(0)
	st := *k.State()
	if st.Hub == addr {
		return
	}
	st.Hub = addr
	k.keep(&st)
}

// State is the membership as it is now; the hub's key and address may have changed since
// the start.
func (k *Client) State() *State { return k.state.Load() }

// hub is the address to try now: those that the hub named, in their order, then the last
// that worked.
func (k *Client) hub() string {
	st := k.State()
	all := slices.Clone(st.Hubs)
	if !slices.Contains(all, st.Hub) {
		all = append(all, st.Hub)
	}
	return all[int(k.turn.Load())%len(all)]
}

func checkHubs(hubs []string) error {
	if len(hubs) > MaxHubs {
		return fmt.Errorf("%d addresses of the hub, at most %d", len(hubs), MaxHubs)
	}
	for _, h := range hubs {
		if err := checkHostPort(h); err != nil {
			return err
		}
	}
	return nil
}
