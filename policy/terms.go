package policy

import (
	"path"
	"slices"
	"strings"
	"time"
)

// RecordMode is how sessions of a rule are recorded. The zero value is the strictest that
// every host can do.
type RecordMode uint8

const (
	RecordRequired   RecordMode = iota // no session without a recording on this host
	RecordRemote                       // no session unless a recorder takes it while it runs
	RecordBestEffort                   // recorded when that is possible
	RecordOff                          // not recorded; that it happened is audited all the same
)

var recordModes = []string{RecordRequired: "required", RecordRemote: "required-remote", RecordBestEffort: "best-effort", RecordOff: "off"}

func (m RecordMode) String() string { return recordModes[min(int(m), len(recordModes)-1)] }

// FileAccess is what the sftp subsystem of a session may do.
type FileAccess uint8

const (
	FilesNone FileAccess = iota
	FilesRead
	FilesWrite // and read
)

var fileAccess = []string{FilesNone: "none", FilesRead: "read", FilesWrite: "write"}

func (a FileAccess) String() string { return fileAccess[min(int(a), len(fileAccess)-1)] }

// RecordFailure says what becomes of a session when its recording fails in the middle. None
// begins meanwhile that must be recorded, whichever it is.
type RecordFailure uint8

const (
	FailTerminate RecordFailure = iota // it ends
	FailPause                          // it is held until the recording goes on, and ends when that takes too long
	FailRefuse                         // it goes on unrecorded; only new ones are refused
)

var recordFailures = []string{FailTerminate: "terminate", FailPause: "pause", FailRefuse: "refuse"}

func (f RecordFailure) String() string { return recordFailures[min(int(f), len(recordFailures)-1)] }

// formerFailures are the names that these had before.
var formerFailures = map[string]RecordFailure{"end": FailTerminate, "continue": FailRefuse}

// Terms is what a rule says about the sessions that it lets in, beyond who, where and as
// whom. What may be opened in the session is asked with Decision.Allows.
type Terms struct {
	SFTP           FileAccess
	SFTPFolder     string        // the subsystem sees this folder as /: absolute, or "~" and what is below the home; "" for all
	Command        string        // runs whatever is asked for; "" for what the client asks
	SessionLimit   time.Duration // from login to the end; 0 for none
	IdleLimit      time.Duration // without a byte from the client or the host; 0 for none
	SessionsAtOnce int           // logins of one person, or one machine, under this rule on one host; 0 for any number

	Record        RecordMode
	RecordDefault bool // the rule does not say record or enforceRecorder
	RecordFailure RecordFailure
	RecordInput   bool // what is typed while the terminal shows it
	SelfAttested  bool // a recording that its own account could have altered will do

	LoginMessage  string // shown when a terminal opens
	ShowRecording bool   // the person is told, when a terminal opens, whether the session is recorded
	ShowWatchers  bool   // the person is told who watches, and who ends the session
	BreakGlass    bool   // works without recorder and hub; audited and announced
	Approvals     int    // of a rule with action request: so many approvers
	ApprovedFor   time.Duration
}

// terms is Terms and what decides about the rest of a session, compiled. It never changes.
type terms struct {
	Terms
	permit   permit
	commands []commandPattern // nil: any
	hours    []window
	until    time.Time
	// Who may see, join and end sessions of the rule and delete their recordings; nil means the default of each.
	watch, join, end, del []selector
	approvers             []selector
	key                   string // differs when a session that is open cannot go on under other terms
	words                 string // for people: what differs from the default
	own                   string // of that, what names nobody
	uses                  []use
	id                    string // of the rule's text
}

// use is a field that hosts of an earlier version do not know.
type use struct {
	feature string
	off     int
}

// permit is what may be opened in a session.
type permit struct {
	pty, shell, exec, agent, x11 bool
	sftp                         FileAccess
	local, remote                []endpoint
	unix                         []string // paths, * within a part of them; "*" for all
}

// Terms gives what the deciding rule says about the session. Of a denial it is the zero
// value, which gives nothing.
func (d Decision) Terms() Terms {
	if d.terms == nil {
		return Terms{}
	}
	return d.terms.Terms
}

// Words says to the person whom the rule lets in what it says about the session, beyond the
// default. It names nobody.
func (d Decision) Words() string {
	if d.terms == nil {
		return ""
	}
	return d.terms.own
}

// Key is equal for decisions under which an open session may go on as it is. A host that
// keeps sessions over its own restart keeps it, and gives it back to Recalled.
func (d Decision) Key() string {
	if d.terms == nil {
		return ""
	}
	return d.terms.key
}

// RuleID is the same for the same rule wherever it stands in the file, and another for one
// that says something else.
func (d Decision) RuleID() string {
	if d.terms == nil {
		return ""
	}
	return d.terms.id
}

// Recalled is an accepted decision as a host kept it: good for Same, and for nothing else.
func Recalled(section string, rule int, key string) Decision {
	return Decision{Verdict: Accept, Section: section, Rule: rule, terms: &terms{key: key}}
}

