package launch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNoAccount says that the name service answered and there is no such account.
var ErrNoAccount = errors.New("no such account")

// ErrLookup says that the name service did not answer, or not sensibly.
var ErrLookup = errors.New("account lookup is not working")

// Account is one local account as it was looked up, once.
type Account struct {
	Name   string   `json:"name"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"` // all groups, the primary one included, sorted
	Home   string   `json:"home"`
	Shell  string   `json:"shell"`

	expires time.Time // zero when never
	stale   bool      // the password aged out together with its grace period
}

// Accounts looks accounts up. The zero value asks the host's name service; the paths
// are fields so that a tree other than / can be read.
type Accounts struct {
	Root string // prefix of /etc, for the files read when there is no getent; "" is /
}

// maxAnswer bounds what a name service may say about one account.
const maxAnswer = 1 << 20

// lookupTime bounds one question to the name service.
const lookupTime = 10 * time.Second

// Lookup finds the account called name, which must have passed policy.ParseLocalUser.
func (a Accounts) Lookup(ctx context.Context, name string) (Account, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	line, err := a.entry(ctx, "passwd", name)
	if err != nil {
		return Account{}, err
	}
	acc, err := parsePasswd(line)
	if err != nil {
		return Account{}, err
	}
	if acc.Name != name {
		// A service that folds case or follows aliases would bind the decision to a
		// name that was not evaluated.
		return Account{}, fmt.Errorf("launch: %q is another name of %q: %w", name, acc.Name, ErrNoAccount)
	}
	type shadow struct {
		line string
		err  error
	}
	expiry := make(chan shadow, 1)
	go func() { // ends with lookupTime at the latest; awaited below
		l, err := a.entry(ctx, "shadow", name)
		expiry <- shadow{l, err}
	}()
	acc.Groups, err = a.groups(ctx, acc)
	s := <-expiry
	if err != nil {
		return Account{}, err
	}
	switch {
	case s.err == nil:
		acc.expires, acc.stale = parseShadow(s.line, time.Now())
	case errors.Is(s.err, ErrNoAccount) || os.Getuid() != 0:
		// No shadow entry, or not ours to read: nothing is known to have expired.
	default:
		return Account{}, s.err
	}
	return acc, nil
}

