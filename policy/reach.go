package policy

// Reaches reports whether any ssh rule lets src in on dst as anybody, at any time. A host
// that hands connections no rule is about to another server asks it: where a rule is about
// them, that rule alone decides.
func (p *Policy) Reaches(src, dst Identity) bool {
	return p.hasSSH && src.Valid() && dst.Valid() && p.ssh.pair(&src, &dst)
}

// pair reports whether any rule has this source and this destination.
func (t *sshTable) pair(src, dst *Identity) bool {
	i, why := t.find(src, dst, &asked{always: true})
	return i >= 0 || why != missPair
}
