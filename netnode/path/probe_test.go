package path

import (
	"crypto/ecdh"
	"crypto/rand"
	"testing"
)

func testKey(t testing.TB) (*ecdh.PrivateKey, Key) {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k, Key(k.PublicKey().Bytes())
}

func testPair(t testing.TB) (a, b *pairKeys) {
	t.Helper()
	pa, ka := testKey(t)
	pb, kb := testKey(t)
	a, err := newPairKeys(pa, ka, kb)
	if err != nil {
		t.Fatal(err)
	}
	b, err = newPairKeys(pb, kb, ka)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestProbeRoundTrip(t *testing.T) {
	a, b := testPair(t)
	for _, kind := range []byte{kindPing, kindPong} {
		want := probe{kind: kind, tx: transaction{1, 2, 3}}
		packet := a.seal(want)
		if len(packet) != probeSize || probeSize != 84 {
			t.Fatalf("a probe has %d bytes, doc.go says 84", len(packet))
		}
		if isWireGuard(packet) {
			t.Fatal("a probe looks like WireGuard")
		}
		got, err := b.open(packet)
		if err != nil || got != want {
			t.Fatalf("open: %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestProbeIsNotForOthers(t *testing.T) {
	a, b := testPair(t)
	_, other := testPair(t)
	packet := a.seal(probe{kind: kindPing})
	if _, err := other.open(packet); err == nil {
		t.Error("a third node opened a probe")
	}
	if _, err := a.open(packet); err == nil {
		t.Error("a probe sent back to its sender was opened")
	}
	// Even with the sender's own hint put in, the direction's key refuses it.
	copy(packet[4:], a.inHint[:])
	if _, err := a.open(packet); err == nil {
		t.Error("a reflected probe was opened")
	}
	for i := range packet {
		packet := a.seal(probe{kind: kindPing})
		packet[i] ^= 1
		if _, err := b.open(packet); err == nil {
			t.Fatalf("a probe with byte %d changed was opened", i)
		}
	}
	if _, err := b.open(a.seal(probe{kind: 3})); err == nil {
		t.Error("an unknown kind was opened")
	}
}

func TestZeroPeerKeyIsRefused(t *testing.T) {
	priv, self := testKey(t)
	if _, err := newPairKeys(priv, self, Key{}); err == nil {
		t.Fatal("the zero key makes a shared secret anyone knows")
	}
}

func FuzzProbe(f *testing.F) {
	a, b := testPair(f)
	f.Add(a.seal(probe{kind: kindPing}))
	f.Add([]byte("tssp"))
	f.Add(make([]byte, probeSize))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, err := b.open(packet); err == nil && len(packet) != probeSize {
			t.Fatalf("opened %d bytes", len(packet))
		}
	})
}
