package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"tssh/netnode/localapi"
	"tssh/netnode/relay"
)

// dialHub reaches the hub, through the proxy that HTTPS_PROXY names where there is one.
func dialHub(ctx context.Context, _, addr string) (net.Conn, error) {
	return relay.DialTCP(ctx, addr, nil, relay.ProxyFromEnvironment)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (d *Daemon) ping(ctx context.Context, host string) (localapi.Pong, error) {
	m, nm, err := d.onMesh()
	if err != nil {
		return localapi.Pong{}, err
	}
	p, err := find(nm, host)
	if err != nil {
		return localapi.Pong{}, err
	}
	out := localapi.Pong{Host: host, Node: p.Name}
	if len(p.Addrs) > 0 {
		out.Address = p.Addrs[0]
	}
	if p.ID == nm.Self.ID {
		out.Via = localapi.ViaDirect
		return out, nil
	}
	for try := 0; ; try++ { // a first one may come before there is any way
		limited, cancel := context.WithTimeout(ctx, time.Second)
		e, err := m.node.Ping(limited, p.Key)
		cancel()
		if err == nil {
			out.Via, out.LatencyMS = localapi.ViaRelay, ms(time.Duration(e.RTT))
			if e.Direct.IsValid() {
				out.Via, out.Endpoint = localapi.ViaDirect, e.Direct.String()
			} else {
				out.Relay = e.Relay
			}
			return out, nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) || try == 4 {
			return localapi.Pong{}, localapi.Errorf(localapi.CodeUnreachable, "%s does not answer", p.Name)
		}
	}
}

func (d *Daemon) netcheck(ctx context.Context) (localapi.Netcheck, error) {
	m, _, err := d.onMesh()
	if err != nil {
		return localapi.Netcheck{}, err
	}
	n := m.node.Netcheck(ctx, true)
	out := localapi.Netcheck{UDP: n.UDP, IPv4: n.IPv4, IPv6: n.IPv6, Mapped: n.Mapped, NAT: n.NAT, PortMapping: n.Router, Home: m.node.Home(), Relays: []localapi.RelayStatus{}}
	out.Notices = notices(m.node)
	if out.Mapped == nil {
		out.Mapped = []netip.AddrPort{}
	}
	for _, r := range m.node.Relays() {
		s := localapi.RelayStatus{ID: r.ID, Address: r.Host, Connected: r.Connected, Error: r.Err, LatencyMS: ms(r.Latency)}
		if l, ok := n.Latency[r.ID]; ok {
			s.LatencyMS = ms(l)
		}
		out.Relays = append(out.Relays, s)
	}
	return out, nil
}
