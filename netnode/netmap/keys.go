package netmap

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const hidden = "(private key)"

// errKey says no more than that, so that no part of a secret reaches a log.
var errKey = errors.New("netmap: not a key: 32 bytes in base64 are wanted")

// WGPrivate is a node's WireGuard private key. It is not comparable and never prints;
// Encode and Bytes are the only ways out.
type WGPrivate struct {
	_ [0]func()
	k [32]byte
}

// NewWGPrivate makes a key.
func NewWGPrivate() (WGPrivate, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return WGPrivate{}, fmt.Errorf("netmap: make WireGuard key: %w", err)
	}
	return WGPrivateFrom([32]byte(k.Bytes())), nil
}

// WGPrivateFrom takes raw bytes, clamped here as WireGuard wants them.
func WGPrivateFrom(b [32]byte) WGPrivate {
	b[0] &= 248
	b[31] = b[31]&127 | 64
	return WGPrivate{k: b}
}

// rejoinKey is the WireGuard key of a node that joins again: another one for every token,
// and the same when the same token is tried again, because the hub may have said yes to
// the first try. Nobody makes it without the node's control key and the token.
func rejoinKey(k ControlKey, authKey string) (WGPrivate, error) {
	b, err := hkdf.Key(sha256.New, k.priv.Seed(), []byte(authKey), "tssh node WireGuard key v1", 32)
	if err != nil {
		return WGPrivate{}, fmt.Errorf("netmap: make WireGuard key: %w", err)
	}
	return WGPrivateFrom([32]byte(b)), nil
}

// ParseWGPrivate reads what Encode wrote.
func ParseWGPrivate(s string) (WGPrivate, error) {
	b, err := parse32(s)
	if err != nil {
		return WGPrivate{}, err
	}
	return WGPrivateFrom(b), nil
}

// Encode is the key in base64, for the node's state file.
func (k WGPrivate) Encode() string { return base64.StdEncoding.EncodeToString(k.k[:]) }

// Hex is the form that WireGuard's configuration protocol takes.
func (k WGPrivate) Hex() string { return hex.EncodeToString(k.k[:]) }

// Bytes is a copy of the key.
func (k WGPrivate) Bytes() [32]byte { return k.k }

// IsZero reports whether there is no key.
func (k WGPrivate) IsZero() bool { return k.k == [32]byte{} }

// Public is the key that others know the node by.
func (k WGPrivate) Public() WGPublic {
	p, err := ecdh.X25519().NewPrivateKey(k.k[:])
	if err != nil {
		return WGPublic{} // cannot happen: 32 bytes are always a key
	}
	return WGPublic(p.PublicKey().Bytes())
}

func (k WGPrivate) String() string               { return hidden }
func (k WGPrivate) Format(f fmt.State, _ rune)   { io.WriteString(f, hidden) } // every verb, %x and %d too
func (k WGPrivate) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (k WGPrivate) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// WGPublic is a node's WireGuard public key. Its text is base64, as WireGuard's tools write it.
type WGPublic [32]byte

// ParseWGPublic reads base64.
func ParseWGPublic(s string) (WGPublic, error) {
	b, err := parse32(s)
	return WGPublic(b), err
}

func (k WGPublic) String() string               { return base64.StdEncoding.EncodeToString(k[:]) }
func (k WGPublic) Hex() string                  { return hex.EncodeToString(k[:]) }
func (k WGPublic) IsZero() bool                 { return k == WGPublic{} }
func (k WGPublic) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *WGPublic) UnmarshalText(b []byte) error {
	v, err := ParseWGPublic(string(b))
	if err == nil {
		*k = v
	}
	return err
}

// ControlKey is the Ed25519 key a node or a hub shows in TLS and signs with. It is not
// comparable and never prints.
type ControlKey struct {
	_    [0]func()
	priv ed25519.PrivateKey
}

// NewControlKey makes a key.
func NewControlKey() (ControlKey, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return ControlKey{}, fmt.Errorf("netmap: make control key: %w", err)
	}
	return ControlKey{priv: priv}, nil
}

// ParseControlKey reads what Encode wrote.
func ParseControlKey(s string) (ControlKey, error) {
	b, err := parse32(s)
	if err != nil {
		return ControlKey{}, err
	}
	return ControlKey{priv: ed25519.NewKeyFromSeed(b[:])}, nil
}

// Encode is the key's seed in base64, for the state file.
func (k ControlKey) Encode() string {
	if k.priv == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.priv.Seed())
}

// IsZero reports whether there is no key.
func (k ControlKey) IsZero() bool { return k.priv == nil }

// Public is the key that others know this one by.
func (k ControlKey) Public() ControlPublic {
	if k.priv == nil {
		return ControlPublic{}
	}
	return ControlPublic(k.priv.Public().(ed25519.PublicKey))
}

// Signer signs with the key what is not a record, such as the start of a recording; what
// is signed must begin so that it cannot be taken for a record.
func (k ControlKey) Signer() crypto.Signer { return k.priv }

func (k ControlKey) String() string               { return hidden }
func (k ControlKey) Format(f fmt.State, _ rune)   { io.WriteString(f, hidden) } // every verb, %x and %d too
func (k ControlKey) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (k ControlKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// ControlPublic is the public half of a ControlKey: the pin of a hub, the control key of a node.
type ControlPublic [32]byte

// ParseControlPublic reads base64.
func ParseControlPublic(s string) (ControlPublic, error) {
	b, err := parse32(s)
	return ControlPublic(b), err
}

func (k ControlPublic) String() string               { return base64.StdEncoding.EncodeToString(k[:]) }
func (k ControlPublic) IsZero() bool                 { return k == ControlPublic{} }
func (k ControlPublic) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *ControlPublic) UnmarshalText(b []byte) error {
	v, err := ParseControlPublic(string(b))
	if err == nil {
		*k = v
	}
	return err
}

// parse32 reads exactly 32 bytes of standard base64.
func parse32(s string) (out [32]byte, err error) {
	if len(s) != base64.StdEncoding.EncodedLen(32) {
		return out, errKey
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 32 {
		return out, errKey
	}
	return [32]byte(b), nil
}
