// Package socks is the server's half of SOCKS 5 (RFC 1928), as far as it is used: CONNECT
// without authentication. tssh -D and tssh proxy --listen both speak it.
//
// Whoever connects is not trusted to finish a sentence: Request reads at most 520 bytes, never
// more than it needs, and the caller sets the deadline.
package socks

import (
	"errors"
	"io"
	"net/netip"
)

// Replies, RFC 1928 section 6.
const (
	Granted     byte = 0
	NotAllowed  byte = 2
	Unreachable byte = 4
	Refused     byte = 5
	notCommand  byte = 7
)

// Version is the first byte that a client sends.
const Version = 5

// Request reads one request and answers its greeting. The caller makes the connection and
// says with Reply how that went.
func Request(c io.ReadWriter) (host string, port uint16, err error) {
	b := make([]byte, 256)
	read := func(n int) []byte {
		if err == nil {
			_, err = io.ReadFull(c, b[:n])
		}
		return b[:n]
	}
	if h := read(2); err == nil && h[0] != Version {
		return "", 0, errors.New("only SOCKS 5 is spoken here")
	}
	n := int(b[1])
	methods := read(n)
	if err != nil {
		return "", 0, err
	}
	open := false
	for _, m := range methods {
		open = open || m == 0
	}
	if !open {
		c.Write([]byte{Version, 0xff})
		return "", 0, errors.New("the SOCKS client wants to authenticate, which is not done here")
	}
	if _, err := c.Write([]byte{Version, 0}); err != nil {
		return "", 0, err
	}
	h := read(4)
	if err != nil {
		return "", 0, err
	}
	if h[0] != Version {
		return "", 0, errors.New("only SOCKS 5 is spoken here")
	}
	if h[1] != 1 {
		Reply(c, notCommand)
		return "", 0, errors.New("the SOCKS client wants something else than CONNECT")
	}
	switch h[3] {
	case 1:
		host = netip.AddrFrom4([4]byte(read(4))).String()
	case 4:
		host = netip.AddrFrom16([16]byte(read(16))).String()
	case 3:
		host = string(read(int(read(1)[0])))
	default:
		return "", 0, errors.New("the SOCKS request has no address")
	}
	p := read(2)
	if err != nil {
		return "", 0, err
	}
	return host, uint16(p[0])<<8 | uint16(p[1]), nil
}

// Reply answers a request.
func Reply(c io.Writer, code byte) error {
	_, err := c.Write([]byte{Version, code, 0, 1, 0, 0, 0, 0, 0, 0})
	return err
}
