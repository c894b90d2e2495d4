package netnode

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/netip"

	"tssh/netnode/netmap"
	"tssh/netnode/path"
	"tssh/netnode/relay"
)

// newRelays makes the client of the relays that maps will name. A node without a control
// key uses none.
func (n *Node) newRelays() (*relay.Client, error) {
	if n.cfg.Control.IsZero() {
		return nil, nil
	}
	return relay.NewClient(relay.ClientConfig{
		Private:  n.cfg.PrivateKey.Bytes(),
		TLS:      n.relayTLS,
		OnPacket: func(from relay.Key, packet []byte) { n.bind.FromRelay(path.Key(from), packet) },
		OnHome: func(id string) {
			n.home.Store(&id)
			n.look()
		},
		Proxy: relay.ProxyFromEnvironment, Log: n.log,
	})
}

var errRelayCertificate = errors.New("the relay shows another certificate than the one expected")

// relayTLS is how to know a relay: ours by its key, others by their certificate, or by
// their name and the public authorities.
func (n *Node) relayTLS(s relay.Server) (*tls.Config, error) {
	switch {
	case s.Pin != [32]byte{}:
		return netmap.ClientTLS(n.keys.Load().control, netmap.ControlPublic(s.Pin))
	case s.CertHash != [32]byte{}:
		return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Host, InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 || sha256.Sum256(cs.PeerCertificates[0].Raw) != s.CertHash {
				return errRelayCertificate
			}
			return nil
		}}, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Host}, nil
}

// setRelays puts the map's relays in force.
func (n *Node) setRelays(rs []netmap.Relay) {
	if n.relays == nil {
		return
	}
	out := make([]relay.Server, 0, len(rs))
	for _, r := range rs {
		s := relay.Server{ID: r.ID, Host: r.Host, Port: r.Port, Addrs: r.Addrs, Pin: [32]byte(r.Pin), STUN: r.STUN}
		if len(r.CertHash) == len(s.CertHash) {
			s.CertHash = [32]byte(r.CertHash)
		}
		// A relay inside the mesh would carry itself.
		if a, err := netip.ParseAddr(r.Host); err == nil && !n.outside(a) {
			n.log.Warn("relay inside the mesh left out", "relay", r.ID, "addr", a)
			continue
		}
		if a, err := netip.ParseAddr(r.Host); r.Host != "localhost" && (err != nil || !a.Unmap().IsLoopback()) {
			n.isAfar.Do(func() { close(n.afar) })
		}
		out = append(out, s)
	}
	n.relays.SetServers(out)
	n.stun.setServers(out)
	n.look()
}

// sendRelay is path.Config.Relay.
func (n *Node) sendRelay(to path.Key, home string, packet []byte) bool {
	return n.relays.Send(relay.Key(to), home, packet)
}

// Ping is the answer of a peer's node to Node.Ping.
type Ping struct {
	Direct netip.AddrPort // the path it took; unset: a relay
	Relay  string         // which one; "" when it is not known
	RTT    int64          // nanoseconds
}

// Ping asks the node of a peer for an answer, by the way that data takes now.
func (n *Node) Ping(ctx context.Context, key netmap.WGPublic) (Ping, error) {
	k := path.Key(key)
	e, err := n.bind.Ping(ctx, k)
	if err != nil {
		return Ping{}, err
	}
	p := Ping{Direct: e.Addr, RTT: int64(e.RTT)}
	if !e.Addr.IsValid() {
		if p.Relay = n.bind.Path(k).Relay; p.Relay == "" {
			p.Relay = n.Home()
		}
	}
	return p, nil
}

// Home is the relay where this node can be reached, "" when it has none at the moment.
func (n *Node) Home() string {
	if h := n.home.Load(); h != nil {
		return *h
	}
	return ""
}

// Relays reports how things stand with each relay.
func (n *Node) Relays() []relay.Status {
	if n.relays == nil {
		return nil
	}
	return n.relays.Status()
}
