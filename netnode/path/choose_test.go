package path

import (
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// TestChoice: who is the path when both answer, from either as the present one.
func TestChoice(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	priv, _ := testKey(t)
	_, other := testKey(t)
	for _, c := range []struct {
		four, six time.Duration
		now, want netip.AddrPort
	}{
		{40 * time.Millisecond, 40 * time.Millisecond, four, six},
		{40 * time.Millisecond, 40 * time.Millisecond, six, six},
		{40 * time.Millisecond, 44 * time.Millisecond, six, six},
		{40 * time.Millisecond, 44 * time.Millisecond, four, four}, // near equals do not change
		{40 * time.Millisecond, 80 * time.Millisecond, six, four},
		{40 * time.Millisecond, 80 * time.Millisecond, four, four},
		{time.Millisecond, time.Millisecond, four, four}, // nor do they in one LAN
	} {
		b, err := New(Config{Private: priv})
		if err != nil {
			t.Fatal(err)
		}
		b.AddPeer(other)
		p := b.peers[other]
		at := time.Now()
		p.candidates = map[netip.AddrPort]*candidate{four: {addr: four, lastPong: at, rtt: c.four}, six: {addr: six, lastPong: at, rtt: c.six}}
		setBest(p, c.now)
		for range 3 { // once chosen, it stays
			p.choose(at, nil)
			if got := p.bestAddr(); got != c.want {
				t.Errorf("%v by IPv4, %v by IPv6, now at %v: chosen %v, want %v", c.four, c.six, c.now, got, c.want)
			}
		}
	}
}

func setBest(p *Peer, a netip.AddrPort) {
	p.best.Store(&conn.StdNetEndpoint{AddrPort: a})
}
