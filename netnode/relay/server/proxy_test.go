package server

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
)

// plainProxy is two ends of TLS with a program between them that copies bytes: what a
// relay costs that does nothing else.
func plainProxy(b *testing.B) (x, y net.Conn) {
	b.Helper()
	cert, _ := certificate(b)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	dial := func() (mine, theirs net.Conn) {
		accepted := make(chan net.Conn, 1)
		wg.Go(func() {
			c, err := l.Accept()
			if err == nil {
				err = c.(*tls.Conn).Handshake()
			}
			if err != nil {
				b.Error(err)
			}
			accepted <- c
		})
		mine, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			b.Fatal(err)
		}
		return mine, <-accepted
	}
	x, in := dial()
	y, out := dial()
	wg.Go(func() { io.Copy(out, in) }) // ends when x is closed
	b.Cleanup(func() {
		x.Close()
		y.Close()
		in.Close()
		out.Close()
		l.Close()
		wg.Wait()
	})
	return x, y
}
