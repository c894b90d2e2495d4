package session

import (
	"time"

	gssh "github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"tssh/session/control"
)

// globalRequest answers what is not about a channel (RFC 4254 section 4). Of the
// library's context only the connection itself is taken.
func (c *conn) globalRequest(ctx gssh.Context, _ *gssh.Server, req *gossh.Request) (bool, []byte) {
	sc, ok := ctx.Value(gssh.ContextKeyConn).(*gossh.ServerConn)
	if !ok || c.ready(sc) != nil {
		return false, nil
	}
	p := payload(req.Payload)
	switch req.Type {
	case "tcpip-forward":
		return c.forwardTCP(sc, req.Payload)
	case "cancel-tcpip-forward":
		b, ok := parseBind(req.Payload)
		return ok && c.cancel(b.key()), nil
	case "streamlocal-forward@openssh.com":
		return c.forwardUnix(sc, req.Payload), nil
	case "cancel-streamlocal-forward@openssh.com":
		path, ok := p.str()
		return ok && c.cancel("unix "+string(path)), nil
	case "no-more-sessions@openssh.com":
		c.noMore.Store(true)
		return true, nil
	case "hostkeys-prove-00@openssh.com":
		return c.proveHostKeys(sc, p)
	}
	return false, nil
}

// offerHostKeys tells the client every key of this host (OpenSSH's PROTOCOL section 2.5),
// so that it knows them all before one is taken away. Clients that do not know the request
// pass over it.
func (c *conn) offerHostKeys(sc *gossh.ServerConn) {
	var b []byte
	for _, k := range c.hostKeys {
		b = appendString(b, string(k.PublicKey().Marshal()))
	}
	_, _, _ = sc.SendRequest("hostkeys-00@openssh.com", false, b)
}

// maxProofs is how many keys one request may ask proof of.
const maxProofs = 16

// parseProve reads the keys that hostkeys-prove-00@openssh.com asks about.
func parseProve(p payload) ([][]byte, bool) {
	var keys [][]byte
	for len(p) > 0 {
		k, ok := p.str()
		if !ok || len(keys) == maxProofs {
			return nil, false
		}
		keys = append(keys, k)
	}
	return keys, len(keys) > 0
}

// proveHostKeys shows with signatures over this very session that the keys are ours.
func (c *conn) proveHostKeys(sc *gossh.ServerConn, p payload) (bool, []byte) {
	asked, ok := parseProve(p)
	if !ok {
		return false, nil
	}
	var out []byte
	for _, blob := range asked {
		sig, err := c.prove(sc, blob)
		if err != nil {
			return false, nil
		}
		out = appendString(out, string(gossh.Marshal(sig)))
	}
	return true, out
}

func (c *conn) prove(sc *gossh.ServerConn, blob []byte) (*gossh.Signature, error) {
	for n, k := range c.hostKeys {
		if string(k.PublicKey().Marshal()) != string(blob) {
			continue
		}
		alg := k.PublicKey().Type()
		if alg == gossh.KeyAlgoRSA {
			// Clients insist on the algorithm of the key exchange where that was RSA.
			alg = gossh.KeyAlgoRSASHA512
			if m, ok := sc.Conn.(gossh.AlgorithmsConnMetadata); ok && m.Algorithms().HostKey == gossh.KeyAlgoRSASHA256 {
				alg = gossh.KeyAlgoRSASHA256
			}
		}
		body, _, err := c.mon.call(control.Prove, &control.ProveMsg{Key: n, Alg: alg, Session: sc.SessionID()})
		return signature(body, err)
	}
	return nil, errUnknownKey
}

// keepalive asks the client for a sign of life until the connection ends. SendRequest
// can wait for ever on a dead link, so it runs by itself.
func (c *conn) keepalive(sc *gossh.ServerConn) {
	limit := c.welcome.ClientAlive
	if limit <= 0 {
		limit = keepaliveLimit
	}
	ticker := time.NewTicker(min(keepaliveEvery, max(limit/4, 10*time.Millisecond)))
	defer ticker.Stop()
	answered := make(chan struct{}, 1)
	last, asking := time.Now(), false
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-answered:
			last, asking = time.Now(), false
		case <-ticker.C:
			if !c.mon.here() {
				last = time.Now() // without the daemon nothing of the client's could arrive
			}
			if asking && time.Since(last) > limit {
				c.end(ended{causeTimeout, "the client does not answer"})
				return
			}
			if asking {
				continue
			}
			asking = true
			go func() { // ends with the answer or the connection
				if _, _, err := sc.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answered <- struct{}{}
				}
			}()
		}
	}
}

const (
	keepaliveEvery = time.Minute
	// keepaliveLimit is as long as the kernel itself keeps trying (TCP_USER_TIMEOUT), so
	// that a daemon away for minutes costs nobody a session.
	keepaliveLimit = 15 * time.Minute
)
