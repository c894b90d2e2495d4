package portmap

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

const inside = 41641

// router is a gateway on loopback.
type router struct {
	conn     *net.UDPConn
	pcp, pmp bool // what it speaks
	refuse   byte // result of every request
	outside  netip.AddrPort
	lies     bool // says first what is no answer to the question

	mu    sync.Mutex
	asked []string      // "pcp 2h0m0s", "address", "nat-pmp 0s", ...
	news  chan struct{} // a value for each of them
}

func startRouter(t *testing.T, r *router) *router {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r.conn, r.news = c, make(chan struct{}, 64)
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() { // ends with the socket
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for _, a := range r.answer(b[:n]) {
				c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	return r
}

func (r *router) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, s)
	select {
	case r.news <- struct{}{}:
	default:
	}
}

func (r *router) heard(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.asked, s)
}

func seconds(b []byte) string {
	return (time.Duration(binary.BigEndian.Uint32(b)) * time.Second).String()
}

// answer is written from the tables of the RFCs, not with the code under test.
func (r *router) answer(q []byte) [][]byte {
	ip4 := r.outside.Addr().As4()
	switch {
	case q[0] == 2 && r.pcp && len(q) == 60 && q[1] == 1 && q[36] == 17:
		r.note("pcp " + seconds(q[4:]))
		a := slices.Clone(q)
		a[1], a[3] = 0x81, r.refuse
		clear(a[8:24])
		binary.BigEndian.PutUint16(a[42:], r.outside.Port())
		clear(a[44:54])
		a[54], a[55] = 0xff, 0xff
		copy(a[56:], ip4[:])
		out := [][]byte{a}
		if r.lies {
			lie := slices.Clone(a)
			lie[24]++ // another's nonce
			lie[56] = 10
			out = [][]byte{{}, {2}, lie[:30], lie, a}
		}
		return out
	case q[0] == 2 && r.pmp:
		return [][]byte{{0, 0x80 | q[1], 0, 1, 0, 0, 0, 9}} // unsupported version
	case q[0] == 0 && r.pmp && len(q) == 2:
		r.note("address")
		return [][]byte{append([]byte{0, 0x80, 0, r.refuse, 0, 0, 0, 9}, ip4[:]...)}
	case q[0] == 0 && r.pmp && len(q) == 12 && q[1] == 1:
		r.note("nat-pmp " + seconds(q[8:]))
		a := []byte{0, 0x81, 0, r.refuse, 0, 0, 0, 9, q[4], q[5], 0, 0, 0, 0, 0x0e, 0x10}
		binary.BigEndian.PutUint16(a[10:], r.outside.Port())
		return [][]byte{a}
	}
	return nil
}

// start runs a Mapper until the test ends; news gets a value for every change.
func start(t *testing.T, gw func() (netip.AddrPort, error), private func(netip.Addr) bool) (m *Mapper, news chan struct{}, end func()) {
	t.Helper()
	news = make(chan struct{}, 16)
	m = New(Config{Inside: inside, Gateway: gw, Private: private, News: func() { news <- struct{}{} }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		m.Run(ctx)
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return m, news, end
}

func (r *router) at() (netip.AddrPort, error) {
	return r.conn.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

func everywhere(netip.Addr) bool { return true }

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal(what)
	}
}

func TestMapping(t *testing.T) {
	outside := netip.MustParseAddrPort("203.0.113.7:50000")
	for name, c := range map[string]struct {
		router *router
		want   Mapping
		back   string
	}{
		"pcp":       {&router{pcp: true, outside: outside}, Mapping{outside, PCP}, "pcp 0s"},
		"pcp, liar": {&router{pcp: true, outside: outside, lies: true}, Mapping{outside, PCP}, "pcp 0s"},
		"nat-pmp":   {&router{pmp: true, outside: outside}, Mapping{outside, NATPMP}, "nat-pmp 0s"},
		"both":      {&router{pcp: true, pmp: true, outside: outside}, Mapping{outside, PCP}, "pcp 0s"},
		"behind a second NAT": {&router{pcp: true, outside: netip.MustParseAddrPort("10.1.2.3:41641")},
			Mapping{netip.MustParseAddrPort("10.1.2.3:41641"), PCP}, "pcp 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRouter(t, c.router)
			m, news, end := start(t, r.at, everywhere)
			wait(t, news, "no mapping")
			if got := m.Mapping(); got != c.want {
				t.Fatalf("mapping %v, want %v", got, c.want)
			}
			end()
			if got := m.Mapping(); got != (Mapping{}) {
				t.Errorf("after the end there is still %v", got)
			}
			for !r.heard(c.back) {
				wait(t, r.news, "not given back")
			}
		})
	}
}

