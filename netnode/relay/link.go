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
	"sync/atomic"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/types/key"
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
	used    atomic.Int64 // when a packet last went either way, nanoseconds
	latency atomic.Int64
	problem atomic.Pointer[string]
}

type outgoing struct {
	to Key
	b  []byte
}

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
		if was {
			l.c.cfg.Log.Info("relay lost", "relay", l.server.ID, "err", err)
			l.c.kick()
		} else {
			l.c.cfg.Log.Debug("relay not reached", "relay", l.server.ID, "err", err)
		}
		if time.Since(began) > backoffMax {
			pause = backoffMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(pause)):
		}
		pause = min(2*pause, backoffMax)
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
	nc := tls.Client(raw, conf)
	begin := time.Now()
	if err := nc.HandshakeContext(limited); err != nil {
		return err
	}
	l.latency.Store(int64(time.Since(begin))) // a round trip and some arithmetic
	if err := nc.SetDeadline(time.Now().Add(handshake)); err != nil {
		return err
	}
	br, err := upgrade(nc, l.server.Host)
	if err != nil {
		return err
	}
	dc, err := derp.NewClient(l.c.priv, nc, bufio.NewReadWriter(br, bufio.NewWriterSize(nc, 8<<10)),
		func(string, ...any) {}, derp.CanAckPings(true), derp.AppName("tssh"))
	if err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return l.serve(ctx, nc, dc)
}

// upgrade asks for DERP on an HTTP connection.
func upgrade(nc net.Conn, host string) (*bufio.Reader, error) {
	if _, err := io.WriteString(nc, "GET /derp HTTP/1.1\r\nHost: "+host+"\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nUser-Agent: tssh\r\n\r\n"); err != nil {
		return nil, err
	}
	limit := &io.LimitedReader{R: nc, N: 64 << 10}
	br := bufio.NewReaderSize(limit, 8<<10)
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

// serve moves packets until the connection ends.
func (l *link) serve(ctx context.Context, nc net.Conn, dc *derp.Client) error {
	ended := make(chan error, 1)
	alive := make(chan struct{}, 1) // something was received
	pongs := make(chan [8]byte, 1)
	over := make(chan struct{})
	go func() { // ends with the connection
		ended <- l.receive(dc, alive, pongs)
		close(over)
	}()
	defer func() { nc.Close(); <-over }()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	var asked time.Time
	var n byte
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-alive:
			if !l.up.Swap(true) {
				l.problem.Store(nil)
				l.c.cfg.Log.Debug("relay connected", "relay", l.server.ID)
				l.c.kick()
			}
			quiet.Reset(silence)
		case <-pongs:
			if !asked.IsZero() {
				l.latency.Store(int64(time.Since(asked)))
				asked = time.Time{}
			}
		case <-quiet.C:
			return errSilent
		case <-ping.C:
			n++
			asked = time.Now()
			if err := dc.SendPing([8]byte{n}); err != nil {
				return err
			}
		case p := <-l.out:
			if err := dc.Send(key.NodePublicFromRaw32(mem.B(p.to[:])), p.b); err != nil {
				return err
			}
		}
	}
}

// receive reads frames. The server speaks first of its own: that is when the link is up.
func (l *link) receive(dc *derp.Client, alive chan<- struct{}, pongs chan<- [8]byte) error {
	for {
		m, err := dc.Recv()
		if err != nil {
			return err
		}
		select {
		case alive <- struct{}{}:
		default:
		}
		switch m := m.(type) {
		case derp.ReceivedPacket:
			l.used.Store(time.Now().UnixNano())
			l.c.received(m.Source.Raw32(), l.server.ID, m.Data)
		case derp.PingMessage:
			if err := dc.SendPong(m); err != nil {
				return err
			}
		case derp.PongMessage:
			select {
			case pongs <- m:
			default:
			}
		case derp.ServerRestartingMessage:
			return errors.New("relay: it restarts")
		}
	}
}
