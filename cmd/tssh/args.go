package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"tssh/ssh"
)

// command is a command line, understood.
type command struct {
	socket  string
	verbose bool

	verb string // with args
	args []string

	user, host string // a login
	remote     string // command
	port       uint16
	tty        ttyWish
	agent      bool
	quiet      bool
	noCommand  bool // -N
	noInput    bool // -n
	subsystem  bool // -s: remote names one
	stream     string
	forwards   []forward
	escape     byte // 0: none
	setEnv     []ssh.EnvVar
	sendEnv    []string
	connect    time.Duration
	alive      time.Duration
	aliveMax   int
	failFwd    bool // ExitOnForwardFailure
	gateway    bool // -g: other machines may connect to what listens here
	unlink     bool // StreamLocalBindUnlink
	clearFwd   bool // ClearAllForwardings
	background bool // -f: when the connection and its forwards are there
	show       bool // -G: say what the words mean, and connect nowhere
}

type ttyWish int

const (
	ttyAuto ttyWish = iota
	ttyYes
	ttyForce // -tt: also without a terminal here
	ttyNo
)

type forward struct {
	kind       byte         // L, R or D
	listen, to ssh.Endpoint // to is empty for D, and for R without one: SOCKS
	own        bool         // no bind address was given
}

// parse reads the command line as ssh does: options may stand before and after the host,
// what follows is the remote command, one string.
func parse(args []string) (*command, error) {
	c := &command{port: 22, escape: '~'}
	login := false // a login option was given
	for len(args) > 0 {
		a := args[0]
		if a == "--" {
			args = args[1:]
			if c.host == "" && len(args) > 0 {
				if err := c.target(args[0]); err != nil {
					return nil, err
				}
				args = args[1:]
			}
			break
		}
		if v, rest, ok := socketFlag(args); ok {
			if v == "" {
				return nil, sshUsage("--socket needs a path")
			}
			c.socket, args = v, rest
			continue
		}
		switch a {
		case "--help", "-h":
			return &command{verb: "help"}, nil
		case "--version", "-V":
			return &command{verb: "version"}, nil
		}
		if len(a) > 1 && a[0] == '-' {
			rest, err := c.options(a, args[1:])
			if err != nil {
				return nil, err
			}
			login = login || a != "-v"
			args = rest
			continue
		}
		if c.host != "" {
			break
		}
		if !strings.Contains(a, "@") && isVerb(a) {
			if login {
				return nil, sshUsage("%q is a command of tssh, and options of a login stand before it; a host of that name is reached with: tssh OPTIONS -- %s", a, a)
			}
			return c.withVerb(a, args[1:])
		}
		if err := c.target(a); err != nil {
			return nil, err
		}
		args = args[1:]
	}
	if c.host == "" {
		return nil, sshUsage("no host given")
	}
	c.remote = strings.Join(args, " ")
	if c.clearFwd {
		c.forwards = nil
	}
	if c.background && !c.noCommand && c.remote == "" && c.stream == "" {
		return nil, sshUsage("-f goes to the background with a command or with -N, and neither was given")
	}
	if c.subsystem && (c.remote == "" || c.noCommand) {
		return nil, sshUsage("-s needs the name of a subsystem behind the host, as sftp")
	}
	if c.noCommand && c.remote != "" {
		return nil, sshUsage("-N runs no command, and one was given")
	}
	return c, nil
}

// sshUsage is a mistake on the command line of a login: there is no session.
func sshUsage(format string, a ...any) error {
	m := usage(format, a...)
	m.status = statusNoSession
	return m
}

// withVerb takes --socket and -v out of a verb's arguments, where they may stand too.
func (c *command) withVerb(verb string, args []string) (*command, error) {
	c.verb = verb
	for len(args) > 0 {
		if args[0] == "--" || verb == backgroundVerb {
			c.args = append(c.args, args...)
			break
		}
		if v, rest, ok := socketFlag(args); ok {
			if v == "" {
				return nil, usage("--socket needs a path")
			}
			c.socket, args = v, rest
			continue
		}
		c.args, args = append(c.args, args[0]), args[1:]
	}
	return c, nil
}

func socketFlag(args []string) (value string, rest []string, ok bool) {
	if v, found := strings.CutPrefix(args[0], "--socket="); found {
		return v, args[1:], true
	}
	if args[0] != "--socket" {
		return "", args, false
	}
	if len(args) < 2 {
		return "", nil, true
	}
	return args[1], args[2:], true
}

// target is [user@]host; a user may itself contain @.
func (c *command) target(s string) error {
	user, host, found := "", s, false
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		user, host, found = s[:i], s[i+1:], true
	}
	host = strings.TrimPrefix(strings.TrimSuffix(host, "]"), "[")
	if host == "" || found && user == "" || strings.HasPrefix(host, "-") {
		return sshUsage("%q is not [user@]host", s)
	}
	c.host = host
	if user != "" && c.user == "" {
		c.user = user
	}
	return nil
}

