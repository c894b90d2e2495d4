package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tailscale/hujson"
)

// Bounds of what a rule says about its sessions.
const (
	maxTermsList   = 200 // entries of a list of destinations, paths, commands or hours
	maxCommandText = 4096
	maxMessage     = 500 // characters of loginMessage
	maxAtOnce      = 10_000
	maxLimit       = 30 * 24 * time.Hour
	maxApproved    = 168 * time.Hour
	maxApprovals   = 5
)

// termsReader gathers the fields of one rule that are not of the original language.
type termsReader struct {
	f        *file
	rule     string
	t        *terms
	permitAt int  // offset of permit, -1 without one
	sftpAt   int  // of permit.sftp
	folderAt int  // of permit.sftpFolder
	shellAt  int  // of permit.shell, when it is true
	record   word // as written
	failure  word
	glassAt  int
	askAt    int // of the first field that only a request has
	cmdAt    int
	self     word
}

func (f *file) newTerms(rule string) *termsReader {
	return &termsReader{f: f, rule: rule, t: &terms{}, permitAt: -1, sftpAt: -1, folderAt: -1, shellAt: -1, glassAt: -1, askAt: -1, cmdAt: -1}
}

// seen notes that the rule needs hosts that know the feature.
func (r *termsReader) seen(feature string, v *hujson.Value) {
	if !isNull(v) && !slices.ContainsFunc(r.t.uses, func(u use) bool { return u.feature == feature }) {
		r.t.uses = append(r.t.uses, use{feature, v.StartOffset})
	}
}

func (r *termsReader) what(key string) string { return r.rule + "." + key }

// fields are the readers of the keys.
func (r *termsReader) fields() map[string]func(*hujson.Value) {
	f, t := r.f, r.t
	duration := func(key, feature string, to *time.Duration) func(*hujson.Value) {
		return func(v *hujson.Value) {
			r.seen(feature, v)
			*to = r.duration(v, key, time.Second, maxLimit)
		}
	}
	people := func(key, feature string, to *[]selector) func(*hujson.Value) {
		return func(v *hujson.Value) {
			r.seen(feature, v)
			if !isNull(v) {
				*to = append([]selector{}, f.names.selectors(f.report, r.rule, key, f.list(v, r.what(key)), atPeople)...)
			}
		}
	}
	return map[string]func(*hujson.Value){
		"permit":   func(v *hujson.Value) { r.seen("permit", v); r.readPermit(v) },
		"command":  func(v *hujson.Value) { r.seen("command", v); r.readCommand(v) },
		"commands": func(v *hujson.Value) { r.seen("command", v); r.readCommands(v) },

		"sessionLimit":   duration("sessionLimit", "limits", &t.SessionLimit),
		"idleLimit":      duration("idleLimit", "limits", &t.IdleLimit),
		"sessionsAtOnce": func(v *hujson.Value) { r.seen("limits", v); t.SessionsAtOnce = r.count(v, "sessionsAtOnce", maxAtOnce) },
		"hours":          func(v *hujson.Value) { r.seen("hours", v); r.readHours(v) },
		"until":          func(v *hujson.Value) { r.seen("hours", v); r.readUntil(v) },

		"record":          func(v *hujson.Value) { r.seen("record", v); r.record, _ = f.str(v, r.what("record")) },
		"onRecordFailure": func(v *hujson.Value) { r.seen("record", v); r.failure, _ = f.str(v, r.what("onRecordFailure")) },
		"recordInput":     func(v *hujson.Value) { r.seen("recordInput", v); t.RecordInput = f.boolean(v, r.what("recordInput")) },
		"selfAttested": func(v *hujson.Value) {
			r.seen("record", v)
			t.SelfAttested = f.boolean(v, r.what("selfAttested"))
			r.self = word{"selfAttested", v.StartOffset}
		},

		"watch":  people("watch", "watch", &t.watch),
		"join":   people("join", "watch", &t.join),
		"end":    people("end", "watch", &t.end),
		"delete": people("delete", "delete", &t.del),
		"showWatchers": func(v *hujson.Value) {
			r.seen("showWatchers", v)
			t.ShowWatchers = f.boolean(v, r.what("showWatchers"))
		},

		"showRecording": func(v *hujson.Value) {
			r.seen("showRecording", v)
			t.ShowRecording = f.boolean(v, r.what("showRecording"))
		},
		"loginMessage": func(v *hujson.Value) { r.seen("loginMessage", v); r.readMessage(v) },
		"breakGlass": func(v *hujson.Value) {
			if t.BreakGlass = f.boolean(v, r.what("breakGlass")); t.BreakGlass {
				r.seen("breakGlass", v)
				r.glassAt = v.StartOffset
			}
		},
		"approvers": func(v *hujson.Value) {
			if isNull(v) {
				return
			}
			r.askAt = v.StartOffset
			t.approvers = f.names.selectors(f.report, r.rule, "approvers", f.list(v, r.what("approvers")), atPeople)
		},
		"approvals": func(v *hujson.Value) {
			if !isNull(v) {
				r.askAt = v.StartOffset
			}
			t.Approvals = r.count(v, "approvals", maxApprovals)
		},
		"approvedFor": func(v *hujson.Value) {
			if !isNull(v) {
				r.askAt = v.StartOffset
			}
			t.ApprovedFor = r.duration(v, "approvedFor", time.Minute, maxApproved)
		},
	}
}

