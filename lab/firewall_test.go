package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHostFirewall has a node on a host whose firewall lets nothing in: it is said with
// the line that mends it, and the line does. The mesh has a range of its own, because
// the host is in another network with the usual one.
func TestHostFirewall(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	l, err := New(dir, bin, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host := func(name string) *Host {
		h, err := l.AddHost(name)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	must := func(r Result) {
		t.Helper()
		if r.Status != 0 {
			t.Fatal(r)
		}
	}
	hubHost, web, laptop := host("hub"), host("web"), host("laptop")
	hub, err := l.StartHub(hubHost, `{"tagOwners": {"tag:web": ["alice@example.com"]}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`,
		"--mesh", "lab", "--range4", "10.77.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	must(hub.Admin("user", "add", "alice@example.com"))
	if r := hub.Admin("status"); !strings.Contains(r.Stdout, "10.77.0.0/16") {
		t.Errorf("hub: %v", r)
	}
	// Another mesh with the usual range, and a firewall.
	must(web.Run("ip", "link", "add", "tailscale0", "type", "veth", "peer", "name", "elsewhere"))
	must(web.Run("ip", "addr", "add", "100.101.1.2/32", "dev", "tailscale0"))
	must(web.Run("ip", "link", "set", "tailscale0", "up"))
	must(web.Run("nft", "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }; add rule inet filter input ct state established,related accept; add rule inet filter input iif lo accept"))
	n, err := hub.Join(web, "tag:web")
	if err != nil {
		t.Fatal(err)
	}
	c, err := hub.Join(laptop, "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	st, err := n.Status()
	if err != nil || !strings.HasPrefix(st.Self.Addrs[0].String(), "10.77.") {
		t.Fatalf("addresses: %+v %v", st.Self, err)
	}
	const port = "nftables on this host keeps peers from UDP port 41641 (the policy of chain input, table inet filter)"
	const mend = "nft insert rule inet filter input udp dport 41641 accept"
	for _, verb := range []string{"status", "netcheck"} {
		r := n.Tssh(verb)
		if !strings.Contains(r.Stdout, "warning:   "+port) || !strings.Contains(r.Stdout, "mend:    "+mend+"\n") {
			t.Errorf("%s: %v", verb, r)
		}
		if strings.Contains(r.Stdout, "tailscale0") {
			t.Errorf("another network in another range is spoken of: %v", r)
		}
	}
	if log := n.Proc.Tail(1 << 20); !strings.Contains(log, port) {
		t.Errorf("the log does not say it: %s", log)
	}
	if r := c.Tssh("status"); strings.Contains(r.Stdout, "warning:") {
		t.Errorf("a host without a firewall: %v", r)
	}
	// quiet waits until status has, or has not, some words.
	said := func(n *Node, words string, want bool) {
		t.Helper()
		if err := Until(40*time.Second, func() error {
			if r := n.Tssh("status"); strings.Contains(r.Stdout, words) != want {
				return fmt.Errorf("%q, wanted: %v: %v", words, want, r)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	// A served port is behind the same firewall.
	if r := n.Tssh("serve", "8000"); r.Status != 0 || !strings.Contains(r.Stderr, `nft insert rule inet filter input iifname "tssh0" tcp dport 8000 accept`) {
		t.Errorf("serve: %v", r)
	}
	if r := laptop.Run("curl", "-sS", "--max-time", "2", "http://web:8000/"); r.Status == 0 {
		t.Errorf("through the firewall: %v", r)
	}
	must(web.Run("nft", "insert", "rule", "inet", "filter", "input", "iifname", "tssh0", "tcp", "dport", "8000", "accept"))
	if r := laptop.Run("curl", "-sS", "--max-time", "20", "http://web:8000/"); !strings.Contains(r.Stdout, "does not answer") {
		t.Errorf("after the line: %v", r)
	}
	must(web.Run(strings.Fields(mend)[0], strings.Fields(mend)[1:]...))
	said(n, "warning:", false)

	// Another network in this mesh's range: by address, and by route.
	must(web.Run("ip", "addr", "add", "10.77.200.1/24", "dev", "tailscale0"))
	said(n, "warning:   tailscale0 has the address 10.77.200.1/24, which is in this mesh's range 10.77.0.0/16", true)
	must(laptop.Run("ip", "route", "add", "10.77.0.0/17", "via", hubHost.Addr.String()))
	said(c, "warning:   eth0 has a route to 10.77.0.0/17, which is in this mesh's range 10.77.0.0/16", true)
	if r := c.Tssh("ping", "-c", "1", "web"); r.Status != 0 {
		t.Errorf("the mesh itself: %v", r)
	}
	// The hub stays with its range.
	hub.Proc.Stop()
	if r := hub.Host.Run("timeout", append([]string{"10", l.Bin + "/tsshub"}, append(hub.args, "--range4", "10.78.0.0/16")...)...); r.Status != 1 || !strings.Contains(r.Stderr, "a mesh keeps its range") {
		t.Errorf("another range: %v", r)
	}
}
