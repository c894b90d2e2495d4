package policy

import (
	"net/netip"
	"time"
)

// Ask is what a request wants to do.
type Ask uint8

const (
	AskNothing       Ask = iota // the zero value: denied
	AskLogin                    // log in as User on Dst
	AskPTY                      // a terminal in an open login
	AskShell                    // a login shell
	AskExec                     // run Target
	AskSFTP                     // the sftp subsystem
	AskSubsystem                // another subsystem, Target
	AskForwardLocal             // direct-tcpip to Target ("host:port")
	AskForwardRemote            // tcpip-forward on Target
	AskForwardUnix              // either streamlocal form, Target a path
	AskAgent                    // agent forwarding
	AskX11                      // X11 forwarding
	AskWatch                    // see the recording of a session of Src on Dst as User; Viewer asks
)

// Verdict is what becomes of a request. The zero value denies.
type Verdict uint8

const (
	Deny Verdict = iota
	Check
	Accept
)

func (v Verdict) String() string {
	switch v {
	case Accept:
		return "accept"
	case Check:
		return "check"
	}
	return "deny"
}

// Request is one question for Evaluate, whole: nothing else is looked up.
type Request struct {
	Ask     Ask
	Src     Identity
	SrcAddr netip.Addr // the peer's address of this connection; address selectors match it alone
	Dst     Identity   // the host itself
	DstAddr netip.Addr // the address dialled; unset means Dst's first
	User    LocalUser
	UID     uint32 // of User on Dst: the uid that will be dropped to
	// UIDUnknown is for questions about hosts that are not here (policy eval, tests): then
	// root is the account called root. A host never sets it.
	UIDUnknown bool
	// SSHOnly leaves the network rule for TCP 22 out. A host never sets it.
	SSHOnly bool
	Target  string
	Viewer  Identity // of AskWatch
	Now     time.Time
}

// Decision is the answer to a Request. The zero Decision denies.
type Decision struct {
	Verdict Verdict
	Rule    int    // index of the deciding rule in its section, -1 when none did
	Section string // "ssh", "acls", "grants" or ""
	Say     string // one sentence for the person, names nobody else and no rule
	Reason  string // for the log: which rule decided or what was missing

	AcceptEnv       []string
	Recorder        []Tag
	EnforceRecorder bool
	CheckPeriod     time.Duration // of a Check; 0 means every connection
}

// Same reports whether two decisions give the same rights, so that a session
// opened under one may go on under the other.
func (d Decision) Same(e Decision) bool {
	if d.Verdict != e.Verdict || d.EnforceRecorder != e.EnforceRecorder || len(d.Recorder) != len(e.Recorder) || len(d.AcceptEnv) != len(e.AcceptEnv) {
		return false
	}
	for i := range d.Recorder {
		if d.Recorder[i] != e.Recorder[i] {
			return false
		}
	}
	for i := range d.AcceptEnv {
		if d.AcceptEnv[i] != e.AcceptEnv[i] {
			return false
		}
	}
	return true
}
