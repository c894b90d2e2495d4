package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailscale/hujson"
)

const (
	defaultCheckPeriod = 12 * time.Hour
	maxCheckPeriod     = 168 * time.Hour
)

func (f *file) readSSH(v *hujson.Value) {
	f.policy.hasSSH = true
	for i, e := range f.entries(v, "ssh") {
		f.readSSHRule(&e, i)
	}
}

func (f *file) readSSHRule(e *hujson.Value, i int) {
	rule := fmt.Sprintf("ssh[%d]", i)
	r := sshRule{index: i, off: e.StartOffset, posture: f.postureX, period: defaultCheckPeriod}
	line, _ := f.place(e.StartOffset)
	r.reason = fmt.Sprintf("%s on line %d", rule, line)
	var action, period word
	var src, dst, names, env, recorder []word
	var dstMember word
	before := f.errors
	more := f.newTerms(rule)
	sum := sha256.Sum256(f.text[e.StartOffset:e.EndOffset])
	more.t.id = hex.EncodeToString(sum[:8])
	known := map[string]func(*hujson.Value){
		"action":          func(v *hujson.Value) { action, _ = f.str(v, rule+".action") },
		"src":             func(v *hujson.Value) { src = f.list(v, rule+".src") },
		"dst":             func(v *hujson.Value) { dst = f.list(v, rule+".dst") },
		"users":           func(v *hujson.Value) { names = f.list(v, rule+".users") },
		"checkPeriod":     func(v *hujson.Value) { period = f.readPeriod(v, rule, &r) },
		"acceptEnv":       func(v *hujson.Value) { env = f.list(v, rule+".acceptEnv") },
		"recorder":        func(v *hujson.Value) { recorder = f.list(v, rule+".recorder") },
		"enforceRecorder": func(v *hujson.Value) { r.enforceRecorder = f.boolean(v, rule+".enforceRecorder") },
		"srcPosture":      func(v *hujson.Value) { r.posture = f.postureList(v, rule+".srcPosture") },
	}
	maps.Copy(known, more.fields())
	f.fields(e, rule, true, known)
	if f.errors > before && e.Value.Kind() != '{' {
		return
	}
	switch action.text {
	case "accept", "request":
		r.request = action.text == "request"
		if period.text != "" {
			f.errorf(period.off, "%s: checkPeriod can only stand beside action \"check\"", rule)
		}
	case "check":
		r.check = true
	case "":
		f.errorf(e.StartOffset, "%s: action must be specified", rule)
	default:
		f.errorf(action.off, "%s: %q is not a valid action%s", rule, action.text, f.hint(action.text, []string{"accept", "check", "request"}))
	}
	if f.errors == before {
		f.needSides(e, rule, src, dst)
		if len(names) == 0 {
			f.errorf(e.StartOffset, "%s: users must be specified", rule)
		}
	}
	r.src = f.names.selectors(f.report, rule, "src", src, atSSHSrc)
	r.dst = f.names.selectors(f.report, rule, "dst", dst, atSSHDst)
	whole := len(r.src) == len(src) && len(r.dst) == len(dst)
	for _, d := range r.dst {
		switch {
		case d.tagged():
			continue
		case d.kind == selMember:
			dstMember = d.word
		case d.kind == selLogin:
			if whole && !(len(r.src) == 1 && r.src[0].kind == selLogin && r.src[0].login == d.login) {
				f.errorf(d.word.off, "%s: users in dst are only allowed from the same user, so src must be [%q] and nothing else", rule, d.word.text)
			}
		}
		r.own = true
		f.checkOwn(rule, d, r.src)
	}
	if dstMember.text != "" {
		f.warnf(dstMember.off, "%s: dst %q means each person's own devices here, never another person's; write \"autogroup:self\"", rule, dstMember.text)
	}
	if r.check || r.request {
		for _, s := range r.src {
			if s.tagged() {
				f.errorf(s.word.off, "%s: action %q needs a person, and %q has none", rule, action.text, s.word.text)
			}
		}
	}
	f.readUsers(rule, names, &r)
	for _, w := range env {
		switch {
		case w.text == "":
			f.errorf(w.off, "%s: acceptEnv values cannot be empty", rule)
			continue
		case strings.ContainsAny(w.text, "=\x00 \t\n"):
			f.errorf(w.off, "%s: acceptEnv %q is not the name of a variable", rule, w.text)
			continue
		case w.text == "*":
			f.warnf(w.off, "%s: acceptEnv \"*\" takes every variable that the client sends", rule)
		}
		r.acceptEnv = append(r.acceptEnv, w.text)
	}
	for _, s := range f.names.selectors(f.report, rule, "recorder", recorder, atSSHDst) {
		if s.kind != selTag {
			f.errorf(s.word.off, "%s: recorder %q: recorders are named by tag", rule, s.word.text)
			continue
		}
		r.recorder = append(r.recorder, s.tag)
	}
	if len(r.recorder) > 0 {
		more.t.uses = append(more.t.uses, use{"recorder", recorder[0].off})
	}
	switch {
	case r.enforceRecorder && len(recorder) == 0:
		f.warnf(e.StartOffset, "%s: enforceRecorder without recorder has no effect", rule)
	case !r.enforceRecorder && len(r.recorder) > 0:
		f.warnf(recorder[0].off, "%s: recorder without enforceRecorder lets sessions go on when the recorder is away", rule)
	}
	more.finish(&r)
	f.ssh = append(f.ssh, r)
}

