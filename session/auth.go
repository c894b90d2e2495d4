package session

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/session/control"
)

// config makes the SSH configuration of this connection, with callbacks that all ask the
// same question. NoClientAuthCallback must be set: without it gliderlabs/ssh would let
// everybody in, as it switches NoClientAuth on where it sees none of its own handlers.
func (c *conn) config(o offer) *gossh.ServerConfig {
	cfg := &gossh.ServerConfig{
		Config:        gossh.Config{KeyExchanges: o.kex, Ciphers: o.ciphers, MACs: macList},
		ServerVersion: serverVersion,
		MaxAuthTries:  6,
		NoClientAuth:  true,
		NoClientAuthCallback: func(m gossh.ConnMetadata) (*gossh.Permissions, error) {
			return c.admit(m, "none")
		},
		// Clients that were told to use a password, a key or a dialog do not try "none".
		// What they offer is not looked at; the same question decides.
		PasswordCallback: func(m gossh.ConnMetadata, _ []byte) (*gossh.Permissions, error) {
			return c.admit(m, "password")
		},
		PublicKeyCallback: func(m gossh.ConnMetadata, _ gossh.PublicKey) (*gossh.Permissions, error) {
			return c.admit(m, "publickey")
		},
		KeyboardInteractiveCallback: func(m gossh.ConnMetadata, ask gossh.KeyboardInteractiveChallenge) (*gossh.Permissions, error) {
			if _, err := ask("", "", nil, nil); err != nil {
				return nil, err
			}
			return c.admit(m, "keyboard-interactive")
		},
		PreAuthConnCallback: func(p gossh.ServerPreAuthConn) { c.preAuth.Store(&p) },
		AuthLogCallback: func(m gossh.ConnMetadata, _ string, err error) {
			if err == nil {
				c.begin(m)
			}
		},
	}
	for _, k := range c.hostKeys {
		if o.ecdsa || k.PublicKey().Type() != gossh.KeyAlgoECDSA256 || len(c.hostKeys) == 1 {
			cfg.AddHostKey(k)
		}
	}
	return cfg
}

// admit asks the monitor whether the peer may be the user of this very attempt. A
// refusal is said in a banner and ends the connection: there is nothing else to try, and
// clients would go on to ask the person for a password.
func (c *conn) admit(m gossh.ConnMetadata, method string) (*gossh.Permissions, error) {
	body, _, err := c.mon.call(control.Auth, &control.AuthMsg{User: clip(m.User(), 512), Method: method})
	if err != nil {
		c.refuse("this host cannot decide about logins at the moment")
		return nil, err
	}
	v, ok := body.(*control.VerdictMsg)
	if !ok {
		return nil, fmt.Errorf("monitor: %T as the answer to auth", body)
	}
	if !v.OK {
		c.refuseWith(v.Say, v.Hint)
		return nil, errors.New("refused")
	}
	return &gossh.Permissions{}, nil
}

// refuse says why in a banner and closes. Only before the login is complete.
func (c *conn) refuse(say string) { c.refuseWith(say, "") }

// refuseWith has a hint too, in the line before: the last line is the reason.
func (c *conn) refuseWith(say, hint string) {
	text := "tssh: " + plain(say) + "\r\n"
	if hint != "" {
		text = "tssh: hint: " + plain(hint) + "\r\n" + text
	}
	if p := c.preAuth.Load(); p != nil {
		_ = (*p).SendAuthBanner(text)
	}
	if s := c.sock.Load(); s != nil {
		s.refuse()
	}
}

// plain keeps words for a person within one line of text that no terminal acts on.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' '
		}
		return r
	}, s)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// remoteKey is a host key whose private half stays with the monitor.
type remoteKey struct {
	mon *monitor
	n   int // its number in the welcome
	pub gossh.PublicKey
}

func (k *remoteKey) PublicKey() gossh.PublicKey { return k.pub }

func (k *remoteKey) Sign(r io.Reader, data []byte) (*gossh.Signature, error) {
	return k.SignWithAlgorithm(r, data, "")
}

// Algorithms names what this key signs with; for RSA not SHA-1.
func (k *remoteKey) Algorithms() []string {
	if k.pub.Type() == gossh.KeyAlgoRSA {
		return []string{gossh.KeyAlgoRSASHA256, gossh.KeyAlgoRSASHA512}
	}
	return []string{k.pub.Type()}
}

// signWait is how long a key exchange in a running connection waits for a monitor that
// is being restarted. The client waits as long as it likes.
const signWait = 60 * time.Second

func (k *remoteKey) SignWithAlgorithm(_ io.Reader, data []byte, alg string) (*gossh.Signature, error) {
	if !k.mon.present(signWait) {
		return nil, errAway
	}
	body, _, err := k.mon.call(control.Sign, &control.SignMsg{Key: k.n, Alg: alg, Data: data})
	return signature(body, err)
}

var errUnknownKey = errors.New("no host key of ours")

// signature is the monitor's answer to a question for one.
func signature(body any, err error) (*gossh.Signature, error) {
	if err != nil {
		return nil, err
	}
	s, ok := body.(*control.SignedMsg)
	if !ok {
		return nil, fmt.Errorf("monitor: %T as the answer to sign", body)
	}
	if s.Err != "" {
		return nil, fmt.Errorf("monitor: host key: %s", s.Err)
	}
	return &gossh.Signature{Format: s.Format, Blob: s.Blob}, nil
}
