package sshconfig

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// MaxHosts bounds how many short names and addresses are listed; in a larger mesh the full
// names work and the short ones do not.
const MaxHosts = 2000

// Host is a node with SSH host keys.
type Host struct {
	Name  string
	Addrs []netip.Addr
}

// Input is what the settings are made from.
type Input struct {
	Mesh   string // name of the mesh
	Hosts  []Host
	Taken  func(name string) bool // the name means something else already; nil: none does
	Tssh   string                 // absolute path of the tssh program
	Socket string                 // of the node, when it is not the default one
}

// Text is the settings file. It fails when the mesh's name or a path cannot be written in one.
func Text(in Input) ([]byte, error) {
	if !label(in.Mesh) {
		return nil, fmt.Errorf("sshconfig: mesh name %q is not a DNS label", in.Mesh)
	}
	opts, err := settings(in.Tssh, in.Socket)
	if err != nil {
		return nil, err
	}
	names := []string{"*." + in.Mesh + ".internal"}
	for _, h := range in.Hosts {
		if len(names) > MaxHosts {
			break
		}
		if label(h.Name) && h.Name != "localhost" && (in.Taken == nil || !in.Taken(h.Name)) {
			names = append(names, h.Name)
		}
		for _, a := range h.Addrs {
			if a.IsValid() && a.Zone() == "" && !a.IsLoopback() && !a.IsUnspecified() {
				names = append(names, a.String())
			}
		}
	}
	slices.Sort(names[1:])
	names = slices.Compact(names)
	for _, c := range unsafePatterns() {
		names = append(names, c)
	}
	var b strings.Builder
	b.WriteString("# Made by `tssh config`; changes here are lost the next time it runs.\n")
	fmt.Fprintf(&b, "Host %s\n", strings.Join(names, " "))
	for _, o := range opts {
		fmt.Fprintf(&b, "    %s %s\n", o[0], o[1])
	}
	b.WriteString("Match all\n")
	return []byte(b.String()), nil
}

// settings are what a connection to the mesh needs, keyword and value.
func settings(tssh, socket string) ([][2]string, error) {
	tssh, err := command(tssh)
	if err != nil {
		return nil, err
	}
	if socket != "" {
		s, err := command(socket)
		if err != nil {
			return nil, err
		}
		tssh += " --socket " + s
	}
	return [][2]string{
		{"ProxyCommand", tssh + " proxy %h %p"},
		{"KnownHostsCommand", tssh + " config --known-hosts %H"},
		{"StrictHostKeyChecking", "yes"},
		{"UserKnownHostsFile", "none"},
		{"GlobalKnownHostsFile", "none"},
		{"UpdateHostKeys", "no"},
		{"VerifyHostKeyDNS", "no"},
		{"CheckHostIP", "no"},
		{"CanonicalizeHostname", "no"},
	}, nil
}

// Options are the settings as arguments (-o KEYWORD=VALUE) for one run of a stock program.
func Options(tssh, socket string) ([]string, error) {
	opts, err := settings(tssh, socket)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range opts {
		out = append(out, "-o", o[0]+"="+o[1])
	}
	return out, nil
}

// unsafePatterns leave out names that a shell would not take as they are. Each is one
// character anywhere in the name; ssh's patterns know no wildcards but * and ?.
func unsafePatterns() []string {
	var out []string
	for _, c := range "$`;&|<>(){}[]" {
		out = append(out, "!*"+string(c)+"*")
	}
	// Inside double quotes these are themselves to ssh's own reader of lines.
	return append(out, `"!*'*"`, `"!* *"`, `"!*#*"`)
}

// label reports whether s is a plain DNS label in lower case.
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// command quotes a path for a command line that ssh splits itself (KnownHostsCommand) or
// gives to a shell (ProxyCommand). Paths that the two would read differently are refused.
func command(path string) (string, error) {
	if !filepath.IsAbs(path) || len(path) > 1024 {
		return "", fmt.Errorf("sshconfig: %q is not an absolute path", path)
	}
	for i := range len(path) {
		c := path[i]
		if c < ' ' || c == 0x7f || strings.IndexByte("\"'\\$`%", c) >= 0 {
			return "", fmt.Errorf("sshconfig: the path %q has a character that ssh's settings cannot hold", path)
		}
	}
	if strings.ContainsAny(path, " ;&|<>(){}[]*?!#~=") {
		return `"` + path + `"`, nil
	}
	return path, nil
}
