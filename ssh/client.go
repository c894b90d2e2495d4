package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// Config says where to log in and how.
type Config struct {
	Dial     func(ctx context.Context) (net.Conn, error) // to the host's SSH port
	Host     string                                      // its name, for words
	User     string                                      // the local user there
	HostKeys []gossh.PublicKey                           // any other key is refused; none refuses every key
	Banner   io.Writer                                   // the host's words before the session; nil drops them
	Log      *slog.Logger

	// ConnectTimeout bounds dialling and the key exchange; 0 is 30 s. LoginTimeout bounds
	// what follows, where a person may have to confirm something; 0 is 10 min.
	ConnectTimeout, LoginTimeout time.Duration
	// KeepaliveInterval is how often a silent connection is asked for life, and
	// KeepaliveMax how many questions in a row may stay unanswered; 0 is 15 s and 8.
	// A negative interval asks nothing.
	KeepaliveInterval time.Duration
	KeepaliveMax      int
}

// Client is one logged-in connection.
type Client struct {
	cfg  Config
	log  *slog.Logger
	conn *gossh.Client
	stop context.CancelCauseFunc // ends ctx with the reason
	ctx  context.Context         // ends with the connection; its cause is the *Error
	wg   sync.WaitGroup
	// remotes is what the host listens on for us.
	remotes remotes
	// announced: the host said itself why it ends the session.
	announced atomic.Bool
}

// Dial connects and logs in. Its errors are *Error.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 30 * time.Second
	}
	if cfg.LoginTimeout == 0 {
		cfg.LoginTimeout = 10 * time.Minute
	}
	if cfg.KeepaliveInterval == 0 {
		cfg.KeepaliveInterval = 15 * time.Second
	}
	if cfg.KeepaliveMax == 0 {
		cfg.KeepaliveMax = 8
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	nc, err := cfg.Dial(dctx)
	cancel()
	if err != nil {
		if e, ok := asError(err); ok {
			return nil, e
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, failure(CodeUnreachable, err, "%s does not answer within %s", cfg.Host, cfg.ConnectTimeout)
		}
		return nil, failure(CodeUnreachable, err, "%s cannot be reached: %s", cfg.Host, line(err.Error()))
	}
	l := &login{cfg: cfg, log: log}
	sc, chans, reqs, err := l.handshake(ctx, nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := &Client{cfg: cfg, log: log}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	// Ends when the connection does: reqs is closed then.
	pass := make(chan *gossh.Request)
	c.wg.Go(func() { c.globalRequests(reqs, pass) })
	c.conn = gossh.NewClient(sc, chans, pass)
	c.wg.Go(func() {
		err := c.conn.Wait()
		c.stop(c.lost(err))
	})
	if cfg.KeepaliveInterval > 0 {
		c.wg.Go(c.keepalive)
	}
	return c, nil
}

// Close ends the connection and waits for what Dial started.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.ctx.Done() }

// Err is why the connection ended; nil while it has not.
func (c *Client) Err() error {
	if c.ctx.Err() == nil {
		return nil
	}
	return context.Cause(c.ctx)
}

// ended is the payload of "ended@tssh": the host says why it is about to close.
type ended struct {
	Code, Words string
}

func (c *Client) globalRequests(in <-chan *gossh.Request, out chan<- *gossh.Request) {
	defer close(out)
	for r := range in {
		if r.Type != "ended@tssh" {
			out <- r
			continue
		}
		var m ended
		if gossh.Unmarshal(r.Payload, &m) == nil {
			code := m.Code
			if !knownCode(code) {
				code = CodeDenied
			}
			c.announced.Store(true)
			c.stop(failure(code, nil, "%s ended the session: %s", c.cfg.Host, line(m.Words)))
		}
		r.Reply(true, nil)
	}
}

// lost is the end of a connection that nobody announced.
func (c *Client) lost(err error) *Error {
	if err != nil && strings.Contains(err.Error(), "disconnect, reason") {
		words, code := splitCode(disconnectWords(err))
		if code == "" {
			code = CodeUnreachable
		}
		return failure(code, err, "%s ended the connection: %s", c.cfg.Host, words)
	}
	return failure(CodeUnreachable, err, "the connection to %s was lost", c.cfg.Host)
}

// keepalive asks a silent host for life. The question can block for ever on a dead path,
// so it has a goroutine of its own, which ends with the connection.
func (c *Client) keepalive() {
	t := time.NewTicker(c.cfg.KeepaliveInterval)
	defer t.Stop()
	answers := make(chan struct{}, 1)
	waiting := false
	missed := 0
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-answers:
			waiting, missed = false, 0
			continue
		case <-t.C:
		}
		if waiting {
			if missed++; missed >= c.cfg.KeepaliveMax {
				c.stop(failure(CodeUnreachable, nil, "%s has not answered for %s", c.cfg.Host, c.cfg.KeepaliveInterval*time.Duration(missed)))
				c.conn.Close()
				return
			}
			continue
		}
		waiting = true
		c.wg.Go(func() {
			if _, _, err := c.conn.SendRequest("keepalive@openssh.com", true, nil); err == nil {
				answers <- struct{}{}
			}
		})
	}
}

