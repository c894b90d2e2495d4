package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Recorders are the tags that rules name as recorders, sorted. Nodes that carry one are part of
// what the mesh runs on: every node knows them and they know every node.
func (p *Policy) Recorders() []Tag {
	if p == nil || p.ssh == nil {
		return nil
	}
	var out []Tag
	for i := range p.ssh.rules {
		out = append(out, p.ssh.rules[i].recorder...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// IsRecorder reports whether a node with these tags is a recorder by the policy.
func (p *Policy) IsRecorder(tags []Tag) bool {
	all := p.Recorders()
	return slices.ContainsFunc(tags, func(t Tag) bool { return slices.Contains(all, t) })
}

// NoRecorder warns of ssh rules whose recorders the mesh does not have: no machine of the
// directory carries one of the tags.
func NoRecorder(p *Policy, d *Directory) []Problem {
	r := newReport(p.name, p.text)
	for i := range p.ssh.rules {
		rule := &p.ssh.rules[i]
		carried := func(n DirectoryNode) bool {
			return slices.ContainsFunc(n.Tags, func(t Tag) bool { return slices.Contains(rule.recorder, t) })
		}
		if len(rule.recorder) == 0 || slices.ContainsFunc(d.Nodes, carried) {
			continue
		}
		var tags []string
		for _, t := range rule.recorder {
			tags = append(tags, string(t))
		}
		then := "recordings wait on their hosts until one does"
		if rule.terms.Record == RecordRemote {
			then = "nobody can log in under the rule until one does"
		}
		r.warnf(rule.off, "%s", fmt.Sprintf("ssh[%d]: no machine carries %s yet, and %s", rule.index, strings.Join(tags, " or "), then))
	}
	return r.sorted()
}
