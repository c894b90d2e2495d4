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
	AskWatch                    // see a session of Src on Dst as User, or its recording; Viewer asks
	AskJoin                     // type in it
	AskEnd                      // end it
	AskDelete                   // delete its recording for good
)

// Verdict is what becomes of a request. The zero value denies.
type Verdict uint8

const (
	Deny Verdict = iota
	Check
	Accept
	Approval // of others is needed first; a host that cannot ask for it denies
)

func (v Verdict) String() string {
	switch v {
	case Accept:
		return "accept"
	case Approval:
		return "request"
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
	// AnyTime takes every rule's hours to be open, for questions about no time in
	// particular. A host never sets it.
	AnyTime bool
	// BreakGlass asks the rules with breakGlass alone: what a host does when another rule
	// would let the login in and what that rule needs, a recorder or the hub, is away.
	BreakGlass bool
	Target     string
	Viewer     Identity // of AskWatch, AskJoin, AskEnd and AskDelete
	Now        time.Time
}

// Decision is the answer to a Request. The zero Decision denies.
type Decision struct {
	Verdict Verdict
	lacks   lack
	Rule    int    // index of the deciding rule in its section, -1 when none did
	Section string // "ssh", "acls", "grants" or ""
	Say     string // one sentence for the person, names nobody else and no rule; Sentence has it for a denied login
	Reason  string // for the log: which rule decided or what was missing

	AcceptEnv       []string
	Recorder        []Tag
	EnforceRecorder bool
	CheckPeriod     time.Duration // of a Check; 0 means every connection

	// Ends is when the deciding rule stops to count, by its hours or its until; the zero
	// time when it does not. A session ends then, unless another decision is made for it.
	Ends time.Time
	// Named is of AskWatch, AskJoin and AskEnd: the rule of the session has the person told
	// who does it.
	Named bool
	terms *terms // nil of a denial
}

// Same reports whether a session that is open under one decision may go on as it is under
// the other. What it may still open is asked again each time, and so is not compared.
func (d Decision) Same(e Decision) bool { return d.Verdict == e.Verdict && d.Key() == e.Key() }
