package netmap

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Token is what a new node needs to join: where the hub is, a key that lets the node
// in, and the hub's public key, so that the first connection is already authenticated
// on both sides. It is a secret: whoever has it can join.
type Token struct {
	Host    string // host:port of the hub
	AuthKey string // empty for a token that only says where the hub is
	Pin     ControlPublic
}

const (
	tokenScheme = "tssh://"
	maxToken    = 512
)

// String is the form people copy: tssh://HOST:PORT/AUTHKEY#PIN, the pin being the
// hub's Ed25519 key in base64url without padding.
func (t Token) String() string {
	return tokenScheme + t.Host + "/" + t.AuthKey + "#" + base64.RawURLEncoding.EncodeToString(t.Pin[:])
}

// ParseToken reads a token. Its errors never repeat the token, which is a secret.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxToken {
		return Token{}, errors.New("netmap: join token: too long")
	}
	rest, ok := strings.CutPrefix(s, tokenScheme)
	if !ok {
		return Token{}, errors.New("netmap: join token: it begins with tssh://")
	}
	rest, pin, ok := strings.Cut(rest, "#")
	if !ok {
		return Token{}, errors.New("netmap: join token: the part after # (the hub's pin) is missing; in a shell, put the token in quotes")
	}
	host, key, ok := strings.Cut(rest, "/")
	if !ok {
		return Token{}, errors.New("netmap: join token: the key after the address is missing")
	}
	if err := checkHostPort(host); err != nil {
		return Token{}, fmt.Errorf("netmap: join token: %w", err)
	}
	for i := range len(key) {
		c := key[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return Token{}, errors.New("netmap: join token: the key has a character that keys do not have")
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(pin)
	if err != nil || len(b) != 32 {
		return Token{}, errors.New("netmap: join token: the part after # is cut short or altered")
	}
	return Token{Host: host, AuthKey: key, Pin: ControlPublic(b)}, nil
}

// checkHostPort wants a name or an address, and a port number.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return errors.New("the hub's address is not of the form HOST:PORT")
	}
	for i := range len(host) {
		c := host[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`/\@?#%"'<>[]`, c) >= 0 && c != '%' {
			return errors.New("the hub's address has a character that host names do not have")
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the hub's port is not a number from 1 to 65535")
	}
	return nil
}
