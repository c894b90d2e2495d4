package firewall

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inside runs f on a thread in a network namespace of its own, which goes with the thread.
func inside(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f(t)
	}()
	<-done
}

// feed gives text to a program in the namespace.
func feed(t *testing.T, text, program string, args ...string) bool {
	t.Helper()
	if program == "nft" { // wants lines
		text = strings.NewReplacer("; }", ";\n}\n", "} }", "}\n}\n").Replace(text)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", program, err, out)
		return false
	}
	return true
}

var (
	there4, here4 = netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("192.0.2.7")
	there6, here6 = netip.MustParseAddr("2620:fe::9"), netip.MustParseAddr("2001:db8::7")
	mesh4, own4   = netip.MustParseAddr("100.64.0.9"), netip.MustParseAddr("100.64.0.7")
)

func udp(in string, port uint16) Packet {
	return Packet{In: in, Src: there4, Dst: here4, Port: port}
}

func udp6(in string, port uint16) Packet {
	return Packet{In: in, Src: there6, Dst: here6, Port: port}
}

func tcp(in string, port uint16) Packet {
	return Packet{In: in, Src: there4, Dst: here4, TCP: true, Port: port}
}

func mesh(port uint16) Packet {
	return Packet{In: "tssh0", Src: mesh4, Dst: own4, TCP: true, Port: port}
}

