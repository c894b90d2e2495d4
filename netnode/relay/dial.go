package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// ProxyFromEnvironment is the proxy that HTTPS_PROXY and NO_PROXY say for an address.
func ProxyFromEnvironment(u *url.URL) (*url.URL, error) {
	return httpproxy.FromEnvironment().ProxyFunc()(u)
}

// DialTCP connects to host:port, through an HTTP proxy where proxy names one (nil: none
// ever does). addrs, where there are any, are used in place of the host's name.
func DialTCP(ctx context.Context, address string, addrs []netip.Addr, proxy func(*url.URL) (*url.URL, error)) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if proxy != nil {
		via, err := proxy(&url.URL{Scheme: "https", Host: address})
		if err != nil {
			return nil, fmt.Errorf("relay: proxy: %w", err)
		}
		if via != nil {
			return dialProxy(ctx, &d, via, address)
		}
	}
	if len(addrs) == 0 {
		return d.DialContext(ctx, "tcp", address)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var last error
	for _, a := range addrs {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}

// dialProxy asks an HTTP proxy for a tunnel with CONNECT.
func dialProxy(ctx context.Context, d *net.Dialer, via *url.URL, address string) (net.Conn, error) {
	port := map[string]string{"http": "80", "https": "443"}[via.Scheme]
	if port == "" {
		return nil, fmt.Errorf("relay: proxy %s: only http:// and https:// proxies are understood", via.Redacted())
	}
	if p := via.Port(); p != "" {
		port = p
	}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(via.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("relay: proxy %s: %w", via.Redacted(), err)
	}
	raw := c
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()
	if via.Scheme == "https" {
		t := tls.Client(c, &tls.Config{ServerName: via.Hostname()})
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("relay: proxy %s: %w", via.Redacted(), err)
		}
		c = t
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u := via.User; u != nil {
		p, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+p)))
	}
	err = req.Write(c)
	if err == nil {
		// One byte at a time: what follows the answer belongs to the tunnel.
		var resp *http.Response
		if resp, err = http.ReadResponse(bufio.NewReaderSize(oneByte{c}, 16), req); err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("it says %s", resp.Status)
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("relay: proxy %s: %w", via.Redacted(), err)
	}
	return c, nil
}

type oneByte struct{ net.Conn }

func (o oneByte) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return o.Conn.Read(p)
}
