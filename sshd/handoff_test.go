package sshd_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
)

// TestFallThrough: the host's own server gets the connections that no ssh rule is about, and
// no others.
func TestFallThrough(t *testing.T) {
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
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, "SSH-2.0-own\r\n")
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	other := strings.Replace(policyNonroot, `"src":["alice@example.com"]`, `"src":["bob@example.com"]`, 1)
	noNet := strings.Replace(other, `"dst":["*:*"]`, `"dst":["*:80"]`, 1)
	r := newRig(t, other)
	r.FallThru = l.Addr().String()
	d := r.daemon()
	first := func(c net.Conn) string {
		line, _ := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(line)
	}
	c := d.connect()
	defer c.Close()
	b := bufio.NewReader(c)
	if line, _ := b.ReadString('\n'); line != "SSH-2.0-own\r\n" {
		t.Fatalf("the first line is %q", line)
	}
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		t.Fatal(err)
	}
	if line, _ := b.ReadString('\n'); line != "ping\n" {
		t.Errorf("came back %q", line)
	}
	if a := r.audited("session.handover"); len(a) != 1 || a[0].Who != "alice@example.com" {
		t.Errorf("audit %+v", r.audit())
	}
	// A rule about this person ends what was handed over, and decides from then on, also
	// where it is for another account.
	r.policy(strings.Replace(policyNonroot, `["autogroup:nonroot"]`, `["nobody-else"]`, 1))
	d.reload()
	if _, err := b.ReadByte(); err == nil {
		t.Error("still open")
	}
	again := d.connect()
	defer again.Close()
	if line := first(again); line != "SSH-2.0-tssh_1" {
		t.Errorf("with a rule the first line is %q", line)
	}
	in := func(policy, line string) {
		t.Helper()
		r.policy(policy)
		d.reload()
		r.until("the first line is "+line, func() bool {
			c := d.connect()
			defer c.Close()
			return first(c) == line
		})
	}
	for _, p := range []string{noNet, "{"} {
		in(other, "SSH-2.0-own")
		in(p, "SSH-2.0-tssh_1")
	}
}
