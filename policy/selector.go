package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// place says where a selector is written; what is legal differs.
type place uint8

const (
	atNetSrc place = 1 << iota
	atNetDst
	atSSHSrc
	atSSHDst
	atOwner
	atApprover
	atTarget // of nodeAttrs
	atPeople // watch, join, end and approvers of ssh rules

	atNet = atNetSrc | atNetDst
)

type selKind uint8

const (
	selAny selKind = iota
	selWorld
	selLogin
	selDomain // user:*@domain
	selGroup
	selTag
	selAddr // address, prefix or host alias
	selIPSet
	selService
	selMember
	selRole
	selTagged
	selSelf
	selInternet
	selShared
)

// legal is the table of reference: which selector may stand where. What depends on the
// rest of the rule (self, logins and tags in ssh rules) is checked with the rule.
var legal = [...]place{
	selAny:      atNet | atTarget,
	selWorld:    atNetSrc,
	selLogin:    atNet | atSSHSrc | atSSHDst | atOwner | atApprover | atTarget | atPeople,
	selDomain:   atNet | atSSHSrc | atPeople,
	selGroup:    atNet | atSSHSrc | atOwner | atApprover | atTarget | atPeople,
	selTag:      atNet | atSSHSrc | atSSHDst | atOwner | atApprover | atTarget,
	selAddr:     atNet | atTarget,
	selIPSet:    atNet,
	selService:  atNetDst | atApprover,
	selMember:   atNet | atSSHSrc | atSSHDst | atOwner | atApprover | atTarget | atPeople,
	selRole:     atNet | atSSHSrc | atOwner | atApprover | atTarget | atPeople,
	selTagged:   atNet | atSSHSrc | atSSHDst | atOwner | atApprover | atTarget,
	selSelf:     atNetDst | atSSHDst,
	selInternet: atNetDst,
	selShared:   atNetSrc,
}

// roles lists the roles that have an autogroup; the position is the role's index.
var roles = [...]Role{RoleAdmin, RoleOwner, RoleITAdmin, RoleNetworkAdmin, RoleBillingAdmin, RoleAuditor}

func roleIndex(r Role) int { return slices.Index(roles[:], r) }

var autogroups = []string{
	"autogroup:admin", "autogroup:auditor", "autogroup:billing-admin", "autogroup:danger-all",
	"autogroup:internet", "autogroup:it-admin", "autogroup:member", "autogroup:network-admin",
	"autogroup:nonroot", "autogroup:owner", "autogroup:self", "autogroup:shared", "autogroup:tagged",
}

// selector is one resolved entry of src or dst.
type selector struct {
	kind   selKind
	word   word
	login  Login
	tag    Tag
	role   Role
	domain string
	group  *group
	ranges []netipx.IPRange
}

// person reports whether the selector names people, and thereby their devices.
func (s selector) person() bool {
	switch s.kind {
	case selLogin, selDomain, selGroup, selMember, selRole:
		return true
	}
	return false
}

func (s selector) tagged() bool { return s.kind == selTag || s.kind == selTagged }

type group struct {
	name    string
	off     int
	members []Login
}

// names is what the file defines, known before any rule is read.
type names struct {
	groups map[string]*group
	hosts  map[string]netip.Prefix
	tags   map[Tag]int                 // index in tagOwners
	ipsets map[string][]netipx.IPRange // shared by all that name the set

	domains []word // of user:*@domain and localpart:*@domain, for the check against a directory
}

// selector resolves one entry. side is the word for messages: src, dst, or dst="what is written".
func (n *names) selector(r *report, rule, side string, w word, at place) (selector, bool) {
	s, err := n.resolve(r, side, w, at)
	if err != "" {
		r.errorf(w.off, "%s: %s", rule, err)
		return s, false
	}
	if s.kind == selDomain {
		n.domains = append(n.domains, word{s.domain, w.off})
	}
	return s, true
}