// options reads one argument of single-letter options, with ssh's letters.
func (c *command) options(arg string, rest []string) ([]string, error) {
	for i := 1; i < len(arg); i++ {
		letter := arg[i]
		value := func() (string, error) {
			if i+1 < len(arg) {
				v := arg[i+1:]
				i = len(arg)
				return v, nil
			}
			if len(rest) == 0 {
				return "", sshUsage("-%c needs a value", letter)
			}
			v := rest[0]
			rest = rest[1:]
			return v, nil
		}
		switch letter {
		case 'v':
			c.verbose = true
		case 'q':
			c.quiet = true
		case 't':
			if c.tty == ttyYes || c.tty == ttyForce {
				c.tty = ttyForce
			} else {
				c.tty = ttyYes
			}
		case 'T':
			c.tty = ttyNo
		case 'A':
			c.agent = true
		case 'a':
			c.agent = false
		case 'N':
			c.noCommand = true
		case 'n':
			c.noInput = true
		case 'f':
			c.background, c.noInput = true, true
		case 'G':
			c.show = true
		case 'g':
			c.gateway = true
		case 's':
			c.subsystem = true
		case '4', '6', 'x', 'C', 'k', 'K', 'y':
			// Meant for ssh's own transport or for X11, which the mesh or the host decides.
		case 'l', 'p', 'e', 'o', 'W', 'L', 'R', 'D', 'i', 'F', 'S', 'c', 'm', 'I':
			v, err := value()
			if err == nil {
				err = c.valued(letter, v)
			}
			if err != nil {
				return nil, err
			}
		default:
			return nil, onlySSH(string(letter))
		}
	}
	return rest, nil
}

func (c *command) valued(letter byte, v string) error {
	switch letter {
	case 'l':
		if v == "" {
			return sshUsage("-l needs a name")
		}
		c.user = v
	case 'p':
		p, err := parsePort(v)
		if err != nil {
			return err
		}
		c.port = p
	case 'e':
		return c.option("EscapeChar", v)
	case 'o':
		k, val, ok := strings.Cut(v, "=")
		if !ok {
			if k, val, ok = strings.Cut(strings.TrimSpace(v), " "); !ok {
				return sshUsage("-o %s is not KEY=VALUE", v)
			}
		}
		return c.option(strings.TrimSpace(k), strings.TrimSpace(val))
	case 'W':
		if strings.HasPrefix(v, "/") {
			c.stream = v // a unix socket of the host
			return nil
		}
		if _, _, err := splitHostPort(v); err != nil {
			return err
		}
		c.stream = v
	case 'L', 'R', 'D':
		f, err := parseForward(letter, v)
		if err != nil {
			return err
		}
		c.forwards = append(c.forwards, f)
	case 'i', 'c', 'm', 'I':
		// Scripts pass them: keys play no part, and the connection's algorithms are tssh's own.
	case 'F', 'S':
		if v != "none" && v != "/dev/null" {
			return onlySSH(string(letter))
		}
	}
	return nil
}

// option is a keyword of ssh_config.
func (c *command) option(k, v string) error {
	bad := func() error { return sshUsage("-o %s=%s: this value is not understood", k, v) }
	seconds := func() (int, error) {
		n, err := strconv.Atoi(strings.TrimSuffix(v, "s"))
		if err != nil || n < 0 || n > 1<<20 {
			return 0, bad()
		}
		return n, nil
	}
	switch strings.ToLower(k) {
	case "user":
		if c.user == "" {
			c.user = v
		}
	case "port":
		return c.valued('p', v)
	case "requesttty":
		wish, ok := map[string]ttyWish{"no": ttyNo, "yes": ttyYes, "force": ttyForce, "auto": ttyAuto}[v]
		if !ok {
			return bad()
		}
		c.tty = wish
	case "escapechar":
		switch {
		case v == "none":
			c.escape = 0
		case len(v) == 1:
			c.escape = v[0]
		case len(v) == 2 && v[0] == '^' && v[1] >= '@' && v[1] <= '_':
			c.escape = v[1] & 0x1f
		default:
			return bad()
		}
	case "setenv":
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return bad()
		}
		c.setEnv = append(c.setEnv, ssh.EnvVar{Name: name, Value: value})
	case "sendenv":
		c.sendEnv = append(c.sendEnv, strings.Fields(v)...)
	case "connecttimeout":
		n, err := seconds()
		c.connect = time.Duration(n) * time.Second
		return err
	case "serveraliveinterval":
		n, err := seconds()
		if c.alive = time.Duration(n) * time.Second; n == 0 {
			c.alive = -1
		}
		return err
	case "serveralivecountmax":
		n, err := seconds()
		c.aliveMax = max(1, n)
		return err
	case "forwardagent":
		c.agent = v == "yes"
	case "exitonforwardfailure":
		c.failFwd = v == "yes"
	case "gatewayports":
		c.gateway = v == "yes"
	case "clearallforwardings":
		c.clearFwd = v == "yes"
	case "remotecommand":
		if !strings.EqualFold(v, "none") {
			return sshUsage("-o RemoteCommand=%s: the command is written behind the host", v)
		}
	case "sessiontype":
		switch strings.ToLower(v) {
		case "none":
			c.noCommand = true
		case "default":
		default:
			return bad()
		}
	case "stdinnull":
		c.noInput = c.noInput || v == "yes"
	case "forkafterauthentication":
		if v == "yes" {
			c.background, c.noInput = true, true
		}
	case "streamlocalbindunlink":
		c.unlink = v == "yes"
	case "localforward", "remoteforward", "dynamicforward":
		// In a file the two sides have a blank between them.
		return c.valued(strings.ToUpper(k)[0], strings.Join(strings.Fields(v), ":"))
	case "proxyjump", "proxycommand":
		if !strings.EqualFold(v, "none") {
			return onlySSH(k)
		}
	case "forwardx11", "forwardx11trusted":
		if v == "yes" {
			return onlySSH(k)
		}
	case "loglevel":
		c.quiet = strings.EqualFold(v, "quiet") || strings.EqualFold(v, "fatal") || strings.EqualFold(v, "error")
	case "batchmode", "stricthostkeychecking", "userknownhostsfile", "globalknownhostsfile", "updatehostkeys", "checkhostip", "identitiesonly", "identityfile",
		"passwordauthentication", "kbdinteractiveauthentication", "pubkeyauthentication", "preferredauthentications", "compression", "controlmaster", "controlpath",
		"controlpersist", "streamlocalbindmask", "permitlocalcommand", "numberofpasswordprompts", "gssapiauthentication", "tcpkeepalive", "visualhostkey", "hashknownhosts",
		"addkeystoagent", "addressfamily", "canonicalizehostname", "ciphers", "connectionattempts", "fingerprinthash", "hostkeyalgorithms", "identityagent", "ipqos",
		"kexalgorithms", "macs", "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes", "rekeylimit", "verifyhostkeydns", "challengeresponseauthentication", "nohostauthenticationforlocalhost":
		// Scripts pass these to ssh. Keys and passwords play no part, and host keys are
		// always checked against the mesh, whatever is asked for.
	default:
		return sshUsage("-o %s=%s is not an option of tssh", k, v)
	}
	return nil
}

