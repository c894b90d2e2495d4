package path

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeRelay carries packets between two ends, in order, unless it is down.
type fakeRelay struct {
	ends  map[Key]*end
	down  atomic.Bool
	count atomic.Int64 // WireGuard packets carried to the second end
	to    Key          // the second end
	calls atomic.Int64 // calls carried
	queue chan func()
	wg    sync.WaitGroup
}

func newFakeRelay(t *testing.T) *fakeRelay {
	r := &fakeRelay{ends: map[Key]*end{}, queue: make(chan func(), 1000)}
	r.wg.Go(func() {
		for f := range r.queue {
			f()
		}
	})
	t.Cleanup(func() { close(r.queue); r.wg.Wait() })
	return r
}

// from is the relay as one end sees it; self is filled in when the end is there.
func (r *fakeRelay) from(self *Key) func(Key, string, []byte) bool {
	return func(to Key, home string, packet []byte) bool {
		if r.down.Load() {
			return false
		}
		b := bytes.Clone(packet)
		r.queue <- func() {
			switch {
			case isWireGuard(b) && to == r.to:
				r.count.Add(1)
			case isCall(b):
				r.calls.Add(1)
			}
			if e := r.ends[to]; e != nil {
				e.FromRelay(*self, b)
			}
		}
		return true
	}
}

// pair is two ends that know each other and share a relay.
func pair(t *testing.T) (a, b *end, r *fakeRelay) {
	t.Helper()
	r = newFakeRelay(t)
	var ka, kb Key
	a, b = newEnd(t, 0, nil, r.from(&ka)), newEnd(t, 0, nil, r.from(&kb))
	ka, kb = a.key, b.key
	r.ends[ka], r.ends[kb], r.to = a, b, kb
	a.AddPeer(kb)
	b.AddPeer(ka)
	return a, b, r
}

// hop forwards datagrams to and fro, as a NAT does, until it is cut.
type hop struct {
	addr netip.AddrPort
	cut  atomic.Bool
}

func newHop(t *testing.T, to netip.AddrPort) *hop {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	h := &hop{addr: front.LocalAddr().(*net.UDPAddr).AddrPort()}
	var client atomic.Pointer[netip.AddrPort]
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			client.Store(&from)
			if !h.cut.Load() {
				back.Write(buf[:n])
			}
		}
	})
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := back.Read(buf)
			if err != nil {
				return
			}
			if c := client.Load(); c != nil && !h.cut.Load() {
				front.WriteToUDPAddrPort(buf[:n], *c)
			}
		}
	})
	t.Cleanup(func() { front.Close(); back.Close(); wg.Wait() })
	return h
}

// await waits for something that becomes true by itself.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

func numbered(n int) []byte {
	b := wg(0)
	binary.BigEndian.PutUint32(b[8:], uint32(n))
	return b
}

