package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

const maxAnswer = 16 << 20 // a status with ten thousand peers is about 3 MB

var noDeadline time.Time

// Client talks to one daemon's socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient is for the daemon at the socket path. It connects when asked something.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableKeepAlives: true,
	}}
	return c
}

// Path is the socket's.
func (c *Client) Path() string { return c.path }

// connect opens the socket and makes sure that root or we ourselves are behind it: the
// answers hold host keys.
func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	n, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	u := n.(*net.UnixConn)
	uid, err := peerUID(u)
	if err == nil && uid != 0 && uid != os.Geteuid() {
		err = fmt.Errorf("localapi: %s belongs to uid %d, neither root nor you", c.path, uid)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// NotRunning reports whether err says that no daemon listens at the socket.
func NotRunning(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !errors.Is(err, os.ErrPermission)
}

func (c *Client) Status(ctx context.Context) (v Status, err error) {
	err = c.call(ctx, "GET", "/v1/status", nil, nil, &v)
	return v, err
}

func (c *Client) WhoIs(ctx context.Context, addr string) (v Node, err error) {
	err = c.call(ctx, "GET", "/v1/whois", url.Values{"addr": {addr}}, nil, &v)
	return v, err
}

func (c *Client) Resolve(ctx context.Context, name string) (v Resolved, err error) {
	err = c.call(ctx, "GET", "/v1/resolve", url.Values{"name": {name}}, nil, &v)
	return v, err
}

func (c *Client) Sessions(ctx context.Context) (v []Session, err error) {
	err = c.call(ctx, "GET", "/v1/sessions", nil, nil, &v)
	return v, err
}

func (c *Client) Why(ctx context.Context, r WhyRequest) (v Why, err error) {
	err = c.call(ctx, "GET", "/v1/policy/why", url.Values{"host": {r.Host}, "user": {r.User}}, nil, &v)
	return v, err
}

func (c *Client) Join(ctx context.Context, r JoinRequest) error {
	return c.call(ctx, "POST", "/v1/join", nil, r, nil)
}

func (c *Client) Up(ctx context.Context) error { return c.call(ctx, "POST", "/v1/up", nil, nil, nil) }
func (c *Client) Down(ctx context.Context) error {
	return c.call(ctx, "POST", "/v1/down", nil, nil, nil)
}

// Set changes what of the settings is given.
func (c *Client) Set(ctx context.Context, s Settings) error {
	return c.call(ctx, "POST", "/v1/settings", nil, s, nil)
}

// Rotate gives the node other keys.
func (c *Client) Rotate(ctx context.Context) error {
	return c.call(ctx, "POST", "/v1/rotate", nil, nil, nil)
}

// Metrics copies what the daemon counts, in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://localapi/metrics", nil)
	if err != nil {
		return fmt.Errorf("localapi: %w", err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("localapi: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return answerError(resp)
	}
	if _, err := io.Copy(w, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return fmt.Errorf("localapi: metrics: %w", err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, method, path string, q url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("localapi: %w", err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://localapi"+path+"?"+q.Encode(), body)
	if err != nil {
		return fmt.Errorf("localapi: %w", err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("localapi: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return answerError(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("localapi: answer to %s: %w", path, err)
	}
	return nil
}

func answerError(resp *http.Response) error {
	var e Error
	if json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&e) != nil || e.Code == "" {
		return fmt.Errorf("localapi: the daemon answered %d", resp.StatusCode)
	}
	return &e
}

// Conn is a stream to a peer, through the daemon. It does not embed the socket: what takes
// the descriptor to copy from it in the kernel would pass over what is buffered.
type Conn struct {
	net.Conn
	unix  *net.UnixConn
	early *bufio.Reader // what came behind the 101, then the connection
}

func (c *Conn) Read(p []byte) (int, error) { return c.early.Read(p) }

// WriteTo gives what is buffered first and leaves the rest to the kernel where it can.
func (c *Conn) WriteTo(w io.Writer) (int64, error) { return c.early.WriteTo(w) }

// CloseWrite ends our direction.
func (c *Conn) CloseWrite() error { return c.unix.CloseWrite() }

// Dial opens a stream to a port of a peer. host is a name or an address of the mesh.
func (c *Client) Dial(ctx context.Context, host string, port uint16) (*Conn, error) {
	u, err := c.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("localapi: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { u.Close() })
	conn, err := c.upgrade(u, host, port)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		u.Close()
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("localapi: dial %s: %w", host, cause)
		}
		return nil, err
	}
	return conn, nil
}

func (c *Client) upgrade(u *net.UnixConn, host string, port uint16) (*Conn, error) {
	q := url.Values{"host": {host}, "port": {strconv.Itoa(int(port))}}
	r, err := http.NewRequest("POST", "http://localapi/v1/dial?"+q.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("localapi: %w", err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", protocol)
	if err := r.Write(u); err != nil {
		return nil, fmt.Errorf("localapi: %w", err)
	}
	br := bufio.NewReaderSize(u, 32<<10)
	resp, err := http.ReadResponse(br, r)
	if err != nil {
		return nil, fmt.Errorf("localapi: %w", err)
	}
	if resp.StatusCode != 101 {
		defer resp.Body.Close()
		return nil, answerError(resp)
	}
	return &Conn{Conn: u, unix: u, early: br}, nil
}
