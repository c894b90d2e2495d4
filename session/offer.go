package session

import (
	"slices"

	gossh "golang.org/x/crypto/ssh"
)

// Algorithms, most wanted first, the post-quantum key exchange before all. What is absent
// is so on purpose: SHA-1 everywhere, MACs of 96 bits, CBC, compression.
var (
	kexList    = []string{gossh.KeyExchangeMLKEM768X25519, gossh.KeyExchangeCurve25519, gossh.KeyExchangeDH16SHA512, gossh.KeyExchangeDH14SHA256}
	cipherList = []string{gossh.CipherAES128GCM, gossh.CipherAES256GCM, gossh.CipherChaCha20Poly1305, gossh.CipherAES128CTR, gossh.CipherAES192CTR, gossh.CipherAES256CTR}
	macList    = []string{gossh.HMACSHA256ETM, gossh.HMACSHA512ETM, gossh.HMACSHA256, gossh.HMACSHA512}
)

// offer is what one client may choose from.
type offer struct {
	kex, ciphers []string
	ecdsa        bool // the host key on a NIST curve
}

// wholeOffer is for clients whose own lists are not known.
var wholeOffer = offer{append(slices.Clone(kexList), gossh.KeyExchangeECDHP256), cipherList, true}

// offer chooses for a client.
//
// One that has AES-GCM gets nothing else: the cipher stock clients prefer has no assembler
// here on amd64 and costs twice as much. The NIST curves, which auditors count as weak and
// hosts under FIPS rules know nothing better than, are for clients that have nothing else
// in common with us, and the ECDSA host key also for those that want it first because it
// is the one they know.
func (k kexLists) offer() offer {
	o := wholeOffer
	if slices.Contains(k.toServer, gossh.CipherAES128GCM) && slices.Contains(k.toClient, gossh.CipherAES128GCM) {
		o.ciphers = cipherList[:2]
	}
	if common(k.kex, kexList) {
		o.kex = kexList
	}
	o.ecdsa = k.hostKeys[0] == gossh.KeyAlgoECDSA256 || !common(k.hostKeys, []string{gossh.KeyAlgoED25519, gossh.KeyAlgoRSASHA256, gossh.KeyAlgoRSASHA512})
	return o
}

func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
