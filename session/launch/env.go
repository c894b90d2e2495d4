package launch

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// EnvFacts is what the environment of a program is made from.
type EnvFacts struct {
	Account    Account
	RemoteAddr string // "100.64.0.7 51034" in the words of SSH_CLIENT, "" when unknown
	LocalAddr  string // "100.64.0.1 22"
	Person     string // who the mesh proved: a login, or tags
	Node       string // the peer's node name
	Session    string // id of the recording
	TTY        string // path of the terminal, "" without one
	Term       string
	Logind     []string // NAME=value of the session that logind opened
	Client     []string // NAME=value as the client sent and AcceptEnv let in
}

// Environment makes the environment of a program of the account. Later lines win over
// earlier ones of the same name, so the client's come before the facts.
func Environment(f EnvFacts) []string {
	env := []string{"PATH=" + defaultPath(f.Account.UID)}
	env = append(env, fileEnvironment("/etc/environment")...)
	env = append(env, f.Client...)
	env = append(env,
		"USER="+f.Account.Name, "LOGNAME="+f.Account.Name, "HOME="+f.Account.Home,
		"SHELL="+f.Account.Shell, "MAIL=/var/mail/"+f.Account.Name,
		"TSSH_USER="+f.Person, "TSSH_NODE="+f.Node, "TSSH_SESSION="+f.Session)
	if f.RemoteAddr != "" {
		_, port, _ := strings.Cut(f.LocalAddr, " ")
		env = append(env, "SSH_CLIENT="+f.RemoteAddr+" "+port, "SSH_CONNECTION="+f.RemoteAddr+" "+f.LocalAddr)
	}
	env = append(env, f.Logind...)
	if f.TTY != "" {
		env = append(env, "SSH_TTY="+f.TTY, "TERM="+f.Term)
	}
	return lastWins(env)
}

func lastWins(env []string) []string {
	at := make(map[string]int, len(env))
	out := env[:0:0]
	for _, e := range env {
		if strings.IndexByte(e, 0) >= 0 {
			continue
		}
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// defaultPath is the PATH before any start-up file, as login.defs(5) has it.
func defaultPath(uid uint32) string {
	key, path := "ENV_PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
	if uid == 0 {
		key, path = "ENV_SUPATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	if v := loginDefs(key); v != "" {
		path = strings.TrimPrefix(v, "PATH=")
	}
	return path
}

// loginDefs returns the value of a key of /etc/login.defs, "" when it is not there.
func loginDefs(key string) string {
	f, err := os.Open("/etc/login.defs")
	if err != nil {
		return ""
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for s.Scan() {
		p := strings.Fields(s.Text())
		if len(p) >= 2 && p[0] == key {
			return strings.Join(p[1:], " ")
		}
	}
	return ""
}

// fileEnvironment reads NAME=value lines, each optionally led by "export" and quoted.
func fileEnvironment(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var env []string
	s := bufio.NewScanner(io.LimitReader(f, 1<<16))
	for s.Scan() {
		line := strings.TrimPrefix(strings.TrimSpace(s.Text()), "export ")
		name, value, ok := strings.Cut(line, "=")
		if !ok || !envName(name) {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		env = append(env, name+"="+value)
	}
	return env
}

// envName accepts what can be a variable's name everywhere.
func envName(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '_' && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' && i > 0) {
			return false
		}
	}
	return true
}

// maxEnvValue is more than any locale, colour or git protocol needs.
const maxEnvValue = 32 << 10

// AcceptEnv says whether a client may set the variable: the harmless ones always, others
// if one of the policy's patterns (with * and ?) names it, and those that change what a
// loader, an interpreter, a shell or the C library does never.
func AcceptEnv(name, value string, patterns []string) bool {
	if !envName(name) || len(value) > maxEnvValue || strings.IndexByte(value, 0) >= 0 || denied(name) {
		return false
	}
	if name == "LANG" || name == "LANGUAGE" || strings.HasPrefix(name, "LC_") {
		// A locale with a slash is a path the C library would load code-like data from.
		return !strings.Contains(value, "/") && !strings.HasPrefix(value, "-")
	}
	switch name {
	case "COLORTERM", "GIT_PROTOCOL", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "NO_COLOR":
		return true
	}
	for _, p := range patterns {
		if matchName(p, name) {
			return true
		}
	}
	return false
}

func denied(name string) bool {
	upper := strings.ToUpper(name)
	for _, p := range []string{"LD_", "DYLD_", "SSH_", "TSSH_", "BASH_", "MALLOC_", "_RLD", "LIBPATH", "SHLIB_PATH"} {
		if strings.HasPrefix(upper, p) {
			return true
		}
	}
	switch upper {
	case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "MAIL", "IFS", "ENV", "CDPATH", "PS4", "SHELLOPTS", "BASHOPTS", "GLOBIGNORE", "PROMPT_COMMAND", "ZDOTDIR", "FPATH",
		"GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "NLSPATH", "RESOLV_HOST_CONF", "RES_OPTIONS", "TMPDIR", "TZDIR", "NIS_PATH",
		"GOTRACEBACK", "GODEBUG", "PERL5OPT", "PERL5LIB", "PERLLIB", "PERL5DB", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "PYTHONINSPECT", "RUBYOPT", "RUBYLIB", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS",
		"TERMINFO", "TERMINFO_DIRS", "TERMCAP", "TERMPATH", "KRB5_CONFIG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "GIT_SSH_COMMAND", "GIT_SSH", "GIT_EXEC_PATH", "GIT_PROXY_COMMAND",
		"LESSOPEN", "LESSCLOSE", "PAGER", "EDITOR", "VISUAL", "BROWSER", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES":
		return true
	}
	return false
}

// matchName is a glob over names with * and ?, without classes and without recursion.
func matchName(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
