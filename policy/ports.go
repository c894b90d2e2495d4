package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// IP protocol numbers that the language gives a meaning of its own.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// protoNames are the names a rule may write; the numbers are IANA's.
var protoNames = map[string]uint8{
	"icmp": 1, "igmp": 2, "ipv4": 4, "ip-in-ip": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17,
	"gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "sctp": 132, "fc": 133,
}

// portSpec is one protocol with one range of ports.
type portSpec struct {
	proto  uint8 // 0: none was written, which means TCP, UDP and both ICMPs
	lo, hi uint16
}

var allPorts = portSpec{0, 0, 65535}

func hasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP
}

func isICMP(proto uint8) bool { return proto == protoICMP || proto == protoICMPv6 }

func (s portSpec) covers(proto uint8, port uint16) bool {
	switch {
	case s.proto == 0 && proto != protoTCP && proto != protoUDP && !isICMP(proto):
		return false
	case s.proto != 0 && s.proto != proto:
		return false
	}
	return !hasPorts(proto) || s.lo <= port && port <= s.hi
}

// anyCovers reports whether one of the specs covers the traffic. What is allowed any
// traffic at all may also ping.
func anyCovers(specs []portSpec, proto uint8, port uint16) bool {
	if isICMP(proto) {
		return len(specs) > 0
	}
	for _, s := range specs {
		if s.covers(proto, port) {
			return true
		}
	}
	return false
}

// parseProto reads the name or number of a protocol; "" is none.
func parseProto(s string) (uint8, error) {
	if s == "" {
		return 0, nil
	}
	if n, ok := protoNames[strings.ToLower(s)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		meant := ""
		for name := range protoNames {
			if len(s) <= 12 && (meant == "" || name < meant) && distance(strings.ToLower(s), name, 3) < min(3, len(name)) {
				meant = name
			}
		}
		if meant != "" {
			return 0, fmt.Errorf("unknown protocol %q, did you mean %q?", s, meant)
		}
		return 0, fmt.Errorf("unknown protocol %q", s)
	}
	if n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("protocol %q: a number from 1 to 255 without leading zeros", s)
	}
	return uint8(n), nil
}

// parsePorts reads "*", "22", "80-443" or a mix with commas, for one protocol.
func parsePorts(s string, proto uint8) ([]portSpec, error) {
	if s == "*" {
		return []portSpec{{proto, 0, 65535}}, nil
	}
	if proto != 0 && !hasPorts(proto) {
		return nil, fmt.Errorf("ports can only be given for tcp, udp and sctp; write *")
	}
	var out []portSpec
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "*" {
			out = append(out, portSpec{proto, 0, 65535})
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		lo, ok := parsePort(first)
		if !ok {
			return nil, fmt.Errorf("port range %q: invalid first integer", s)
		}
		if lo == 0 {
			return nil, fmt.Errorf("port range %q: first port must be >0, or use '*' for wildcard", s)
		}
		hi := lo
		if isRange {
			if hi, ok = parsePort(last); !ok {
				return nil, fmt.Errorf("port range %q: invalid last integer", s)
			}
			if hi < lo {
				return nil, fmt.Errorf("port range %q: the last port is below the first", s)
			}
		}
		out = append(out, portSpec{proto, lo, hi})
	}
	return out, nil
}

func parsePort(s string) (uint16, bool) {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}

// splitPorts cuts the dst of an acl at the last colon, with IPv6 in brackets.
func splitPorts(s string) (host, ports string, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return "", "", fmt.Errorf("dst=%q: ports are missing, write %s:* for all", s, s)
	}
	host, ports = strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, bits, ok := strings.Cut(inner, "]")
		if !ok || bits != "" && bits[0] != '/' {
			return "", "", fmt.Errorf("dst=%q: brackets do not match", s)
		}
		return addr + bits, ports, nil
	}
	if strings.Count(host, ":") > 1 && !strings.Contains(host, "/") {
		if _, ok := parseAddrOrPrefix(host); ok {
			return "", "", fmt.Errorf("dst=%q: write IPv6 addresses in brackets, [%s]:%s", s, host, ports)
		}
		if _, ok := parseAddrOrPrefix(s); ok {
			return "", "", fmt.Errorf("dst=%q: write IPv6 addresses in brackets, with ports after them", s)
		}
	}
	return host, ports, nil
}

// parseIP reads one entry of a grant's ip list: "*", "443", "80-443", "tcp:443", "icmp:*".
func parseIP(s string) ([]portSpec, error) {
	name, ports, ok := strings.Cut(s, ":")
	if !ok {
		if _, known := protoNames[strings.ToLower(s)]; known {
			return nil, fmt.Errorf("ip %q: port range %q: invalid first integer; write %s:*", s, s, s)
		}
		specs, err := parsePorts(s, 0)
		if err != nil {
			return nil, fmt.Errorf("ip %q: %w", s, err)
		}
		return specs, nil
	}
	var proto uint8
	if name = strings.TrimSpace(name); name != "*" {
		n, err := parseProto(name)
		if err != nil {
			return nil, fmt.Errorf("ip %q: %w", s, err)
		}
		if n == 0 {
			return nil, fmt.Errorf("ip %q: the protocol is missing", s)
		}
		proto = n
	}
	specs, err := parsePorts(strings.TrimSpace(ports), proto)
	if err != nil {
		return nil, fmt.Errorf("ip %q: %w", s, err)
	}
	return specs, nil
}

// portWords is the specs as a person reads them: "22, 80-443, udp 53".
func portWords(specs []portSpec) string {
	var out []string
	for _, s := range specs {
		w := "all ports"
		switch {
		case s.lo == s.hi:
			w = strconv.Itoa(int(s.lo))
		case s.lo > 1 || s.hi < 65535:
			w = fmt.Sprintf("%d-%d", s.lo, s.hi)
		}
		switch {
		case s.proto == 0:
		case hasPorts(s.proto):
			w = protoWord(s.proto) + " " + w
		default:
			w = protoWord(s.proto)
		}
		out = append(out, w)
	}
	return strings.Join(out, ", ")
}

// protoWord is the name of a protocol, or its number.
func protoWord(proto uint8) string {
	best := ""
	for name, n := range protoNames {
		if n == proto && (best == "" || name < best) {
			best = name
		}
	}
	if best == "" {
		return "protocol " + strconv.Itoa(int(proto))
	}
	return best
}
