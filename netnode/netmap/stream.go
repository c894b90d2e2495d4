package netmap

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

const handshakeTime = 20 * time.Second

// connector dials the hub again and again until ctx ends.
func (k *Client) connector(ctx context.Context) {
	bound := k.c.BackoffMin
	gap := false
	for ctx.Err() == nil {
		start := time.Now()
		err := k.connect(ctx, gap)
		if k.rotationDue(err) && k.settleKeys(ctx) {
			err, bound = nil, k.c.BackoffMin
		}
		gap = errors.Is(err, errGap)
		if ctx.Err() != nil {
			return
		}
		if !k.give(ctx, incoming{err: err}) {
			return
		}
		if time.Since(start) > k.c.BackoffMax {
			bound = k.c.BackoffMin
		}
		if !sleep(ctx, time.Duration(rand.Int64N(int64(bound)+1))) {
			return
		}
		bound = min(2*bound, k.c.BackoffMax)
	}
}

// give hands something to Run and waits until it was taken; false means that ctx ended.
func (k *Client) give(ctx context.Context, in incoming) bool {
	select {
	case k.frames <- in:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect is one connection's life.
func (k *Client) connect(ctx context.Context, gap bool) error {
	k.rot.Lock() // keys that are about to change are not shown
	k.rot.Unlock()
	st, addr := k.State(), k.hub()
	conf, err := ClientTLS(st.Control, st.Pin)
	if err != nil {
		return err
	}
	dctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	dial := k.c.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	raw, err := dial(dctx, "tcp", addr)
	if err != nil {
		k.turn.Add(1)
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(dctx); err != nil {
		k.turn.Add(1)
		if errors.Is(err, ErrPin) {
			return k.succeed(ctx, addr, err)
		}
		return err
	}
	conn.SetDeadline(time.Now().Add(handshakeTime))
	r, err := k.upgrade(conn)
	if err != nil {
		return err
	}
	if err := WriteFrame(conn, k.hello(gap), false); err != nil {
		return err
	}
	conn.SetDeadline(time.Time{})
	if !k.give(ctx, incoming{up: true, addr: addr}) {
		return ctx.Err()
	}
	for {
		conn.SetReadDeadline(time.Now().Add(k.c.Silence))
		f, err := ReadFrame(r, MaxFrame)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		if !k.give(ctx, incoming{frame: f, done: done}) {
			return ctx.Err()
		}
		select {
		case err = <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if f.Ping {
			conn.SetWriteDeadline(time.Now().Add(handshakeTime))
			if err := WriteFrame(conn, &Frame{Pong: true, Time: k.c.Clock()}, false); err != nil {
				return err
			}
		}
	}
}

// succeed finds out whether a hub with another key is this one still, and has it followed.
func (k *Client) succeed(ctx context.Context, addr string, wrong error) error {
	st := k.State()
	next, passed, err := succeed(ctx, addr, st.Control, st.Pin, st.MeshID, k.c.Dial)
	if err != nil {
		return wrong
	}
	done := make(chan error, 1)
	if !k.give(ctx, incoming{next: next, passed: passed, done: done}) {
		return ctx.Err()
	}
	if err := <-done; err != nil {
		return err
	}
	k.turn.Store(0)
	return errors.New("netmap: the hub has a new key")
}

// hello says where this node stands. After a gap it asks for everything.
func (k *Client) hello(gap bool) *Frame {
	h := &Hello{Time: k.c.Clock(), Understands: understands()}
	if m := k.Map(); !gap {
		h.Epoch, h.Since = m.Epoch, m.Revision
	}
	return &Frame{Hello: h}
}

// upgrade turns the TLS connection into a stream of frames.
func (k *Client) upgrade(conn net.Conn) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodGet, k.base+PathStream, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", StreamProtocol)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	lim := &io.LimitedReader{R: conn, N: 64 << 10}
	r := bufio.NewReader(lim)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(io.LimitReader(resp.Body, 32<<10))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		return nil, refusal(resp.StatusCode, body)
	}
	if resp.Header.Get("Upgrade") != StreamProtocol {
		return nil, fmt.Errorf("netmap: the hub speaks %.40q on its stream", resp.Header.Get("Upgrade"))
	}
	lim.N = 1<<63 - 1
	return r, nil
}

// publisher posts what this node says about itself, until the hub has it.
func (k *Client) publisher(ctx context.Context) {
	bound := k.c.BackoffMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
		}
		for k.Status().Phase == PhaseConnected {
			err := k.publish(ctx)
			if err == nil {
				bound = k.c.BackoffMin
				break
			}
			var ref *Refused
			if errors.As(err, &ref) && ref.Code == CodeBad {
				k.c.Log.Error("the hub does not take what this node says about itself", "err", err)
				break
			}
			if ctx.Err() == nil {
				k.c.Log.Warn("not told the hub yet", "err", err)
			}
			if !sleep(ctx, time.Duration(rand.Int64N(int64(bound)+1))) {
				return
			}
			bound = min(2*bound, k.c.BackoffMax)
		}
	}
}

func (k *Client) publish(ctx context.Context) error {
	k.mu.Lock()
	where, sendWhere := k.where, k.where != nil && !k.whereDone
	keys, sendKeys := k.keys, k.keys != nil && !k.keysDone
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if sendKeys {
		if err := call(ctx, k.hc.Load(), k.base+PathHostKeys, HostKeysRequest{HostKeys: keys}, nil); err != nil {
			return err
		}
		k.mu.Lock()
		k.keysDone = sameSlice(keys, k.keys)
		k.mu.Unlock()
	}
	if sendWhere {
		if err := call(ctx, k.hc.Load(), k.base+PathEndpoints, where, nil); err != nil {
			return err
		}
		k.mu.Lock()
		k.whereDone = where == k.where
		k.mu.Unlock()
	}
	k.mu.Lock()
	again := k.keys != nil && !k.keysDone || k.where != nil && !k.whereDone
	k.mu.Unlock()
	if again {
		k.wake()
	}
	return nil
}

// sameSlice reports whether two slices are one: what was published is still what is wanted.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