// duration reads a length of time; null is none.
func (r *termsReader) duration(v *hujson.Value, key string, least, most time.Duration) time.Duration {
	w, ok := r.f.str(v, r.what(key))
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(w.text)
	switch {
	case err != nil:
		r.f.errorf(w.off, "%s: %s %q is not a duration, as 15m or 8h", r.rule, key, w.text)
	case d < least:
		r.f.errorf(w.off, "%s: %s %v is below the least (%s)", r.rule, key, d, shortDuration(least))
	case d > most:
		r.f.errorf(w.off, "%s: %s %v is above the most (%s)", r.rule, key, d, shortDuration(most))
	default:
		return d
	}
	return 0
}

// count reads a number from 1 to most; null is none.
func (r *termsReader) count(v *hujson.Value, key string, most int) int {
	if isNull(v) {
		return 0
	}
	l, ok := v.Value.(hujson.Literal)
	if !ok || l.Kind() != '0' {
		r.f.errorf(v.StartOffset, "%s must be a number, not %s", r.what(key), kindName(v))
		return 0
	}
	n := 0
	for _, c := range string(l) {
		if c < '0' || c > '9' || n > most {
			n = -1
			break
		}
		n = n*10 + int(c-'0')
	}
	if n < 1 || n > most {
		r.f.errorf(v.StartOffset, "%s: %s must be a whole number from 1 to %d", r.rule, key, most)
		return 0
	}
	return n
}

// few is list with a bound.
func (r *termsReader) few(v *hujson.Value, key string) []word {
	ws := r.f.list(v, r.what(key))
	if len(ws) > maxTermsList {
		r.f.errorf(ws[maxTermsList].off, "%s has more than %d entries", r.what(key), maxTermsList)
		return ws[:maxTermsList]
	}
	return ws
}

func (r *termsReader) readPermit(v *hujson.Value) {
	f, p := r.f, &r.t.permit
	if isNull(v) {
		return
	}
	r.permitAt = v.StartOffset
	flag := func(key string, to *bool) func(*hujson.Value) {
		return func(v *hujson.Value) { *to = f.boolean(v, r.what("permit."+key)) }
	}
	f.fields(v, r.what("permit"), false, map[string]func(*hujson.Value){
		"pty": flag("pty", &p.pty), "exec": flag("exec", &p.exec), "agent": flag("agent", &p.agent), "x11": flag("x11", &p.x11),
		"shell": func(v *hujson.Value) {
			if p.shell = f.boolean(v, r.what("permit.shell")); p.shell {
				r.shellAt = v.StartOffset
			}
		},
		"sftp": func(v *hujson.Value) {
			w, ok := f.str(v, r.what("permit.sftp"))
			if !ok {
				return
			}
			r.sftpAt = w.off
			i := slices.Index(fileAccess, w.text)
			if i < 0 {
				f.errorf(w.off, "%s: permit.sftp is \"none\", \"read\" or \"write\", not %q%s", r.rule, w.text, f.hint(w.text, slices.Clone(fileAccess)))
				return
			}
			p.sftp = FileAccess(i)
		},
		"sftpFolder": func(v *hujson.Value) {
			w, ok := f.str(v, r.what("permit.sftpFolder"))
			if !ok {
				return
			}
			r.seen("sftpFolder", v)
			r.folderAt = w.off
			if !folder(w.text) {
				f.errorf(w.off, "%s: permit.sftpFolder %q is not an absolute path, as /srv/files, nor one of the home, as ~ or ~/inbox", r.rule, w.text)
				return
			}
			r.t.SFTPFolder = w.text
		},
		"forwardLocal":  func(v *hujson.Value) { p.local = r.endpoints(v, "permit.forwardLocal") },
		"forwardRemote": func(v *hujson.Value) { p.remote = r.endpoints(v, "permit.forwardRemote") },
		"forwardUnix": func(v *hujson.Value) {
			for _, w := range r.few(v, "permit.forwardUnix") {
				if _, err := path.Match(w.text, ""); w.text != "*" && (err != nil || !path.IsAbs(w.text) || path.Clean(w.text) != w.text || len(w.text) > 1024) {
					f.errorf(w.off, "%s: permit.forwardUnix %q is not an absolute path, as /run/app.sock or /run/user/*/bus, nor \"*\"", r.rule, w.text)
					continue
				}
				p.unix = append(p.unix, w.text)
			}
		},
	})
}

