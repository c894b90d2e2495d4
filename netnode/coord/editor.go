package coord

import (
	"fmt"
	"net/netip"

	"tssh/policy"
)

// Editor is who changes a policy, as the program that asks found it in the environment of
// its session. It decides nothing: who may use the socket may do everything. It is there to
// warn people who are about to lock themselves out.
type Editor struct {
	Login   policy.Login     `json:"login,omitempty"`
	Node    string           `json:"node,omitempty"`    // from which they are logged in
	Addr    netip.Addr       `json:"addr,omitzero"`     // of Node, as the session has it
	Host    netip.Addr       `json:"host,omitzero"`     // the mesh address of the host that the session is on
	Account policy.LocalUser `json:"account,omitempty"` // on it
}

// selfLockouts warns the editor of machines that they could not log in to any more, and of
// the end of the session that they are in.
func selfLockouts(name string, old, next *policy.Policy, d *policy.Directory, e Editor) []string {
	if e.Login == "" {
		return nil
	}
	var out []string
	if hosts := policy.LockedOutOf(old, next, d, e.Login); len(hosts) > 0 {
		out = append(out, fmt.Sprintf("%s: warning: you (%s) could not log in on %s any more", name, e.Login, policy.Few(hosts)))
	}
	src, ok := d.Node(e.Node)
	if !ok || src.User != e.Login || e.Account == "" {
		return out
	}
	for _, n := range d.Nodes {
		dst, _ := d.Node(n.Name)
		for _, a := range dst.Addrs {
			if a != e.Host {
				continue
			}
			r := policy.Request{Ask: policy.AskLogin, Src: src, SrcAddr: e.Addr, Dst: dst, DstAddr: e.Host, User: e.Account, UIDUnknown: true, AnyTime: true}
			was, is := policy.Evaluate(old, r), policy.Evaluate(next, r)
			if was.Verdict != policy.Deny && !was.Same(is) {
				why := "it allows this login otherwise"
				switch is.Verdict {
				case policy.Deny:
					why = "it does not allow this login"
				case policy.Check, policy.Approval:
					why = "this login would need a " + is.Verdict.String()
				}
				out = append(out, fmt.Sprintf("%s: warning: the session that you are in, as %s on %s, would end: %s", name, e.Account, dst.Name, why))
			}
		}
	}
	return out
}
