package sshd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"tssh/ssh"
)

// own logs in with the client library of tssh.
func (r *rig) own(user string) *ssh.Client {
	r.t.Helper()
	var keys []gossh.PublicKey
	for _, k := range hostKeys(r.Dir) {
		keys = append(keys, k.PublicKey())
	}
	c, err := ssh.Dial(r.t.Context(), ssh.Config{Dial: func(context.Context) (net.Conn, error) { return r.inetd(), nil }, Host: "web", User: user, HostKeys: keys})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func endpoint(t *testing.T, addr string) ssh.Endpoint {
	t.Helper()
	if strings.HasPrefix(addr, "/") {
		return ssh.Endpoint{Path: addr}
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Endpoint{Host: a.IP.String(), Port: uint16(a.Port)}
}

// TestOwnForwards: the forwards of tssh against tsshd, every kind of end with every other.
func TestOwnForwards(t *testing.T) {
	r := newRig(t, usual())
	c := r.own(account(t).Username)
	dir := folder(t)
	tcp := answering(t, listen(t, "tcp", "127.0.0.1:0"))
	sock := filepath.Join(dir, "answering")
	ul := listen(t, "unix", sock)
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	answering(t, ul)
	notices := make(chan string, 10)
	f := c.NewForwards(func(s string) { notices <- s })
	t.Cleanup(f.Close)
	for n, to := range []string{tcp, sock} {
		l := listen(t, "unix", filepath.Join(dir, fmt.Sprint("near", n)))
		f.Local(l, endpoint(t, to))
		nc, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ask(t, nc, 5000+n)
		nc.Close()
		far := filepath.Join(dir, fmt.Sprint("far", n))
		if _, err := f.Remote(ssh.Endpoint{Path: far}, endpoint(t, to)); err != nil {
			t.Fatal(err)
		}
		if nc, err = net.Dial("unix", far); err != nil {
			t.Fatal(err)
		}
		ask(t, nc, 6000+n)
		nc.Close()
		port, err := f.Remote(ssh.Endpoint{Host: "localhost"}, endpoint(t, to))
		if err != nil {
			t.Fatal(err)
		}
		if nc, err = net.Dial("tcp", fmt.Sprint("127.0.0.1:", port)); err != nil {
			t.Fatal(err)
		}
		ask(t, nc, 7000+n)
		nc.Close()
		var out bytes.Buffer
		if err := c.StreamTo(t.Context(), endpoint(t, to), strings.NewReader("four"), &out); err != nil || !strings.HasPrefix(out.String(), "4\n") || out.Len() != 2+1<<20 {
			t.Errorf("-W %s: %v, %d bytes", to, err, out.Len())
		}
	}
	// A SOCKS proxy on the host, whose connections leave from here.
	port, err := f.Remote(ssh.Endpoint{Host: "localhost"}, ssh.Endpoint{})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	to := endpoint(t, tcp)
	if _, err := nc.Write([]byte{5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, byte(to.Port >> 8), byte(to.Port)}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 2+10)
	if _, err := io.ReadFull(nc, answer); err != nil || answer[3] != 0 {
		t.Fatalf("%v %v", answer, err)
	}
	ask(t, nc, 8000)
	nc.Close()
	// What is refused is said.
	if _, err := f.Remote(ssh.Endpoint{Port: 1025}, to); err == nil || !strings.Contains(err.Error(), "web refused to listen") {
		t.Errorf("every address: %v", err)
	}
	if _, err := c.ConnectTo(ssh.Endpoint{Path: "/nonexistent/s"}, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no socket: %v", err)
	}
	if len(notices) > 0 {
		t.Errorf("notice: %s", <-notices)
	}
}