// folder reports whether the text is a path that means the same however it is read.
func folder(s string) bool {
	abs := s
	if s == "~" || strings.HasPrefix(s, "~/") {
		abs = "/home" + s[1:]
	}
	return len(s) <= 1024 && s != "/" && cleanPath(abs) && !strings.ContainsFunc(s, unicode.IsControl)
}

func (r *termsReader) endpoints(v *hujson.Value, key string) []endpoint {
	var out []endpoint
	for _, w := range r.few(v, key) {
		e, err := r.f.names.parseEndpoint(w.text)
		if err != nil {
			r.f.errorf(w.off, "%s: %s %q: %s", r.rule, key, w.text, err)
			continue
		}
		out = append(out, e)
	}
	return out
}

// commandText checks what is to be given to a shell.
func (r *termsReader) commandText(w word, key string) bool {
	switch {
	case w.text == "":
		r.f.errorf(w.off, "%s: %s has an empty command", r.rule, key)
	case len(w.text) > maxCommandText:
		r.f.errorf(w.off, "%s: %s has a command of more than %d bytes", r.rule, key, maxCommandText)
	case strings.ContainsFunc(w.text, unicode.IsControl):
		r.f.errorf(w.off, "%s: %s has a command with a control character", r.rule, key)
	default:
		return true
	}
	return false
}

func (r *termsReader) readCommand(v *hujson.Value) {
	w, ok := r.f.str(v, r.what("command"))
	if ok && r.commandText(w, "command") {
		r.t.Command = w.text
		r.cmdAt = w.off
	}
}

func (r *termsReader) readCommands(v *hujson.Value) {
	if isNull(v) {
		return
	}
	r.cmdAt = v.StartOffset
	r.t.commands = []commandPattern{}
	ws := r.few(v, "commands")
	if len(ws) == 0 {
		r.f.errorf(v.StartOffset, "%s: commands is empty; to allow no commands, leave exec out of permit", r.rule)
	}
	for _, w := range ws {
		if !r.commandText(w, "commands") {
			continue
		}
		var c commandPattern
		text := w.text
		if before, ok := strings.CutSuffix(text, " ..."); ok {
			text, c.rest = before, true
		}
		ok := true
		for rest := text; rest != "" && ok; {
			var got string
			got, rest, ok = cutWord(rest)
			c.words = append(c.words, got)
		}
		switch {
		case !ok:
			r.f.errorf(w.off, "%s: commands %q: words are parted by single blanks, and a word with blanks stands in single quotes", r.rule, w.text)
		case len(c.words) == 0 || strings.Contains(c.words[0], "*") || c.words[0] == "...":
			r.f.errorf(w.off, "%s: commands %q: the first word is the program, and must be written out", r.rule, w.text)
		case slices.ContainsFunc(c.words, func(s string) bool { return strings.Count(s, "*") > 1 }):
			r.f.errorf(w.off, "%s: commands %q: a word has one * at most", r.rule, w.text)
		case slices.Contains(c.words, "..."):
			r.f.errorf(w.off, "%s: commands %q: ... can only be the last word", r.rule, w.text)
		default:
			r.t.commands = append(r.t.commands, c)
		}
	}
}