// Allows reports whether a session under this decision may have what is asked, and if not,
// what to say. It is what Evaluate asks after the login; callers that have a Decision may
// ask it alone. It does not allocate. Target depends on the question:
//
//	AskExec           the client's command, whole
//	AskSFTP           "write", or "" and "read" for reading alone
//	AskForwardLocal   host:port that the client wants to reach
//	AskForwardRemote  host:port to listen on; no host, "*", 0.0.0.0 and [::] are every address of the host
//	AskForwardUnix    an absolute path, to connect to or to listen on
//
// A name is matched as a name. A rule that has addresses only does not have a name that
// leads there: ask again with the address it led to, and connect to that address.
func (d Decision) Allows(a Ask, target string) (ok bool, say string) {
	if d.Verdict == Deny || d.terms == nil {
		return false, "this is not allowed"
	}
	t := d.terms
	p := &t.permit
	switch a {
	case AskPTY:
		return p.pty, sayNot(p.pty, "a terminal is not allowed in this login")
	case AskShell:
		return p.shell, sayNot(p.shell, "a shell is not allowed in this login")
	case AskExec:
		if !p.exec {
			return false, "commands are not allowed in this login"
		}
		if t.commands == nil || t.Command != "" {
			return true, ""
		}
		for i := range t.commands {
			if t.commands[i].match(target) {
				return true, ""
			}
		}
		return false, "this command is not among those that this login may run"
	case AskSFTP:
		switch target {
		case "write":
			ok = p.sftp == FilesWrite
			return ok, sayNot(ok, "changing files is not allowed in this login")
		case "", "read":
			ok = p.sftp != FilesNone
			return ok, sayNot(ok, "file transfer is not allowed in this login")
		}
	case AskForwardLocal:
		ok = anyEndpoint(p.local, target, false)
		return ok, sayNot(ok, "forwarding to this address is not allowed in this login")
	case AskForwardRemote:
		ok = anyEndpoint(p.remote, target, true)
		return ok, sayNot(ok, "listening on this address is not allowed in this login")
	case AskForwardUnix:
		ok = len(p.unix) > 0 && cleanPath(target) && slices.ContainsFunc(p.unix, func(s string) bool { return matchPath(s, target) })
		return ok, sayNot(ok, "forwarding to this socket is not allowed in this login")
	case AskAgent:
		return p.agent, sayNot(p.agent, "agent forwarding is not allowed in this login")
	case AskX11:
		return p.x11, sayNot(p.x11, "X11 forwarding is not allowed in this login")
	}
	return false, "this is not offered"
}

func sayNot(ok bool, say string) string {
	if ok {
		return ""
	}
	return say
}

// cleanPath is path.Clean(s) == s of an absolute path, without making the clean one.
func cleanPath(s string) bool {
	if s == "" || s[0] != '/' || len(s) > 1 && s[len(s)-1] == '/' {
		return false
	}
	for rest := s[1:]; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// matchPath matches an absolute path, part by part; a * stands for anything within one.
func matchPath(pattern, target string) bool {
	if pattern == "*" {
		return true
	}
	ok, err := path.Match(pattern, target)
	return err == nil && ok
}

// commandPattern is one entry of commands. The words of the pattern must be the words of
// the command; * stands for letters, digits and a few signs that no shell gives a meaning
// to, and "..." at the end for any number of such words.
//
// The command goes to the account's shell as the client wrote it, so what a * took must
// not be able to begin another one.
type commandPattern struct {
	words []string
	rest  bool
}

func (c *commandPattern) match(command string) bool {
	rest := command
	for _, w := range c.words {
		var got string
		var ok bool
		if got, rest, ok = cutWord(rest); !ok || !matchWord(w, got) {
			return false
		}
	}
	for rest != "" && c.rest {
		got, more, ok := cutWord(rest)
		if !ok || !plainWord(unquote(got)) {
			return false
		}
		rest = more
	}
	return rest == ""
}

// cutWord takes the first word of a command: up to one blank that another word follows.
// A word in single quotes may have blanks. Anything odd, like two blanks, is no word.
func cutWord(s string) (word, rest string, ok bool) {
	i := 0
	if strings.HasPrefix(s, "'") {
		if i = strings.IndexByte(s[1:], '\''); i < 0 {
			return "", "", false
		}
		i += 2
	} else if i = strings.IndexByte(s, ' '); i < 0 {
		i = len(s)
	}
	if i == 0 {
		return "", "", false
	}
	switch {
	case i == len(s):
		return s, "", true
	case s[i] != ' ' || i+1 == len(s):
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func unquote(w string) string {
	if len(w) >= 2 && w[0] == '\'' && w[len(w)-1] == '\'' {
		return w[1 : len(w)-1]
	}
	return w
}

// matchWord matches one word. A * alone takes a whole word that is not an option; within a
// word it takes no slash, so that /srv/* stays in /srv.
func matchWord(pattern, word string) bool {
	if pattern == word && strings.IndexByte(pattern, '*') < 0 {
		return true
	}
	w := unquote(word)
	if pattern == "*" {
		quoted := len(w) < len(word)
		return w != "" && w[0] != '-' && (plainWord(w) || quoted && quotedWord(w))
	}
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == w && plainWord(w)
	}
	if len(w) < len(before)+len(after) || !strings.HasPrefix(w, before) || !strings.HasSuffix(w, after) {
		return false
	}
	took := w[len(before) : len(w)-len(after)]
	return took != "" && took != "." && took != ".." && plainWord(took) && strings.IndexByte(took, '/') < 0 && (before != "" || took[0] != '-')
}

// plainWord reports whether no shell gives the word another meaning.
func plainWord(w string) bool {
	for i := range len(w) {
		c := w[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_./:=@%+,-", c) >= 0) {
			return false
		}
	}
	return w != ""
}

// quotedWord is plainWord for what stands in single quotes.
func quotedWord(w string) bool {
	for i := range len(w) {
		if c := w[i]; c < ' ' || c == 0x7f || c == '\'' || c == '\\' || c == '!' {
			return false
		}
	}
	return true
}
