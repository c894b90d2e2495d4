package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Login names a person, as user@domain; it is what a policy file writes for one.
type Login string

// Tag names a kind of machine, "tag:" and a name that starts with a letter.
type Tag string

// LocalUser names an account on a host. Only ParseLocalUser makes one from text
// that came from outside; what passed it is safe as an argument after "--".
type LocalUser string

// Role is what a person may do to the mesh itself. The zero value is a plain member.
type Role string

const (
	RoleMember       Role = "member"
	RoleAdmin        Role = "admin"
	RoleOwner        Role = "owner"
	RoleITAdmin      Role = "it-admin"
	RoleNetworkAdmin Role = "network-admin"
	RoleBillingAdmin Role = "billing-admin"
	RoleAuditor      Role = "auditor"
)

// Identity is who the mesh proved to be at an address: one node, which belongs either
// to a person (User) or to nobody and carries tags. The zero Identity is nobody and is
// refused everywhere.
type Identity struct {
	ID         string            // of the node, stable for its life
	Name       string            // of the node, a single DNS label
	User       Login             // empty when the node is tagged
	Role       Role              // of User
	Tags       []Tag             // empty when the node has a user
	Addrs      []netip.Addr      // the node's own mesh addresses
	Routes     []netip.Prefix    // approved subnet routes
	Exit       bool              // approved as an exit node
	External   bool              // shared in from another mesh
	Attributes map[string]string // posture attributes, claimed by the node
}

// Valid reports whether the identity is somebody: a node with an owner or with tags, never both.
func (i Identity) Valid() bool {
	return (i.ID != "" || i.Name != "") && (i.User != "") != (len(i.Tags) > 0)
}

// Who is the identity in words for people: the login, or the tags.
func (i Identity) Who() string {
	if i.User != "" {
		return string(i.User)
	}
	s := make([]string, len(i.Tags))
	for n, t := range i.Tags {
		s[n] = string(t)
	}
	return strings.Join(s, ",")
}

// ParseLogin accepts user@domain and the provider forms user@github and name@.
func ParseLogin(s string) (Login, error) {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || len(s) > 254 {
		return "", fmt.Errorf("policy: login %q is not of the form user@domain", s)
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r > 0x7e && r < 0xa0 || strings.ContainsRune(`"'\,;:<>()[]`, r) {
			return "", fmt.Errorf("policy: login %q has a character that logins do not have", s)
		}
	}
	return Login(s), nil
}

// ParseTag accepts tag:name, name starting with an ASCII letter and going on with letters, digits and dashes.
func ParseTag(s string) (Tag, error) {
	name, ok := strings.CutPrefix(s, "tag:")
	if !ok || name == "" || len(name) > 63 {
		return "", fmt.Errorf("policy: tag %q is not of the form tag:name", s)
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if i == 0 && !letter {
			return "", errors.New("policy: tag names must start with a letter, after 'tag:'")
		}
		if !letter && !('0' <= c && c <= '9') && c != '-' {
			return "", fmt.Errorf("policy: tag %q: only letters, digits and dashes", s)
		}
	}
	return Tag(s), nil
}

// ParseLocalUser accepts what can be an account's name and nothing that could be taken
// for an option, a number, a path or a line of its own.
func ParseLocalUser(s string) (LocalUser, error) {
	if s == "" || len(s) > 256 {
		return "", fmt.Errorf("policy: local user %q: empty or too long", s)
	}
	digits := true
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
			digits = false
		case '0' <= c && c <= '9':
		case (c == '-' || c == '.' || c == '+' || c == '@' || c == '$' || c == '\\') && i > 0:
			digits = false
		case c >= 0x80:
			digits = false
		default:
			return "", fmt.Errorf("policy: local user %q has a character that account names do not have", s)
		}
	}
	if digits {
		return "", fmt.Errorf("policy: local user %q is a number, not a name", s)
	}
	return LocalUser(s), nil
}
