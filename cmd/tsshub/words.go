package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"
	"syscall"
	"unicode"
)

// Everything that tsshub says to people, but what the hub itself answers, is in this
// file: errors as "tsshub: error: what", followed where there is something to do by
// "tsshub: hint: what to do".

const usage = `usage:
  tsshub serve --state DIR [--listen :8443] [--url https://HUB:8443] [--mesh NAME] [--policy FILE]
               [--db sqlite:FILE] [--recordings file:///DIR|s3://BUCKET?...] [--roles coord,relay,recorder]
               [--replay 127.0.0.1:8080] [--udp-port N] [--stun-listen :3478] [--relay-rate BYTES]
               [--node-expiry 180d|never] [--ephemeral-grace 10m] [--restored]
               [--retention 90d|tag:NAME=365d|...=forever]... [--recordings-cache MiB] [--recordings-per-host N] [--seal-identity FILE]
               [--range4 100.64.0.0/10]          # of a new mesh: docs/hub.md says how to choose
  tsshub serve --roles relay --state DIR --join-file FILE|- [--hostname NAME] [--listen :443] [--url https://RELAY:443]
  tsshub serve --roles recorder --state DIR --join-file FILE|- [--hostname NAME] [--recordings ...] [--retention ...] [--udp-port N]
  tsshub status | metrics
  tsshub user add EMAIL [--role admin|member|...] | list | remove EMAIL
  tsshub key create (--user EMAIL | --tag tag:NAME... | --relay) [--reusable] [--ephemeral] [--suffix] [--node-expiry 30d|never]
               [--expiry 24h]
  tsshub key list | revoke ID
  tsshub node list | rename OLD NEW | extend NAME --for 90d | expire NAME | remove NAME
  tsshub policy get | check FILE [--against 30d] | diff FILE | set FILE [--if-match REVISION]
  tsshub policy log | show REVISION | revert REVISION | directory
  tsshub relay list | add NAME --url https://HOST:PORT [--key KEY | --cert-sha256 HEX] [--stun PORT] | remove NAME
  tsshub backup FILE|- [--with-key]
  tsshub rotate-key [--db sqlite:FILE]      # while the hub is stopped
  tsshub recording end ID --reason TEXT     # of a session that runs
  tsshub recording list [--words WORDS] | hold ID --reason TEXT | release ID --reason TEXT | delete ID --reason TEXT | rebuild
  tsshub audit [--since T] [--host NAME]
every command but serve takes --state DIR, and --json for programs
`

// trouble is an error in words, with what to do about it.
type trouble struct {
	say, hint string
	err       error // adds its text to say when it is there
}

func (t *trouble) Error() string {
	if t.err != nil {
		return t.say + ": " + cause(t.err)
	}
	return t.say
}

func (t *trouble) Unwrap() error { return t.err }