func (n *names) resolve(r *report, side string, w word, at place) (s selector, problem string) {
	s.word = w
	t := w.text
	missing := func(what, hint string) (selector, string) {
		sep := "="
		if strings.Contains(side, "=") {
			sep = ": "
		}
		return s, fmt.Sprintf("%s%s%s not found: %q%s", side, sep, what, t, hint)
	}
	prefix, rest, colon := strings.Cut(t, ":")
	switch {
	case t == "":
		return s, side + " has an empty entry"
	case t == "*":
		s.kind = selAny
	case colon && prefix == "group":
		s.kind, s.group = selGroup, n.groups[t]
		if s.group == nil {
			return missing("group", hintKey(r, t, "", n.groups))
		}
	case colon && prefix == "tag":
		s.kind, s.tag = selTag, Tag(t)
		if _, err := ParseTag(t); err != nil {
			if name, ports, more := strings.Cut(rest, ":"); more && at&(atSSHSrc|atSSHDst) != 0 {
				return s, fmt.Sprintf("%s %q: ssh rules have no ports, write %q without %q", side, t, "tag:"+name, ":"+ports)
			}
			return s, strings.TrimPrefix(err.Error(), "policy: ")
		}
		if _, ok := n.tags[s.tag]; !ok {
			return missing("tag", cmp.Or(hintKey(r, t, "", n.tags), "; tags are defined in tagOwners"))
		}
	case colon && prefix == "autogroup":
		if problem := s.autogroup(rest); problem != "" {
			return s, problem + r.hint(t, slices.Clone(autogroups))
		}
	case colon && prefix == "ipset":
		s.kind = selIPSet
		set, ok := n.ipsets[t]
		if !ok {
			return missing("ipset", hintKey(r, t, "", n.ipsets))
		}
		s.ranges = set
	case colon && prefix == "svc":
		s.kind = selService
		if rest == "" {
			return s, fmt.Sprintf("%q names no service", t)
		}
	case colon && prefix == "user":
		s.kind = selDomain
		dom, ok := strings.CutPrefix(rest, "*@")
		if !ok || dom == "" || strings.ContainsAny(dom, "@*: ") {
			return s, fmt.Sprintf("%q: after \"user:\" only *@domain can stand", t)
		}
		s.domain = dom
	case colon && prefix == "localpart":
		return s, fmt.Sprintf("%q can only be used in the users of an ssh rule", t)
	case colon && prefix == "host":
		s.kind = selAddr
		pfx, ok := n.hosts[rest]
		if !ok {
			return missing("host", hintKey(r, t, "host:", n.hosts))
		}
		s.ranges = []netipx.IPRange{netipx.RangeOfPrefix(pfx)}
	case strings.Contains(t, "@"):
		s.kind = selLogin
		l, err := ParseLogin(t)
		if err != nil {
			return s, strings.TrimPrefix(err.Error(), "policy: ")
		}
		s.login = l
	default:
		s.kind = selAddr
		if pfx, ok := n.hosts[t]; ok {
			s.ranges = []netipx.IPRange{netipx.RangeOfPrefix(pfx)}
			break
		}
		if pfx, ok := parseAddrOrPrefix(t); ok {
			s.ranges = []netipx.IPRange{netipx.RangeOfPrefix(pfx)}
			break
		}
		if _, err := netipx.ParseIPRange(t); err == nil {
			return s, fmt.Sprintf("%q: ranges of addresses can only be used in ipsets", t)
		}
		if host, ports, _ := strings.Cut(t, ":"); at == atNetDst && (host == "*" || ports == "*") && !strings.Contains(side, "=") {
			return s, fmt.Sprintf("%s %q: the ports of a grant stand in ip, not in dst", side, t)
		}
		if strings.ContainsAny(t, "/:") {
			return s, fmt.Sprintf("%s %q is neither an address nor a prefix", side, t)
		}
		return missing("host", cmp.Or(hintKey(r, t, "", n.hosts), r.hint(t, slices.Clone(autogroups)), "; people are written with an @, as name@ or name@example.com"))
	}
	if legal[s.kind]&at == 0 {
		return s, s.misplaced(side, at)
	}
	return s, ""
}

func (s *selector) autogroup(name string) (problem string) {
	switch name {
	case "member", "members":
		s.kind = selMember
	case "tagged":
		s.kind = selTagged
	case "self":
		s.kind = selSelf
	case "internet":
		s.kind = selInternet
	case "shared":
		s.kind = selShared
	case "danger-all":
		s.kind = selWorld
	case "nonroot":
		return `"autogroup:nonroot" can only be used in the users of an ssh rule`
	default:
		i := roleIndex(Role(name))
		if i < 0 {
			return fmt.Sprintf("unknown autogroup %q", "autogroup:"+name)
		}
		s.kind, s.role = selRole, roles[i]
	}
	return ""
}

// misplaced says why a selector that is right in itself cannot stand where it does.
func (s *selector) misplaced(side string, at place) string {
	side, _, _ = strings.Cut(side, "=")
	switch {
	case at == atNetDst && s.kind == selWorld:
		return "cannot use autogroup:danger-all as a dst"
	case at&(atSSHSrc|atSSHDst) != 0 && (s.kind == selAddr || s.kind == selAny || s.kind == selIPSet):
		return fmt.Sprintf("invalid %s %q: ssh rules name people and tags, not addresses", side, s.word.text)
	case at == atOwner:
		return fmt.Sprintf("%q cannot own a tag", s.word.text)
	case at == atApprover:
		return fmt.Sprintf("%q cannot approve", s.word.text)
	case at == atPeople:
		return fmt.Sprintf("%q not valid in %s, which names people", s.word.text, side)
	case at == atTarget:
		return fmt.Sprintf("%q not valid as a target", s.word.text)
	}
	return fmt.Sprintf("%q not valid on the %s side of a rule", s.word.text, side)
}

// selectors resolves a list and drops what is wrong, which has been reported.
func (n *names) selectors(r *report, rule, side string, ws []word, at place) []selector {
	out := make([]selector, 0, len(ws))
	for _, w := range ws {
		if s, ok := n.selector(r, rule, side, w, at); ok {
			out = append(out, s)
		}
	}
	return out
}

// parseAddrOrPrefix takes an address as a prefix of one. Host bits are cut off.
func parseAddrOrPrefix(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}
