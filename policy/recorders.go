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

// recorders looks for tags of recorders that those who are recorded may put on a machine: it would
// then be given their recordings, to keep or not.
func (l *linter) recorders() {
	for i := range l.p.ssh.rules {
		r := &l.p.ssh.rules[i]
		for _, tag := range r.recorder {
			at, ok := l.p.names.tags[tag]
			if !ok {
				continue
			}
			for _, o := range l.p.tagOwners[at].who {
				recorded := slices.ContainsFunc(r.src, func(s selector) bool {
					return s.word.text == o.word.text || s.kind == selGroup && o.kind == selLogin && slices.Contains(s.group.members, o.login) ||
						s.kind == selLogin && o.kind == selGroup && slices.Contains(o.group.members, s.login)
				})
				if o.kind == selMember || recorded {
					l.warnf(r.off, "ssh[%d]: %s may put %s on a machine of their own, which then gets the recordings of this rule, to keep or not", r.index, o.word.text, tag)
				}
			}
		}
	}
}
