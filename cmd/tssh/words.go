package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"tssh/netnode/localapi"
	"tssh/ssh"
)

// All that tssh says of itself is made in this file.

// mistake is a failed command, in words.
type mistake struct {
	code   string // [CODE], "" for none
	words  string // "" when all has been said
	hint   string
	status int
}

func (m *mistake) Error() string { return m.words }

const (
	statusFailed    = 1
	statusUsage     = 2
	statusNoSession = 255
)

func failed(format string, a ...any) *mistake {
	return &mistake{words: fmt.Sprintf(format, a...), status: statusFailed}
}

func usage(format string, a ...any) *mistake {
	return &mistake{words: fmt.Sprintf(format, a...), hint: "tssh help", status: statusUsage}
}

// onlySSH is about an option of ssh's, a letter or a keyword, that tssh does not take: why, and
// what to do instead.
func onlySSH(option string) error {
	const install = ", once tssh config --install made it use the mesh"
	words, hint := "", ""
	if len(option) > 1 {
		option = strings.ToLower(option)
	}
	switch option {
	case "J", "proxyjump", "proxycommand":
		words = "the mesh reaches every host directly, so there is no host to jump over"
		hint = "leave it out: tssh HOST; a host that is not in the mesh is reached with ssh -J JUMP HOST" + install
	case "X", "Y", "forwardx11", "forwardx11trusted":
		words, hint = "X11 is forwarded by the stock client", "ssh -X HOST"+install
	case "F":
		words, hint = "tssh reads no ssh_config (-F none is taken)", "give its options on the command line; or ssh -F FILE HOST"+install
	case "S", "M", "O":
		words, hint = "tssh shares no connection between commands (-S none is taken)", "leave it out, a login takes a few milliseconds; or ssh -"+option+" HOST"+install
	case "b", "B":
		words, hint = "the mesh chooses the way and the addresses by itself", "leave it out; tssh ping HOST shows the way"
	case "E":
		words, hint = "what tssh says of itself is on standard error", "tssh HOST 2>FILE"
	case "w":
		words, hint = "tunnel devices are not forwarded: the mesh is the tunnel", "tssh -L, -R and -D forward what is not in it"
	case "Q", "P":
		words, hint = "this is about the configuration and algorithms of the stock client", "ssh -"+option
	default:
		m := usage("unknown option -%s", option)
		m.status = statusNoSession
		return m
	}
	m := usage("-%s: %s", option, words).withHint(hint)
	if len(option) > 1 {
		m.words = "-o " + option + ": " + words
	}
	m.status = statusNoSession
	return m
}

func (m *mistake) withHint(h string) *mistake { m.hint = h; return m }

// complain prints the error and gives the exit status.
func complain(w io.Writer, err error) int {
	// Whoever read the output, as head does, wants no more of it.
	if p := (*os.PathError)(nil); errors.As(err, &p) && p.Path == os.Stdout.Name() && errors.Is(p, syscall.EPIPE) {
		return 1
	}
	m := explain(err)
	if m.words == "" {
		return m.status
	}
	if m.hint != "" {
		fmt.Fprintf(w, "tssh: hint: %s\n", m.hint)
	}
	line := oneLine(m.words)
	if m.code != "" {
		line += " [" + m.code + "]"
	}
	fmt.Fprintf(w, "tssh: error: %s\n", line)
	return m.status
}

func oneLine(s string) string { return strings.Join(strings.Fields(ssh.Plain(s)), " ") }

