package path

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// budget bounds how often something is done: burst at once, then per second so many. The
// zero value is full.
type budget struct {
	at   time.Time
	used float64
}

func (b *budget) take(now time.Time, burst, perSecond float64) bool {
	if d := now.Sub(b.at).Seconds(); d > 0 {
		b.used = max(0, b.used-d*perSecond)
	}
	b.at = now
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}

func (b *Bind) blindAll(now time.Time) bool {
	b.blindMu.Lock()
	defer b.blindMu.Unlock()
	return b.blind.take(now, blindBurstAll, blindPerSecondAll)
}

const (
	brokenAfter = 5 * time.Second  // of errors alone: another socket
	brokenLeast = 8                // errors
	mendEvery   = 30 * time.Second // at first, then twice as long each time
	mendAtMost  = 8 * time.Minute
)

// health watches what sending says. Some systems leave a socket that was open during sleep
// or a change of the network with an error for every packet; so may a firewall, and then a
// new socket does not help, which is why it is not tried often.
type health struct {
	sick atomic.Bool // there were errors since the last success: the fast way does not lock

	mu     sync.Mutex
	since  time.Time // of errors without a success between; zero: none
	errors int
	mended time.Time
	pause  time.Duration
}

// note takes the outcome of one send and reports whether the socket should be made anew.
func (h *health) note(err error, now time.Time) bool {
	var gso conn.ErrUDPGSODisabled
	if errors.As(err, &gso) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN) {
		return false // says nothing about the socket
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.since, h.errors, h.pause = time.Time{}, 0, 0
		h.sick.Store(false)
		return false
	}
	h.sick.Store(true)
	if h.errors++; h.since.IsZero() {
		h.since = now
	}
	if h.errors < brokenLeast || now.Sub(h.since) < brokenAfter || now.Sub(h.mended) < h.pause {
		return false
	}
	h.mended, h.since, h.errors = now, time.Time{}, 0
	h.pause = min(max(2*h.pause, mendEvery), mendAtMost)
	return true
}

// sendTo sends from the socket.
func (b *Bind) sendTo(bufs [][]byte, ep conn.Endpoint) error {
	err := b.inner.Send(bufs, ep)
	if (err != nil || b.health.sick.Load()) && b.health.note(err, time.Now()) && b.cfg.OnBroken != nil {
		b.cfg.OnBroken()
	}
	return err
}
