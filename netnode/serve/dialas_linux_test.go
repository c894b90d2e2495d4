package serve_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tssh/netnode/serve"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "dial" {
		os.Exit(serve.HelperMain())
	}
	os.Exit(m.Run())
}

// uidOf is whose a TCP socket is, by its two addresses in the kernel's table.
func uidOf(t *testing.T, local, remote netip.AddrPort) string {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprintf("0100007F:%04X", local.Port()), fmt.Sprintf("0100007F:%04X", remote.Port()), "01"} // established
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 7 && slices.Equal(f[1:4], want) {
			return f[7]
		}
	}
	t.Fatalf("no socket %v", want)
	return ""
}

// TestDialAs has a daemon of root's dial as somebody else, whose the socket is then.
func TestDialAs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	d := &serve.Dialer{Command: []string{"/proc/self/exe", "dial"}}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 3 {
		c, err := d.Dial(ctx, 4711, at)
		if err != nil {
			t.Fatal(err)
		}
		if uid := uidOf(t, c.LocalAddr().(*net.TCPAddr).AddrPort(), at); uid != "4711" {
			t.Errorf("the socket is of uid %s", uid)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		far.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		far.Close()
		c.Close()
	}
	if c, err := d.Dial(ctx, 4711, netip.AddrPortFrom(at.Addr(), unused(t))); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v %v", c, err)
	}
	d.Close()
	if _, err := d.Dial(ctx, 4711, at); err == nil {
		t.Error("dials after Close")
	}
	none := &serve.Dialer{}
	if _, err := none.Dial(ctx, 4711, at); err == nil {
		t.Error("dialled as root for somebody else")
	}
}