func parsePort(s string) (uint16, error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil || p == 0 {
		return 0, sshUsage("%q is not a port", s)
	}
	return uint16(p), nil
}

func splitHostPort(s string) (string, uint16, error) {
	h, p, err := net.SplitHostPort(s)
	if err != nil || h == "" {
		return "", 0, sshUsage("%q is not HOST:PORT", s)
	}
	port, err := parsePort(p)
	return h, port, err
}

// parseForward reads what -L, -R and -D take, as ssh does: [bind:]port:host:port, where
// either side may be the path of a unix socket instead, and for D, and for R alone,
// [bind:]port, which is a SOCKS proxy. Addresses of IPv6 are in brackets; what has a slash is a
// path. Without a bind address only programs of the same machine can connect.
func parseForward(kind byte, s string) (forward, error) {
	form := map[byte]string{'D': "[bind:]port", 'L': "[bind:]port:host:port, with a path for either side", 'R': "[bind:]port[:host:port], with a path for either side"}[kind]
	bad := func() (forward, error) { return forward{}, sshUsage("-%c %s is not %s", kind, s, form) }
	parts, err := splitColons(s)
	if err != nil || len(parts) == 0 {
		return bad()
	}
	f := forward{kind: kind}
	path := func(p string) bool { return strings.Contains(p, "/") && kind != 'D' }
	// From the end: where to.
	switch n := len(parts); {
	case kind != 'D' && n >= 2 && path(parts[n-1]):
		f.to.Path, parts = parts[n-1], parts[:n-1]
	case kind != 'D' && n >= 3:
		if f.to.Port, err = parsePort(parts[n-1]); err != nil {
			return f, err
		}
		if f.to.Host, parts = parts[n-2], parts[:n-2]; f.to.Host == "" {
			return bad()
		}
	case kind == 'L':
		return bad()
	}
	// And what is left: where from.
	switch {
	case len(parts) == 1 && path(parts[0]):
		f.listen.Path = parts[0]
		return f, nil
	case len(parts) == 1:
		f.listen.Host, f.own = "localhost", true
	case len(parts) == 2:
		if f.listen.Host, parts = parts[0], parts[1:]; f.listen.Host == "*" {
			f.listen.Host = ""
		}
	default:
		return bad()
	}
	// Port 0 asks the host for one; a listener here on 0 would be nobody's to find.
	port, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil || port == 0 && kind != 'R' {
		return forward{}, sshUsage("%q is not a port", parts[0])
	}
	f.listen.Port = uint16(port)
	return f, nil
}

func splitColons(s string) ([]string, error) {
	var parts []string
	for {
		if strings.HasPrefix(s, "[") {
			i := strings.IndexByte(s, ']')
			if i < 0 {
				return nil, errors.New("no closing bracket")
			}
			parts = append(parts, s[1:i])
			if s = s[i+1:]; s == "" {
				return parts, nil
			}
			if s[0] != ':' {
				return nil, fmt.Errorf("%q after a bracket", s)
			}
			s = s[1:]
			continue
		}
		p, rest, more := strings.Cut(s, ":")
		parts = append(parts, p)
		if !more {
			return parts, nil
		}
		s = rest
	}
}
