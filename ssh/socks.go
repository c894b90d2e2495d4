package ssh

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// socks reads one SOCKS 5 request (RFC 1928; CONNECT, no authentication), makes the
// connection and answers. The listener is on this machine; the peer is still not trusted to
// finish its sentences.
func socks(c net.Conn, connect func(host string, port uint16) (gossh.Channel, error)) (gossh.Channel, error) {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	defer c.SetDeadline(time.Time{})
	host, port, err := socksRequest(c)
	if err != nil {
		return nil, err
	}
	ch, err := connect(host, port)
	code := byte(0)
	if err != nil {
		code = 5 // refused; the protocol has no word for "not allowed by the far end"
	}
	if _, werr := c.Write([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}); werr != nil && err == nil {
		ch.Close()
		err = werr
	}
	if err != nil {
		return nil, err
	}
	return ch, nil
}

func socksRequest(c io.ReadWriter) (host string, port uint16, err error) {
	b := make([]byte, 256)
	read := func(n int) []byte {
		if err == nil {
			_, err = io.ReadFull(c, b[:n])
		}
		return b[:n]
	}
	if h := read(2); err == nil && h[0] != 5 {
		return "", 0, errors.New("the dynamic forward speaks SOCKS 5 only")
	}
	if read(int(b[1])); err != nil {
		return "", 0, err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return "", 0, err
	}
	h := read(4)
	if err != nil {
		return "", 0, err
	}
	if h[1] != 1 {
		c.Write([]byte{5, 7, 0, 1, 0, 0, 0, 0, 0, 0})
		return "", 0, errors.New("the dynamic forward knows SOCKS CONNECT only")
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
