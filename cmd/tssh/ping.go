package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tssh/netnode/localapi"
)

// ping asks the node of a host for answers and says by which way they came.
func (a *app) ping(ctx context.Context, args []string) error {
	f := a.flags("ping")
	count := f.Int("c", 3, "")
	asJSON := f.Bool("json", false, "")
	untilDirect := f.Bool("until-direct", false, "")
	if err := f.parse(args, 1, 1, "ping [-c COUNT] [--until-direct] [--json] HOST"); err != nil {
		return err
	}
	if *count < 1 || *count > 1000 {
		return usage("-c %d is not a number of pings", *count)
	}
	if *untilDirect && *count == 3 {
		*count = 15
	}
	c, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	var last error
	for i := range *count {
		if i > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Second):
			}
		}
		var p localapi.Pong
		if p, last = c.Ping(ctx, f.rest[0]); last != nil {
			return last // the node tried for a while
		}
		if *asJSON {
			if err := json.NewEncoder(a.out).Encode(p); err != nil {
				return failed("output: %v", err)
			}
		} else {
			fmt.Fprintf(a.out, "pong from %s (%s) via %s in %s ms\n", oneLine(p.Node), p.Address, way(p), millis(p.LatencyMS))
		}
		if *untilDirect && p.Via == localapi.ViaDirect {
			return nil
		}
	}
	if *untilDirect {
		return failed("no direct path to %s was found; data goes by the relay", f.rest[0])
	}
	return nil
}

func way(p localapi.Pong) string {
	if p.Via == localapi.ViaDirect {
		return strings.TrimSpace("direct " + oneLine(p.Endpoint))
	}
	return strings.TrimSpace("relay " + oneLine(p.Relay))
}

// millis is a time with a digit where it matters.
func millis(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// netcheck says what kind of network this computer is in, as the mesh sees it.
func (a *app) netcheck(ctx context.Context, args []string) error {
	f := a.flags("netcheck")
	asJSON := f.Bool("json", false, "")
	if err := f.parse(args, 0, 0, "netcheck [--json]"); err != nil {
		return err
	}
	c, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	n, err := c.Netcheck(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return a.printJSON(n)
	}
	yes := map[bool]string{true: "yes", false: "no"}
	mapped := "not known"
	if len(n.Mapped) > 0 {
		var all []string
		for _, m := range n.Mapped {
			all = append(all, m.String())
		}
		mapped = strings.Join(all, " ")
	}
	home := n.Home
	if home == "" {
		home = "none is connected: this node can be reached directly or not at all"
	}
	udp := yes[n.UDP]
	if !n.UDP {
		udp = "no answer; data goes by the relay over TCP"
	}
	fmt.Fprintf(a.out, "UDP:       %s\nIPv4:      %s\nIPv6:      %s\nseen as:   %s\nNAT:       %s\nhome:      %s\n", udp, yes[n.IPv4], yes[n.IPv6], mapped, oneLine(n.NAT), oneLine(home))
	if n.PortMapping != "none" {
		fmt.Fprintf(a.out, "router:    lets peers in (%s)\n", oneLine(n.PortMapping))
	}
	a.notices(n.Notices)
	for _, r := range n.Relays {
		state := "not in use"
		switch {
		case r.Connected:
			state = "connected"
		case r.Error != "":
			state = oneLine(r.Error)
		}
		latency := ""
		if r.LatencyMS > 0 {
			latency = ", " + millis(r.LatencyMS) + " ms"
		}
		fmt.Fprintf(a.out, "relay:     %s (%s), %s%s\n", oneLine(r.ID), oneLine(r.Address), state, latency)
	}
	return nil
}
