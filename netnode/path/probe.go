package path

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Key is a WireGuard public key.
type Key [32]byte

// The layout of a probe; doc.go has the whole of it.
const (
	probeMagic = "tssp"
	probeHead  = 12 // magic and hint
	probeBody  = 32
	probeSize  = probeHead + chacha20poly1305.NonceSizeX + probeBody + chacha20poly1305.Overhead
)

const (
	kindPing byte = 1
	kindPong byte = 2
)

type (
	hint        [8]byte
	transaction [15]byte
)

// probe is what a probe says once it is open.
type probe struct {
	kind byte
	tx   transaction
}

var errProbe = errors.New("path: not a probe of this peer")

// pairKeys seal and open the probes between this node and one peer.
type pairKeys struct {
	outHint, inHint hint
	out, in         cipher.AEAD
}

func hintFor(from, to Key) hint {
	h := sha256.New()
	h.Write([]byte("tssh path hint v1"))
	h.Write(from[:])
	h.Write(to[:])
	return hint(h.Sum(nil)[:8])
}

func newPairKeys(priv *ecdh.PrivateKey, self, peer Key) (*pairKeys, error) {
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return nil, fmt.Errorf("path: peer key: %w", err)
	}
	secret, err := priv.ECDH(pub) // refuses keys that give zero
	if err != nil {
		return nil, fmt.Errorf("path: peer key: %w", err)
	}
	derive := func(from, to Key) (cipher.AEAD, error) {
		k, err := hkdf.Key(sha256.New, secret, nil, "tssh path probe v1"+string(from[:])+string(to[:]), 32)
		if err != nil {
			return nil, fmt.Errorf("path: derive probe key: %w", err)
		}
		return chacha20poly1305.NewX(k)
	}
	k := &pairKeys{outHint: hintFor(self, peer), inHint: hintFor(peer, self)}
	if k.out, err = derive(self, peer); err != nil {
		return nil, err
	}
	if k.in, err = derive(peer, self); err != nil {
		return nil, err
	}
	return k, nil
}

// seal makes the packet of p.
func (k *pairKeys) seal(p probe) []byte {
	b := make([]byte, probeHead+chacha20poly1305.NonceSizeX, probeSize)
	copy(b, probeMagic)
	copy(b[4:], k.outHint[:])
	nonce := b[probeHead:]
	rand.Read(nonce) // never fails: crypto/rand ends the program instead
	var body [probeBody]byte
	body[0] = p.kind
	copy(body[1:], p.tx[:])
	return k.out.Seal(b, nonce, body[:], b[:probeHead])
}

// probeHint is the hint of a packet that looks like a probe.
func probeHint(b []byte) (hint, bool) {
	if len(b) != probeSize || !bytes.Equal(b[:4], []byte(probeMagic)) {
		return hint{}, false
	}
	return hint(b[4:probeHead]), true
}

// open checks and reads a packet for which probeHint gave k's hint. It leaves b as it is.
func (k *pairKeys) open(b []byte) (probe, error) {
	if h, ok := probeHint(b); !ok || h != k.inHint {
		return probe{}, errProbe
	}
	const box = probeHead + chacha20poly1305.NonceSizeX
	var buf [probeBody]byte
	body, err := k.in.Open(buf[:0], b[probeHead:box], b[box:], b[:probeHead])
	if err != nil || len(body) != probeBody {
		return probe{}, errProbe
	}
	p := probe{kind: body[0], tx: transaction(body[1:16])}
	if p.kind != kindPing && p.kind != kindPong {
		return probe{}, errProbe
	}
	return p, nil
}
