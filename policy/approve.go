package policy

import (
	"net/netip"
	"slices"
)

// tagOwner is one entry of tagOwners.
type tagOwner struct {
	tag Tag
	who []selector
}

// approver is one entry of autoApprovers.
type approver struct {
	prefix netip.Prefix
	who    []selector
	off    int // in the text
}

// names reports whether the selectors name the node by who it is.
func namesNode(who []selector, id *Identity) bool {
	person := id.User != "" && len(id.Tags) == 0 && !id.External
	for i := range who {
		s := &who[i]
		ok := false
		switch s.kind {
		case selLogin:
			ok = person && s.login == id.User
		case selGroup:
			ok = person && slices.Contains(s.group.members, id.User)
		case selTag:
			ok = !id.External && slices.Contains(id.Tags, s.tag)
		case selMember:
			ok = person
		case selRole:
			ok = person && s.role == id.Role
		case selTagged:
			ok = !id.External && len(id.Tags) > 0
		}
		if ok {
			return true
		}
	}
	return false
}

// MayTag reports whether the actor may put the tag on a device. Who runs the mesh (owner,
// admin, network-admin) may use every tag that the file defines.
func (p *Policy) MayTag(actor Identity, tag Tag) bool {
	ok, _, _ := p.mayTag(&actor, tag)
	return ok
}

func (p *Policy) mayTag(actor *Identity, tag Tag) (ok bool, entry int, reason string) {
	if p == nil || !actor.Valid() {
		return false, -1, "no-identity: the actor is not known"
	}
	i, defined := p.names.tags[tag]
	switch {
	case !defined:
		return false, -1, "no-tag: tagOwners does not define this tag"
	case p.owns(actor, i, make([]bool, len(p.tagOwners))):
		return true, i, "owner: tagOwners names the actor"
	case actor.User != "" && !actor.External && (actor.Role == RoleAdmin || actor.Role == RoleNetworkAdmin || actor.Role == RoleOwner):
		return true, i, "role: the actor is " + string(actor.Role)
	}
	return false, -1, "not-owner: the actor does not own this tag"
}

// owns follows tags that own tags, also in circles: whoever may make a machine of tag a
// has what a owns. seen keeps a tag from being looked at twice.
func (p *Policy) owns(actor *Identity, entry int, seen []bool) bool {
	if seen[entry] {
		return false
	}
	seen[entry] = true
	owner := &p.tagOwners[entry]
	if namesNode(owner.who, actor) {
		return true
	}
	for _, s := range owner.who {
		if s.kind == selTag && p.owns(actor, p.names.tags[s.tag], seen) {
			return true
		}
	}
	return false
}

// RouteApproved reports whether the route is approved without an administrator. A rule
// for a prefix covers the prefixes inside it; the default routes are exit nodes.
func (p *Policy) RouteApproved(node Identity, prefix netip.Prefix) bool {
	ok, _, _ := p.routeApproved(&node, prefix)
	return ok
}

func (p *Policy) routeApproved(node *Identity, prefix netip.Prefix) (ok bool, entry int, reason string) {
	if p == nil || !node.Valid() || !prefix.IsValid() {
		return false, -1, "no-identity: the node is not known"
	}
	prefix = prefix.Masked()
	if prefix.Bits() == 0 {
		if p.exit != nil && namesNode(p.exit.who, node) {
			return true, 0, "exit-node: autoApprovers.exitNode names the node"
		}
		return false, -1, "no-approver: autoApprovers.exitNode does not name the node"
	}
	for i := range p.approvers {
		a := &p.approvers[i]
		if a.prefix.Bits() <= prefix.Bits() && a.prefix.Contains(prefix.Addr()) && namesNode(a.who, node) {
			return true, i, "approver: autoApprovers.routes names the node for " + a.prefix.String()
		}
	}
	return false, -1, "no-approver: autoApprovers.routes does not name the node for this prefix"
}

// NeedsRoutes tells, as warnings, what of the policy is about networks behind nodes, for a
// mesh whose nodes have none: rules with via, and approvers of routes and exit nodes.
func (p *Policy) NeedsRoutes() []Problem {
	r := newReport(p.name, p.text)
	const none = "machines of this mesh lead to no other networks yet"
	for _, a := range p.approvers {
		r.warnf(a.off, "autoApprovers.routes[%q] has no effect: %s", a.prefix, none)
	}
	if p.exit != nil {
		r.warnf(p.exit.off, "autoApprovers.exitNode has no effect: %s", none)
	}
	last := -1
	for i := range p.net.rules {
		if rule := &p.net.rules[i]; len(rule.via) > 0 && rule.off != last {
			last = rule.off
			r.warnf(rule.off, "%s[%d] has no effect, as it has via: %s", rule.section, rule.rule, none)
		}
	}
	return r.sorted()
}
