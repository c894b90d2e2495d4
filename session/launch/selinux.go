package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// SELinux finds the context in which a person's programs run, as getseuserbyname(3) and
// get_default_context(3) do, from the same files. It has not been run on a host where
// SELinux is enforcing; its test has a tree of such a host's files.
type SELinux struct {
	Root  string                    // prefix of /etc and /sys, "" is /
	Own   string                    // this process's context; "" reads it
	Valid func(context string) bool // asks the kernel; nil does so
}

const selinuxFS = "/sys/fs/selinux"

// Enforcing reports whether SELinux is there and enforcing.
func (s SELinux) Enforcing() bool {
	b, err := os.ReadFile(s.Root + selinuxFS + "/enforce")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// Confined reports whether this process is in a domain that is not one of the unconfined.
func (s SELinux) Confined() bool {
	f := strings.Split(s.own(), ":")
	return len(f) < 3 || !strings.HasPrefix(f[2], "unconfined")
}

func (s SELinux) own() string {
	if s.Own != "" {
		return s.Own
	}
	b, _ := os.ReadFile("/proc/thread-self/attr/current")
	return strings.TrimRight(string(b), "\x00\n")
}

// errNoContext means that no context of the user can be had from where this process is.
var errNoContext = errors.New("no SELinux context")

// Context is the context for programs of an account; groups are the names of its groups.
func (s SELinux) Context(account string, groups []string) (string, error) {
	kind, err := s.setting("SELINUXTYPE")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(s.Root, "/etc/selinux", kind)
	user, level, err := seuser(dir, account, groups)
	if err != nil {
		return "", err
	}
	from := strings.Split(s.own(), ":")
	if len(from) < 3 {
		return "", fmt.Errorf("launch: own context %q: %w", s.own(), errNoContext)
	}
	valid := s.Valid
	if valid == nil {
		valid = func(c string) bool { return os.WriteFile(selinuxFS+"/context", append([]byte(c), 0), 0) == nil }
	}
	// From where this process is; a policy that does not know this daemon has a line for sshd.
	for _, at := range []string{from[1] + ":" + from[2], "system_r:sshd_t"} {
		for _, file := range []string{"contexts/users/" + user, "contexts/default_contexts"} {
			for _, to := range reachable(filepath.Join(dir, file), at) {
				c := user + ":" + to
				if level != "" {
					c += ":" + level
				}
				if valid(c) {
					return c, nil
				}
			}
		}
	}
	return "", fmt.Errorf("launch: %s as %s from %s: %w", account, user, s.own(), errNoContext)
}

// setting reads a NAME=value of /etc/selinux/config.
func (s SELinux) setting(name string) (string, error) {
	b, err := os.ReadFile(s.Root + "/etc/selinux/config")
	if err != nil {
		return "", fmt.Errorf("launch: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok && v != "" && !strings.ContainsAny(v, "/") {
			return v, nil
		}
	}
	return "", fmt.Errorf("launch: /etc/selinux/config has no %s: %w", name, errNoContext)
}

// seuser reads seusers(5): NAME:SEUSER[:LEVEL], where %GROUP stands for a group's members
// and __default__ for everybody. The account's own line wins, then a group's.
func seuser(dir, account string, groups []string) (user, level string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "seusers"))
	if err != nil {
		return "", "", fmt.Errorf("launch: %w", err)
	}
	best := 0
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || f[1] == "" || strings.ContainsAny(f[1], "/ ") {
			continue
		}
		rank := 0
		switch {
		case f[0] == account:
			rank = 3
		case strings.HasPrefix(f[0], "%") && contains(groups, f[0][1:]):
			rank = 2
		case f[0] == "__default__":
			rank = 1
		}
		if rank > best {
			best, user, level = rank, f[1], ""
			if len(f) == 3 {
				level = f[2]
			}
		}
	}
	if best == 0 {
		return "", "", fmt.Errorf("launch: seusers says nothing about %s: %w", account, errNoContext)
	}
	return user, level, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// reachable reads default_contexts(5): the line of a ROLE:TYPE[:LEVEL] has those that
// sessions can start in, most wanted first. The level is the user's, not the line's.
func reachable(file, from string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || roleType(f[0]) != from {
			continue
		}
		var out []string
		for _, to := range f[1:] {
			out = append(out, roleType(to))
		}
		return out
	}
	return nil
}

func roleType(s string) string {
	f := strings.SplitN(s, ":", 3)
	if len(f) < 2 {
		return ""
	}
	return f[0] + ":" + f[1]
}

// SELinux makes programs start in the account's context, where SELinux is enforcing. That
// there is none keeps the account out, unless this process is unconfined itself: then its
// programs are what they would be without. Call it before Become.
func (s *Starter) SELinux(acc Account) error {
	se := SELinux{}
	if !se.Enforcing() {
		return nil
	}
	var groups []string
	for _, g := range acc.Groups {
		ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
		name, err := NameOf(ctx, "group", g)
		cancel()
		if err == nil {
			groups = append(groups, name)
		}
	}
	label, err := se.Context(acc.Name, groups)
	if err == nil {
		err = s.run(func() error { return setExec(label) })
	}
	if err != nil && !se.Confined() {
		return nil
	}
	return err
}

// setExec makes the next program of this thread start in a context. The thread must be
// locked.
func setExec(label string) error {
	if err := os.WriteFile("/proc/thread-self/attr/exec", append([]byte(label), 0), 0); err != nil {
		return fmt.Errorf("launch: SELinux: %w", err)
	}
	return nil
}
