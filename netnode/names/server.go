package names

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	queriesPerSecond = 2000
	maxTCP           = 32 // connections at a time
	maxPerTCP        = 200
	tcpIdle          = 10 * time.Second
)

// Server answers DNS queries out of a Table that can be replaced while it serves.
type Server struct {
	// Admit says whose queries are answered, by source address; nil: loopback only. The others
	// get nothing, not even a refusal.
	Admit func(netip.Addr) bool
	Log   *slog.Logger

	table atomic.Pointer[Table]
	once  sync.Once
	limit *rate.Limiter
}

// Set puts a Table in force.
func (s *Server) Set(t *Table) { s.table.Store(t) }

func (s *Server) start() {
	s.once.Do(func() {
		s.limit = rate.NewLimiter(queriesPerSecond, 2*queriesPerSecond)
		if s.Log == nil {
			s.Log = slog.New(slog.DiscardHandler)
		}
	})
}

func (s *Server) admits(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap().WithZone("")
	return ip.IsLoopback() || s.Admit != nil && s.Admit(ip)
}

// ServeUDP answers what arrives at c until ctx ends, then closes c.
func (s *Server) ServeUDP(ctx context.Context, c net.PacketConn) {
	s.start()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	buf := make([]byte, maxQuery+1)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP answer to what was sent before, or a lack of memory
			if !pause(ctx, 10*time.Millisecond) {
				return
			}
			continue
		}
		if !s.admits(from) || !s.limit.Allow() {
			continue
		}
		if b := s.table.Load().answer(buf[:n]); b != nil {
			c.WriteTo(b, from) // who asked asks again
		}
	}
}

// ServeTCP is ServeUDP for streams. It returns after the last connection has ended.
func (s *Server) ServeTCP(ctx context.Context, l net.Listener) {
	s.start()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxTCP)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.Log.Warn("names: accept", "err", err)
			if !pause(ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		if !s.admits(c.RemoteAddr()) {
			c.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		wg.Go(func() { // ends with ctx, the client, or tcpIdle
			defer func() { <-slots }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.stream(ctx, c)
		})
	}
}

// stream answers the queries of one connection, each with its length in front (RFC 7766).
func (s *Server) stream(ctx context.Context, c net.Conn) {
	var head [2]byte
	for range maxPerTCP {
		c.SetDeadline(time.Now().Add(tcpIdle))
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint16(head[:])
		if n > maxQuery {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		if s.limit.Wait(ctx) != nil {
			return
		}
		b := s.table.Load().answer(query)
		if b == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
