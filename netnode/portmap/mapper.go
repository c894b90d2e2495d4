package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Protocols, as people see them.
const (
	PCP    = "pcp"
	NATPMP = "nat-pmp"
)

const (
	wished  = 2 * time.Hour    // RFC 6886, 3.3, and RFC 6887, 15
	shortly = time.Minute      // lives below are taken for this long
	atMost  = 20 * time.Minute // between two renewals: a router that started anew has forgotten all
	quiet   = 10 * time.Minute // after a router that gave nothing
	port    = 5351             // of the gateway
)

// tries is how long an answer is waited for, each time it is asked for.
var tries = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}

// Config is what a Mapper needs.
type Config struct {
	Inside uint16 // the UDP port of this node
	// Gateway finds the router of the default route; its address may have another port than
	// the usual one. Nil: as this system says.
	Gateway func() (netip.AddrPort, error)
	// Private says whether an address belongs to a home or office network; nil: RFC 1918.
	Private func(netip.Addr) bool
	News    func() // the mapping changed; must not block
	Log     *slog.Logger
}

// Mapping is what a router gave.
type Mapping struct {
	Outside  netip.AddrPort // invalid: nothing
	Protocol string
}

// Mapper keeps one mapping. Run must be running for that.
type Mapper struct {
	cfg   Config
	nonce [12]byte // owned by Run, as is what follows up to mu
	last  netip.AddrPort

	again chan struct{}
	mu    sync.Mutex
	now   Mapping
}

// New makes a Mapper that has nothing yet.
func New(cfg Config) *Mapper {
	if cfg.Gateway == nil {
		cfg.Gateway = func() (netip.AddrPort, error) {
			a, err := gateway()
			return netip.AddrPortFrom(a, port), err
		}
	}
	if cfg.Private == nil {
		cfg.Private = func(a netip.Addr) bool { return a.Is4() && a.IsPrivate() }
	}
	if cfg.News == nil {
		cfg.News = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mapper{cfg: cfg, again: make(chan struct{}, 1)}
	rand.Read(m.nonce[:]) // never fails
	return m
}

// Mapping is what there is now.
func (m *Mapper) Mapping() Mapping {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// NetworkChanged has Run ask anew at once.
func (m *Mapper) NetworkChanged() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// Run keeps the mapping until ctx ends, and gives it back then.
func (m *Mapper) Run(ctx context.Context) {
	var gw netip.AddrPort
	for {
		wait := quiet
		got, life, at, err := m.ask(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			m.cfg.Log.Debug("no port mapping", "err", err)
		} else {
			gw = at
			wait = min(max(life, shortly)/2, atMost)
		}
		m.set(got)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.again:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			break
		}
	}
	m.giveBack(gw)
}

func (m *Mapper) set(got Mapping) {
	m.mu.Lock()
	changed := m.now != got
	m.now = got
	m.mu.Unlock()
	if got.Outside.IsValid() {
		m.last = got.Outside
	}
	if changed {
		m.cfg.Log.Info("port mapping", "outside", got.Outside.String(), "by", got.Protocol)
		m.cfg.News()
	}
}

var errNotPrivate = errors.New("portmap: no private network with a router")

// dial makes a socket that takes packets from the gateway alone.
func (m *Mapper) dial(gw netip.AddrPort) (*net.UDPConn, netip.Addr, error) {
	if !m.cfg.Private(gw.Addr()) {
		return nil, netip.Addr{}, errNotPrivate
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(gw))
	if err != nil {
		return nil, netip.Addr{}, err
	}
	self := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if !m.cfg.Private(self) {
		c.Close()
		return nil, self, errNotPrivate
	}
	return c, self, nil
}

// ask goes through the protocols once.
func (m *Mapper) ask(ctx context.Context) (Mapping, time.Duration, netip.AddrPort, error) {
	gw, err := m.cfg.Gateway()
	if err != nil {
		return Mapping{}, 0, gw, err
	}
	c, self, err := m.dial(gw)
	if err != nil {
		return Mapping{}, 0, gw, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()

	want := m.last
	if !want.IsValid() {
		want = netip.AddrPortFrom(netip.Addr{}, m.cfg.Inside)
	}
	var outside netip.AddrPort
	var life time.Duration
	protocol := PCP
	err = exchange(c, pcpRequest(m.nonce, self, m.cfg.Inside, want, wished), func(b []byte) (err error) {
		outside, life, err = pcpAnswer(b, m.nonce, m.cfg.Inside)
		return err
	})
	if err != nil {
		protocol = NATPMP
		var ip netip.Addr
		if err2 := exchange(c, []byte{0, pmpAddress}, func(b []byte) (err error) {
			ip, err = pmpAddressAnswer(b)
			return err
		}); err2 != nil {
			return Mapping{}, 0, gw, errors.Join(err, err2)
		}
		var p uint16
		if err = exchange(c, pmpRequest(m.cfg.Inside, want.Port(), wished), func(b []byte) (err error) {
			p, life, err = pmpMapAnswer(b, m.cfg.Inside)
			return err
		}); err != nil {
			return Mapping{}, 0, gw, err
		}
		outside = netip.AddrPortFrom(ip, p)
	}
	if !outside.Addr().IsGlobalUnicast() || outside.Port() == 0 || life <= 0 {
		return Mapping{}, 0, gw, errors.New("portmap: the gateway gives an address that is none")
	}
	return Mapping{outside, protocol}, life, gw, nil
}

// exchange sends a question until take accepts an answer to it. Answers to something else
// are passed over.
func exchange(c *net.UDPConn, question []byte, take func([]byte) error) error {
	buf := make([]byte, 1100) // RFC 6887, 7: no message is longer
	var err error
	for _, wait := range tries {
		if err = c.SetDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		if _, err = c.Write(question); err != nil {
			return err // also: the router said that nobody listens there
		}
		for {
			var n int
			if n, err = c.Read(buf); err != nil {
				break
			}
			if err = take(buf[:n]); !errors.Is(err, errOther) {
				return err
			}
		}
		var late net.Error
		if !errors.As(err, &late) || !late.Timeout() {
			return err
		}
	}
	return err
}

// giveBack tells the router that the mapping is not needed any more. It waits for no answer:
// one that is lost costs the router a mapping that ends by itself.
func (m *Mapper) giveBack(gw netip.AddrPort) {
	now := m.Mapping()
	if now.Protocol == "" {
		return
	}
	if c, self, err := m.dial(gw); err == nil {
		defer c.Close()
		b := pcpRequest(m.nonce, self, m.cfg.Inside, netip.AddrPortFrom(netip.Addr{}, 0), 0)
		if now.Protocol == NATPMP {
			b = pmpRequest(m.cfg.Inside, 0, 0)
		}
		_, _ = c.Write(b)
	}
	m.set(Mapping{})
}