// TestRelayFirstThenDirect sends numbered packets all the time: at first they go by the
// relay, then directly, then, when the direct path dies, by the relay again; none is lost.
func TestRelayFirstThenDirect(t *testing.T) {
	a, b, r := pair(t)
	got := map[uint32]bool{}
	var mu sync.Mutex
	stop := make(chan struct{})
	var w sync.WaitGroup
	w.Go(func() {
		for {
			select {
			case p := <-b.packet:
				mu.Lock()
				got[binary.BigEndian.Uint32(p[8:])] = true
				mu.Unlock()
			case <-a.packet:
			case <-stop:
				return
			}
		}
	})
	sent := 0
	send := func() {
		if err := a.Send([][]byte{numbered(sent)}, a.peer(t, b.key)); err != nil {
			t.Fatal(err)
		}
		sent++
		// The other side answers, as a TCP peer would.
		b.Send([][]byte{wg(1)}, b.peer(t, a.key))
		time.Sleep(5 * time.Millisecond)
	}
	missing := func(from, to int) (out []int) {
		mu.Lock()
		defer mu.Unlock()
		for i := from; i < to; i++ {
			if !got[uint32(i)] {
				out = append(out, i)
			}
		}
		return out
	}
	for range 20 {
		send()
	}
	await(t, "here by the relay", func() bool { return len(missing(0, sent)) == 0 })
	if p := a.Path(b.key); p.Addr.IsValid() || !p.Relayed {
		t.Errorf("before there is a way: %+v", p)
	}
	// Now a way becomes known.
	h := newHop(t, b.addr)
	a.SetEndpoints(b.key, []netip.AddrPort{h.addr})
	for end := time.Now().Add(20 * time.Second); !a.Path(b.key).Addr.IsValid() || !b.Path(a.key).Addr.IsValid(); {
		send()
		if time.Now().After(end) {
			t.Fatal("no direct path")
		}
	}
	r.count.Store(0)
	for range 50 {
		send()
	}
	await(t, "here directly", func() bool { return len(missing(0, sent)) == 0 })
	if n := r.count.Load(); n > 0 {
		t.Errorf("%d packets went by the relay beside a path that works", n)
	}
	// The way is cut. What is sent until that is noticed is lost, as on any network.
	h.cut.Store(true)
	cut, first := time.Now(), sent
	for r.count.Load() < 10 {
		send()
		if time.Since(cut) > 20*time.Second {
			t.Fatal("nothing goes by the relay")
		}
	}
	noticed := time.Since(cut)
	begin := sent
	for range 50 {
		send()
	}
	await(t, "here by the relay again", func() bool { return len(missing(begin, sent)) == 0 })
	t.Logf("by the relay %v after the cut; %d of %d packets lost meanwhile", noticed.Round(time.Millisecond), len(missing(first, begin)), begin-first)
	if noticed > 6*time.Second {
		t.Errorf("noticed after %v", noticed)
	}
	await(t, "without a path", func() bool { send(); return !a.Path(b.key).Addr.IsValid() })
	// And back.
	h.cut.Store(false)
	for end := time.Now().Add(20 * time.Second); !a.Path(b.key).Addr.IsValid(); {
		send()
		if time.Now().After(end) {
			t.Fatal("the path is not taken up again")
		}
	}
	close(stop)
	w.Wait()
}

// TestCall: neither side was told where the other is; a call over the relay says it.
func TestCall(t *testing.T) {
	a, b, r := pair(t)
	b.SetOwn(Where{Addrs: []netip.AddrPort{b.addr}, Home: "two"})
	a.SetOwn(Where{Addrs: []netip.AddrPort{a.addr}, Home: "one"})
	for end := time.Now().Add(20 * time.Second); !a.Path(b.key).Addr.IsValid() || !b.Path(a.key).Addr.IsValid(); time.Sleep(20 * time.Millisecond) {
		a.Send([][]byte{wg(1)}, a.peer(t, b.key))
		if time.Now().After(end) {
			t.Fatalf("no path: %+v %+v", a.Path(b.key), b.Path(a.key))
		}
	}
	if p := b.Path(a.key); p.Relay != "one" || p.Addr != a.addr {
		t.Errorf("%+v", p)
	}
	if n := r.calls.Load(); n > 4 {
		t.Errorf("%d calls were needed", n)
	}
}

// TestBadCalls: forged, repeated, reflected and too many calls do nothing.
func TestBadCalls(t *testing.T) {
	a := newEnd(t, 0, nil, func(Key, string, []byte) bool { return true })
	bPriv, bKey := testKey(t)
	a.AddPeer(bKey)
	keys, err := newPairKeys(bPriv, bKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Config{Private: bPriv, Relay: func(Key, string, []byte) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	b.AddPeer(a.key)
	p := b.peers[a.key]
	p.keys = keys
	b.SetOwn(Where{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, Home: "x"})
	known := func() int { return a.Path(bKey).Known }

	older, good := p.call(), p.call()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		a.FromRelay(bKey, bad)
	}
	own := a.peers[bKey]
	own.mu.Lock()
	own.loadKeys()
	reflected := own.call()
	own.mu.Unlock()
	a.FromRelay(bKey, reflected)
	if n := known(); n != 0 {
		t.Fatalf("%d addresses from calls that are none", n)
	}
	a.FromRelay(bKey, good)
	if n := known(); n != 1 {
		t.Fatalf("%d addresses from a call", n)
	}
	// Older than the last one, and the same again, later than any rate would keep it out.
	b.SetOwn(Where{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:10")}})
	own.mu.Lock()
	own.calledAt = time.Time{}
	own.mu.Unlock()
	a.FromRelay(bKey, older)
	a.FromRelay(bKey, good)
	if n := known(); n != 1 {
		t.Errorf("%d addresses after a call that is older", n)
	}
	// A flood: one in callPause is taken, and no more addresses than there is room for.
	for i := range 200 {
		b.SetOwn(Where{Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+i))}})
		call := p.call()
		a.FromRelay(bKey, call)
	}
	if n := known(); n > 3 {
		t.Errorf("%d addresses after a flood", n)
	}
	for i := range 200 {
		own.mu.Lock()
		own.calledAt = time.Time{}
		own.mu.Unlock()
		b.SetOwn(Where{Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(2000+i))}})
		a.FromRelay(bKey, p.call())
	}
	if n := known(); n > maxPublished+maxLearned {
		t.Errorf("%d addresses are kept", n)
	}
}