// checkOwn refuses tags as the source of logins on a person's own devices.
func (f *file) checkOwn(rule string, d selector, src []selector) {
	for _, s := range src {
		if !s.tagged() {
			continue
		}
		if d.kind == selSelf {
			f.errorf(d.word.off, "%s: autogroup:self can only be used with users, groups, or supported autogroups, not with %q", rule, s.word.text)
		} else if d.kind == selMember {
			f.errorf(d.word.off, "%s: tags in src cannot log in on people's devices: %q to %q", rule, s.word.text, d.word.text)
		}
		return
	}
}

// readPeriod reads checkPeriod; null is the default.
func (f *file) readPeriod(v *hujson.Value, rule string, r *sshRule) word {
	w, ok := f.str(v, rule+".checkPeriod")
	if !ok {
		return word{}
	}
	if w.text == "always" {
		r.period = 0
		return w
	}
	d, err := time.ParseDuration(w.text)
	switch {
	case err != nil:
		more := ""
		if n, err := strconv.ParseUint(strings.TrimSuffix(w.text, "d"), 10, 8); err == nil && strings.HasSuffix(w.text, "d") {
			more = fmt.Sprintf("; days are written in hours, as %dh", n*24)
		}
		f.errorf(w.off, "%s: checkPeriod %q is neither a duration, as 30m or 12h, nor \"always\"%s", rule, w.text, more)
	case d < 0:
		f.errorf(w.off, "%s: checkPeriod %v must be a positive duration", rule, d)
	case d > maxCheckPeriod:
		f.errorf(w.off, "%s: checkPeriod %v is above the max (168h)", rule, d)
	}
	r.period = d
	if w.text == "" {
		w.text = `""`
	}
	return w
}

// readUsers reads the accounts of a rule. What looks like a selector is never the name of
// an account, which has no colon.
func (f *file) readUsers(rule string, ws []word, r *sshRule) {
	for _, w := range ws {
		if dom, ok := strings.CutPrefix(w.text, "localpart:*@"); ok && dom != "" && !strings.ContainsAny(dom, "*@: ") {
			r.users.domains = append(r.users.domains, dom)
			f.names.domains = append(f.names.domains, word{dom, w.off})
			continue
		}
		if w.text == "autogroup:nonroot" {
			r.users.nonroot = true
			continue
		}
		if strings.HasPrefix(w.text, "localpart:") {
			f.errorf(w.off, "%s: user %q is not valid: after \"localpart:\" only *@domain can stand", rule, w.text)
			continue
		}
		u, err := ParseLocalUser(w.text)
		if err != nil || strings.Contains(w.text, "*") {
			more := ""
			switch {
			case strings.HasPrefix(w.text, "autogroup:"):
				more = `; of the autogroups only "autogroup:nonroot" can stand here`
			case strings.Contains(w.text, ":"):
				more = "; users are accounts of the host, not groups or tags"
			case w.text == "*":
				more = `; write "autogroup:nonroot" for all but root, and "root" for root`
			case err != nil && w.text != "":
				_, words, _ := strings.Cut(err.Error(), strconv.Quote(w.text)+" ")
				more = ": it " + words
			}
			f.errorf(w.off, "%s: user %q is not valid%s", rule, w.text, more)
			continue
		}
		r.users.names = append(r.users.names, u)
		r.users.root = r.users.root || u == "root"
	}
	if len(r.users.domains) > 0 && slices.ContainsFunc(r.src, selector.tagged) && !slices.ContainsFunc(r.src, selector.person) {
		f.warnf(ws[0].off, "%s: tagged machines have no login, so \"localpart:\" lets none of them in", rule)
	}
}
