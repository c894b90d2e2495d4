package netmap

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ALPN is what nodes offer in the TLS handshake, before HTTP/1.1, which is what they
// get. A hub asks only those for a certificate, so that a browser on the same port is
// not bothered with one.
const ALPN = "tssh/1"

// ErrPin is the error of a hub that shows another key than the pinned one.
var ErrPin = errors.New("the hub shows another key than the one expected")

// Certificate is a self-signed certificate that carries the key. Nobody looks at
// anything in it but the key, so its dates are the widest there are: a wrong clock
// must not keep a node out.
func Certificate(k ControlKey) (tls.Certificate, error) {
	if k.IsZero() {
		return tls.Certificate{}, errors.New("netmap: certificate: no key")
	}
	tmpl := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "tssh"},
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, k.priv.Public(), k.priv)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("netmap: certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.priv}, nil
}

// ClientTLS is how a node speaks to its hub: its own key shown, the hub's compared
// with the pin in the handshake, before a byte is sent.
func ClientTLS(k ControlKey, pin ControlPublic) (*tls.Config, error) {
	return clientTLS(k, func() ControlPublic { return pin })
}

// clientTLS asks for the pin at every handshake: the hub's key may come to be another one.
func clientTLS(k ControlKey, pinned func() ControlPublic) (*tls.Config, error) {
	cert, err := Certificate(k)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{ALPN, "http/1.1"},
		// No name is checked and no authority asked: the key itself is compared below.
		// The handshake still proves that the other side holds it.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			got, ok := PeerKey(cs)
			pin := pinned()
			if !ok || pin.IsZero() || got != pin {
				return ErrPin
			}
			return nil
		},
	}, nil
}

// ServerTLS is how a hub listens. Peers that ask for ALPN must show a key of their own;
// who that is, the handlers look up with PeerKey. Others get plain HTTPS.
func ServerTLS(k ControlKey) (*tls.Config, error) {
	cert, err := Certificate(k)
	if err != nil {
		return nil, err
	}
	plain := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
	node := plain.Clone()
	node.ClientAuth = tls.RequireAnyClientCert
	node.VerifyConnection = func(cs tls.ConnectionState) error {
		if _, ok := PeerKey(cs); !ok {
			return errors.New("netmap: the client's certificate has no Ed25519 key")
		}
		return nil
	}
	conf := plain.Clone()
	conf.GetConfigForClient = func(hi *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, p := range hi.SupportedProtos {
			if p == ALPN {
				return node, nil
			}
		}
		return plain, nil
	}
	return conf, nil
}

// PeerKey is the key that the other side of a connection proved to hold.
func PeerKey(cs tls.ConnectionState) (ControlPublic, bool) {
	if len(cs.PeerCertificates) == 0 {
		return ControlPublic{}, false
	}
	k, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(k) != ed25519.PublicKeySize {
		return ControlPublic{}, false
	}
	return ControlPublic(k), true
}
