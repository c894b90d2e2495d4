package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"tssh/netnode/netmap"
)

const maxAnswer = 256 << 20

// ask calls the hub over the socket in its state folder.
func (c *cli) ask(method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://hub"+path, body)
	if err != nil {
		return nil, err
	}
	hc := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "unix", socketPath(c.state))
		},
		DisableKeepAlives: true,
	}}
	resp, err := hc.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNotRunning(c.state)
	case errors.Is(err, fs.ErrPermission):
		return nil, errNotAllowed(c.state)
	}
	return nil, &trouble{say: "the hub on " + c.state + " does not answer", err: err}
}

// decode reads an answer; what is not yes comes back as the hub's own words.
func decode(resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &trouble{say: "the hub's answer broke off", err: err}
	}
	if resp.StatusCode != http.StatusOK {
		var p netmap.Problem
		if json.Unmarshal(b, &p) != nil || p.Say == "" {
			p.Say = fmt.Sprintf("the hub answered with status %d", resp.StatusCode)
		}
		return &trouble{say: p.Say}
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &trouble{say: "the hub's answer is not understood", err: err, hint: "tsshub here and the one that serves are of different versions"}
	}
	return nil
}

func (c *cli) get(path string, out any) error { return c.call(http.MethodGet, path, nil, out) }

func (c *cli) post(path string, in, out any) error { return c.call(http.MethodPost, path, in, out) }

func (c *cli) call(method, path string, in, out any) error {
	resp, err := c.ask(method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return decode(resp, out)
}