// login is the state of one handshake.
type login struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	held   bytes.Buffer // banner not shown yet
	shown  bool         // some of the banner was shown
	said   string       // last line of the banner, whole
	asked  bool         // the host wanted an answer we do not give
	hold   *time.Timer  // shows what is held
	limit  *time.Timer  // closes the connection
	slow   bool         // limit fired
	keyErr *Error
	keyOK  bool
}

func (l *login) handshake(ctx context.Context, nc net.Conn) (gossh.Conn, <-chan gossh.NewChannel, <-chan *gossh.Request, error) {
	l.limit = time.AfterFunc(l.cfg.ConnectTimeout, func() {
		l.mu.Lock()
		l.slow = true
		l.mu.Unlock()
		nc.Close()
	})
	defer l.limit.Stop()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	pre := &preamble{Conn: nc}
	sc, chans, reqs, err := gossh.NewClientConn(pre, l.cfg.Host, &gossh.ClientConfig{
		Config: gossh.Config{
			KeyExchanges: []string{gossh.KeyExchangeMLKEM768X25519, gossh.KeyExchangeCurve25519, gossh.KeyExchangeECDHP256},
			Ciphers:      []string{gossh.CipherAES128GCM, gossh.CipherAES256GCM, gossh.CipherChaCha20Poly1305, gossh.CipherAES128CTR, gossh.CipherAES256CTR},
			MACs:         []string{gossh.HMACSHA256ETM, gossh.HMACSHA512ETM, gossh.HMACSHA256},
		},
		User:              l.cfg.User,
		Auth:              []gossh.AuthMethod{gossh.KeyboardInteractive(l.challenge)},
		HostKeyCallback:   l.hostKey,
		HostKeyAlgorithms: algorithms(l.cfg.HostKeys),
		BannerCallback:    l.banner,
		ClientVersion:     "SSH-2.0-tssh",
	})
	if err == nil && !stop() {
		sc.Close()
		err = context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold != nil {
		l.hold.Stop()
	}
	if err == nil {
		l.show(l.held.String())
		l.held.Reset()
		l.cfg.Banner = nil // nothing is said after the login
		return sc, chans, reqs, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w (%w)", context.Canceled, cause)
	}
	return nil, nil, nil, l.refused(err, pre.words())
}

// refused finds the words and the code for a handshake that did not end in a login.
// mu is held.
func (l *login) refused(err error, early string) *Error {
	before, _ := lastLine(l.held.String())
	if l.asked {
		before = l.held.String()
	}
	l.show(before)
	// Hosts of ours mark their words for people whose client only shows the banner.
	words, code := splitCode(strings.TrimPrefix(strings.TrimSpace(l.said), "tssh: "))
	if l.shown && l.held.Len() == 0 {
		words = "" // the person has read it
	}
	text := err.Error()
	switch {
	case l.keyErr != nil:
		return l.keyErr
	case l.slow && !l.keyOK:
		return failure(CodeUnreachable, err, "%s does not answer within %s", l.cfg.Host, l.cfg.ConnectTimeout)
	case l.slow:
		return failure(CodeDenied, err, "the login on %s was not decided within %s", l.cfg.Host, l.cfg.LoginTimeout)
	case errors.Is(err, context.Canceled):
		return failure(CodeUnreachable, err, "the login on %s was broken off", l.cfg.Host)
	case !l.keyOK && early != "":
		words, code = splitCode(early)
		if code == "" {
			code = CodeUnreachable
		}
		return failure(code, err, "%s refused the connection: %s", l.cfg.Host, words)
	case !l.keyOK && strings.Contains(text, "no common algorithm for host key"):
		return failure(CodeHostKey, err, "%s does not offer a host key of a kind that the mesh has for it", l.cfg.Host)
	case strings.Contains(text, "disconnect, reason"):
		dw, dc := splitCode(disconnectWords(err))
		if words == "" {
			words = dw
		}
		if code == "" {
			code = dc
		}
		if code == "" {
			code = CodeDenied
		}
	case l.said == "" && !strings.Contains(text, "unable to authenticate"):
		return failure(CodeUnreachable, err, "%s closed the connection before the login", l.cfg.Host)
	}
	if code == "" {
		code = CodeDenied
	}
	switch {
	case l.asked:
		return failure(code, err, "%s asks for a password or a code for %s; over the mesh none is needed, so this is not a tssh host", l.cfg.Host, line(l.cfg.User))
	case words != "":
		return failure(code, err, "%s refused the login as %s: %s", l.cfg.Host, line(l.cfg.User), words)
	}
	return failure(code, err, "%s refused the login as %s", l.cfg.Host, line(l.cfg.User))
}

// hostKey compares with the keys of the mesh, byte by byte.
func (l *login) hostKey(_ string, _ net.Addr, key gossh.PublicKey) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.cfg.HostKeys {
		if bytes.Equal(k.Marshal(), key.Marshal()) {
			l.keyOK = true
			l.limit.Reset(l.cfg.LoginTimeout)
			l.log.Debug("host key is the mesh's", "host", l.cfg.Host, "key", gossh.FingerprintSHA256(key))
			return nil
		}
	}
	if len(l.cfg.HostKeys) == 0 {
		l.keyErr = failure(CodeHostKey, nil, "the mesh has no host key for %s, so it cannot be told from an impostor", l.cfg.Host)
	} else {
		l.keyErr = failure(CodeHostKey, nil, "%s showed a host key that is not the one the mesh has for it (%s %s); the connection was not used", l.cfg.Host, line(key.Type()), gossh.FingerprintSHA256(key))
	}
	return l.keyErr
}

