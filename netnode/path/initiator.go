package path

import (
	"crypto/ecdh"
	"crypto/subtle"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/device"
)

// initiationSize is that of a handshake's first message, which is type, sender, ephemeral
// key, sealed static key, sealed time, and two MACs.
const initiationSize = device.MessageInitiationSize

// initiationsPerSecond bounds the handshakes opened only to see whose they are. Those above
// go on to WireGuard, which has its own defence, and find the peers that it has already.
const initiationsPerSecond = 500

func isInitiation(p []byte) bool {
	return len(p) == initiationSize && p[0] == device.MessageInitiationType
}

// initiator is whose handshake a first message begins, as it says itself: WireGuard looks
// at the rest. private and self are the node's own.
func initiator(packet []byte, private *ecdh.PrivateKey, self Key) (k Key, ok bool) {
	const label = device.WGLabelMAC1
	macKey := blake2s.Sum256(append([]byte(label), self[:]...))
	mac, err := blake2s.New128(macKey[:])
	if err != nil {
		return k, false
	}
	mac.Write(packet[:116])
	if subtle.ConstantTimeCompare(mac.Sum(nil), packet[116:132]) != 1 {
		return k, false
	}
	ephemeral, static := packet[8:40], packet[40:88]
	theirs, err := ecdh.X25519().NewPublicKey(ephemeral)
	if err != nil {
		return k, false
	}
	shared, err := private.ECDH(theirs)
	if err != nil {
		return k, false
	}
	hash := blake2s.Sum256(append(device.InitialHash[:], self[:]...))
	hash = blake2s.Sum256(append(hash[:], ephemeral...))
	var chain, key [blake2s.Size]byte
	device.KDF1(&chain, device.InitialChainKey[:], ephemeral)
	device.KDF2(&chain, &key, chain[:], shared)
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		return k, false
	}
	_, err = aead.Open(k[:0], make([]byte, chacha20poly1305.NonceSize), static, hash[:])
	return k, err == nil
}

// foresee tells of whose handshake is about to be given to WireGuard.
func (b *Bind) foresee(packet []byte, closed <-chan struct{}) {
	if b.cfg.OnInitiation == nil || !b.opens.Allow() {
		return
	}
	id := b.id.Load()
	if k, ok := initiator(packet, id.private, id.key); ok {
		b.cfg.OnInitiation(k, closed)
	}
}
