package recording

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

const checkpointSize = ed25519.PublicKeySize + ed25519.SignatureSize

// ratchet is the signing key of a recording. It only ever moves forward.
type ratchet struct{ seed [ed25519.SeedSize]byte }

func (r *ratchet) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(r.seed[:]) }

func (r *ratchet) public() ed25519.PublicKey {
	return r.private().Public().(ed25519.PublicKey)
}

// next is the ratchet one step on.
func (r *ratchet) next() ratchet {
	return ratchet{sha256.Sum256(append([]byte("tssh recording ratchet\x00"), r.seed[:]...))}
}

func checkpointMessage(prev [32]byte, signed []byte, next []byte) []byte {
	m := append([]byte("tssh recording checkpoint\x00"), prev[:]...)
	m = append(m, signed...)
	return append(m, next...)
}

// makeCheckpoint is a block that signs everything before it. The header is complete
// but for what depends on the payload.
func makeCheckpoint(h *header, prev [32]byte, r *ratchet) []byte {
	next := make([]byte, ed25519.PublicKeySize)
	if h.flags&flagFinal == 0 {
		n := r.next()
		copy(next, n.public())
	}
	// The signature is part of the payload that the header sums, so the sum is left out
	// of what is signed: it is 0 there.
	h.stored, h.raw, h.sum = checkpointSize, checkpointSize, 0
	head := h.encode()
	sig := ed25519.Sign(r.private(), checkpointMessage(prev, head[:signedSize], next))
	return makeBlock(h, prev, append(next, sig...))
}

// checkCheckpoint verifies a checkpoint and returns the next key, nil after the last.
func checkCheckpoint(h header, prev [32]byte, key ed25519.PublicKey, payload []byte) (next ed25519.PublicKey, ok bool) {
	next = append(next, payload[:ed25519.PublicKeySize]...)
	h.sum = 0
	head := h.encode()
	ok = usableKey(key) && ed25519.Verify(key, checkpointMessage(prev, head[:signedSize], next), payload[ed25519.PublicKeySize:])
	return next, ok
}

// Start is what a hub countersigns: that a recording with this meta block, and so
// with this first key, began.
type Start struct {
	ID         string `json:"id"`
	Meta       []byte `json:"meta"`        // the payload of block 0, JSON of Meta
	MetaSHA256 []byte `json:"meta_sha256"` // of Meta
}

// Countersignature is a hub's word that it saw a Start at Time.
type Countersignature struct {
	Key       []byte    `json:"key"` // Ed25519 public key of the hub
	Time      time.Time `json:"time"`
	Signature []byte    `json:"signature"`
	// Of a Progress, not of a Start: the checkpoint that the hub had.
	Seq   uint64 `json:"seq,omitempty"`
	Chain []byte `json:"chain,omitempty"`
	At    int64  `json:"at,omitempty"` // microseconds
}

func newStart(id string, meta []byte) Start {
	sum := sha256.Sum256(meta)
	return Start{ID: id, Meta: meta, MetaSHA256: sum[:]}
}

func startMessage(sum []byte, at time.Time) []byte {
	m := append([]byte("tssh recording start\x00"), sum...)
	return binary.LittleEndian.AppendUint64(m, uint64(at.UnixMicro()))
}

// Countersign signs a start with the hub's Ed25519 key, after checking that it says
// of itself what it is.
func Countersign(key crypto.Signer, s Start, at time.Time) (Countersignature, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return Countersignature{}, errors.New("recording: countersign: the key is not Ed25519")
	}
	sum := sha256.Sum256(s.Meta)
	var m Meta
	if err := json.Unmarshal(s.Meta, &m); err != nil || m.ID != s.ID || string(sum[:]) != string(s.MetaSHA256) || !usableKey(m.PublicKey) {
		return Countersignature{}, fmt.Errorf("recording: countersign %q: the start does not describe itself", s.ID)
	}
	sig, err := key.Sign(nil, startMessage(sum[:], at), crypto.Hash(0))
	if err != nil {
		return Countersignature{}, fmt.Errorf("recording: countersign %q: %w", s.ID, err)
	}
	return Countersignature{Key: pub, Time: at.UTC().Truncate(time.Microsecond), Signature: sig}, nil
}

// Valid says whether c is a signature of this start by the key it names. Whose key that
// is, is for the caller to know.
func (c Countersignature) Valid(s Start) bool {
	return c.valid(sha256.Sum256(s.Meta))
}

func (c Countersignature) valid(sum [32]byte) bool {
	return usableKey(c.Key) && ed25519.Verify(c.Key, startMessage(sum[:], c.Time), c.Signature)
}

// weakKeys are the points of small order, canonical and not, without their sign bit: a
// signature "by" one of them can be made up by anyone, so such a key proves nothing.
var weakKeys = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// usableKey reports whether a signature by the key can mean anything.
func usableKey(key []byte) bool {
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	k := [ed25519.PublicKeySize]byte(key)
	k[len(k)-1] &^= 0x80
	return !slices.Contains(weakKeys[:], hex.EncodeToString(k[:]))
}