// entry returns the line of a name service database for one key.
func (a Accounts) entry(ctx context.Context, database, name string) (string, error) {
	getent := a.program("getent")
	if getent == "" {
		return a.fileEntry(database, name)
	}
	out, code, err := run(ctx, getent, database, "--", name)
	switch {
	case err != nil:
		return "", fmt.Errorf("launch: getent %s: %w: %w", database, ErrLookup, err)
	case code == 2:
		return "", fmt.Errorf("launch: %s: %w", name, ErrNoAccount)
	case code != 0:
		return "", fmt.Errorf("launch: getent %s ended with %d: %w", database, code, ErrLookup)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

func (a Accounts) fileEntry(database, name string) (string, error) {
	f, err := os.Open(a.Root + "/etc/" + database)
	if err != nil {
		if database == "shadow" && errors.Is(err, os.ErrNotExist) {
			return "", ErrNoAccount
		}
		return "", fmt.Errorf("launch: %w: %w", ErrLookup, err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if strings.HasPrefix(s.Text(), name+":") {
			return s.Text(), nil
		}
	}
	if s.Err() != nil {
		return "", fmt.Errorf("launch: /etc/%s: %w: %w", database, ErrLookup, s.Err())
	}
	return "", fmt.Errorf("launch: %s: %w", name, ErrNoAccount)
}

// groups returns every group of the account, sorted, its primary one included.
func (a Accounts) groups(ctx context.Context, acc Account) ([]uint32, error) {
	var ids []uint32
	if id := a.program("id"); id != "" {
		out, code, err := run(ctx, id, "-G", "--", acc.Name)
		if err != nil || code != 0 {
			return nil, fmt.Errorf("launch: id -G %s: ended with %d: %w", acc.Name, code, errors.Join(ErrLookup, err))
		}
		for _, f := range strings.Fields(string(out)) {
			n, err := parseID(f)
			if err != nil {
				return nil, fmt.Errorf("launch: id -G %s: %w", acc.Name, err)
			}
			ids = append(ids, n)
		}
	} else {
		f, err := os.ReadFile(a.Root + "/etc/group")
		if err != nil {
			return nil, fmt.Errorf("launch: %w: %w", ErrLookup, err)
		}
		for line := range strings.Lines(string(f)) {
			p := strings.Split(strings.TrimSuffix(line, "\n"), ":")
			if len(p) != 4 || !slices.Contains(strings.Split(p[3], ","), acc.Name) {
				continue
			}
			n, err := parseID(p[2])
			if err != nil {
				return nil, fmt.Errorf("launch: /etc/group: %w", err)
			}
			ids = append(ids, n)
		}
	}
	ids = append(ids, acc.GID)
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// program finds a system program by fixed places; $PATH plays no part in a root process.
func (a Accounts) program(name string) string {
	if a.Root != "" {
		return ""
	}
	for _, dir := range []string{"/usr/bin/", "/bin/", "/run/current-system/sw/bin/"} {
		if st, err := os.Stat(dir + name); err == nil && st.Mode()&0o111 != 0 {
			return dir + name
		}
	}
	return ""
}

// run returns a program's bounded output and exit status.
func run(ctx context.Context, program string, args ...string) ([]byte, int, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.WaitDelay = time.Second
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, -1, err
	}
	if err := cmd.Start(); err != nil {
		return nil, -1, err
	}
	out, readErr := io.ReadAll(io.LimitReader(pipe, maxAnswer+1))
	if len(out) > maxAnswer {
		readErr = errors.New("answer too long")
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return out, exit.ExitCode(), readErr
	}
	return out, 0, errors.Join(readErr, err)
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 || s[0] == '+' {
		return 0, fmt.Errorf("%q is not an id: %w", s, ErrLookup)
	}
	return uint32(n), nil
}

// parsePasswd reads a line of passwd(5).
func parsePasswd(line string) (Account, error) {
	p := strings.Split(line, ":")
	if len(p) != 7 || p[0] == "" || strings.ContainsAny(line, "\x00\r") {
		return Account{}, fmt.Errorf("launch: a passwd entry of %d fields: %w", len(p), ErrLookup)
	}
	uid, err := parseID(p[2])
	if err != nil {
		return Account{}, fmt.Errorf("launch: uid of %s: %w", p[0], err)
	}
	gid, err := parseID(p[3])
	if err != nil {
		return Account{}, fmt.Errorf("launch: gid of %s: %w", p[0], err)
	}
	acc := Account{Name: p[0], UID: uid, GID: gid, Home: p[5], Shell: p[6]}
	if !strings.HasPrefix(acc.Home, "/") {
		acc.Home = "/"
	}
	if acc.Shell == "" {
		acc.Shell = "/bin/sh" // passwd(5): an empty field means that
	}
	if !strings.HasPrefix(acc.Shell, "/") {
		return Account{}, fmt.Errorf("launch: shell of %s is no path: %w", p[0], ErrLookup)
	}
	return acc, nil
}

// parseShadow reads the ageing fields of shadow(5), which count days since 1970. A
// locked password is no reason against a login that asks for none.
func parseShadow(line string, now time.Time) (expires time.Time, stale bool) {
	p := strings.Split(line, ":")
	if len(p) < 8 {
		return time.Time{}, false
	}
	day := func(s string) (int64, bool) {
		n, err := strconv.ParseInt(s, 10, 32)
		return n, err == nil && n >= 0
	}
	if d, ok := day(p[7]); ok {
		expires = time.Unix(d*86400, 0)
	}
	changed, ok1 := day(p[2])
	oldest, ok2 := day(p[4])
	grace, ok3 := day(p[6])
	if ok1 && ok2 && ok3 && changed > 0 && oldest < 99999 {
		stale = now.Unix()/86400 > changed+oldest+grace
	}
	return expires, stale
}

// Usable says whether the account may be logged in to at all: "" when it may, else the
// sentence for the person. Root may log in while others are kept out by nologin(5).
func (acc Account) Usable(now time.Time) string {
	return acc.usable("", now)
}

func (acc Account) usable(root string, now time.Time) string {
	switch {
	case !acc.expires.IsZero() && now.After(acc.expires):
		return fmt.Sprintf("the account %s expired on %s", acc.Name, acc.expires.UTC().Format(time.DateOnly))
	case acc.stale:
		return fmt.Sprintf("the password of %s is too old and was not changed in time; an administrator of this host can renew it", acc.Name)
	}
	if acc.UID == 0 {
		return ""
	}
	for _, f := range []string{"/etc/nologin", "/run/nologin", "/var/run/nologin"} {
		file, err := os.Open(root + f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		text := []byte(nil)
		if err == nil {
			text, _ = io.ReadAll(io.LimitReader(file, 4096))
			file.Close()
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			return "this host takes no logins at the moment"
		}
		return "this host takes no logins at the moment: " + string(text)
	}
	return ""
}

// LoginShell reports whether a shell is one that people log in with: one that only says
// no is a wish of the administrator's that the account be used for nothing, file transfer
// included. A host without /etc/shells knows only those.
func LoginShell(shell string) bool {
	switch filepath.Base(shell) {
	case "nologin", "false", "true":
		return false
	}
	b, err := os.ReadFile("/etc/shells")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == shell {
			return true
		}
	}
	return shell == "/bin/sh"
}
