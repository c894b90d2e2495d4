package netmap

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// Sizes of what comes from the network.
const (
	MaxPayload    = 512 << 10 // one record
	maxSignatures = 8
)

// PayloadType is what every record of this version is signed as.
const PayloadType = "application/vnd.tssh.record.v1+json"

// ErrSignature is the error of an envelope that no trusted key signed.
var ErrSignature = errors.New("no valid signature of the hub's key")

// Envelope is a signed record, a DSSE envelope (protocol v1.0.2): the signature covers
// the exact bytes of the payload and their type, so nothing has to be written the same
// way twice. More than one signature may be there: later levels of trust add theirs.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature of an Envelope. KeyID is a hint only.
type Signature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   []byte `json:"sig"`
}

// pae is DSSE's pre-authentication encoding: what is signed.
func pae(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+32)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

func keyID(k ControlPublic) string { return hex.EncodeToString(k[:8]) }

// sign makes the envelope of a record.
func sign(k ControlKey, payload []byte) (Envelope, error) { return signAs(k, PayloadType, payload) }

func signAs(k ControlKey, payloadType string, payload []byte) (Envelope, error) {
	if k.IsZero() {
		return Envelope{}, errors.New("netmap: sign: no key")
	}
	if len(payload) > MaxPayload {
		return Envelope{}, fmt.Errorf("netmap: sign: %d bytes, at most %d go into a record", len(payload), MaxPayload)
	}
	return Envelope{
		PayloadType: payloadType,
		Payload:     payload,
		Signatures:  []Signature{{KeyID: keyID(k.Public()), Sig: ed25519.Sign(k.priv, pae(payloadType, payload))}},
	}, nil
}

// verify checks that pin signed the envelope of a record.
func (e *Envelope) verify(pin ControlPublic) error { return e.verifyAs(PayloadType, pin) }

func (e *Envelope) verifyAs(payloadType string, pin ControlPublic) error {
	if e.PayloadType != payloadType {
		return fmt.Errorf("payload type %.60q is not %s", e.PayloadType, payloadType)
	}
	if len(e.Payload) > MaxPayload {
		return fmt.Errorf("payload of %d bytes, at most %d", len(e.Payload), MaxPayload)
	}
	if pin.IsZero() {
		return errors.New("no key to verify with")
	}
	msg := pae(e.PayloadType, e.Payload)
	for i, s := range e.Signatures {
		if i == maxSignatures {
			break
		}
		if len(s.Sig) == ed25519.SignatureSize && ed25519.Verify(pin[:], msg, s.Sig) {
			return nil
		}
	}
	return ErrSignature
}
