package path

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	now := time.Now()
	var h health
	anew := func(d, every time.Duration, err error) (n int) {
		for end := now.Add(d); now.Before(end); now = now.Add(every) {
			if h.note(err, now) {
				n++
			}
		}
		return n
	}
	if n := anew(time.Minute, 100*time.Millisecond, nil); n != 0 {
		t.Errorf("%d new sockets without an error", n)
	}
	if n := anew(4*time.Second, 100*time.Millisecond, syscall.EPERM); n != 0 {
		t.Errorf("%d new sockets after four seconds", n)
	}
	h.note(nil, now)
	if n := anew(4*time.Second, 100*time.Millisecond, syscall.ENETUNREACH); n != 0 {
		t.Errorf("%d new sockets although one packet went out", n)
	}
	if n := anew(2*time.Second, 100*time.Millisecond, errors.New("another")); n != 1 {
		t.Errorf("%d new sockets after six seconds", n)
	}
	// A new one does not help: it is tried less and less.
	if n := anew(time.Hour, 500*time.Millisecond, syscall.EPERM); n < 8 || n > 13 {
		t.Errorf("%d new sockets in an hour", n)
	}
	h.note(nil, now)
	if n := anew(time.Hour, 100*time.Millisecond, syscall.EMSGSIZE); n != 0 {
		t.Errorf("%d new sockets for packets that are too long", n)
	}
}

// TestPingsToStrangers: what a peer names as its addresses gets few packets, whatever it names.
func TestPingsToStrangers(t *testing.T) {
	a := newEnd(t, 0, nil, func(Key, string, []byte) bool { return true })
	now := time.Now()
	count := func(keys ...Key) (n int) {
		for range 600 { // a minute
			now = now.Add(100 * time.Millisecond)
			for i, k := range keys {
				p := a.peers[k]
				p.mu.Lock()
				clear(p.sent)
				for j := range 4 {
					c := &candidate{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(1000+j))}
					n += len(p.ping(nil, c, now))
				}
				p.mu.Unlock()
			}
		}
		return n
	}
	var keys []Key
	for range 100 {
		_, k := testKey(t)
		a.AddPeer(k)
		p := a.peers[k]
		p.mu.Lock()
		p.loadKeys()
		p.mu.Unlock()
		keys = append(keys, k)
	}
	if n := count(keys[0]); n > blindBurst+60*blindPerSecond+1 || n < 60*blindPerSecond {
		t.Errorf("one peer has %d pings sent in a minute", n)
	}
	if n := count(keys...); n > blindBurstAll+60*blindPerSecondAll+1 || n < 60*blindPerSecondAll {
		t.Errorf("a hundred peers have %d pings sent in a minute", n)
	}
	// An address that answered is not counted.
	p := a.peers[keys[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 200 {
		if len(p.ping(nil, &candidate{addr: netip.MustParseAddrPort("192.0.2.1:9"), lastPong: now}, now)) != 1 {
			t.Fatal("a path is not pinged")
		}
		clear(p.sent)
	}
}
