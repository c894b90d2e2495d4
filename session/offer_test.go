package session

import (
	"slices"
	"strings"
	"testing"
)

// TestOffer: what clients of the field list, and what they get.
func TestOffer(t *testing.T) {
	list := func(s string) []string { return strings.Split(s, ",") }
	gcm, both := "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com", cipherList[:2]
	for _, c := range []struct {
		name          string
		kex, hostKeys string
		ciphers       string
		nist, ecdsa   bool
		want          []string
	}{
		{"OpenSSH", "mlkem768x25519-sha256,curve25519-sha256,ecdh-sha2-nistp256", "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512", gcm, false, false, both},
		{"OpenSSH that knows the ECDSA key only", "curve25519-sha256", "ecdsa-sha2-nistp256,ssh-ed25519", gcm, false, true, both},
		{"under FIPS rules, without groups", "ecdh-sha2-nistp256,ecdh-sha2-nistp384", "ecdsa-sha2-nistp256,rsa-sha2-256", "aes128-ctr", true, true, cipherList},
		{"old JSch", "ecdh-sha2-nistp256,diffie-hellman-group14-sha1", "ssh-rsa,ecdsa-sha2-nistp256", "aes128-ctr", true, true, cipherList},
		{"nothing in common", "", "", "", true, true, cipherList},
	} {
		o := kexLists{list(c.kex), list(c.hostKeys), list(c.ciphers), list(c.ciphers)}.offer()
		if nist := slices.Contains(o.kex, "ecdh-sha2-nistp256"); nist != c.nist || o.ecdsa != c.ecdsa || !slices.Equal(o.ciphers, c.want) || o.kex[0] != "mlkem768x25519-sha256" {
			t.Errorf("%s: %+v", c.name, o)
		}
	}
}
