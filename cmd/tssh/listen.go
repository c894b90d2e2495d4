package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"tssh/netnode/localapi"
	"tssh/ssh/proxy"
)

const proxyForm = "proxy HOST PORT | proxy --listen ADDR:PORT [--direct]"

// listenProxy is `tssh proxy --listen`: SOCKS 5 and HTTP for programs that know neither
// the mesh nor a ProxyCommand. It runs until it is interrupted.
func (a *app) listenProxy(ctx context.Context, addr string, direct bool) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return usage("--listen %q is not ADDRESS:PORT", addr).withHint("tssh proxy --listen 127.0.0.1:1080")
	}
	c, st, err := a.ready(ctx)
	if err != nil {
		return err
	}
	if !st.MayDial {
		return failed("only root and the owner of this node may dial through it").withCode("denied")
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return failed("%s cannot be listened on: %v", at, errors.Unwrap(err))
	}
	defer l.Close()
	cfg := proxy.Config{
		Dial: func(ctx context.Context, host string, port uint16) (net.Conn, error) {
			return a.proxyDial(ctx, c, st, host, port, direct)
		},
		Refused: func(host string, err error) {
			if host != "" {
				host += ": "
			}
			fmt.Fprintf(a.err, "tssh: %s\n", oneLine(host+err.Error()))
		},
		Log: a.log,
	}
	if at.Addr().IsLoopback() {
		cfg.Admit = sameUser
	} else {
		fmt.Fprintf(a.err, "tssh: warning: whoever can reach %s can now reach the mesh as %s\n", l.Addr(), oneLine(st.Self.Name))
	}
	fmt.Fprintf(a.out, "export ALL_PROXY=socks5h://%[1]s all_proxy=socks5h://%[1]s\nexport HTTP_PROXY=http://%[1]s http_proxy=http://%[1]s HTTPS_PROXY=http://%[1]s https_proxy=http://%[1]s\n", l.Addr())
	if !direct {
		fmt.Fprintf(a.err, "tssh: hosts of the mesh %s only; others are refused (--direct reaches them from here)\n", oneLine(st.Mesh))
	}
	if err := proxy.Serve(ctx, l, cfg); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// proxyDial connects to a host of the mesh, or says that it is none.
func (a *app) proxyDial(ctx context.Context, c *localapi.Client, st localapi.Status, host string, port uint16, direct bool) (net.Conn, error) {
	r, err := c.Resolve(ctx, host)
	var e *localapi.Error
	if errors.As(err, &e) && (e.Code == localapi.CodeNotFound || e.Code == localapi.CodeBadRequest) {
		if direct {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		}
		return nil, &proxy.Refusal{Words: "not a host of the mesh"}
	}
	if err != nil {
		return nil, err
	}
	return dialHost(ctx, c, st, r, port)
}
