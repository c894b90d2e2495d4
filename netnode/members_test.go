package netnode_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"tssh/netnode"
	"tssh/netnode/meshtest"
	"tssh/policy"
)

// TestPeersOnDemand: WireGuard has a member as a peer from the first packet until it was
// idle for long, and nobody notices.
func TestPeersOnDemand(t *testing.T) {
	nodes := []meshtest.Node{{Name: "web", Tags: []policy.Tag{"tag:web"}}, {Name: "laptop", User: "alice@example.com"}}
	for i := range 5 {
		nodes = append(nodes, meshtest.Node{Name: fmt.Sprintf("other%d", i), User: "alice@example.com"})
	}
	mesh := meshtest.New(t, policyText, nodes...)
	web, laptop := mesh.Node("web"), mesh.Node("laptop")
	echo(t, web, must[net.Listener](t)(web.ListenSSH()))
	echo(t, laptop, must[net.Listener](t)(laptop.Listen("tcp", ":9000")))
	if w, l := netnode.Taken(web), netnode.Taken(laptop); w != 0 || l != 0 {
		t.Errorf("before anybody talks WireGuard has %d and %d peers", w, l)
	}
	says(t, laptop, "tcp", "web:22")
	if w, l := netnode.Taken(web), netnode.Taken(laptop); w != 1 || l != 1 {
		t.Errorf("with one conversation WireGuard has %d and %d peers", w, l)
	}
	figures := func(n *netnode.Node, name string) netnode.PeerStatus {
		for _, p := range n.Status().Peers {
			if p.Node.Name == name {
				return p
			}
		}
		t.Fatalf("no peer %s", name)
		return netnode.PeerStatus{}
	}
	was := figures(web, "laptop")
	if was.Rx == 0 || was.Handshake.IsZero() {
		t.Fatalf("%+v", was)
	}
	idle := func(n *netnode.Node) {
		t.Helper()
		for end := time.Now().Add(wait); netnode.Taken(n) > 0; { // a keepalive may come in between
			if time.Now().After(end) {
				t.Fatal("an idle peer stays")
			}
			netnode.Trim(n)
		}
	}
	idle(web)
	idle(laptop)
	if is := figures(web, "laptop"); is.Rx < was.Rx || is.Tx < was.Tx || is.Handshake.IsZero() {
		t.Errorf("figures of an idle peer are lost: %+v, were %+v", is, was)
	}
	for _, only := range []*netnode.Node{nil, web, laptop} { // both forgot, or one of the two
		if only != nil {
			idle(only)
			netnode.Age(web)
			netnode.Age(laptop)
		}
		start := time.Now()
		if got := says(t, laptop, "tcp", "web:22"); got != "laptop" {
			t.Errorf("after idling: %q", got)
		}
		t.Logf("%v", time.Since(start))
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("took %v: the first message of a handshake was lost", d)
		}
	}
	idle(web)
	if got := says(t, web, "tcp", "laptop:9000"); got != "web" {
		t.Errorf("the other way: %q", got)
	}
}