func (r *termsReader) readHours(v *hujson.Value) {
	if isNull(v) {
		return
	}
	ws := r.few(v, "hours")
	if len(ws) == 0 && v.Value.Kind() == '[' {
		r.f.errorf(v.StartOffset, "%s: hours is empty, so the rule would never count", r.rule)
	}
	for _, w := range ws {
		win, err := parseWindow(w.text)
		if err != nil {
			r.f.errorf(w.off, "%s: hours %s", r.rule, err)
			continue
		}
		r.t.hours = append(r.t.hours, win)
	}
}

func (r *termsReader) readUntil(v *hujson.Value) {
	r.t.until = r.f.time(v, r.rule+": until")
}

// time reads a point in time; null, and what is wrong, is the zero time.
func (f *file) time(v *hujson.Value, what string) time.Time {
	w, ok := f.str(v, what)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, w.text)
	if err != nil {
		f.errorf(w.off, "%s %q is not a time with its zone, as 2027-01-31T18:00:00+01:00 or 2027-01-31T17:00:00Z", what, w.text)
		return time.Time{}
	}
	return t
}

func (r *termsReader) readMessage(v *hujson.Value) {
	w, ok := r.f.str(v, r.what("loginMessage"))
	if !ok {
		return
	}
	switch {
	case len([]rune(w.text)) > maxMessage:
		r.f.errorf(w.off, "%s: loginMessage has more than %d characters", r.rule, maxMessage)
	case plain(w.text) != w.text:
		r.f.errorf(w.off, "%s: loginMessage must be one line without control characters", r.rule)
	default:
		r.t.LoginMessage = w.text
	}
}

// finish checks the fields against each other and fills in the defaults.
func (r *termsReader) finish(s *sshRule) {
	f, t := r.f, r.t
	s.terms = t
	p := &t.permit
	switch {
	case t.Command != "" && t.commands != nil:
		f.errorf(r.cmdAt, "%s: command runs whatever was asked for, so it cannot stand beside commands", r.rule)
	case t.commands != nil && p.shell:
		f.errorf(r.shellAt, "%s: a shell runs any command, so permit.shell cannot stand beside commands", r.rule)
	case r.cmdAt >= 0 && r.permitAt >= 0 && !p.exec && !p.shell:
		f.errorf(r.permitAt, "%s: permit has neither exec nor shell, so no command can run", r.rule)
	}
	switch {
	case r.permitAt >= 0:
		if !p.pty && !p.shell && !p.exec && !p.agent && !p.x11 && p.sftp == FilesNone && len(p.local)+len(p.remote)+len(p.unix) == 0 {
			f.warnf(r.permitAt, "%s: permit gives nothing, so a login under this rule can do nothing", r.rule)
		}
		if (p.shell || p.exec) && r.cmdAt < 0 && r.sftpAt >= 0 && p.sftp != FilesWrite {
			f.warnf(r.sftpAt, "%s: permit.sftp limits the sftp subsystem alone; a shell or a command can copy files too", r.rule)
		}
		if (p.shell || p.exec) && r.cmdAt < 0 && t.commands == nil && t.SFTPFolder != "" {
			f.warnf(r.folderAt, "%s: permit.sftpFolder limits the sftp subsystem alone; a shell or a command reaches files outside the folder", r.rule)
		}
		if t.SFTPFolder != "" && p.sftp == FilesNone {
			f.errorf(r.folderAt, "%s: permit.sftpFolder needs permit.sftp, \"read\" or \"write\"", r.rule)
		}
		if r.cmdAt >= 0 && p.sftp == FilesWrite && (t.SFTPFolder == "" || t.SFTPFolder == "~") {
			f.warnf(r.sftpAt, "%s: who may write files can change what a login runs, which the command of the rule does not stop", r.rule)
		}
	case t.commands != nil:
		p.pty, p.exec = true, true
	case t.Command != "":
		p.pty, p.shell, p.exec = true, true, true
	default:
		*p = defaultPermit()
	}
	t.SFTP = p.sftp
	r.finishRecord(s)
	r.finishAction(s)
	t.describe(s)
}

// defaultPermit is what a rule without permit and command gives: what sshd gives by
// default. X11 is off there too, and listening is on loopback only.
func defaultPermit() permit {
	every := []portSpec{{0, 0, 65535}}
	return permit{pty: true, shell: true, exec: true, agent: true, sftp: FilesWrite, unix: []string{"*"},
		local: []endpoint{{any: true, ports: every}}, remote: []endpoint{{name: "localhost", ports: every}}}
}

