package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// begin serves a proxy into a mesh whose only host is "web", at the address given.
func begin(t *testing.T, web string, change func(*Config)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dial: func(ctx context.Context, host string, port uint16) (net.Conn, error) {
		switch host {
		case "web", "web.corp.internal", "100.64.0.7":
			return (&net.Dialer{}).DialContext(ctx, "tcp", web)
		case "away":
			return nil, errors.New("away does not answer")
		}
		return nil, &Refusal{"not a host of the mesh"}
	}}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, cfg) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Serve does not end")
		}
	})
	return l.Addr().String()
}

func website(t *testing.T) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s host=%s xff=%q proxyauth=%q body=%s\n", r.Method, r.URL, r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("Proxy-Authorization"), b)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestCurl(t *testing.T) {
	at := begin(t, website(t), nil)
	curl := func(args ...string) (string, int) {
		cmd := exec.Command("curl", append([]string{"-sS", "-m", "20", "-w", " %{http_code}"}, args...)...)
		cmd.Env = append(os.Environ(), "no_proxy=", "NO_PROXY=")
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatalf("%v (Debian: apt-get install curl)", err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, c := range []struct {
		name   string
		args   []string
		want   string
		status int
	}{
		{"socks5h", []string{"-x", "socks5h://" + at, "http://web/a?b=c"}, "GET /a?b=c host=web xff=\"\" proxyauth=\"\" body=\n 200", 0},
		{"socks5h, address", []string{"-x", "socks5h://" + at, "http://100.64.0.7:8080/"}, "GET / host=100.64.0.7:8080", 0},
		{"http", []string{"-x", "http://" + at, "-d", "x=1", "http://web.corp.internal/p"}, "POST /p host=web.corp.internal xff=\"\" proxyauth=\"\" body=x=1\n 200", 0},
		{"http with a password", []string{"-x", "http://u:p@" + at, "http://web/"}, "GET / host=web xff=\"\" proxyauth=\"\"", 0},
		{"CONNECT", []string{"-p", "-x", "http://" + at, "http://web/t"}, "GET /t host=web", 0},
		{"another Host", []string{"-x", "http://" + at, "-H", "Host: internal.example", "http://web/"}, "GET / host=web ", 0},
		{"not of the mesh, socks", []string{"-x", "socks5h://" + at, "http://example.com/"}, "(2)", 97},
		{"not of the mesh, http", []string{"-x", "http://" + at, "http://example.com/"}, "tssh: not a host of the mesh\n 403", 0},
		{"not of the mesh, CONNECT", []string{"-p", "-x", "http://" + at, "http://example.com/"}, "403", 56},
		{"loopback", []string{"-x", "http://" + at, "http://127.0.0.1/"}, "tssh: not a host of the mesh\n 403", 0},
		{"away, socks", []string{"-x", "socks5h://" + at, "http://away/"}, "(4)", 97},
		{"away, http", []string{"-x", "http://" + at, "http://away/"}, "tssh: away does not answer\n 502", 0},
		{"rebound", []string{"-H", "Host: web", "http://" + at + "/"}, "this is a proxy and no web server\n 421", 0},
	} {
		out, status := curl(c.args...)
		if !strings.Contains(out, c.want) || status != c.status {
			t.Errorf("%s: status %d, want %d: %s\nwant %q", c.name, status, c.status, out, c.want)
		}
	}
}

// A tunnel carries both directions whole, half-closes included, over both protocols.
func TestTunnel(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // says it all back after the end of what came
				defer c.Close()
				b, _ := io.ReadAll(c)
				c.Write(append([]byte("echo:"), b...))
			}()
		}
	}()
	at := begin(t, l.Addr().String(), nil)
	big := strings.Repeat("0123456789abcdef", 40_000)
	for name, hello := range map[string][2]string{
		"SOCKS":   {"\x05\x01\x00\x05\x01\x00\x03\x03web\x00\x50", "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
		"CONNECT": {"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\n"},
	} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		// All at once: what comes behind the greeting must not get lost.
		go func() {
			io.WriteString(c, hello[0]+big)
			c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || string(got) != hello[1]+"echo:"+big {
			t.Errorf("%s: %d bytes, %v: %.80q", name, len(got), err, got)
		}
		c.Close()
	}
}

func TestAdmitAndBounds(t *testing.T) {
	var mu sync.Mutex
	var told []string
	at := begin(t, website(t), func(c *Config) {
		c.Admit = func(net.Conn) error { return errors.New("another user") }
		c.Refused = func(_ string, err error) { mu.Lock(); told = append(told, err.Error()); mu.Unlock() }
	})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
	mu.Lock()
	if len(told) != 1 || told[0] != "another user" {
		t.Errorf("told %q", told)
	}
	mu.Unlock()

	at = begin(t, website(t), nil)
	for range maxConns {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	last, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	last.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection %d stays: %v", maxConns+1, err)
	}
}

// Requests that no proxy gets from an honest client.
func TestOddRequests(t *testing.T) {
	at := begin(t, website(t), nil)
	for in, want := range map[string]int{
		"GET https://web/ HTTP/1.1\r\nHost: web\r\n\r\n":                                  403,
		"GET ftp://web/ HTTP/1.1\r\nHost: web\r\n\r\n":                                    403,
		"GET http://u:p@web/ HTTP/1.1\r\nHost: web\r\n\r\n":                               403,
		"CONNECT web HTTP/1.1\r\nHost: web\r\n\r\n":                                       400,
		"CONNECT web:0 HTTP/1.1\r\nHost: web\r\n\r\n":                                     400,
		"CONNECT web:99999 HTTP/1.1\r\nHost: web\r\n\r\n":                                 400,
		"GET / HTTP/1.1\r\nHost: web\r\n\r\n":                                             421,
		"OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n":                                         200, // net/http's own answer; nothing is reached
		"GET http://web/ HTTP/1.1\r\nX: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n": 431,
		"\x00\x01\x02\r\n\r\n":                                                            400,
	} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, in)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || r.StatusCode != want {
			t.Errorf("%.60q: %v %v, want %d", in, r, err, want)
		}
		c.Close()
	}
}

// Go's own client, which keeps connections and speaks through both.
func TestGoClient(t *testing.T) {
	at := begin(t, website(t), nil)
	for _, scheme := range []string{"http", "socks5h"} {
		tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: scheme, Host: at})}
		for i := range 3 {
			r, err := (&http.Client{Transport: tr}).Get(fmt.Sprintf("http://web/%d", i))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if !strings.HasPrefix(string(b), fmt.Sprintf("GET /%d host=web", i)) {
				t.Errorf("%s", b)
			}
		}
		tr.CloseIdleConnections()
	}
}
