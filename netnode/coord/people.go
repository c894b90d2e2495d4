package coord

import (
	"context"
	"slices"
	"strings"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
)

// UserInfo is a person of the mesh.
type UserInfo struct {
	Login string `json:"login"`
	Role  string `json:"role"`
	Nodes int    `json:"nodes"`
}

func roles() []policy.Role {
	return []policy.Role{policy.RoleMember, policy.RoleAdmin, policy.RoleOwner, policy.RoleITAdmin, policy.RoleNetworkAdmin, policy.RoleBillingAdmin, policy.RoleAuditor}
}

// AddUser adds a person, or changes the role of one who is there.
func (s *Server) AddUser(ctx context.Context, who, login, role string) (UserInfo, error) {
	l, err := policy.ParseLogin(login)
	if err != nil {
		return UserInfo{}, refuse(netmap.CodeBad, "%s", strings.TrimPrefix(err.Error(), "policy: "))
	}
	r := policy.Role(role)
	if role == "" {
		r = policy.RoleMember
	}
	if !slices.Contains(roles(), r) {
		return UserInfo{}, refuse(netmap.CodeBad, "%q is not a role; there are member, admin, owner, it-admin, network-admin, billing-admin, auditor", role)
	}
	err = s.change(ctx, func(c *change) error {
		rec := &netmap.User{Header: netmap.Header{Kind: netmap.KindUser, ID: string(l)}, Login: l, Role: r}
		kind := "user.add"
		if old := s.st.users[l]; old != nil {
			if old.rec.Role == r {
				return refuse(CodeExists, "the user %s is there already", l)
			}
			if role == "" {
				return refuse(CodeExists, "the user %s is there already, as %s", l, old.rec.Role)
			}
			kind, rec.Extra = "user.role", old.rec.Extra
		}
		if err := c.put(rec); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: kind, Who: who, Text: string(l), Extra: map[string]string{"role": string(r)}})
	})
	s.drainAudit(ctx)
	if err != nil {
		return UserInfo{}, err
	}
	return UserInfo{Login: string(l), Role: string(r)}, nil
}

// Users lists the people.
func (s *Server) Users() []UserInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	count := map[policy.Login]int{}
	for _, n := range s.st.nodes {
		count[n.rec.User]++
	}
	out := []UserInfo{}
	for l, u := range s.st.users {
		out = append(out, UserInfo{Login: string(l), Role: string(u.rec.Role), Nodes: count[l]})
	}
	slices.SortFunc(out, func(a, b UserInfo) int { return strings.Compare(a.Login, b.Login) })
	return out
}

// RemoveUser removes a person, with their nodes and keys, in one change: there is no
// moment in which one of them is left.
func (s *Server) RemoveUser(ctx context.Context, who, login string) (nodes int, err error) {
	l := policy.Login(login)
	err = s.change(ctx, func(c *change) error {
		if s.st.users[l] == nil {
			return refuse(CodeNotFound, "there is no user %s", login)
		}
		nodes = 0
		for _, id := range sortedNodes(s.st) {
			n := s.st.nodes[id]
			if n.rec.User != l {
				continue
			}
			nodes++
			if err := c.revokeNode(n, who, "its owner was removed"); err != nil {
				return err
			}
		}
		for _, k := range s.st.keys {
			if k.User == l {
				if err := c.removeKey(k); err != nil {
					return err
				}
			}
		}
		if err := c.put(&netmap.Revocation{Header: netmap.Header{Kind: netmap.KindRevocation, ID: "user:" + login}, User: l, When: c.now}); err != nil {
			return err
		}
		if err := c.remove(netmap.Ref{Kind: netmap.KindUser, ID: login}); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "user.remove", Who: who, Text: login})
	})
	s.drainAudit(ctx)
	return nodes, err
}
