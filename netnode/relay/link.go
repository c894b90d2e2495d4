package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/types/key"
)

const (
	linkQueue  = 256      // packets on their way to one relay
	writeAtOnc = 64 << 10 // bytes of packets that become one write
	handshake  = 15 * time.Second
	backoffMin = 250 * time.Millisecond
	backoffMax = 30 * time.Second

	lookEvery  = 500 * time.Millisecond
	pingActive = time.Second      // a connection in use is asked this often whether it lives
	pingIdle   = 5 * time.Second  // and the home relay always
	pingQuiet  = 15 * time.Second // the others while they are not in use
	activeFor  = 10 * time.Second
	patience   = 1500 * time.Millisecond // no answer, and nothing acknowledged: it is dead
	maxPatient = 15 * time.Second        // no answer, and what is sent arrives somewhere
)

// link is the connection to one relay, made again as long as it is wanted.
//
//	waiting --dial--> up --error--> waiting (longer each time) ... until stop
type link struct {
	c       *Client
	server  Server
	out     chan outgoing
	stop    chan struct{} // closed under Client.mu
	running bool          // owned by Client.Run, under Client.mu

	up      atomic.Bool
	home    atomic.Bool  // it is asked more often whether it lives
	silent  atomic.Bool  // the last connection ended in silence: no use to wait for the next
	used    atomic.Int64 // when a packet last went either way, nanoseconds
	latency atomic.Int64
	problem atomic.Pointer[string]
}

type outgoing struct {
	to Key
	b  []byte
}

// down reports whether the relay cannot be reached at the moment.
func (l *link) down() bool { return !l.up.Load() && l.problem.Load() != nil }

func (l *link) queue(to Key, packet []byte) bool {
	if len(packet) > derp.MaxPacketSize {
		return false
	}
	l.used.Store(time.Now().UnixNano())
	select {
	case l.out <- outgoing{to, append([]byte(nil), packet...)}:
		return true
	default:
		return false
	}
}

func (l *link) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the link
		select {
		case <-l.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	pause := backoffMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.connect(ctx)
		was := l.up.Swap(false)
		if ctx.Err() != nil {
			return
		}
		words := plainError(err)
		l.problem.Store(&words)
		l.silent.Store(errors.Is(err, errSilent))
		if was {
			l.c.cfg.Log.Info("relay lost", "relay", l.server.ID, "err", err)
		} else {
			l.c.cfg.Log.Debug("relay not reached", "relay", l.server.ID, "err", err)
		}
		l.c.kick()
		if time.Since(began) > backoffMax {
			pause = backoffMin
		}
		l.drop() // older than any answer to it could be of use
		wait := time.NewTimer(jitter(pause))
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		pause = min(2*pause, backoffMax)
	}
}

func (l *link) drop() {
	for {
		select {
		case <-l.out:
		default:
			return
		}
	}
}

// connect is one connection's life.
func (l *link) connect(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	conf, err := l.c.cfg.TLS(l.server)
	if err != nil {
		return err
	}
	raw, err := DialTCP(limited, l.server.address(), l.server.Addrs, l.c.cfg.Proxy)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	keepUnsent(raw)
	nc := tls.Client(raw, conf)
	if err := nc.HandshakeContext(limited); err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Now().Add(handshake)); err != nil {
		return err
	}
	br, err := upgrade(nc, l.server.Host)
	if err != nil {
		return err
	}
	w := &gather{nc: nc}
	dc, err := derp.NewClient(l.c.key(), nc, bufio.NewReadWriter(br, bufio.NewWriterSize(w, 8<<10)),
		func(string, ...any) {}, derp.CanAckPings(true), derp.AppName("tssh"))
	if err != nil {
		return err
	}
	w.later = true
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	s := &session{l: l, raw: raw, nc: nc, dc: dc, w: w, ask: make(chan struct{}, 1), pongs: make(chan [8]byte, 1), end: make(chan error, 2)}
	return s.serve(ctx)
}

// upgrade asks for DERP on an HTTP connection.
func upgrade(nc net.Conn, host string) (*bufio.Reader, error) {
	if _, err := io.WriteString(nc, "GET /derp HTTP/1.1\r\nHost: "+host+"\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nUser-Agent: tssh\r\n\r\n"); err != nil {
		return nil, err
	}
	limit := &io.LimitedReader{R: nc, N: 64 << 10}
	br := bufio.NewReaderSize(limit, 16<<10)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		words, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // for people; part of it will do
		resp.Body.Close()
		return nil, fmt.Errorf("relay: it says %s: %q", resp.Status, words)
	}
	limit.N = 1<<63 - 1
	return br, nil
}