func (r *termsReader) finishRecord(s *sshRule) {
	f, t := r.f, r.t
	t.RecordDefault = r.record.text == "" && !s.enforceRecorder
	if w := r.record; w.text != "" {
		i := slices.Index(recordModes, w.text)
		if i < 0 {
			f.errorf(w.off, "%s: record is \"required\", \"required-remote\", \"best-effort\" or \"off\", not %q%s", r.rule, w.text, f.hint(w.text, slices.Clone(recordModes)))
			return
		}
		t.Record = RecordMode(i)
	}
	if s.enforceRecorder {
		if r.record.text != "" && t.Record != RecordRemote {
			f.errorf(r.record.off, "%s: record %q and enforceRecorder do not go together; write record alone", r.rule, r.record.text)
		}
		if len(s.recorder) > 0 {
			t.Record = RecordRemote
		}
	}
	if t.Record >= RecordBestEffort {
		t.RecordFailure = FailRefuse
	}
	if w := r.failure; w.text != "" {
		what, known := formerFailures[w.text]
		if i := slices.Index(recordFailures, w.text); i >= 0 {
			what, known = RecordFailure(i), true
			t.uses = append(t.uses, use{"recordFailure", w.off})
		}
		switch {
		case !known:
			f.errorf(w.off, "%s: onRecordFailure is \"terminate\", \"pause\" or \"refuse\", not %q%s", r.rule, w.text, f.hint(w.text, slices.Clone(recordFailures)))
		case t.Record >= RecordBestEffort:
			f.errorf(w.off, "%s: onRecordFailure can only stand where recording is required; with record %q sessions go on", r.rule, t.Record)
		default:
			t.RecordFailure = what
		}
		if t.RecordFailure == FailRefuse && t.Record < RecordBestEffort {
			f.warnf(w.off, "%s: a session under this rule goes on without a recording when recording fails", r.rule)
		}
	}
	if t.Record == RecordOff {
		if t.RecordInput || len(s.recorder) > 0 {
			f.errorf(r.record.off, "%s: record \"off\" goes with neither recordInput nor recorder", r.rule)
		}
		f.warnf(r.record.off, "%s: sessions under this rule are not recorded", r.rule)
	}
	if t.SelfAttested && t.Record >= RecordBestEffort {
		f.errorf(r.self.off, "%s: selfAttested can only stand where recording is required", r.rule)
	}
}

func (r *termsReader) finishAction(s *sshRule) {
	f, t := r.f, r.t
	if t.BreakGlass && (s.check || s.request) {
		f.errorf(r.glassAt, "%s: breakGlass is for when nobody can be asked, so it goes with action \"accept\" alone", r.rule)
	}
	if t.BreakGlass && (t.Record == RecordRemote || r.record.text != "" && t.Record == RecordRequired) {
		f.errorf(max(r.record.off, r.glassAt), "%s: breakGlass works when recording does not, so the rule cannot require it; leave record out", r.rule)
	}
	if t.BreakGlass {
		t.Record, t.RecordFailure = RecordBestEffort, FailRefuse
	}
	if !s.request {
		if r.askAt >= 0 {
			f.errorf(r.askAt, "%s: approvers, approvals and approvedFor can only stand beside action \"request\"", r.rule)
		}
		t.Approvals, t.ApprovedFor = 0, 0
		return
	}
	t.uses = append(t.uses, use{"request", s.off})
	if len(t.approvers) == 0 {
		f.errorf(s.off, "%s: action \"request\" needs approvers, the people who may say yes", r.rule)
	}
	if t.Approvals == 0 {
		t.Approvals = 1
	}
	if t.ApprovedFor == 0 {
		t.ApprovedFor = time.Hour
	}
}

