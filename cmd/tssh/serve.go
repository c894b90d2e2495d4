package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"

	"tssh/netnode/localapi"
)

const serveForm = "serve [--tcp] [--port PORT] [--keep] LOCALPORT | serve status [--json] | serve off [PORT]"

// serve is `tssh serve`: a program of this computer's loopback on the mesh.
func (a *app) serve(ctx context.Context, args []string) error {
	f := a.flags("serve")
	tcp := f.Bool("tcp", false, "")
	port := f.Int("port", 0, "")
	keep := f.Bool("keep", false, "")
	asJSON := f.Bool("json", false, "")
	if err := f.parse(args, 1, 2, serveForm); err != nil {
		return err
	}
	what := f.rest[0]
	switch {
	case what == "status" && len(f.rest) == 1:
		return a.serveStatus(ctx, *asJSON)
	case what == "off":
		return a.serveOff(ctx, f.rest[1:], *asJSON)
	case len(f.rest) > 1:
		return usage("wrong number of arguments").withHint("tssh " + serveForm)
	}
	target, err := localPort(what)
	if err != nil {
		return err
	}
	if *port < 0 || *port > 65535 {
		return usage("--port %d is not a port", *port).withHint("tssh " + serveForm)
	}
	c, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	s, err := c.Serve(ctx, localapi.ServeRequest{Target: target, Port: uint16(*port), TCP: *tcp, Keep: *keep})
	if err != nil {
		return serveHint(err)
	}
	if *asJSON {
		return a.printJSON(s)
	}
	fmt.Fprintf(a.out, "%s\n", oneLine(s.URL))
	until := "until tssh serve off " + strconv.Itoa(int(s.Port))
	if !s.Keep {
		until += ", or until the node is started anew (--keep: also after that)"
	}
	fmt.Fprintf(a.err, "tssh: port %d of this computer's loopback, for whom the policy lets reach port %d; %s\n", s.Target, s.Port, until)
	if s.Problem != "" {
		fmt.Fprintf(a.err, "tssh: warning: %s\n", oneLine(s.Problem))
	}
	if target != 0 && !listens(target) {
		fmt.Fprintf(a.err, "tssh: warning: nothing listens on port %d of this computer's loopback yet\n", target)
	}
	return nil
}

// localPort reads 3000, :3000, localhost:3000, 127.0.0.1:3000, http://localhost:3000/.
func localPort(s string) (uint16, error) {
	t := strings.TrimSuffix(strings.TrimPrefix(s, "http://"), "/")
	if host, port, err := net.SplitHostPort(t); err == nil {
		ip, perr := netip.ParseAddr(host)
		if host != "" && host != "localhost" && (perr != nil || !ip.IsLoopback()) {
			return 0, usage("%s is not on this computer's loopback; what is elsewhere is not served", s).withHint("tssh " + serveForm)
		}
		t = port
	}
	p, err := strconv.ParseUint(t, 10, 16)
	if err != nil || p == 0 {
		return 0, usage("%q is not a port", s).withHint("tssh " + serveForm)
	}
	return uint16(p), nil
}

// listens reports whether something takes connections on a port of loopback.
func listens(port uint16) bool {
	for _, host := range []string{"127.0.0.1", "::1"} {
		if c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

func serveHint(err error) error {
	var e *localapi.Error
	if errors.As(err, &e) {
		m := explain(err)
		switch e.Code {
		case localapi.CodeConflict:
			return m.withHint("tssh serve status")
		case localapi.CodeNotFound:
			m.code = ""
			return m.withHint("tssh serve status")
		case localapi.CodeForbidden:
			return m.withHint("sudo tssh serve ...")
		}
	}
	return err
}

func (a *app) serveOff(ctx context.Context, args []string, asJSON bool) error {
	var port uint16
	if len(args) > 0 {
		p, err := localPort(args[0])
		if err != nil {
			return err
		}
		port = p
	}
	c, _, err := a.node(ctx, false)
	if err != nil {
		return err
	}
	v, err := c.ServeOff(ctx, port)
	if err != nil {
		return serveHint(err)
	}
	if asJSON {
		return a.printJSON(v)
	}
	if v.Ended == 0 {
		fmt.Fprintln(a.err, "tssh: nothing was served")
	}
	return nil
}

func (a *app) serveStatus(ctx context.Context, asJSON bool) error {
	c, _, err := a.node(ctx, false)
	if err != nil {
		return err
	}
	list, err := c.Served(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(list)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.err, "tssh: nothing is served")
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tLOCAL PORT\tKEPT\tOPEN\tTOTAL\tREFUSED\tSTATE")
	for _, s := range list {
		kept, state := "no", "ok"
		if s.Keep {
			kept = "yes"
		}
		if s.Problem != "" {
			state = s.Problem
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%s\n", oneLine(s.URL), s.Target, kept, s.Open, s.Total, s.Refused, oneLine(state))
	}
	return w.Flush()
}
