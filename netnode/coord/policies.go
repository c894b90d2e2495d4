package coord

import (
	"context"
	"fmt"
	"strings"

	"tssh/netnode/netmap"
	"tssh/policy"
)

// DefaultPolicy is what a new mesh begins with. People reach their own devices, and
// log in there as any account but root; nobody reaches anybody else's, and tagged
// machines are reached by nobody, until an administrator says more.
const DefaultPolicy = `// The policy of this mesh: who reaches what, and who logs in where as whom.
// Change it with: tsshub policy get > FILE, edit, tsshub policy set FILE
{
	// People reach their own devices, on every port.
	"acls": [
		{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
	],

	// People log in on their own devices, as any account but root.
	"ssh": [
		{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]},
	],
}
`

// PolicyInfo is the policy in force.
type PolicyInfo struct {
	Rev  int64  `json:"rev"`
	Text string `json:"text"`
	// File says that the policy is the one tsshub was started with.
	File     bool     `json:"file"`
	Warnings []string `json:"warnings,omitempty"`
}

// GetPolicy is the policy in force.
func (s *Server) GetPolicy() PolicyInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.st.view.policy
	return PolicyInfo{Rev: s.st.policyRev, Text: string(p.Text()), File: len(s.c.Policy) > 0, Warnings: words(p.Warnings())}
}

// CheckResult is what a policy that was only tried came to.
type CheckResult struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"` // FILE:LINE:COL: words
	Warnings []string `json:"warnings"`
	Rev      int64    `json:"rev,omitempty"` // of the policy, once it is set
}

// CheckPolicy tries a policy on this mesh: whether it can be read, and whether its own
// tests hold. name is what problems are told under.
func (s *Server) CheckPolicy(name string, text []byte) CheckResult {
	return s.tryPolicy(PolicyRequest{Name: name, Text: string(text)})
}

func (s *Server) tryPolicy(req PolicyRequest) CheckResult {
	name, text := req.Name, []byte(req.Text)
	r := CheckResult{Problems: []string{}}
	if len(text) > netmap.MaxPolicy {
		r.Problems = append(r.Problems, fmt.Sprintf("%s: %d bytes, at most %d", name, len(text), netmap.MaxPolicy))
		return r
	}
	p, problems := policy.Parse(name, text)
	if p != nil {
		problems = append(problems, p.Warnings()...)
		d, err := s.directory()
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
			return r
		}
		problems = append(problems, policy.RunTests(p, d)...)
		problems = append(problems, p.NeedsRoutes()...) // node records have no routes
		problems = append(problems, policy.NoWay(p, d)...)
		problems = append(problems, policy.NoRecorder(p, d)...)
		r.Warnings = s.lockouts(name, p, d, req.Editor)
		r.Problems = append(r.Problems, s.behind(name, p)...)
	}
	for _, x := range problems {
		if x.Warning {
			r.Warnings = append(r.Warnings, x.Error())
		} else {
			r.Problems = append(r.Problems, x.Error())
		}
	}
	if p == nil && len(r.Problems) == 0 {
		r.Problems = append(r.Problems, name+": not a policy")
	}
	if r.Warnings == nil {
		r.Warnings = []string{}
	}
	r.OK = len(r.Problems) == 0
	return r
}

func words(ps []policy.Problem) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Error())
	}
	return out
}

// directory is the mesh as tests of a policy see it.
func (s *Server) directory() (*policy.Directory, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var users []policy.DirectoryUser
	for l, u := range s.st.users {
		users = append(users, policy.DirectoryUser{Login: l, Role: u.rec.Role})
	}
	var nodes []policy.DirectoryNode
	for _, n := range s.st.nodes {
		nodes = append(nodes, policy.DirectoryNode{Name: n.rec.Name, User: n.rec.User, Tags: n.rec.Tags, Addresses: n.rec.Addrs, Attributes: n.rec.Attributes})
	}
	return policy.NewDirectory(users, nodes)
}

// SetPolicy puts a policy in force, on every host within the moment, or says why not.
// With ifMatch it does so only while the policy in force is of that revision.
func (s *Server) SetPolicy(ctx context.Context, who, name string, text []byte, ifMatch int64) (CheckResult, error) {
	return s.changePolicy(ctx, who, PolicyRequest{Name: name, Text: string(text), IfMatch: ifMatch})
}

func (s *Server) changePolicy(ctx context.Context, who string, r PolicyRequest) (CheckResult, error) {
	if len(s.c.Policy) > 0 {
		return CheckResult{}, refuse(CodePolicy, "this hub takes its policy from %s: change that file and send tsshub serve a SIGHUP", s.c.PolicyName)
	}
	return s.setPolicy(ctx, who, r)
}

// Reload puts the text of the file that the hub was started with in force.
func (s *Server) Reload(ctx context.Context, text []byte) error {
	r, err := s.setPolicy(ctx, "hub (--policy)", PolicyRequest{Name: s.c.PolicyName, Text: string(text)})
	if err != nil {
		return err
	}
	if !r.OK {
		return refuse(CodePolicy, "%s", strings.Join(r.Problems, "\n"))
	}
	for _, w := range r.Warnings {
		s.c.Log.Warn("policy", "say", w)
	}
	return nil
}

func (s *Server) setPolicy(ctx context.Context, who string, req PolicyRequest) (CheckResult, error) {
	r := s.tryPolicy(req)
	if !r.OK {
		return r, nil
	}
	var err error
	r.Rev, err = s.putPolicy(ctx, who, req.Name, []byte(req.Text), req.IfMatch)
	return r, err
}
