package netnode_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"tssh/netnode"
	"tssh/netnode/meshtest"
	"tssh/netnode/netmap"
	"tssh/policy"
)

const policyText = `{
	"tagOwners": {"tag:web": ["alice@example.com"]},
	"acls": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:22,80", "tag:web:5353"]},
		{"action": "accept", "src": ["tag:web"], "dst": ["alice@example.com:9000"]},
	],
}`

const wait = 15 * time.Second

func twoNodes(t *testing.T, change func(*netnode.Config)) *meshtest.Mesh {
	t.Helper()
	return meshtest.New(t, policyText,
		meshtest.Node{Name: "web", Tags: []policy.Tag{"tag:web"}, Config: change},
		meshtest.Node{Name: "laptop", User: "alice@example.com"})
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// echo answers on l until it is closed, with the name the node knows the peer by first.
func echo(t *testing.T, n *netnode.Node, l net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				id, ok := n.WhoIs(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
				if !ok {
					io.WriteString(c, "nobody\n")
					return
				}
				io.WriteString(c, id.Name+"\n")
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

func dial(t *testing.T, n *netnode.Node, network, addr string, timeout time.Duration) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return n.Dial(ctx, network, addr)
}

// says dials addr and returns the greeting after a line went there and back.
func says(t *testing.T, n *netnode.Node, network, addr string) string {
	t.Helper()
	c, err := dial(t, n, network, addr, wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	io.WriteString(c, "hello\n")
	buf := make([]byte, 100)
	got := ""
	for !strings.HasSuffix(got, "hello\n") {
		k, err := c.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got += string(buf[:k])
	}
	return strings.TrimSuffix(got, "\nhello\n")
}

func TestTCPBothWays(t *testing.T) {
	mesh := twoNodes(t, nil)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	echo(t, laptop, must[net.Listener](t)(laptop.Listen("tcp", ":9000")))
	for _, addr := range []string{"web:22", "WEB.test.internal:22", netip.AddrPortFrom(mesh.Addr("web"), 22).String(), netip.AddrPortFrom(mesh.Addr6("web"), 22).String()} {
		if got := says(t, laptop, "tcp", addr); got != "laptop" {
			t.Errorf("%s takes laptop for %q", addr, got)
		}
	}
	if got := says(t, laptop, "tcp6", "web:22"); got != "laptop" {
		t.Errorf("over IPv6 web takes laptop for %q", got)
	}
	if got := says(t, web, "tcp", "laptop:9000"); got != "web" {
		t.Errorf("laptop takes web for %q", got)
	}
	s := laptop.Status()
	if len(s.Peers) != 1 || s.Peers[0].Path != mesh.Endpoint("web") || s.Peers[0].Handshake.IsZero() || s.Peers[0].Rx == 0 || s.Peers[0].Tx == 0 || s.Peers[0].RTT <= 0 {
		t.Errorf("status: %+v", s.Peers)
	}
}

func TestPolicyDecidesWhoGetsIn(t *testing.T) {
	mesh := twoNodes(t, func(c *netnode.Config) { c.AdmitPorts = []uint16{8080} })
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	for _, port := range []string{"22", "81", "8080"} {
		echo(t, web, must[net.Listener](t)(web.Listen("tcp", ":"+port)))
	}
	echo(t, laptop, must[net.Listener](t)(laptop.Listen("tcp", ":9001")))
	if got := says(t, laptop, "tcp", "web:8080"); got != "laptop" {
		t.Errorf("admitted port: %q", got)
	}
	if c, err := dial(t, laptop, "tcp", "web:81", 700*time.Millisecond); err == nil {
		c.Close()
		t.Error("port 81 is reached")
	}
	if c, err := dial(t, web, "tcp", "laptop:9001", 700*time.Millisecond); err == nil {
		c.Close()
		t.Error("laptop's port 9001 is reached")
	}
	if n := web.Status().Drops["denied"]; n == 0 {
		t.Error("drops are not counted")
	}

	// A policy that takes the right away ends what is open, without a word of the services.
	c := must[net.Conn](t)(dial(t, laptop, "tcp", "web:22", wait))
	defer c.Close()
	buf := make([]byte, 64)
	c.SetDeadline(time.Now().Add(wait))
	must[int](t)(io.ReadAtLeast(c, buf, len("laptop\n")))
	mesh.SetPolicy(`{"acls": []}`)
	io.WriteString(c, "are you there?")
	c.SetDeadline(time.Now().Add(700 * time.Millisecond))
	if n, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) && !isTimeout(err) {
		t.Errorf("after revocation: %d bytes, %v", n, err)
	}
	mesh.SetPolicy(policyText)
	c.SetDeadline(time.Now().Add(wait))
	must[int](t)(io.ReadAtLeast(c, buf, len("are you there?")))

	mesh.SetPolicy("") // none at all denies
	if c, err := dial(t, laptop, "tcp", "web:22", 700*time.Millisecond); err == nil {
		c.Close()
		t.Error("port 22 is reached without a policy")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestUDP(t *testing.T) {
	mesh := twoNodes(t, nil)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	for _, a := range []netip.Addr{mesh.Addr("web"), mesh.Addr6("web")} {
		for _, x := range []struct {
			port uint16
			open bool
		}{{5353, true}, {5354, false}} {
			addr := netip.AddrPortFrom(a, x.port).String()
			pc := must[net.PacketConn](t)(web.ListenPacket("udp", addr))
			defer pc.Close()
			go func() { // ends when pc is closed
				buf := make([]byte, 2000)
				for {
					n, from, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					pc.WriteTo(buf[:n], from)
				}
			}()
			c := must[net.Conn](t)(laptop.Dial(context.Background(), "udp", addr))
			defer c.Close()
			limit := wait
			if !x.open {
				limit = 500 * time.Millisecond
			}
			c.SetDeadline(time.Now().Add(limit))
			big := strings.Repeat("x", 1900) // more than the MTU: fragments
			io.WriteString(c, big)
			buf := make([]byte, 4000)
			n, err := c.Read(buf)
			if x.open && (err != nil || string(buf[:n]) != big) {
				t.Errorf("%s: %d bytes, %v", addr, n, err)
			}
			if !x.open && err == nil {
				t.Errorf("%s answers", addr)
			}
		}
	}
}

func TestWhoIsAndNames(t *testing.T) {
	mesh := twoNodes(t, nil)
	web := mesh.Node("web")
	for _, a := range []netip.Addr{mesh.Addr("laptop"), mesh.Addr6("laptop"), netip.AddrFrom16(mesh.Addr("laptop").As16())} {
		if id, ok := web.WhoIs(a); !ok || id.User != "alice@example.com" || id.Name != "laptop" {
			t.Errorf("%v is %+v, %v", a, id, ok)
		}
	}
	for _, a := range []netip.Addr{{}, mesh.Addr("web"), mesh.Addr6("web"), netip.MustParseAddr("100.64.0.3"), netip.MustParseAddr("127.0.0.1")} {
		if id, ok := web.WhoIs(a); ok {
			t.Errorf("%v is %+v", a, id)
		}
	}
	for _, addr := range []string{"127.0.0.1:22", "nobody:22", "web:22", mesh.Addr("web").String() + ":22", "laptop", "laptop:ssh"} {
		if c, err := dial(t, web, "tcp", addr, time.Second); err == nil {
			c.Close()
			t.Errorf("dial %s works", addr)
		}
	}
	if _, err := web.Listen("tcp", "127.0.0.1:80"); err == nil {
		t.Error("listens on an address outside the mesh")
	}
}

func TestRemovedPeer(t *testing.T) {
	mesh := twoNodes(t, nil)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	c := must[net.Conn](t)(dial(t, laptop, "tcp", "web:22", wait))
	defer c.Close()
	buf := make([]byte, 64)
	c.SetDeadline(time.Now().Add(wait))
	must[int](t)(io.ReadAtLeast(c, buf, len("laptop\n")))
	mesh.Remove("laptop")
	if _, ok := web.WhoIs(mesh.Addr("laptop")); ok {
		t.Error("a removed node is somebody")
	}
	io.WriteString(c, "still here?")
	c.SetDeadline(time.Now().Add(time.Second))
	if n, err := c.Read(buf); err == nil {
		t.Errorf("a removed node gets %q", buf[:n])
	}
	if len(web.Status().Peers) != 0 {
		t.Error("a removed node is still a peer")
	}
}

// TestRestart restarts the side that listens; the other is told nothing.
func TestRestart(t *testing.T) {
	mesh := twoNodes(t, nil)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	says(t, laptop, "tcp", "web:22")
	port := web.Port()
	mesh.Restart("web", 0)
	web = mesh.Node("web")
	if web.Port() != port {
		t.Errorf("UDP port %d, was %d", web.Port(), port)
	}
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	start := time.Now()
	if got := says(t, laptop, "tcp", "web:22"); got != "laptop" {
		t.Errorf("after restart: %q", got)
	}
	t.Logf("reached %v after the restart", time.Since(start))
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("reached only %v after the restart: the restarted node did not begin a handshake", d)
	}
}

// TestMovedNode restarts a node on another UDP port: it finds the others and they find it.
func TestMovedNode(t *testing.T) {
	mesh := twoNodes(t, nil)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	says(t, laptop, "tcp", "web:22")
	old := mesh.Endpoint("web")
	mesh.Move("web")
	web = mesh.Node("web")
	if mesh.Endpoint("web") == old {
		t.Fatal("it did not move")
	}
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	start := time.Now()
	if got := says(t, laptop, "tcp", "web:22"); got != "laptop" {
		t.Errorf("after the move: %q", got)
	}
	t.Logf("reached %v after the move", time.Since(start))
	if p := laptop.Status().Peers[0].Path; p != mesh.Endpoint("web") {
		t.Errorf("path %v, want %v", p, mesh.Endpoint("web"))
	}
}

func TestBulk(t *testing.T) {
	mesh := twoNodes(t, nil)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	l := must[net.Listener](t)(web.Listen("tcp", ":80"))
	defer l.Close()
	const size = 32 << 20
	got := make(chan int64, 1)
	go func() { // ends with the transfer
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		n, _ := io.Copy(io.Discard, c)
		c.Close()
		got <- n
	}()
	c := must[net.Conn](t)(dial(t, laptop, "tcp", "web:80", wait))
	start := time.Now()
	must[int64](t)(io.Copy(c, io.LimitReader(zeros{}, size)))
	c.Close()
	select {
	case n := <-got:
		if n != size {
			t.Errorf("%d bytes of %d", n, size)
		}
	case <-time.After(time.Minute):
		t.Fatal("the transfer does not end")
	}
	t.Logf("%.0f Mbit/s", size*8/time.Since(start).Seconds()/1e6)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestConfigErrors(t *testing.T) {
	mesh := twoNodes(t, nil)
	taken := int(mesh.Node("web").Port())
	key := must[netmap.WGPrivate](t)(netmap.NewWGPrivate())
	for name, c := range map[string]netnode.Config{
		"no key":     {},
		"bad port":   {PrivateKey: key, UDPPort: 70000},
		"small MTU":  {PrivateKey: key, MTU: 576},
		"taken port": {PrivateKey: key, UDPPort: taken},
	} {
		n, err := netnode.New(c)
		if err == nil {
			n.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if name == "taken port" && !strings.Contains(err.Error(), strconv.Itoa(taken)) {
			t.Errorf("%s: %v does not name the port", name, err)
		}
	}
}

// TestExpiryByTheHubsClock: a computer whose clock is off neither drops peers that the hub
// has as members, nor keeps those that it has not.
func TestExpiryByTheHubsClock(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		n, err := netnode.New(netnode.Config{PrivateKey: must[netmap.WGPrivate](t)(netmap.NewWGPrivate())})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		hub := time.Now().Add(off)
		m := &netmap.Map{Mesh: "m", Range4: netip.MustParsePrefix("100.64.0.0/10"), ClockOffset: off, Revision: 1,
			Self: policy.Identity{ID: "n0", Name: "self", User: "a@example.com", Role: policy.RoleMember}, SelfAddrs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}}
		for i, until := range []time.Time{hub.Add(12 * time.Hour), hub.Add(-12 * time.Hour)} {
			a := netip.AddrFrom4([4]byte{100, 64, 0, byte(10 + i)})
			m.Peers = append(m.Peers, netmap.Peer{Expires: until, Key: must[netmap.WGPrivate](t)(netmap.NewWGPrivate()).Public(),
				Identity: policy.Identity{ID: "n" + a.String(), Name: "p", User: "a@example.com", Role: policy.RoleMember, Addrs: []netip.Addr{a}}})
		}
		n.SetMap(m)
		for i, want := range []bool{true, false} {
			if _, ok := n.WhoIs(m.Peers[i].Addrs[0]); ok != want {
				t.Errorf("hub's clock %v ahead, peer %d: %v, want %v", off, i, ok, want)
			}
		}
	}
}