// TestCallsOfManyRuns: a peer that was started anew is heard at once, whatever its clock
// says; no call of a run that is remembered is taken twice.
func TestCallsOfManyRuns(t *testing.T) {
	p := newPeer(nil, Key{})
	for boot := range byte(40) {
		for n := range uint64(3) {
			c := callNumber{bootID{boot}, n + 1}
			if p.again(c) {
				t.Fatalf("call %v is not heard", c)
			}
			if !p.again(c) || !p.again(callNumber{c.boot, c.n - 1}) {
				t.Fatalf("call %v or one before it is heard twice", c)
			}
		}
	}
	for boot := byte(40 - callMemory); boot < 40; boot++ {
		if !p.again(callNumber{bootID{boot}, 3}) {
			t.Errorf("a call of run %d is heard twice", boot)
		}
	}
	if len(p.calls) > callMemory {
		t.Errorf("%d are remembered", len(p.calls))
	}
	// Older runs that come again do not shut the present one out.
	for boot := range byte(20) {
		p.again(callNumber{bootID{boot}, 9})
	}
	if p.again(callNumber{bootID{39}, 4}) {
		t.Error("the present run is not heard any more")
	}
}

func TestPing(t *testing.T) {
	a, b, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	e, err := a.Ping(ctx, b.key)
	if err != nil || e.Addr.IsValid() || e.RTT <= 0 {
		t.Errorf("by the relay: %+v %v", e, err)
	}
	a.SetEndpoints(b.key, []netip.AddrPort{b.addr})
	await(t, "direct", func() bool { return a.Path(b.key).Addr.IsValid() })
	if e, err = a.Ping(ctx, b.key); err != nil || e.Addr != b.addr {
		t.Errorf("directly: %+v %v", e, err)
	}
	if _, err := a.Ping(ctx, Key{1}); err != ErrNoPeer {
		t.Errorf("nobody: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	b.RemovePeer(a.key)
	if _, err := a.Ping(short, b.key); err == nil {
		t.Error("somebody who knows us no more answers")
	}
}

// TestQuiet: a peer nobody talks to costs no packet.
func TestQuiet(t *testing.T) {
	a, b, r := pair(t)
	spy, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Close()
	a.SetEndpoints(b.key, []netip.AddrPort{spy.LocalAddr().(*net.UDPAddr).AddrPort()})
	a.SetOwn(Where{Addrs: []netip.AddrPort{a.addr}, Home: "one"})
	a.NetworkChanged()
	spy.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	if n, _, err := spy.ReadFromUDP(make([]byte, 2000)); err == nil {
		t.Errorf("%d bytes to a peer nobody talks to", n)
	}
	if r.count.Load()+r.calls.Load() != 0 {
		t.Error("packets by the relay to a peer nobody talks to")
	}
}

func FuzzCall(f *testing.F) {
	a, b := testPair(f)
	f.Add([]byte(callMagic))
	f.Add(make([]byte, maxCall))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, w, err := b.openCall(packet); err == nil {
			t.Fatalf("opened: %+v", w)
		}
		_ = a
	})
}
