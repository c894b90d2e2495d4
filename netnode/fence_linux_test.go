package netnode_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNeighbourDoesNotReachTheMeshAddress has a neighbour of the LAN route the host's mesh
// addresses to the host: its services answer the mesh and nobody else, with the daemon
// running and away, and uninstalling takes the fence with it.
func TestNeighbourDoesNotReachTheMeshAddress(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	l.start(l.web, "serve", "80")
	l.run("ip", "-n", l.lap, "route", "add", "100.64.0.1/32", "via", "10.99.0.1")
	l.run("ip", "-n", l.lap, "route", "add", "fd7a:7373:6800::1/128", "via", "fd99::1")
	tables := func() string {
		if _, err := exec.LookPath("nft"); err != nil {
			return ""
		}
		return l.run("nsenter", "--net=/run/netns/"+l.web, "nft", "list", "tables")
	}
	look := func(when string, want bool) {
		t.Helper()
		got := l.dial(l.lap, web4+":80", web6+":80", "10.99.0.1:80")
		for _, a := range []string{web4 + ":80", web6 + ":80"} {
			if reached := got[a] == "host-service"; reached != want {
				t.Errorf("%s: a neighbour at %s: %q, reached is wanted: %v", when, a, got[a], want)
			}
		}
		if got["10.99.0.1:80"] != "host-service" {
			t.Errorf("%s: the host's own address: %q", when, got["10.99.0.1:80"])
		}
	}
	// What it is about: without a fence the addresses are the host's like any other.
	l.run("ip", "-n", l.web, "addr", "add", "100.64.0.1/32", "dev", "lo")
	l.run("ip", "-n", l.web, "addr", "add", "fd7a:7373:6800::1/128", "dev", "lo", "nodad")
	look("without a node", true)
	l.run("ip", "-n", l.web, "addr", "del", "100.64.0.1/32", "dev", "lo")
	l.run("ip", "-n", l.web, "addr", "del", "fd7a:7373:6800::1/128", "dev", "lo")

	web := l.node(l.web, l.webCfg)
	look("while it runs", false)
	web.kill()
	look("while it is away", false)
	web = l.node(l.web, l.webCfg)
	look("after a restart", false)
	web.stop()
	if ts := tables(); ts != "" && !strings.Contains(ts, "tssh-tssh0") {
		t.Errorf("tables: %s", ts)
	}
	l.uninstall()
	if ts := tables(); strings.Contains(ts, "tssh") {
		t.Errorf("left behind: %s", ts)
	}
}
