package localapi

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// pingTime bounds one ping.
const pingTime = 10 * time.Second

// Ways that a packet takes.
const (
	ViaDirect = "direct"
	ViaRelay  = "relay"
)

// Pong is the answer of a peer's node, by the way that data takes now.
type Pong struct {
	Host      string     `json:"host"` // as asked for
	Node      string     `json:"node"`
	Address   netip.Addr `json:"address"` // in the mesh
	Via       string     `json:"via"`     // direct or relay
	Endpoint  string     `json:"endpoint,omitempty"`
	Relay     string     `json:"relay,omitempty"`
	LatencyMS float64    `json:"latency_ms"`
}

// Netcheck is what the node finds out about the network that it is in.
type Netcheck struct {
	UDP         bool             `json:"udp"` // some relay's STUN server answered
	IPv4        bool             `json:"ipv4"`
	IPv6        bool             `json:"ipv6"`
	Mapped      []netip.AddrPort `json:"mapped"`       // how the node's socket looks from outside
	NAT         string           `json:"nat"`          // none, endpoint-independent, address-dependent, unknown
	PortMapping string           `json:"port_mapping"` // by what the router lets peers in: none, pcp, nat-pmp
	Relays      []RelayStatus    `json:"relays"`
	Notices     []Notice         `json:"notices,omitempty"` // what on this host is in the way
	Home        string           `json:"home"`              // where others reach this node, "" when no relay is connected
}

// RelayStatus is one relay as the node sees it.
type RelayStatus struct {
	ID        string  `json:"id"`
	Address   string  `json:"address"`
	Connected bool    `json:"connected"`
	LatencyMS float64 `json:"latency_ms,omitempty"`
	Error     string  `json:"error,omitempty"`
}

// mayTalk lets those through who can send packets into the mesh by themselves anyway: with
// a kernel TUN everybody, else the owner.
func (s *server) mayTalk(r *http.Request) *Error {
	if s.cfg.Dial == nil {
		return nil
	}
	return s.admit(r, owner)
}

func (s *server) ping(ctx context.Context, r *http.Request) (any, error) {
	if e := s.mayTalk(r); e != nil {
		return nil, e
	}
	if s.cfg.Ping == nil {
		return nil, unsupported()
	}
	name, e := nameArg(r.URL.Query().Get("host"))
	if e != nil {
		return nil, e
	}
	return s.cfg.Ping(ctx, name)
}

func (s *server) netcheck(ctx context.Context, r *http.Request) (any, error) {
	if e := s.mayTalk(r); e != nil {
		return nil, e
	}
	if s.cfg.Netcheck == nil {
		return nil, unsupported()
	}
	return s.cfg.Netcheck(ctx)
}

// Ping asks a peer's node for an answer.
func (c *Client) Ping(ctx context.Context, host string) (v Pong, err error) {
	err = c.call(ctx, "POST", "/v1/ping", url.Values{"host": {host}}, nil, &v)
	return v, err
}

// Netcheck has the node look at its network.
func (c *Client) Netcheck(ctx context.Context) (v Netcheck, err error) {
	err = c.call(ctx, "POST", "/v1/netcheck", nil, nil, &v)
	return v, err
}
