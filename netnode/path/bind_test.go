package path

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// end is one Bind under test with its receivers running, as the device would run them.
type end struct {
	*Bind
	key    Key
	addr   netip.AddrPort
	packet chan []byte
	wg     sync.WaitGroup
	stop   context.CancelFunc
}

func newEnd(t *testing.T, port uint16, priv *ecdh.PrivateKey, relay func(Key, string, []byte) bool) *end {
	t.Helper()
	if priv == nil {
		priv, _ = testKey(t)
	}
	b, err := New(Config{Private: priv, Relay: relay, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	fns, actual, err := b.Open(port)
	if err != nil {
		t.Fatal(err)
	}
	e := &end{Bind: b, key: b.id.Load().key, packet: make(chan []byte, 100),
		addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), actual)}
	for _, fn := range fns {
		e.wg.Go(func() { e.receive(fn) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.wg.Go(func() { b.Run(ctx) })
	t.Cleanup(e.close)
	return e
}

func (e *end) close() {
	e.stop()
	e.Close()
	e.wg.Wait()
}

func (e *end) receive(fn conn.ReceiveFunc) {
	n := e.BatchSize()
	bufs, sizes, eps := make([][]byte, n), make([]int, n), make([]conn.Endpoint, n)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for {
		got, err := fn(bufs, sizes, eps)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for i := range got {
			if sizes[i] > 0 {
				e.packet <- append([]byte(nil), bufs[i][:sizes[i]]...)
			}
		}
	}
}

func (e *end) peer(t *testing.T, k Key) conn.Endpoint {
	t.Helper()
	ep, err := e.ParseEndpoint(hex.EncodeToString(k[:]))
	if err != nil {
		t.Fatal(err)
	}
	return ep
}

func (e *end) expect(t *testing.T, want []byte) {
	t.Helper()
	select {
	case got := <-e.packet:
		if !bytes.Equal(got, want) {
			t.Fatalf("got %x, want %x", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%x did not come", want)
	}
}

func wg(n byte) []byte {
	b := make([]byte, 64)
	b[0], b[63] = 4, n
	return b
}

func TestFirstPacketIsHeldUntilAPathIsFound(t *testing.T) {
	a, b := newEnd(t, 0, nil, nil), newEnd(t, 0, nil, nil)
	a.AddPeer(b.key)
	b.AddPeer(a.key)
	a.SetEndpoints(b.key, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9"), b.addr})
	if err := a.Send([][]byte{wg(1)}, a.peer(t, b.key)); err != nil {
		t.Fatal(err)
	}
	b.expect(t, wg(1))
	if got := a.Path(b.key).Addr; got != b.addr {
		t.Errorf("path %v, want %v", got, b.addr)
	}
	// b was told nothing and learned the way from a's probe.
	if err := b.Send([][]byte{wg(2)}, b.peer(t, a.key)); err != nil {
		t.Fatal(err)
	}
	a.expect(t, wg(2))
	if got := b.Path(a.key).Addr; got != a.addr {
		t.Errorf("path back %v, want %v", got, a.addr)
	}
	if got := a.Working(b.key); len(got) != 1 || got[0] != b.addr {
		t.Errorf("working %v, want only %v", got, b.addr)
	}
}

func TestPeerMovesToAnotherPort(t *testing.T) {
	priv, _ := testKey(t)
	a, b := newEnd(t, 0, nil, nil), newEnd(t, 0, priv, nil)
	a.AddPeer(b.key)
	b.AddPeer(a.key)
	a.SetEndpoints(b.key, []netip.AddrPort{b.addr})
	a.Send([][]byte{wg(1)}, a.peer(t, b.key))
	b.expect(t, wg(1))

	b.close()
	moved := newEnd(t, 0, priv, nil)
	moved.AddPeer(a.key)
	moved.SetEndpoints(a.key, []netip.AddrPort{a.addr})
	moved.Send([][]byte{wg(2)}, moved.peer(t, a.key))
	a.expect(t, wg(2))
	deadline := time.Now().Add(10 * time.Second)
	for a.Path(b.key).Addr != moved.addr {
		if time.Now().After(deadline) {
			t.Fatalf("path %v, want %v", a.Path(b.key).Addr, moved.addr)
		}
		time.Sleep(5 * time.Millisecond)
	}
	a.Send([][]byte{wg(3)}, a.peer(t, b.key))
	moved.expect(t, wg(3))
}

func TestDeadPathIsDropped(t *testing.T) {
	a, b := newEnd(t, 0, nil, nil), newEnd(t, 0, nil, nil)
	a.AddPeer(b.key)
	b.AddPeer(a.key)
	a.SetEndpoints(b.key, []netip.AddrPort{b.addr})
	a.Send([][]byte{wg(1)}, a.peer(t, b.key))
	b.expect(t, wg(1))
	b.close()
	start := time.Now()
	for a.Path(b.key).Addr.IsValid() {
		if time.Since(start) > 20*time.Second {
			t.Fatal("a dead path is still used")
		}
		a.Send([][]byte{wg(2)}, a.peer(t, b.key))
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("dropped after %v", time.Since(start))
}

// TestStrangersLearnNothing sends what nodes do not send; nothing comes back and nothing is learned.
func TestStrangersLearnNothing(t *testing.T) {
	a := newEnd(t, 0, nil, nil)
	bPriv, bKey := testKey(t)
	a.AddPeer(bKey)
	keys, err := newPairKeys(bPriv, bKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(a.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	forged := keys.seal(probe{kind: kindPing})
	forged[50] ^= 1
	unasked := keys.seal(probe{kind: kindPong, tx: transaction{7}})
	for _, p := range [][]byte{forged, unasked, []byte("tssp"), make([]byte, probeSize), {1, 1, 0, 0}, wg(9)} {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	a.expect(t, wg(9)) // the only one that is WireGuard's to judge
	if n := a.Path(bKey).Known; n != 0 {
		t.Errorf("%d addresses learned from strangers", n)
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := c.Read(make([]byte, 2048)); err == nil {
		t.Errorf("%d bytes came back", n)
	}

	// An authentic ping repeated from elsewhere is answered by nothing.
	real := keys.seal(probe{kind: kindPing, tx: transaction{8}})
	c.Write(real)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.open(buf[:n]); err != nil || n != probeSize {
		t.Fatalf("the answer to an authentic ping: %d bytes, %v", n, err)
	}
	c2, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(a.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	c2.Write(real)
	c2.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := c2.Read(buf); err == nil {
		t.Errorf("a repeated ping got %d bytes", n)
	}
	if got := a.Path(bKey).Addr; got.IsValid() {
		t.Errorf("path %v although nobody answered a ping", got)
	}
}

func TestLearnedAddressesAreBounded(t *testing.T) {
	a := newEnd(t, 0, nil, nil)
	bPriv, bKey := testKey(t)
	a.AddPeer(bKey)
	keys, _ := newPairKeys(bPriv, bKey, a.key)
	for i := range 40 {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(a.addr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(keys.seal(probe{kind: kindPing, tx: transaction{1, byte(i)}}))
	}
	c, _ := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(a.addr))
	defer c.Close()
	c.Write(wg(1))
	a.expect(t, wg(1))
	if n := a.Path(bKey).Known; n == 0 || n > maxLearned {
		t.Errorf("%d addresses known, want 1 to %d", n, maxLearned)
	}
	var many []netip.AddrPort
	for i := range 100 {
		many = append(many, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+i)))
	}
	a.SetEndpoints(bKey, many)
	if n := a.Path(bKey).Known; n > maxPublished+maxLearned {
		t.Errorf("%d addresses known", n)
	}
}

func TestRelayCarriesWhatHasNoPath(t *testing.T) {
	var a, b *end
	a = newEnd(t, 0, nil, func(to Key, _ string, p []byte) bool {
		if to == b.key {
			b.FromRelay(a.key, p)
		}
		return true
	})
	b = newEnd(t, 0, nil, nil)
	a.AddPeer(b.key)
	b.AddPeer(a.key)
	a.Send([][]byte{wg(1), wg(2)}, a.peer(t, b.key))
	b.expect(t, wg(1))
	b.expect(t, wg(2))
	b.FromRelay(Key{1}, wg(3))               // nobody
	b.FromRelay(a.key, []byte("tssp-probe")) // not WireGuard
	a.SetEndpoints(b.key, []netip.AddrPort{b.addr})
	a.Send([][]byte{wg(4)}, a.peer(t, b.key))
	b.expect(t, wg(4))
	deadline := time.Now().Add(10 * time.Second)
	for a.Path(b.key).Addr != b.addr {
		if time.Now().After(deadline) {
			t.Fatal("no direct path beside the relay")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRemovedPeerSendsNothing(t *testing.T) {
	a, b := newEnd(t, 0, nil, nil), newEnd(t, 0, nil, nil)
	a.AddPeer(b.key)
	b.AddPeer(a.key)
	a.SetEndpoints(b.key, []netip.AddrPort{b.addr})
	ep := a.peer(t, b.key)
	a.Send([][]byte{wg(1)}, ep)
	b.expect(t, wg(1))
	a.RemovePeer(b.key)
	a.Send([][]byte{wg(2)}, ep)
	if _, err := a.ParseEndpoint(hex.EncodeToString(b.key[:])); err == nil {
		t.Error("the endpoint of a removed peer is still there")
	}
	select {
	case p := <-b.packet:
		t.Errorf("%x came after removal", p)
	case <-time.After(200 * time.Millisecond):
	}
}

func TestOpenAgain(t *testing.T) {
	b, err := New(Config{Private: func() *ecdh.PrivateKey { k, _ := testKey(t); return k }()})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fns, port, err := b.Open(0)
		if err != nil || port == 0 {
			t.Fatal(port, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		relayed := fns[len(fns)-1]
		if _, err := relayed(make([][]byte, 1), make([]int, 1), make([]conn.Endpoint, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the relay's receiver after Close: %v", err)
		}
	}
}

func TestUnusableAddresses(t *testing.T) {
	priv, _ := testKey(t)
	b, _ := New(Config{Private: priv, Usable: func(a netip.Addr) bool { return a != netip.MustParseAddr("100.64.0.1") }})
	for _, s := range []string{"0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1", "169.254.1.1:1", "[fe80::1]:1", "100.64.0.1:1", "10.0.0.1:0"} {
		if b.usable(netip.MustParseAddrPort(s)) {
			t.Errorf("%s taken for a way to a peer", s)
		}
	}
	if !b.usable(netip.MustParseAddrPort("10.0.0.1:1")) || !b.usable(netip.MustParseAddrPort("[2001:db8::1]:1")) {
		t.Error("ordinary addresses refused")
	}
}
