package netnode

import (
	"crypto/ecdh"
	"fmt"

	"golang.zx2c4.com/wireguard/device"

	"tssh/netnode/netmap"
	"tssh/netnode/path"
)

// nodeKeys are the keys that the node has now.
type nodeKeys struct {
	wg      netmap.WGPrivate
	control netmap.ControlKey
}

// SetKeys gives the node other keys while it runs. Addresses, connections and paths stay.
// Each side makes a new handshake at the moment when it has the new key, its own or the
// peer's: whichever is later finds the other one ready, and no packet waits for a timer.
func (n *Node) SetKeys(wg netmap.WGPrivate, control netmap.ControlKey) error {
	raw := wg.Bytes()
	private, err := ecdh.X25519().NewPrivateKey(raw[:])
	if err != nil {
		return fmt.Errorf("netnode: private key: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	counters := n.counters() // before: who was talked to
	n.keys.Store(&nodeKeys{wg, control})
	n.bind.SetPrivate(private)
	if err := n.dev.IpcSet(fmt.Sprintf("private_key=%s\n", wg.Hex())); err != nil {
		return fmt.Errorf("netnode: change key: %w", err)
	}
	if n.relays != nil {
		n.relays.SetKey(raw)
	}
	for k := range n.memberKeys() {
		if !counters[k].handshake.IsZero() {
			n.greet(k)
		}
	}
	return nil
}

// greet makes a handshake with a peer that may still send into a session that is over.
func (n *Node) greet(k netmap.WGPublic) {
	wp := n.dev.LookupPeer(device.NoisePublicKey(k))
	if wp == nil {
		return
	}
	if err := wp.SendHandshakeInitiation(false); err != nil {
		n.log.Debug("no handshake with former peer", "key", k.String(), "err", err)
	}
}

// followKeys notes which peers have another key than before, so that the way to them is
// carried over. Callers hold mu; v is not in force yet.
func (n *Node) followKeys(v *view) {
	was := n.view.Load()
	if was == nil || len(was.peers) == 0 {
		return
	}
	now := make(map[string]netmap.WGPublic, len(v.peers))
	for _, p := range v.peers {
		now[p.ID] = p.Key
	}
	for _, p := range was.peers {
		k, ok := now[p.ID]
		if !ok || k == p.Key {
			continue
		}
		if w := n.bind.Path(path.Key(p.Key)); w.Addr.IsValid() || w.Relayed {
			if n.rekeyed == nil {
				n.rekeyed = map[netmap.WGPublic]netmap.WGPublic{}
			}
			n.rekeyed[k] = p.Key
		}
	}
}
