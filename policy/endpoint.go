package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// endpoint is one HOST:PORTS of a permit's forwards.
type endpoint struct {
	any    bool         // *
	prefix netip.Prefix // of an address, a prefix, or a name of the hosts section
	name   string       // in lower case; "" when only the prefix counts
	below  bool         // *.name: any name below it
	ports  []portSpec
}

// parseEndpoint reads "*", "HOST:PORTS": a name, *.domain, an address, a prefix or *, and
// ports as in an acl.
func (n *names) parseEndpoint(s string) (endpoint, error) {
	var e endpoint
	if s == "*" {
		return endpoint{any: true, ports: []portSpec{{0, 0, 65535}}}, nil
	}
	host, ports, err := splitPorts(s)
	if err != nil {
		return e, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "dst="))
	}
	if e.ports, err = parsePorts(ports, 0); err != nil {
		return e, err
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if p, ok := parseAddrOrPrefix(host); ok {
		e.prefix = p
		return e, nil
	}
	if host == "*" {
		e.any = true
		return e, nil
	}
	if p, ok := n.hosts[host]; ok {
		e.prefix = p
	}
	e.name = host
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		e.name, e.below = rest, true
	}
	if e.name == "" || len(e.name) > 253 || strings.ContainsAny(e.name, "*/:@[]") || !plainWord(e.name) || strings.HasPrefix(e.name, "-") {
		return e, fmt.Errorf("%q is neither a name, *.domain, an address nor a prefix", host)
	}
	if looksLikeAddr(e.name) {
		return e, fmt.Errorf("%q is no address; write it as 192.0.2.7, or 192.0.2.0/24", host)
	}
	return e, nil
}

// looksLikeAddr is for what resolvers take for an address and nobody can compare: 127.1, 0x7f.1.
func looksLikeAddr(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if strings.HasPrefix(last, "0x") {
		return true
	}
	_, err := strconv.ParseUint(last, 10, 64)
	return err == nil
}

func anyEndpoint(es []endpoint, target string, listen bool) bool {
	if len(es) == 0 {
		return false
	}
	i := strings.LastIndexByte(target, ':')
	if i < 0 {
		return false
	}
	port, ok := portNumber(target[i+1:])
	if !ok || port == 0 && !listen {
		return false
	}
	host := strings.TrimSuffix(target[:i], ".")
	if len(host) >= 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if len(host) > 253 {
		return false
	}
	addr, isAddr := addrOf(host)
	if isAddr && addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	// To listen on no address in particular is to listen on all of them.
	every := listen && (host == "" || host == "*" || isAddr && addr.IsUnspecified())
	if host == "" && !every {
		return false
	}
	for i := range es {
		e := &es[i]
		if !e.hasPort(port) {
			continue
		}
		switch {
		case e.any:
			return true
		case every:
		case isAddr && e.name == "localhost" && !e.below:
			if addr.IsLoopback() {
				return true
			}
		case isAddr:
			if e.prefix.IsValid() && e.prefix.Contains(addr) {
				return true
			}
		case e.name == "":
		case e.below:
			if len(host) > len(e.name)+1 && host[len(host)-len(e.name)-1] == '.' && strings.EqualFold(host[len(host)-len(e.name):], e.name) {
				return true
			}
		case strings.EqualFold(host, e.name):
			return true
		}
	}
	return false
}

// portNumber reads a port without making an error of what is none.
func portNumber(s string) (uint16, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i > 5 {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return uint16(n), s != "" && n <= 65535
}

// addrOf reads an address; what cannot be one is not tried, as its error would cost memory.
func addrOf(s string) (netip.Addr, bool) {
	if strings.IndexByte(s, ':') < 0 && (strings.Count(s, ".") != 3 || strings.Trim(s, "0123456789.") != "") {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

// hasPort: port 0 lets the host choose one, so it needs all of them.
func (e *endpoint) hasPort(port uint16) bool {
	for _, s := range e.ports {
		if port == 0 && s.lo <= 1 && s.hi == 65535 || port != 0 && s.lo <= port && port <= s.hi {
			return true
		}
	}
	return false
}