// gather collects what derp.Client writes, packet by packet, so that a burst of packets
// is one write and few TLS records. Owned by session.send once later is set.
type gather struct {
	nc    net.Conn
	later bool
	b     []byte
}

func (g *gather) Write(p []byte) (int, error) {
	if !g.later {
		return g.nc.Write(p)
	}
	g.b = append(g.b, p...)
	return len(p), nil
}

// session is one connection while it stands. Three goroutines: send, receive, and serve,
// which watches the two, because both may be stuck in the connection.
type session struct {
	l   *link
	raw net.Conn
	nc  net.Conn
	dc  *derp.Client
	w   *gather

	ask     chan struct{} // send a ping
	pongs   chan [8]byte  // to be sent
	end     chan error    // of send and receive
	heard   atomic.Int64  // when bytes last came, nanoseconds
	waiting atomic.Int64  // since when an answer or a write is awaited; 0: not
	asked   atomic.Int64  // when the last ping went out
}

func (s *session) serve(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.end <- s.receive() }) // both end with the connection
	wg.Go(func() { s.end <- s.send(ctx) }) //
	defer func() { s.raw.Close(); wg.Wait() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait: send may be idle
	return s.watch(ctx)
}

// watch asks for pings when they are due, and ends the connection when nothing comes back.
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.end:
			return err
		case <-tick.C:
		}
		now := time.Now()
		if since := s.waiting.Load(); since != 0 && s.heard.Load() < since {
			waited := now.Sub(time.Unix(0, since))
			quiet, known := sinceAck(s.raw)
			if known && waited > patience && quiet > patience || waited > maxPatient {
				return errSilent
			}
			continue
		}
		every := pingQuiet
		switch {
		case now.Sub(time.Unix(0, s.l.used.Load())) < activeFor:
			every = pingActive
		case s.l.home.Load():
			every = pingIdle
		}
		if now.Sub(time.Unix(0, s.asked.Load())) >= every-lookEvery/2 {
			select {
			case s.ask <- struct{}{}:
			default:
			}
		}
	}
}

// await notes that something has to come back from now on.
func (s *session) await() {
	now := time.Now().UnixNano()
	if w := s.waiting.Load(); w == 0 || s.heard.Load() >= w {
		s.waiting.Store(now)
	}
}

func (s *session) send(ctx context.Context) error {
	var n byte
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case data := <-s.pongs:
			err = s.dc.SendPong(data)
		case <-s.ask:
			n++
			s.asked.Store(time.Now().UnixNano())
			s.await()
			err = s.dc.SendPing([8]byte{n})
		case p := <-s.l.out:
			err = s.packet(p)
			for err == nil && len(s.w.b) < writeAtOnc {
				select {
				case p := <-s.l.out:
					err = s.packet(p)
					continue
				default:
				}
				break
			}
		}
		if err != nil {
			return err
		}
		if len(s.w.b) > 4<<10 {
			s.await() // a write that is stuck is as bad as an answer that does not come
		}
		if _, err := s.nc.Write(s.w.b); err != nil {
			return err
		}
		s.w.b = s.w.b[:0]
	}
}

func (s *session) packet(p outgoing) error {
	return s.dc.Send(key.NodePublicFromRaw32(mem.B(p.to[:])), p.b)
}

// receive reads frames. The server speaks first of its own: that is when the link is up.
func (s *session) receive() error {
	l := s.l
	for {
		m, err := s.dc.Recv()
		if err != nil {
			return err
		}
		now := time.Now()
		s.heard.Store(now.UnixNano())
		if !l.up.Swap(true) {
			l.problem.Store(nil)
			l.silent.Store(false)
			l.c.cfg.Log.Debug("relay connected", "relay", l.server.ID)
			l.c.kick()
			select {
			case s.ask <- struct{}{}: // how far is it
			default:
			}
		}
		switch m := m.(type) {
		case derp.ReceivedPacket:
			l.used.Store(now.UnixNano())
			l.c.received(m.Source.Raw32(), l.server.ID, m.Data)
		case derp.PingMessage:
			select {
			case s.pongs <- m:
			default: // it asks faster than it listens
			}
		case derp.PongMessage:
			took := now.UnixNano() - s.asked.Load()
			if old := l.latency.Load(); old != 0 {
				took = old + (took-old)/4
			}
			l.latency.Store(max(took, 1))
			l.c.measured(l.server.ID, time.Duration(max(took, 1)))
		case derp.PeerGoneMessage:
			l.c.notHere(m.Peer.Raw32(), l.server.ID)
		case derp.ServerRestartingMessage:
			return errors.New("relay: it restarts")
		}
	}
}