// cause is an error without the names of the packages it came through.
func cause(err error) string {
	var p *fs.PathError
	var n syscall.Errno
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	if errors.As(err, &n) {
		return n.Error()
	}
	s := err.Error()
	for _, prefix := range []string{"coord: ", "netmap: ", "policy: ", "audit: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}

// problems are lines that already say where and what, as of a policy.
type problems []string

func (p problems) Error() string { return strings.Join(p, "\n") }

func sayError(w io.Writer, err error) {
	var p problems
	if errors.As(err, &p) {
		for _, l := range p {
			fmt.Fprintln(w, printable(l))
		}
		return
	}
	var t *trouble
	if errors.As(err, &t) {
		fmt.Fprintf(w, "tsshub: error: %s\n", printable(t.Error()))
		if t.hint != "" {
			fmt.Fprintf(w, "tsshub: hint: %s\n", t.hint)
		}
		return
	}
	fmt.Fprintf(w, "tsshub: error: %s\n", printable(cause(err)))
}

// printable takes out what could act on a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func errNotRunning(dir string) error {
	return &trouble{say: "no hub is running on the state folder " + dir, hint: "start it with: tsshub serve --state " + dir + "    or name another folder with --state"}
}

func errNotAllowed(dir string) error {
	return &trouble{say: "you may not administer the hub on " + dir, hint: "do this as root, or as the user that tsshub runs as"}
}

func errRange(r netip.Prefix, what string) error {
	return &trouble{say: fmt.Sprintf("the mesh cannot have the range %s: %s", r, what), hint: "choose another one with --range4, as 10.77.0.0/16: docs/hub.md says how"}
}

func sayRange(w io.Writer, r netip.Prefix, what string) {
	fmt.Fprintf(w, "tsshub: warning: the new mesh has the range %s, and %s; for good, so choose another one now with --range4 if hosts use both\n", r, printable(what))
}

func errPortTaken(addr string, err error) error {
	return &trouble{say: "cannot listen on " + addr, err: err, hint: "choose another port with --listen, or stop what has this one"}
}

func errOtherKind(dir, what string) error {
	return &trouble{say: "the state folder " + dir + " " + what, hint: "choose an empty or a new folder with --state"}
}

func errNotWritable(dir string, err error) error {
	return &trouble{say: "the state folder " + dir + " cannot be written", err: err, hint: "mend its rights, or choose another folder with --state"}
}

func errSecond(dir string) error {
	return &trouble{say: "another tsshub is running on the state folder " + dir, hint: "stop that one first, or choose another folder with --state"}
}

func errFile(what, name string, err error) error {
	return &trouble{say: what + " " + name + " cannot be read", err: err}
}

func errRevision(s string) error {
	return &trouble{say: fmt.Sprintf("%q is not a revision", s), hint: "tsshub policy log lists them"}
}

func errRole(role string) error {
	switch role {
	case "relay", "recorder", "coord":
		return &trouble{say: "the role " + role + " is not in this program"}
	}
	return usageError{fmt.Sprintf("serve: %q is not a role; there are coord, relay and recorder", printable(role))}
}

func errNoCoord() error {
	return &trouble{say: "without the role coord one role stands alone: relay or recorder", hint: "--roles relay or --roles recorder, or leave --roles out; for both start two, each with its own --state"}
}

func errRelayToken() error {
	return &trouble{say: "this relay is not in a mesh yet", hint: "make a token on the hub with tsshub key create --relay, and give it with --join-file"}
}

func errRecorderToken() error {
	return &trouble{say: "this recorder is not in a mesh yet", hint: "make a token on the hub with tsshub key create --tag tag:recorder, and give it with --join-file"}
}

func errRecorderStart(err error) error {
	return &trouble{say: "the recorder cannot start", err: err}
}

// sayRecorder is what a recorder says of itself when it starts.
func sayRecorder(w io.Writer, name, mesh, dir string) {
	fmt.Fprintf(w, "tsshub: recorder %[1]s of the mesh %[2]s, recordings in %[3]s, page for members at http://%[1]s/\n", printable(name), printable(mesh), dir)
}

func errBadToken(err error) error {
	return &trouble{say: cause(err), hint: "copy the whole line that tsshub key create printed"}
}

func errDB(db string) error {
	if strings.HasPrefix(db, "postgres:") || strings.HasPrefix(db, "postgresql:") {
		return &trouble{say: "Postgres is not there yet", hint: "leave --db out to use SQLite in the state folder"}
	}
	return usageError{"serve: --db is of the form sqlite:FILE"}
}

func errReplay(addr string) error {
	return usageError{"serve: --replay " + printable(addr) + ": only a loopback address and port, as 127.0.0.1:8080; over the mesh the page is at http://hub/ anyway"}
}

func errSealIdentity(name string, err error) error {
	return usageError{"serve: --seal-identity " + printable(name) + ": " + strings.TrimPrefix(err.Error(), "recording: identity: ")}
}

// sayReplay tells the address of the replay page; whoever has it is let in.
func sayReplay(w io.Writer, url string) {
	fmt.Fprintf(w, "tsshub: replay page, for whoever has this address: %s\n", url)
}

func errRecordings(string) error {
	return usageError{"serve: --recordings is of the form file:///DIR or s3://BUCKET?region=REGION[&endpoint=https://HOST&use_path_style=true]"}
}

func errStart(err error) error {
	return &trouble{say: "the hub cannot start", err: err}
}

func errAudit(say string) error {
	return &trouble{say: "the audit log does not hold: " + say, hint: "somebody has altered it, or the disk has lost part of it"}
}

func sayUp(w io.Writer, mesh, url, dir string, first bool) {
	fmt.Fprintf(w, "tsshub: mesh %s at %s, state in %s\n", mesh, url, dir)
	if first {
		fmt.Fprintf(w, "tsshub: a new mesh. next: tsshub user add YOU@EXAMPLE.COM --role admin --state %[1]s\n"+
			"tsshub:             then: tsshub key create --user YOU@EXAMPLE.COM --state %[1]s\n", dir)
	}
}

func errSocket(name string, err error) error {
	return &trouble{say: "the administrators' socket " + name + " cannot be made", err: err, hint: "a path of more than about 100 characters is too long for a socket: choose a shorter one with --state"}
}

func errStopped(err error) error {
	return &trouble{say: "the hub had to stop", err: err, hint: "look at the log above; start it again when the cause is mended"}
}
