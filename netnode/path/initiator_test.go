package path

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

// tap keeps what WireGuard sends.
type tap struct {
	conn.Bind
	sent chan []byte
}

func (b tap) Send(bufs [][]byte, _ conn.Endpoint) error {
	for _, p := range bufs {
		select {
		case b.sent <- append([]byte(nil), p...):
		default:
		}
	}
	return nil
}

// TestInitiator has WireGuard itself begin a handshake.
func TestInitiator(t *testing.T) {
	theirs, them := testKey(t)
	ours, us := testKey(t)
	tun, _, err := netstack.CreateNetTUN([]netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil, 1280)
	if err != nil {
		t.Fatal(err)
	}
	b := tap{conn.NewDefaultBind(), make(chan []byte, 10)}
	dev := device.NewDevice(tun, b, device.NewLogger(device.LogLevelSilent, ""))
	defer dev.Close()
	if err := dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=127.0.0.1:9\n", hex.EncodeToString(theirs.Bytes()), hex.EncodeToString(us[:]))); err != nil {
		t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		t.Fatal(err)
	}
	if err := dev.LookupPeer(device.NoisePublicKey(us)).SendHandshakeInitiation(false); err != nil {
		t.Fatal(err)
	}
	p := <-b.sent
	if !isInitiation(p) {
		t.Fatalf("%d bytes of type %d", len(p), p[0])
	}
	if k, ok := initiator(p, ours, us); !ok || k != them {
		t.Errorf("%x, %v: not its key", k, ok)
	}
	other, otherKey := testKey(t)
	if _, ok := initiator(p, other, otherKey); ok {
		t.Error("somebody else's handshake is opened")
	}
	for _, at := range []int{8, 40, 87, 90, 116, 131} {
		q := append([]byte(nil), p...)
		q[at] ^= 1
		if _, ok := initiator(q, ours, us); ok {
			t.Errorf("opened with byte %d changed", at)
		}
	}
}
