package policy

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// maxSealTo bounds how many recordings can be sealed to.
const maxSealTo = 32

// SealTo are the recipients that every host seals its recordings to, age1... or ssh-ed25519
// public keys without comment; none: recordings are not sealed.
func (p *Policy) SealTo() []string {
	if p == nil {
		return nil
	}
	return slices.Clone(p.sealTo)
}

// readSeal reads sealRecordingsTo. What is wrong with a recipient is found out here: no host
// would record, and so let anybody in, that cannot seal as it is told.
func (f *file) readSeal(v *hujson.Value) {
	const key = "sealRecordingsTo"
	f.policy.sealAt = v.StartOffset
	for _, w := range f.list(v, key) {
		to, err := recipient(w.text)
		switch {
		case err != nil:
			f.errorf(w.off, "%s: %.80q: %v", key, w.text, err)
		case len(f.policy.sealTo) == maxSealTo:
			f.errorf(w.off, "%s: there are more than %d", key, maxSealTo)
			return
		case !slices.Contains(f.policy.sealTo, to):
			f.policy.sealTo = append(f.policy.sealTo, to)
		}
	}
}

// recipient checks a recipient and leaves its comment out.
func recipient(s string) (string, error) {
	fields := strings.Fields(s)
	switch {
	case len(fields) == 0:
		return "", fmt.Errorf("a recipient is age1... or an ssh-ed25519 public key")
	case strings.HasPrefix(strings.ToUpper(fields[0]), "AGE-SECRET-KEY-"):
		return "", fmt.Errorf("this is a private key, which must be nowhere but with its owner; its recipient begins with age1")
	case fields[0] == "ssh-ed25519" && len(fields) > 1:
		b, err := base64.StdEncoding.DecodeString(fields[1])
		const name = "ssh-ed25519"
		if err != nil || len(b) != 4+len(name)+4+32 || binary.BigEndian.Uint32(b) != uint32(len(name)) || string(b[4:4+len(name)]) != name || binary.BigEndian.Uint32(b[4+len(name):]) != 32 {
			return "", fmt.Errorf("this is no ssh-ed25519 public key")
		}
		return name + " " + fields[1], nil
	case strings.HasPrefix(fields[0], "age1"):
		if len(fields) > 1 || !bech32(fields[0]) {
			return "", fmt.Errorf("this is no age recipient: a letter of it is wrong, or some are missing")
		}
		return fields[0], nil
	}
	return "", fmt.Errorf("a recipient is age1... or an ssh-ed25519 public key")
}

// bech32 checks the sum of an age X25519 recipient (BIP 173): 32 bytes, 62 letters.
func bech32(s string) bool {
	const letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	const hrp = "age"
	if len(s) != len(hrp)+1+52+6 {
		return false
	}
	var values []byte
	for _, c := range []byte(hrp) {
		values = append(values, c>>5)
	}
	values = append(values, 0)
	for _, c := range []byte(hrp) {
		values = append(values, c&31)
	}
	for _, c := range []byte(s[len(hrp)+1:]) {
		i := strings.IndexByte(letters, c)
		if i < 0 {
			return false
		}
		values = append(values, byte(i))
	}
	sum := uint32(1)
	for _, v := range values {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(v)
		for i, g := range []uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	return sum == 1
}
