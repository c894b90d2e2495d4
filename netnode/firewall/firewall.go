package firewall

import (
	"fmt"
	"net/netip"
	"strings"
)

// Packet is a packet that begins a connection from elsewhere to this host.
type Packet struct {
	In       string // interface
	Src, Dst netip.Addr
	TCP      bool // else UDP
	Port     uint16
}

// Stop is where a packet ends.
type Stop struct {
	By     string // ufw, firewalld, iptables, Tailscale, nftables
	Family string // as nft writes it: ip, ip6, inet
	Table  string
	Chain  string // of the rule or policy
	Base   string // chain that the hook calls, which leads there
	Policy bool   // by the chain's policy: nothing let it in
}

// Where is the place in words.
func (s Stop) Where() string {
	what := "a rule"
	if s.Policy {
		what = "the policy"
	}
	return fmt.Sprintf("%s of chain %s, table %s %s", what, s.Chain, s.Family, s.Table)
}

// Mend is the command that lets p in. For packets of a mesh device it opens as little as can be said in a line.
func (s Stop) Mend(p Packet, device bool) string {
	proto := "udp"
	if p.TCP {
		proto = "tcp"
	}
	switch s.By {
	case "ufw":
		if device {
			return fmt.Sprintf("ufw allow in on %s to any port %d proto %s", p.In, p.Port, proto)
		}
		return fmt.Sprintf("ufw allow %d/%s", p.Port, proto)
	case "firewalld":
		if device {
			return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", p.In)
		}
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/%s && firewall-cmd --reload", p.Port, proto)
	case "Tailscale":
		return "tailscale up --netfilter-mode=nodivert, or a mesh with another range (tsshub serve --range4)"
	case "iptables":
		program, on := "iptables", ""
		if s.Family == "ip6" {
			program = "ip6tables"
		}
		if device {
			on = "-i " + p.In + " "
		}
		return fmt.Sprintf("%s -I INPUT %s-p %s --dport %d -j ACCEPT", program, on, proto, p.Port)
	}
	on := ""
	if device {
		on = fmt.Sprintf("iifname %q ", p.In)
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s%s dport %d accept", s.Family, word(s.Table), word(s.Base), on, proto, p.Port)
}

// word is a name of the ruleset as the shell takes it, whatever it is made of.
func word(s string) string {
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./", r) {
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return s
}