// explain finds the words for any error.
func explain(err error) *mistake {
	var m *mistake
	if errors.As(err, &m) {
		return m
	}
	var se *ssh.Error
	if errors.As(err, &se) {
		m = &mistake{code: se.Code, words: se.Words, status: statusNoSession}
		if se.Code == ssh.CodeHostKey {
			m.hint = "if the host was installed anew, its daemon publishes the new key when it starts; otherwise somebody else is answering"
		}
		return m
	}
	var le *localapi.Error
	if errors.As(err, &le) {
		m = &mistake{words: le.Words, status: statusFailed, code: codeOf(le.Code)}
		switch le.Code {
		case localapi.CodeNotJoined:
			m.words, m.hint = "this node has not joined a mesh yet", joinHint
		case localapi.CodeDown:
			m.hint = "tssh up"
		case localapi.CodeNotFound:
			m.hint = "tssh ls"
		}
		return m
	}
	if localapi.NotRunning(err) {
		return &mistake{code: ssh.CodeUnreachable, words: "no node is running on this computer", hint: "tssh up", status: statusFailed}
	}
	if errors.Is(err, os.ErrPermission) {
		return &mistake{code: ssh.CodeDenied, words: err.Error(), status: statusFailed}
	}
	return &mistake{words: strings.TrimPrefix(err.Error(), "localapi: "), status: statusFailed}
}

const joinHint = "tssh up --join-file FILE  (the token comes from: tsshub key create --user YOU)"

// codeOf is the code that scripts read for an answer of the node.
func codeOf(c string) string {
	switch c {
	case localapi.CodeNotFound, localapi.CodeNotJoined, localapi.CodeDown, localapi.CodeUnreachable:
		return ssh.CodeUnreachable
	case localapi.CodeForbidden, localapi.CodeDenied:
		return ssh.CodeDenied
	case localapi.CodeRevoked, localapi.CodeExpired, localapi.CodeLimit:
		return c
	}
	return ""
}

// noSession gives an error the exit status of a session that did not come to be.
func noSession(err error) error {
	if err == nil {
		return nil
	}
	m := *explain(err)
	m.status = statusNoSession
	return &m
}

const helpText = `usage: tssh [options] [user@]host [command]   log in, or run one command
       tssh VERB ...

Mesh:
  up [--join-file FILE|-] [--hostname NAME]   join the mesh, or come back to it
  up --rotate | --port-mapping=false          other keys for this node; no port of the router's
  down                                        leave it until the next up
  status, ls, whois ADDR                      this node, the hosts, who is at an address
  ping [--until-direct] HOST                  does its node answer, how fast, and by which way
  netcheck                                    UDP or not, what NAT, which relay
  why [user@]HOST                             may I log in there, and if not, why; --watch ID: may I see that recording
Files and programs:
  cp [-rp] [--resume] SRC... DST              copy; HOST:PATH is there, PATH is here
  sftp [user@]HOST                            the stock sftp program over the mesh
  proxy HOST PORT                             one connection on standard input and output
  proxy --listen 127.0.0.1:1080               SOCKS 5 and HTTP proxy into the mesh for any program
  serve [--tcp] [--port P] [--keep] LOCALPORT a program of this computer for others of the mesh
  serve status, serve off [PORT]              what is served; no longer
  config [--install | --uninstall]            settings that make stock ssh use the mesh
Recordings:
  sessions [FILTER...]                        what was recorded: who:alice host:web exit:!0 is:live ...
  sessions end ID --reason WORDS              end one that runs; the person reads why
  sessions delete ID --reason WORDS           delete a recording, where its rule names you
  search WORDS...                             what was on the screens of recordings
  watch ID                                    a session that still runs
  play ID|FILE, verify ID|FILE                watch it, check it; --identity KEYFILE where it is sealed
  policy eval|check|test ...                  ask the policy engine

Options of a login:
  -l USER      log in as USER                 -t, -T       with a terminal, without
  -N           no command, only forwards      -n           no standard input
  -L, -R, -D   forward ports, unix sockets    -W HOST:PORT one connection from the host
  -A           forward the ssh agent          -e CHAR      escape character, or none (default ~)
  -o KEY=VALUE an option of ssh_config        -p PORT      another port
  -q, -v       say less, say more             -f           to the background when connected
  -s           the command is a subsystem     (docs/clients.md: what else of ssh's is taken)
  --socket PATH  another node's socket (with every verb); --json where data is printed
"tssh -- NAME" is a host called like a verb. Exit status: the remote program's, or 255 and a
line "tssh: error: WORDS [CODE]".
`