func TestNoMapping(t *testing.T) {
	outside := netip.MustParseAddrPort("203.0.113.7:50000")
	for name, c := range map[string]struct {
		router  *router
		private func(netip.Addr) bool
		asked   bool
	}{
		"refuses pcp":      {&router{pcp: true, refuse: 2, outside: outside}, everywhere, true},
		"refuses nat-pmp":  {&router{pmp: true, refuse: 2, outside: outside}, everywhere, true},
		"no address":       {&router{pcp: true, outside: netip.MustParseAddrPort("0.0.0.0:50000")}, everywhere, true},
		"no port":          {&router{pcp: true, outside: netip.MustParseAddrPort("203.0.113.7:0")}, everywhere, true},
		"loopback":         {&router{pmp: true, outside: netip.MustParseAddrPort("127.0.0.1:22")}, everywhere, true},
		"says nothing":     {&router{outside: outside}, everywhere, false},
		"nobody's network": {&router{pcp: true, outside: outside}, nil, false}, // 127.0.0.1 is not private
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRouter(t, c.router)
			m := New(Config{Inside: inside, Gateway: r.at, Private: c.private})
			got, _, _, err := m.ask(t.Context())
			if err == nil || got != (Mapping{}) {
				t.Errorf("got %v, %v", got, err)
			}
			if r.mu.Lock(); (len(r.asked) > 0) != c.asked {
				t.Errorf("asked for %v", r.asked)
			}
			r.mu.Unlock()
		})
	}
}

// TestAnotherNetwork: what the old router gave is not told any more.
func TestAnotherNetwork(t *testing.T) {
	one := startRouter(t, &router{pcp: true, outside: netip.MustParseAddrPort("203.0.113.7:50000")})
	two := startRouter(t, &router{pmp: true, outside: netip.MustParseAddrPort("198.51.100.9:1024")})
	var mu sync.Mutex
	at := one
	m, news, _ := start(t, func() (netip.AddrPort, error) {
		mu.Lock()
		defer mu.Unlock()
		if at == nil {
			return netip.AddrPort{}, errNoGateway
		}
		return at.at()
	}, everywhere)
	wait(t, news, "no mapping")
	for _, c := range []struct {
		at   *router
		want Mapping
	}{{two, Mapping{two.outside, NATPMP}}, {nil, Mapping{}}, {one, Mapping{one.outside, PCP}}} {
		mu.Lock()
		at = c.at
		mu.Unlock()
		m.NetworkChanged()
		wait(t, news, "no news")
		if got := m.Mapping(); got != c.want {
			t.Errorf("mapping %v, want %v", got, c.want)
		}
	}
}

// TestEndWhileAsking: a router that is silent does not hold up the end.
func TestEndWhileAsking(t *testing.T) {
	r := startRouter(t, &router{outside: netip.MustParseAddrPort("203.0.113.7:50000")})
	_, _, end := start(t, r.at, everywhere)
	begin := time.Now()
	end()
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzAnswers(f *testing.F) {
	var nonce [12]byte
	r := &router{pcp: true, pmp: true, outside: netip.MustParseAddrPort("203.0.113.7:50000")}
	for _, q := range [][]byte{pcpRequest(nonce, netip.MustParseAddr("10.0.0.2"), inside, netip.AddrPort{}, wished), {0, 0}, pmpRequest(inside, inside, wished)} {
		for _, a := range r.answer(q) {
			f.Add(a)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, _, err := pcpAnswer(b, nonce, inside); err == nil && (len(b) < pcpLen || !a.Addr().IsValid()) {
			t.Errorf("%x: taken as %v", b, a)
		}
		if a, err := pmpAddressAnswer(b); err == nil && (len(b) < 12 || !a.Is4()) {
			t.Errorf("%x: taken as %v", b, a)
		}
		if _, _, err := pmpMapAnswer(b, inside); err == nil && len(b) < 16 {
			t.Errorf("%x: taken", b)
		}
	})
}
