package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tssh/netnode/coord"
	"tssh/policy"
)

// maxParents bounds how far up the editor's session is looked for.
const maxParents = 32

// editor finds out who is changing a policy: the environment that tsshd gives a session, of
// this process, or of one above it where sudo took it away. Nobody is known at a console.
func editor() coord.Editor {
	if e, ok := editorOf(os.Environ()); ok {
		return e
	}
	pid := os.Getppid()
	for range maxParents {
		if pid <= 1 {
			break
		}
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		if b, err := os.ReadFile(filepath.Join(dir, "environ")); err == nil {
			if e, ok := editorOf(strings.Split(string(b), "\x00")); ok {
				return e
			}
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			break
		}
		// The name of the program, in parentheses, may have anything in it.
		rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
		var state string
		if _, err := fmt.Sscan(rest, &state, &pid); err != nil {
			break
		}
	}
	return coord.Editor{}
}

// editorOf reads what tsshd writes into the environment of a session.
func editorOf(env []string) (e coord.Editor, ok bool) {
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "TSSH_USER":
			login, err := policy.ParseLogin(v)
			if err != nil {
				return coord.Editor{}, false // a tagged machine is nobody's session
			}
			e.Login = login
		case "TSSH_NODE":
			e.Node = v
		case "LOGNAME":
			e.Account = policy.LocalUser(v)
		case "SSH_CONNECTION":
			if f := strings.Fields(v); len(f) == 4 {
				e.Addr, _ = netip.ParseAddr(f[0])
				e.Host, _ = netip.ParseAddr(f[2])
			}
		}
	}
	return e, e.Login != ""
}