// describe makes the words and the key of the terms.
func (t *terms) describe(s *sshRule) {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	if t.BreakGlass {
		add("break glass")
	}
	if t.Command != "" {
		add("runs %q", t.Command)
	}
	if t.commands != nil {
		var list []string
		for _, c := range t.commands {
			text := strings.Join(c.words, " ")
			if c.rest {
				text += " ..."
			}
			list = append(list, text)
		}
		add("only %q", list)
	}
	if words := t.permit.describe(); words != defaultPermitWords || t.Command != "" || t.commands != nil || t.SFTPFolder != "" {
		add("with %s", words)
	}
	if t.SFTPFolder != "" {
		add("sftp in %s", t.SFTPFolder)
	}
	if t.SessionLimit > 0 {
		add("at most %s", shortDuration(t.SessionLimit))
	}
	if t.IdleLimit > 0 {
		add("idle at most %s", shortDuration(t.IdleLimit))
	}
	if t.SessionsAtOnce > 0 {
		add("%d at once", t.SessionsAtOnce)
	}
	if times := t.times(); times != "" {
		w = append(w, times)
	}
	if !t.RecordDefault && !s.enforceRecorder {
		add("recording %s", t.Record)
	}
	if t.RecordFailure == FailRefuse && t.Record < RecordBestEffort {
		add("going on when it fails")
	}
	if t.RecordFailure == FailPause {
		add("paused when it fails")
	}
	if t.RecordInput {
		add("input recorded")
	}
	if t.ShowRecording {
		add("told that it is recorded")
	}
	if t.SelfAttested {
		add("self-attested recordings will do")
	}
	if t.ShowWatchers {
		add("watchers shown")
	}
	t.own = strings.Join(w, "; ")
	for _, l := range []struct {
		verb string
		who  []selector
	}{{"watched", t.watch}, {"joined", t.join}, {"ended", t.end}, {"deleted", t.del}} {
		if l.who != nil {
			add("%s by %s", l.verb, selectorWords(l.who))
		}
	}
	if s.request {
		add("approved by %d of %s for %s", t.Approvals, selectorWords(t.approvers), shortDuration(t.ApprovedFor))
	}
	t.words = strings.Join(w, "; ")
	t.key = fmt.Sprintf("%q %q %v %q %d %v %v %v", s.acceptEnv, s.recorder, s.enforceRecorder, t.Command, t.Record, t.RecordFailure == FailRefuse, t.RecordInput, t.BreakGlass)
	if t.RecordFailure == FailPause {
		t.key += " pause"
	}
	if t.SFTPFolder != "" { // so that hosts that are upgraded keep their sessions
		t.key += fmt.Sprintf(" %q", t.SFTPFolder)
	}
}

// times is when the rule counts.
func (t *terms) times() string {
	var w []string
	for i := range t.hours {
		w = append(w, t.hours[i].describe())
	}
	s := strings.Join(w, " and ")
	if !t.until.IsZero() {
		s += " until " + t.until.Format(time.RFC3339)
	}
	return strings.TrimSpace(s)
}

func selectorWords(sels []selector) string {
	if len(sels) == 0 {
		return "nobody"
	}
	var out []string
	for _, s := range sels {
		out = append(out, s.word.text)
	}
	return strings.Join(out, " ")
}

var defaultPermitWords = func() string { p := defaultPermit(); return p.describe() }()

func (p *permit) describe() string {
	var w []string
	for _, f := range []struct {
		on   bool
		word string
	}{{p.pty, "pty"}, {p.shell, "shell"}, {p.exec, "exec"}, {p.sftp == FilesRead, "sftp read"}, {p.sftp == FilesWrite, "sftp write"}, {p.agent, "agent"}, {p.x11, "x11"}} {
		if f.on {
			w = append(w, f.word)
		}
	}
	for _, l := range []struct {
		word string
		list []endpoint
	}{{"forwards to", p.local}, {"listening on", p.remote}} {
		for i := range l.list {
			w = append(w, l.word+" "+l.list[i].describe())
		}
	}
	for _, s := range p.unix {
		w = append(w, "sockets "+s)
	}
	if len(w) == 0 {
		return "nothing"
	}
	return strings.Join(w, ", ")
}

func (e *endpoint) describe() string {
	host := e.name
	switch {
	case e.any:
		host = "*"
	case e.below:
		host = "*." + e.name
	case host == "" && e.prefix.IsSingleIP():
		host = e.prefix.Addr().String()
	case host == "":
		host = e.prefix.String()
	}
	return host + ":" + portWords(e.ports)
}

func (w *window) describe() string {
	var days []string
	for i := range 7 {
		if d := (i + 1) % 7; w.days[d] {
			days = append(days, strings.ToUpper(dayNames[d][:1])+dayNames[d][1:])
		}
	}
	to := w.to
	if to > 24*60 {
		to -= 24 * 60
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d %s", strings.Join(days, ","), w.from/60, w.from%60, to/60, to%60, w.zone)
}
