package netnode

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tssh/netnode/netmap"
	"tssh/netnode/path"
	"tssh/policy"
)

// Status is what the node knows of itself and its peers.
type Status struct {
	Self      policy.Identity
	Addrs     []netip.Addr
	Mesh      string
	Port      uint16
	Userspace bool
	Endpoints []netip.AddrPort // where it may be reached
	Home      string           // relay where it is at home
	Peers     []PeerStatus
	Drops     map[string]uint64 // packets the filter dropped, by reason
}

// Reasons for which packets were dropped before the filter saw them.
const (
	DropLAN   = "lan"         // for a mesh address, but not by the mesh
	DropUsers = "local-users" // connections of local users who may not use the mesh
	// DropForwarded is what containers and other computers sent through this host to the mesh's
	// ranges. It found no way into the mesh.
	DropForwarded = "forwarded"
)

// PeerStatus is one peer.
type PeerStatus struct {
	Node      policy.Identity
	Path      netip.AddrPort // unset: none at present
	Relay     string         // the relay that packets go by, "" when not by one
	RTT       time.Duration
	Handshake time.Time // the last one, zero when none
	Rx, Tx    uint64    // bytes
}

// Status collects it. It costs a walk over all peers.
func (n *Node) Status() Status {
	s := Status{Port: n.port, Userspace: n.cfg.TUN == "", Endpoints: n.reachable(n.candidates()), Home: n.Home(), Drops: n.filter.Drops()}
	if k, ok := n.net.(interface{ stopped() map[string]uint64 }); ok {
		for reason, c := range k.stopped() {
			if c > 0 {
				s.Drops[reason] = c
			}
		}
	}
	v := n.view.Load()
	if v == nil {
		return s
	}
	s.Self, s.Addrs, s.Mesh = v.self, v.addrs, v.mesh
	counters := n.counters()
	for _, p := range v.peers {
		w := n.bind.Path(path.Key(p.Key))
		c := counters[p.Key]
		q := PeerStatus{Node: p.Identity, Path: w.Addr, RTT: w.RTT, Handshake: c.handshake, Rx: c.rx, Tx: c.tx}
		if w.Relayed {
			if q.Relay = w.Relay; q.Relay == "" {
				q.Relay = s.Home
			}
		}
		s.Peers = append(s.Peers, q)
	}
	return s
}

type counter struct {
	handshake time.Time
	rx, tx    uint64
}

// plus adds what came later.
func (c counter) plus(d counter) counter {
	if d.handshake.After(c.handshake) {
		c.handshake = d.handshake
	}
	c.rx, c.tx = c.rx+d.rx, c.tx+d.tx
	return c
}

// counters are the figures of all peers, those that WireGuard does not have now included.
func (n *Node) counters() map[netmap.WGPublic]counter {
	n.memberMu.Lock()
	defer n.memberMu.Unlock()
	out := n.readDevice()
	for k, m := range n.members {
		if m.before != (counter{}) {
			out[k] = m.before.plus(out[k])
		}
	}
	return out
}

// readDevice reads the device's own figures. Callers hold memberMu.
func (n *Node) readDevice() map[netmap.WGPublic]counter {
	out := map[netmap.WGPublic]counter{}
	text, err := n.dev.IpcGet()
	if err != nil {
		n.log.Warn("device not read", "err", err)
		return out
	}
	var key netmap.WGPublic
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if name == "public_key" {
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != len(key) {
				continue
			}
			key = netmap.WGPublic(b)
			continue
		}
		c := out[key]
		num, _ := strconv.ParseUint(value, 10, 63) // only numbers are looked at
		switch name {
		case "last_handshake_time_sec":
			if num > 0 {
				c.handshake = time.Unix(int64(num), 0)
			}
		case "rx_bytes":
			c.rx = num
		case "tx_bytes":
			c.tx = num
		default:
			continue
		}
		out[key] = c
	}
	return out
}
