package netmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tssh/policy"
)

// The hub's own node: its name, which no other node may have, and the tag it carries,
// which no key may be made for.
const (
	HubName            = "hub"
	HubTag  policy.Tag = "tag:tsshub"
	// RelayTag is of relays that stand alone. They know every node and no node knows them.
	RelayTag policy.Tag = "tag:tssh-relay"
)

// reservedHosts mean something else wherever they are typed: the verbs of tssh, the
// hub, and names that systems look up without being asked to (proxy and tunnel
// discovery, cloud metadata), for which a node must not answer.
func reservedHosts() []string {
	return []string{
		"up", "down", "status", "ls", "cp", "sftp", "ping", "whois", "why", "sessions", "play",
		"watch", "verify", "search", "policy", "proxy", "config", "serve", "attach", "approve",
		"request", "requests", "exec", "mount", "netcheck", "inventory", "sign", "login",
		"logout", "help", "version",
		HubName,
		"localhost", "localdomain", "local", "internal", "broadcasthost", "ip6-localhost",
		"ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts",
		"wpad", "isatap", "metadata", "instance-data",
	}
}

// reservedMeshes are those whose MESH.internal others already answer for: clouds,
// container engines and virtual machines.
func reservedMeshes() []string {
	return []string{
		"google", "ec2", "compute", "docker", "containers", "lima", "minikube", "k3d", "orb",
		"localhost", "local", "internal", "metadata", "wpad",
	}
}

// ErrNameReserved is the error of a name that means something else.
var ErrNameReserved = errors.New("the name is reserved")

// CheckName reports whether s can be a node's name: one DNS label in lower case that
// is not reserved.
func CheckName(s string) error {
	if err := checkLabel(s); err != nil {
		return err
	}
	if slices.Contains(reservedHosts(), s) {
		return fmt.Errorf("name %q: %w", s, ErrNameReserved)
	}
	return nil
}

// CheckMeshName reports whether s can be a mesh's name.
func CheckMeshName(s string) error {
	if err := checkLabel(s); err != nil {
		return err
	}
	if slices.Contains(reservedMeshes(), s) {
		return fmt.Errorf("mesh name %q: %w, %s.internal means something else already", s, ErrNameReserved, s)
	}
	return nil
}

func checkLabel(s string) error {
	if s == "" || len(s) > 63 {
		return fmt.Errorf("name %.70q: 1 to 63 characters are wanted", s)
	}
	digits := true
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z':
			digits = false
		case '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
			digits = false
		default:
			return fmt.Errorf("name %q: lower-case letters, digits and dashes inside are wanted", s)
		}
	}
	// Resolvers take "123" and "0x7f" for IPv4 addresses.
	if digits || strings.HasPrefix(s, "0x") && strings.Trim(s[2:], "0123456789abcdef") == "" {
		return fmt.Errorf("name %q: it reads as an address", s)
	}
	return nil
}

// NameFromHostname makes a node's name out of what a computer calls itself: the first
// label, in lower case, other characters as dashes. The result may still be refused by CheckName.
func NameFromHostname(s string) string {
	s, _, _ = strings.Cut(s, ".")
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			b.WriteRune(r)
		} else if n := b.Len(); n > 0 && b.String()[n-1] != '-' {
			b.WriteByte('-')
		}
	}
	out := b.String()
	if len(out) > 63 {
		out = out[:63]
	}
	return strings.Trim(out, "-")
}
