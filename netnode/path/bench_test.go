package path

import (
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// BenchmarkSend compares a Bind with the bind that it wraps: full batches of one packet
// size, to a socket on loopback that nobody reads. What a batch costs more is in
// over-stock, as a ratio; the two take turns, so that a busy machine slows both.
func BenchmarkSend(b *testing.B) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	to := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())

	stock := conn.NewStdNetBind()
	if _, _, err := stock.Open(0); err != nil {
		b.Fatal(err)
	}
	defer stock.Close()
	priv, _ := testKey(b)
	_, other := testKey(b)
	ours, err := New(Config{Private: priv})
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := ours.Open(0); err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	ours.AddPeer(other)
	p := ours.peers[other]
	p.best.Store(&conn.StdNetEndpoint{AddrPort: to})
	p.awake.Store(true) // Run does not run: nothing is probed

	bufs := make([][]byte, ours.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 1312)
		bufs[i][0] = 4
	}
	var spent [2]time.Duration
	direct := &conn.StdNetEndpoint{AddrPort: to}
	var once sync.Once
	send := func(which int, bind conn.Bind, ep conn.Endpoint) {
		begin := time.Now()
		if err := bind.Send(bufs, ep); err != nil {
			once.Do(func() { b.Log(err) }) // says that it goes on without GSO
		}
		spent[which] += time.Since(begin)
	}
	for b.Loop() {
		send(0, stock, direct)
		send(1, ours, p)
	}
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "over-stock")
	b.ReportMetric(float64(spent[1].Nanoseconds())/float64(b.N)/float64(len(bufs)), "ns/packet")
}

// BenchmarkIdlePeers is what peers cost that nobody talks to: memory for each, and a step of
// the prober with all of them in the map.
func BenchmarkIdlePeers(b *testing.B) {
	priv, _ := testKey(b)
	bind, err := New(Config{Private: priv})
	if err != nil {
		b.Fatal(err)
	}
	const peers = 5000
	keys := make([]Key, peers)
	for i := range keys {
		_, keys[i] = testKey(b)
	}
	before := heap()
	for _, k := range keys {
		bind.AddPeer(k)
		bind.SetEndpoints(k, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41641")})
	}
	each := float64(heap()-before) / peers
	for b.Loop() {
		if bind.step(time.Now()) {
			b.Fatal("somebody is awake")
		}
	}
	b.ReportMetric(each, "B/peer")
}

// heap is what is in use when all garbage is gone.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
