// Derper is a relay that stands alone, as a stock derper does: Tailscale's DERP server
// with a self-signed certificate, open to anybody, and a STUN port. It prints the hash of
// its certificate, which `tsshub relay add` wants. It is for the lab only.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/types/key"

	"tssh/netnode/relay"
)

func main() {
	listen := flag.String("listen", ":443", "TCP address")
	stun := flag.String("stun", ":3478", "UDP address of STUN")
	host := flag.String("host", "", "name in the certificate")
	flag.Parse()
	if err := serve(*listen, *stun, *host); err != nil {
		fmt.Fprintln(os.Stderr, "derper: error:", err)
		os.Exit(1)
	}
}

func serve(listen, stun, host string) error {
	cert, err := selfSigned(host)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", stun)
	if err != nil {
		return err
	}
	go relay.ServeSTUN(context.Background(), udp) // ends with the program
	srv := derpserver.New(key.NewNode(), func(string, ...any) {})
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(srv))
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("cert-sha256 %x\n", sha256.Sum256(cert.Certificate[0]))
	// DERP takes the connection over: no HTTP/2.
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}}
	return h.ServeTLS(l, "", "")
}

func selfSigned(host string) (tls.Certificate, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour), BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, nil
}
