package sshd

import (
	"strings"

	"tssh/policy"
)

// Causes of an end by this package, for End events and the audit log.
const (
	causeRevoked    = "revoked"
	causeTerminated = "terminated"
	causeLost       = "lost"
	causeShutdown   = "shutdown"
	causeExpired    = "expired"
	causeRecorder   = "recorder-failed"
)

// Words for people. None names other people, rules, or accounts that the person may not
// know of.
const (
	sayTooManyConns   = "too many connections of yours to this host are open already"
	sayTooManyLogins  = "too many logins of yours are under way at this moment; try again in a few seconds"
	sayBusy           = "this host is busy with too many logins at this moment; try again in a few seconds"
	sayBadName        = "that is not a name that an account can have"
	sayLookup         = "this host cannot look accounts up at the moment; try again, or tell its administrator"
	sayCheck          = "this login needs you to sign in again first, and this host cannot ask for that yet"
	sayApproval       = "this login needs somebody to approve it, and this host cannot ask for that yet"
	saySelfAttested   = "the rule for this login insists on a recording that its own account cannot alter, and this host runs without root"
	sayRecorder       = "the rule for this login insists on a recorder, and this host cannot reach one yet"
	sayNoSpool        = "this host cannot record sessions at the moment, and starts none without; tell its administrator"
	sayHoursOver      = "the time that the rule for this login allows is over"
	sayRecorderFailed = "this session cannot be recorded any more: the disk of this host is full, or a limit was reached"
	sayNoRecorder     = "the rule for this login insists on a recorder, and none has taken the beginning of the recording"
	sayRecorderAway   = "the recorder of this session has not answered for too long"
	sayLow            = "the room that is left for recordings on this host is for sessions that must be recorded"
	sayPaused         = "this session is paused until its recording goes on; nothing more can be begun in it now"
	sayPausedLong     = "the recording of this session could not go on for too long"
	sayQuota          = "your recordings that wait on this host have reached their limit; tell its administrator"
	sayNoSeal         = "this host is to seal its recordings and cannot, so it starts no session; tell its administrator"
	sayGlass          = "you are in by a break-glass rule: this is audited and announced"
	sayRecorded       = "this session is recorded"
	sayInputToo       = "this session is recorded, and so is what you type while the screen shows it"
	sayNotRecorded    = "this session is not recorded"
	sayGone           = "your machine is not part of the mesh any more"
	sayRevoked        = "your access to this host was taken back"
	sayChanged        = "the rule for this login changed; connect again"
	sayChannelRevoked = "this is not allowed any more"
	sayTooMany        = "too many things are open on this connection"
	sayNoSFTP         = "this account has no shell that file transfer could be served for"
	sayOverseer       = "an administrator"
	sayMonitorChanged = "this connection is not known to the host's daemon any more"
	sayOtherVersion   = "the daemon of this host is of another version now, which cannot go on with this session; connect again"
)

// sayWatched is for the person whose session is watched.
func sayWatched(names []string) string {
	if len(names) == 0 {
		return "nobody watches this session any more"
	}
	return "this session is watched by " + strings.Join(names[:min(len(names), 8)], " and ")
}

// sayEnded is for the person whose session was ended by somebody.
func sayEnded(who, reason string) string {
	if reason == "" {
		return "this session was ended by " + who
	}
	return "this session was ended by " + who + ": " + reason
}

func sayOwnUser(name string) string {
	return "this host runs without root and serves only its own account" + name
}

func sayNoAccount(user policy.LocalUser) string {
	return "there is no account " + string(user) + " on this host"
}

func sayDenied(user policy.LocalUser, host string) string {
	return "you may not log in as " + string(user) + " on " + host
}