func TestJudge(t *testing.T) {
	ufw, err := os.ReadFile("testdata/ufw.rules")
	if err != nil {
		t.Fatal(err)
	}
	firewalld, err := os.ReadFile("testdata/firewalld.nft")
	if err != nil {
		t.Fatal(err)
	}
	old := []string{"iptables-legacy-restore"}
	type want struct {
		p    Packet
		by   string // "": it gets in
		mend string
	}
	nft := []string{"nft", "-f", "-"}
	restore := []string{"iptables-nft-restore"}
	for name, c := range map[string]struct {
		program []string
		rules   string
		want    []want
	}{
		"nothing": {nft, "", []want{{udp("eth0", 41641), "", ""}}},
		"default drop": {nft, `table inet filter { chain input { type filter hook input priority 0; policy drop;
			ct state established,related accept; iif lo accept; tcp dport { 22, 80-90 } accept; udp dport 5000-5100 accept
			ip saddr 192.0.2.0/24 udp dport 41641 accept; limit rate over 10/second drop; } }`, []want{
			{udp("eth0", 41641), "nftables", "nft insert rule inet filter input udp dport 41641 accept"},
			{udp6("eth0", 41641), "nftables", ""},
			{udp("eth0", 5050), "", ""},
			{udp("eth0", 5101), "nftables", ""},
			{tcp("eth0", 22), "", ""},
			{tcp("eth0", 85), "", ""},
			{tcp("eth0", 91), "nftables", ""},
			{mesh(3000), "nftables", `nft insert rule inet filter input iifname "tssh0" tcp dport 3000 accept`},
		}},
		"port let in": {nft, `table inet filter { chain input { type filter hook input priority 0; policy drop;
			udp dport 41641 accept; iifname "tssh*" accept; } }`, []want{{udp("eth0", 41641), "", ""}, {mesh(3000), "", ""}, {udp("eth0", 41642), "nftables", ""}}},
		"one family": {nft, `table ip filter { chain input { type filter hook input priority 0; policy drop; } }`, []want{
			{udp("eth0", 41641), "nftables", "nft insert rule ip filter input udp dport 41641 accept"}, {udp6("eth0", 41641), "", ""}}},
		"maps": {nft, `table inet f { set ok { type inet_service; flags interval; elements = { 41000-42000 } }
			map v { type ifname : verdict; elements = { "eth1" : jump lan, "eth2" : accept } }
			chain lan { udp dport @ok accept; drop; }
			chain in { type filter hook input priority 0; policy drop; iifname vmap @v; iifname . udp dport { "eth3" . 41641 } accept; ip saddr . udp dport vmap { 9.9.9.0/24 . 7 : accept } } }`, []want{
			{udp("eth0", 41641), "nftables", ""}, {udp("eth1", 41641), "", ""}, {udp("eth1", 99), "nftables", ""}, {udp("eth2", 99), "", ""},
			{udp("eth3", 41641), "", ""}, {udp("eth3", 41642), "nftables", ""}, {udp("eth0", 7), "", ""}}},
		"early drop": {nft, `table inet raw { chain pre { type filter hook prerouting priority -300; policy accept; udp dport != { 53 } iifname != "lo" drop; } }`, []want{
			{udp("eth0", 41641), "nftables", "nft insert rule inet raw pre udp dport 41641 accept"}, {udp("eth0", 53), "", ""}, {tcp("eth0", 9), "", ""}}},
		"a chain that goes on": {nft, `table inet f { chain sub { udp dport 1 accept; return; accept; }
			chain in { type filter hook input priority 0; policy accept; jump sub; udp dport 1-10 drop; } }`, []want{{udp("eth0", 1), "", ""}, {udp("eth0", 2), "nftables", ""}, {udp("eth0", 11), "", ""}}},
		"our own":      {nft, `table inet tssh-tssh0 { chain lan { type filter hook prerouting priority raw; drop; } }`, []want{{udp("eth0", 41641), "", ""}}},
		"output alone": {nft, `table inet f { chain out { type filter hook output priority 0; policy drop; } chain forwarded { type filter hook forward priority 0; policy drop; } }`, []want{{udp("eth0", 41641), "", ""}}},
		"firewalld": {nft, string(firewalld), []want{
			{udp("eth0", 41641), "firewalld", "firewall-cmd --permanent --add-port=41641/udp && firewall-cmd --reload"},
			{udp6("eth0", 41641), "firewalld", ""}, {tcp("eth0", 22), "", ""}, {udp("br-lan", 41641), "", ""},
			{mesh(3000), "firewalld", "firewall-cmd --permanent --zone=trusted --add-interface=tssh0 && firewall-cmd --reload"}}},
		"ufw": {restore, string(ufw), []want{
			{udp("eth0", 41641), "ufw", "ufw allow 41641/udp"}, {udp6("eth0", 41641), "", ""}, {tcp("eth0", 22), "", ""},
			{tcp("eth0", 443), "", ""}, {tcp("eth0", 8050), "", ""}, {tcp("eth0", 8101), "ufw", ""}, {udp("eth0", 137), "ufw", ""},
			{mesh(3000), "ufw", "ufw allow in on tssh0 to any port 3000 proto tcp"}}},
		"ufw with the port": {restore, strings.Replace(string(ufw), "-A ufw-user-input -p tcp --dport 22", "-A ufw-user-input -p udp --dport 41641 -j ACCEPT\n-A ufw-user-input -p tcp --dport 22", 1), []want{
			{udp("eth0", 41641), "", ""}}},
		"iptables": {restore, "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT\n-A INPUT -m comment --comment \"the rest\" -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n", []want{
			{udp("eth0", 41641), "iptables", "iptables -I INPUT -p udp --dport 41641 -j ACCEPT"}, {tcp("eth0", 22), "", ""}, {tcp("eth0", 23), "iptables", ""},
			{mesh(3000), "iptables", "iptables -I INPUT -i tssh0 -p tcp --dport 3000 -j ACCEPT"}}},
		"tailscale": {restore, "*filter\n:INPUT ACCEPT [0:0]\n:ts-input - [0:0]\n-A INPUT -j ts-input\n-A ts-input -s 100.101.102.103/32 -i lo -j ACCEPT\n-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN\n-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP\n-A ts-input -i tailscale0 -j ACCEPT\n-A ts-input -p udp -m udp --dport 41641 -j ACCEPT\nCOMMIT\n", []want{
			{mesh(3000), "Tailscale", "tailscale up --netfilter-mode=nodivert, or a mesh with another range (tsshub serve --range4)"}, {udp("eth0", 41641), "", ""}, {udp("eth0", 9), "", ""}}},
		"ufw, legacy": {old, string(ufw), []want{
			{udp("eth0", 41641), "ufw", "ufw allow 41641/udp"}, {udp6("eth0", 41641), "", ""}, {tcp("eth0", 22), "", ""},
			{tcp("eth0", 443), "", ""}, {tcp("eth0", 8050), "", ""}, {tcp("eth0", 8101), "ufw", ""}, {udp("eth0", 137), "ufw", ""},
			{mesh(3000), "ufw", "ufw allow in on tssh0 to any port 3000 proto tcp"}}},
		"ufw with the port, legacy": {old, strings.Replace(string(ufw), "-A ufw-user-input -p tcp --dport 22", "-A ufw-user-input -p udp --dport 41641 -j ACCEPT\n-A ufw-user-input -p tcp --dport 22", 1), []want{
			{udp("eth0", 41641), "", ""}}},
		"iptables, legacy": {old, "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT\n-A INPUT -m comment --comment \"the rest\" -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n", []want{
			{udp("eth0", 41641), "iptables", "iptables -I INPUT -p udp --dport 41641 -j ACCEPT"}, {tcp("eth0", 22), "", ""}, {tcp("eth0", 23), "iptables", ""},
			{mesh(3000), "iptables", "iptables -I INPUT -i tssh0 -p tcp --dport 3000 -j ACCEPT"}}},
		"tailscale, legacy": {old, "*filter\n:INPUT ACCEPT [0:0]\n:ts-input - [0:0]\n-A INPUT -j ts-input\n-A ts-input -s 100.101.102.103/32 -i lo -j ACCEPT\n-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN\n-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP\n-A ts-input -i tailscale0 -j ACCEPT\n-A ts-input -p udp -m udp --dport 41641 -j ACCEPT\nCOMMIT\n", []want{
			{mesh(3000), "Tailscale", "tailscale up --netfilter-mode=nodivert, or a mesh with another range (tsshub serve --range4)"}, {udp("eth0", 41641), "", ""}, {udp("eth0", 9), "", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			inside(t, func(t *testing.T) {
				if c.rules != "" && !feed(t, c.rules, c.program[0], c.program[1:]...) {
					return
				}
				r, err := Read("tssh-")
				if err != nil {
					t.Error(err)
					return
				}
				for _, w := range c.want {
					s, stopped := r.Judge(w.p)
					if stopped != (w.by != "") || s.By != w.by {
						t.Errorf("%+v: %+v %v, want %q", w.p, s, stopped, w.by)
					} else if m := s.Mend(w.p, w.p.In == "tssh0"); w.mend != "" && m != w.mend {
						t.Errorf("%+v: mend %q, want %q", w.p, m, w.mend)
					} else if w.mend != "" && strings.HasPrefix(m, "nft ") { // the line does what it says
						if feed(t, strings.TrimPrefix(m, "nft "), "nft", "-f", "-") {
							if r, err := Read("tssh-"); err != nil {
								t.Error(err)
							} else if s, still := r.Judge(w.p); still {
								t.Errorf("after %s: still %+v", m, s)
							}
						}
					}
				}
			})
		})
	}
}