// banner holds the host's words until the outcome is known, a second at most.
func (l *login) banner(s string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s = Plain(s)
	if strings.TrimSpace(s) == "" || l.held.Len() > 64<<10 {
		return nil
	}
	if !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	l.held.WriteString(s)
	_, l.said = lastLine(s)
	if l.hold == nil {
		l.hold = time.AfterFunc(time.Second, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.show(l.held.String())
			l.held.Reset()
		})
	} else {
		l.hold.Reset(time.Second)
	}
	return nil
}

// show writes to the banner's writer; mu is held.
func (l *login) show(s string) {
	if s == "" || l.cfg.Banner == nil {
		return
	}
	l.shown = true
	io.WriteString(l.cfg.Banner, s)
}

// challenge answers keyboard-interactive: texts are shown, questions are not answered.
func (l *login) challenge(name, instruction string, questions []string, _ []bool) ([]string, error) {
	if instruction = strings.TrimSpace(name + "\n" + instruction); instruction != "" {
		l.banner(instruction + "\n")
	}
	if len(questions) > 0 {
		l.mu.Lock()
		l.asked = true
		l.mu.Unlock()
		return nil, fmt.Errorf("ssh: the host asks %d questions", len(questions))
	}
	return nil, nil
}

// algorithms asks the host for a key we can check.
func algorithms(keys []gossh.PublicKey) []string {
	var a []string
	for _, k := range keys {
		switch t := k.Type(); t {
		case gossh.KeyAlgoRSA:
			a = append(a, gossh.KeyAlgoRSASHA256, gossh.KeyAlgoRSASHA512)
		default:
			a = append(a, t)
		}
	}
	return a
}

// disconnectWords takes the host's words out of x/crypto's error, which quotes them.
func disconnectWords(err error) string {
	s := err.Error()
	if i := strings.IndexByte(s, '"'); i >= 0 {
		var words string
		if _, e := fmt.Sscanf(s[i:], "%q", &words); e == nil {
			return words
		}
	}
	return s
}
