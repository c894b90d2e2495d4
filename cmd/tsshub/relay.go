package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
	"tssh/netnode/relay"
	"tssh/netnode/relay/server"
)

// stunPort is where STUN is usually found.
const stunPort = 3478

// startRelay carries packets between nodes that have no other way, on the TLS port, and
// tells nodes over UDP how they look from outside. Every node learns of it by the record
// of relays.
func startRelay(h *hub) (func(context.Context) error, error) {
	srv, err := server.New(server.Config{
		Member: func(r *http.Request) (string, relay.Key, bool) {
			node, wg, ok := h.coord.RelayMember(r)
			return node, relay.Key(wg), ok
		},
		Still:          func(node string, wg relay.Key) bool { return h.coord.StillMember(node, netmap.WGPublic(wg)) },
		BytesPerSecond: uint64(h.opt.relayRate), Log: h.log.With("part", "relay"),
	})
	if err != nil {
		return nil, errStart(err)
	}
	h.tls.Handle("/derp", srv)
	stun, err := h.listenSTUN()
	if err != nil {
		return nil, err
	}
	own, err := h.ownRelay(stun)
	if err == nil {
		err = h.coord.SetOwnRelay(h.ctx, &own)
	}
	if err != nil {
		stun.Close()
		return nil, errStart(err)
	}
	return func(ctx context.Context) error {
		var wg sync.WaitGroup
		var errs [2]error
		wg.Go(func() { errs[0] = srv.Run(ctx) }) // both end with ctx
		wg.Go(func() { errs[1] = relay.ServeSTUN(ctx, stun) })
		wg.Wait()
		return errors.Join(errs[:]...)
	}, nil
}

// listenSTUN takes the port that was asked for, or the usual one where it is free, or any:
// nodes are told which.
func (h *hub) listenSTUN() (net.PacketConn, error) {
	if h.opt.stunListen != "" {
		pc, err := net.ListenPacket("udp", h.opt.stunListen)
		if err != nil {
			return nil, errPortTaken(h.opt.stunListen, err)
		}
		return pc, nil
	}
	host, _, err := net.SplitHostPort(h.listen.String())
	if err != nil {
		return nil, errStart(err)
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		host = ""
	}
	pc, err := net.ListenPacket("udp", net.JoinHostPort(host, strconv.Itoa(stunPort)))
	if err != nil {
		if pc, err = net.ListenPacket("udp", net.JoinHostPort(host, "0")); err != nil {
			return nil, errPortTaken(net.JoinHostPort(host, strconv.Itoa(stunPort)), err)
		}
		h.log.Warn("UDP port 3478 is taken, STUN answers on another one; a firewall in front of the hub has to let it through", "port", pc.LocalAddr().String())
	}
	return pc, nil
}

// ownRelay is how nodes reach this hub's relay: where they reach the hub.
func (h *hub) ownRelay(stun net.PacketConn) (netmap.Relay, error) {
	host, port, err := net.SplitHostPort(h.opt.host)
	if err != nil {
		return netmap.Relay{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netmap.Relay{}, err
	}
	r := netmap.Relay{ID: coord.OwnRelay, Host: host, Port: uint16(n), Pin: h.dir.key.Public()}
	if a, ok := stun.LocalAddr().(*net.UDPAddr); ok {
		r.STUN = uint16(a.Port)
	}
	return r, r.Check()
}

// relayAdd is `tsshub relay add NAME --url https://HOST:PORT [--key KEY | --cert-sha256 HEX] [--stun PORT]`.
func (c *cli) relayAdd(name, url, key, hash string, stun int) error {
	host, err := hostOf(url)
	if err != nil {
		return usageError{"relay add: --url is of the form https://HOST:PORT"}
	}
	h, port, err := net.SplitHostPort(host)
	if err != nil {
		return usageError{"relay add: --url is of the form https://HOST:PORT"}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || stun < 0 || stun > 65535 {
		return usageError{"relay add: a port is a number up to 65535"}
	}
	r := netmap.Relay{ID: name, Host: h, Port: uint16(n), STUN: uint16(stun)}
	if key != "" && hash != "" {
		return usageError{"relay add: --key and --cert-sha256 are both given"}
	}
	if key != "" {
		if r.Pin, err = netmap.ParseControlPublic(key); err != nil {
			return usageError{"relay add: --key is what the relay printed when it started"}
		}
	}
	if hash != "" {
		if _, err := fmt.Sscanf(strings.ReplaceAll(hash, ":", ""), "%x", &r.CertHash); err != nil || len(r.CertHash) != 32 {
			return usageError{"relay add: --cert-sha256 is 64 hexadecimal digits"}
		}
	}
	if err := c.post(coord.AdminRelayAdd, r, &r); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(r)
	}
	_, err = fmt.Fprintf(c.out, "relay %s at %s:%d is known to all nodes\n", printable(r.ID), printable(r.Host), r.Port)
	return err
}

func (c *cli) relayList() error {
	var rs []netmap.Relay
	if err := c.get(coord.AdminRelayList, &rs); err != nil {
		return err
	}
	if c.json {
		if rs == nil {
			rs = []netmap.Relay{}
		}
		return c.printJSON(rs)
	}
	var rows [][]string
	for _, r := range rs {
		known, stun := "public certificate", ""
		switch {
		case !r.Pin.IsZero():
			known = "key " + r.Pin.String()[:8]
		case len(r.CertHash) > 0:
			known = fmt.Sprintf("certificate %x", r.CertHash[:6])
		}
		if r.STUN != 0 {
			stun = strconv.Itoa(int(r.STUN))
		}
		rows = append(rows, []string{r.ID, net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))), stun, known})
	}
	return c.table("NAME ADDRESS STUN KNOWN-BY", rows)
}
