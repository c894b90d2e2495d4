package sshconfig

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"

	gossh "golang.org/x/crypto/ssh"
)

// HostOf is the host in what ssh asks for (%H): a name, an address, or [HOST]:PORT.
func HostOf(asked string) (string, error) {
	host := asked
	if strings.HasPrefix(asked, "[") {
		h, _, err := net.SplitHostPort(asked)
		if err != nil {
			return "", fmt.Errorf("sshconfig: %q is not a host", asked)
		}
		host = h
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	host = strings.TrimSuffix(host, ".")
	for _, l := range strings.Split(host, ".") {
		if !label(strings.ToLower(l)) {
			return "", fmt.Errorf("sshconfig: %q is not a host", asked)
		}
	}
	return host, nil
}

// KnownHosts is the answer to ssh's question: one line per key, for exactly the name it asked
// about. A key that cannot be read is left out.
func KnownHosts(asked string, keys []string) ([]byte, error) {
	if _, err := HostOf(asked); err != nil {
		return nil, err
	}
	var out []byte
	for _, l := range keys {
		k, _, _, _, err := gossh.ParseAuthorizedKey([]byte(l))
		if err != nil {
			continue
		}
		out = fmt.Appendf(out, "%s %s %s\n", asked, k.Type(), base64.StdEncoding.EncodeToString(k.Marshal()))
	}
	return out, nil
}
