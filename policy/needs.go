package policy

import (
	"fmt"
	"slices"
)

// features are the fields that hosts enforce since they came to be, beside those of the
// original language. A host that does not know one cannot read a file that has it, and
// then lets nobody do anything.
var features = []string{"permit", "command", "limits", "hours", "record", "recordInput", "watch", "loginMessage", "breakGlass", "request", "showWatchers", "sftpFolder", "seal", "recordFailure", "showRecording", "delete", "recorder"}

// Understands is what hosts of this version tell the hub that they enforce: the language
// itself, and one word for each kind of field that was added to it.
func Understands() []string {
	out := []string{"policy/1"}
	for _, f := range features {
		out = append(out, "policy/"+f)
	}
	return out
}

// Missing tells which rules of the policy a host that understands this much could not
// enforce, one sentence each; none when it can be given the policy.
func (p *Policy) Missing(understands []string) []string {
	var out []string
	if len(understands) > 0 && !slices.Contains(understands, "policy/1") {
		out = append(out, "the language of this file")
	}
	if len(p.sealTo) > 0 && !slices.Contains(understands, "policy/seal") {
		out = append(out, fmt.Sprintf("\"sealRecordingsTo\" on line %d", p.line(p.sealAt)))
	}
	rules := slices.Clone(p.ssh.rules)
	slices.SortFunc(rules, func(a, b sshRule) int { return a.index - b.index })
	for i := range rules {
		for _, u := range rules[i].terms.uses {
			if !slices.Contains(understands, "policy/"+u.feature) {
				out = append(out, fmt.Sprintf("%q of ssh[%d] on line %d", u.feature, rules[i].index, p.line(u.off)))
			}
		}
	}
	return out
}
