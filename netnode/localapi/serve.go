package localapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// ServeRequest asks for a local program to be served on the mesh.
type ServeRequest struct {
	Target uint16 `json:"target"`         // its port on loopback
	Port   uint16 `json:"port,omitempty"` // on the mesh addresses; 0: the same
	TCP    bool   `json:"tcp,omitempty"`  // not HTTP: bytes are passed on as they are
	Keep   bool   `json:"keep,omitempty"` // also after the daemon was started anew
}

// Served is one port that is served.
type Served struct {
	Port    uint16 `json:"port"`
	Target  uint16 `json:"target"`
	TCP     bool   `json:"tcp"`
	Keep    bool   `json:"keep"`
	UID     int    `json:"uid"` // who asked for it
	URL     string `json:"url,omitempty"`
	Open    int    `json:"open"` // connections
	Total   uint64 `json:"total"`
	Refused uint64 `json:"refused"`
	Problem string `json:"problem,omitempty"`
}

// ServeOff is the answer to the end of serving.
type ServeOff struct {
	Ended int `json:"ended"` // ports
}

func (s *server) serveRoutes(handle func(string, class, func(context.Context, *http.Request) (any, error))) {
	handle("GET /v1/serve", owner, func(ctx context.Context, r *http.Request) (any, error) {
		if s.cfg.Served == nil {
			return nil, unsupported()
		}
		return s.cfg.Served(ctx)
	})
	handle("POST /v1/serve", owner, func(ctx context.Context, r *http.Request) (any, error) {
		if s.cfg.ServePort == nil {
			return nil, unsupported()
		}
		var q ServeRequest
		if err := decode(r.Body, &q); err != nil {
			return nil, err
		}
		if q.Target == 0 {
			return nil, Errorf(CodeBadRequest, "no port of a local program given")
		}
		return s.cfg.ServePort(ctx, caller(r), q)
	})
	handle("POST /v1/serve/off", owner, func(ctx context.Context, r *http.Request) (any, error) {
		if s.cfg.ServeOff == nil {
			return nil, unsupported()
		}
		var port uint16
		if p := r.URL.Query().Get("port"); p != "" {
			var e *Error
			if port, e = portArg(p); e != nil {
				return nil, e
			}
		}
		n, err := s.cfg.ServeOff(ctx, caller(r), port)
		return ServeOff{Ended: n}, err
	})
}

// Serve has a local program served.
func (c *Client) Serve(ctx context.Context, r ServeRequest) (v Served, err error) {
	err = c.call(ctx, "POST", "/v1/serve", nil, r, &v)
	return v, err
}

// Served lists what is served.
func (c *Client) Served(ctx context.Context) (v []Served, err error) {
	err = c.call(ctx, "GET", "/v1/serve", nil, nil, &v)
	return v, err
}

// ServeOff ends serving at a port, with 0 at all of the caller's.
func (c *Client) ServeOff(ctx context.Context, port uint16) (v ServeOff, err error) {
	q := url.Values{}
	if port != 0 {
		q.Set("port", strconv.Itoa(int(port)))
	}
	err = c.call(ctx, "POST", "/v1/serve/off", q, nil, &v)
	return v, err
}
