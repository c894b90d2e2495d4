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

// TestNeighbourIsNoPeer has a neighbour of the LAN send datagrams from a peer's mesh address to the host's own
// address there: services of the host that take an address for an identity do not get them, with the daemon
// running and away.
func TestNeighbourIsNoPeer(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	l.run("ip", "-n", l.lap, "addr", "add", lap4+"/32", "dev", "lo")
	l.run("ip", "-n", l.lap, "addr", "add", strings.Trim(lap6, "[]")+"/128", "dev", "lo", "nodad")
	look := func(when string, want bool) {
		t.Helper()
		p := l.start(l.web, "hear", "5353")
		said := l.ask(l.lap, "utter", lap4+":0>10.99.0.1:5353 "+lap6+":0>[fd99::1]:5353 10.99.0.2:0>10.99.0.1:5353 [fd99::2]:0>[fd99::1]:5353")
		heard := p.stop()
		if _, ok := said["answered"]; !ok || !strings.Contains(heard, "from 10.99.0.2:") || !strings.Contains(heard, "from [fd99::2]:") {
			t.Errorf("%s: the neighbour in its own name: %v, heard %q", when, said, heard)
		}
		for _, a := range []string{lap4, lap6} {
			if got := strings.Contains(heard, "from "+a+":"); got != want {
				t.Errorf("%s: heard as from %s is wanted: %v, and it is %v: %q", when, a, want, got, heard)
			}
		}
	}
	look("without a node", true)
	web := l.node(l.web, l.webCfg)
	look("while it runs", false)
	web.kill()
	look("while it is away", false)
}

// TestOnlySomeUsersMayUseTheMesh has three accounts of one host start connections into the
// mesh: those who may reach the peer, the one who may not is refused at once, and what the
// host answers to the mesh does not depend on the account.
func TestOnlySomeUsersMayUseTheMesh(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	l.start(l.web, "serve", "80")
	web := l.node(l.web, l.webCfg)
	defer web.stop()
	asGames := []string{"--setuid", "5", "--setgid", "60"}
	accounts := map[string][]string{"root": nil, "games": asGames, "nobody": asNobody}
	for _, c := range []struct {
		name  string
		users []uint32
		may   map[string]bool
	}{
		{"everybody", nil, map[string]bool{"root": true, "games": true, "nobody": true}},
		{"root and games", []uint32{0, 5}, map[string]bool{"root": true, "games": true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := l.lapC
			cfg.LocalUsers = c.users
			lap := l.node(l.lap, cfg)
			defer lap.stop()
			for who, more := range accounts {
				got := l.ask(l.lap, "dial", web4+":80 "+web6+":80 "+web4+":22 10.99.0.1:80", more...)
				for _, a := range []string{web4 + ":80", web6 + ":80"} {
					if reached := got[a] == "host-service"; reached != c.may[who] {
						t.Errorf("%s at %s: %q, reached is wanted: %v", who, a, got[a], c.may[who])
					}
				}
				if reached := got[web4+":22"] == "mesh-ssh laptop"; reached != c.may[who] {
					t.Errorf("%s at the SSH server: %q", who, got[web4+":22"])
				}
				if got["10.99.0.1:80"] != "host-service" {
					t.Errorf("%s outside the mesh: %q", who, got["10.99.0.1:80"])
				}
			}
		})
	}

	// A service that the unprivileged account runs answers peers.
	cfg := l.lapC
	cfg.LocalUsers = []uint32{0}
	lap := l.node(l.lap, cfg)
	defer lap.stop()
	l.run("nsenter", "--net=/run/netns/"+l.lap, "sh", "-c", "echo 80 >/proc/sys/net/ipv4/ip_unprivileged_port_start")
	l.start(l.lap, "serve", "80", asNobody...)
	if got := l.dial(l.web, lap4+":80", lap6+":80"); got[lap4+":80"] != "host-service" || got[lap6+":80"] != "host-service" {
		t.Errorf("a peer at nobody's service: %v", got)
	}
}
