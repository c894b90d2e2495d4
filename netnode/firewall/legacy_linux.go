package firewall

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Rules of the kernel's older interface (iptables-legacy) are read from the program that
// has been printing them for twenty years, and put into nft's terms.

const (
	legacyTime = 5 * time.Second
	maxLegacy  = 8 << 20
)

// legacy are the two families.
var legacy = []struct {
	family   nftables.TableFamily
	names    string // lists the tables that the kernel has; nobody has to make one to look
	programs []string
}{
	{nftables.TableFamilyIPv4, "ip_tables_names", []string{"iptables-legacy-save", "iptables-save"}},
	{nftables.TableFamilyIPv6, "ip6_tables_names", []string{"ip6tables-legacy-save", "ip6tables-save"}},
}

// priorities are those at which the tables stand, in the chains that matter here.
var priorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0}

func (r *Rules) readLegacy() error {
	for _, f := range legacy {
		names, err := os.ReadFile("/proc/thread-self/net/" + f.names)
		if err != nil || len(bytes.TrimSpace(names)) == 0 {
			continue // not in this kernel, or not used
		}
		text, err := save(f.programs)
		if err != nil {
			return err
		}
		r.parseLegacy(f.family, text)
	}
	return nil
}

// save has the rules printed. The program is looked for where the system has it, not in $PATH.
func save(programs []string) (string, error) {
	for _, p := range programs {
		for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/"} {
			if _, err := os.Stat(dir + p); err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), legacyTime)
			defer cancel()
			cmd := exec.CommandContext(ctx, dir+p)
			cmd.Env, cmd.Dir = []string{}, "/"
			out, err := cmd.Output()
			if err != nil {
				return "", fmt.Errorf("firewall: %s: %w", p, err)
			}
			if len(out) > maxLegacy {
				return "", fmt.Errorf("firewall: %s printed more than %d bytes", p, maxLegacy)
			}
			return string(out), nil
		}
	}
	return "", fmt.Errorf("firewall: %s is not here to print the rules there are", programs[0])
}

// parseLegacy reads what iptables-save prints.
func (r *Rules) parseLegacy(family nftables.TableFamily, text string) {
	var t *table
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			name := line[1:]
			// Its own key: nft may have a table of the same name.
			t = &table{tableKey: tableKey{family, name}, chains: map[string]*chain{}, sets: map[string]*set{}}
		case t == nil:
		case strings.HasPrefix(line, ":"):
			f := strings.Fields(line[1:])
			prio, known := priorities[t.name]
			if len(f) < 2 || len(t.chains) >= maxChains {
				continue
			}
			c := &chain{t: t, name: f[0], hook: -1, policy: nftables.ChainPolicyAccept, prio: prio}
			if f[1] == "DROP" {
				c.policy = nftables.ChainPolicyDrop
			}
			t.chains[c.name] = c
			if hook, ok := map[string]int{"PREROUTING": 0, "INPUT": 1}[c.name]; ok && known {
				c.hook = hook
				r.base = append(r.base, c)
			}
		case strings.HasPrefix(line, "-A "):
			w := words(line[3:])
			if len(w) == 0 {
				continue
			}
			if c := t.chains[w[0]]; c != nil && len(c.rules) < maxRules {
				c.rules = append(c.rules, &nftables.Rule{Exprs: translate(w[1:])})
			}
		}
	}
}

// words splits a line at spaces outside of double quotes, as iptables-save writes comments.
func words(s string) (out []string) {
	var b strings.Builder
	in, any := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && in && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case c == '"':
			in, any = !in, true
		case c == ' ' && !in:
			if any {
				out = append(out, b.String())
			}
			b.Reset()
			any = false
		default:
			b.WriteByte(c)
			any = true
		}
	}
	if any {
		out = append(out, b.String())
	}
	return out
}

// never is a condition that is not understood: it does not hold.
func never() expr.Any { return &expr.Match{Name: "unknown"} }

// translate puts the options of one rule into expressions.
func translate(w []string) (out []expr.Any) {
	not := false
	op := func() expr.CmpOp {
		if not {
			return expr.CmpOpNeq
		}
		return expr.CmpOpEq
	}
	for i := 0; i < len(w); i++ {
		arg := ""
		if i+1 < len(w) {
			arg = w[i+1]
		}
		skip := 1 // words that belong to the option
		switch w[i] {
		case "!":
			not = true
			continue
		case "-i":
			name, prefix := strings.CutSuffix(arg, "+")
			b := []byte(name)
			if !prefix {
				b = append(b, make([]byte, max(0, 16-len(b)))...)
			}
			out = append(out, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: op(), Register: 1, Data: b})
		case "-p":
			n, ok := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6}[arg]
			if !ok {
				n = 255 // another one
			}
			out = append(out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: op(), Register: 1, Data: []byte{n}})
		case "-s", "-d":
			out = append(out, address(arg, w[i] == "-d", op())...)
		case "--sport", "--dport":
			from, to, isRange := strings.Cut(arg, ":")
			if !isRange {
				to = from
			}
			offset := uint32(0)
			if w[i] == "--dport" {
				offset = 2
			}
			out = append(out, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
				&expr.Range{Op: op(), Register: 1, FromData: port(from), ToData: port(to)})
		case "--dports", "--ports":
			out = append(out, portList(arg, not))
		case "--ctstate", "--state":
			// In the terms of the kernel's state bits: the packet is a new one.
			has := strings.Contains(","+arg+",", ",NEW,")
			if has == not {
				out = append(out, never())
			}
		case "--dst-type", "--src-type":
			has := strings.Contains(","+arg+",", map[bool]string{true: ",LOCAL,", false: ",UNICAST,"}[w[i] == "--dst-type"])
			if has == not {
				out = append(out, never())
			}
		case "--tcp-flags": // two words; of a packet that begins a connection only SYN is set
			skip = 2
			if i+2 < len(w) && (w[i+2] == "SYN" && strings.Contains(arg, "SYN")) == not {
				out = append(out, never())
			}
		case "-m", "--comment", "--reject-with", "--log-prefix", "--log-level", "--limit", "--limit-burst":
			if w[i] == "-m" && !strings.Contains(" tcp udp comment conntrack state addrtype multiport limit ", " "+arg+" ") {
				out = append(out, never())
			}
		case "--log-ip-options", "--log-tcp-options", "--log-uid":
			skip = 0
		case "-f":
			skip = 0
			out = append(out, never())
		case "-j", "-g":
			v := &expr.Verdict{Kind: expr.VerdictJump, Chain: arg}
			switch arg {
			case "ACCEPT", "NFQUEUE", "QUEUE":
				v = &expr.Verdict{Kind: expr.VerdictAccept}
			case "DROP", "REJECT", "TARPIT":
				v = &expr.Verdict{Kind: expr.VerdictDrop}
			case "RETURN":
				v = &expr.Verdict{Kind: expr.VerdictReturn}
			default:
				if w[i] == "-g" {
					v.Kind = expr.VerdictGoto
				}
			}
			// What comes behind it belongs to the target.
			return append(out, v)
		default:
			skip = 0
			if strings.HasPrefix(w[i], "-") {
				out = append(out, never())
			}
		}
		i += skip
		not = false
	}
	return out
}

func port(s string) []byte {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil && s != "" {
		n = 0
	}
	return binary.BigEndian.AppendUint16(nil, uint16(n))
}

// address compares an address of the packet with one or a network.
func address(s string, dst bool, op expr.CmpOp) []expr.Any {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return []expr.Any{never()}
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	offset, size := uint32(12), uint32(4)
	if p.Addr().Is6() {
		offset, size = 8, 16
	}
	if dst {
		offset += size
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// portList is the multiport match as the kernel keeps it, see multiport.
func portList(s string, not bool) expr.Any {
	b := make([]byte, 48)
	b[0] = 1 // of the destination
	n := 0
	for _, e := range strings.Split(s, ",") {
		from, to, isRange := strings.Cut(e, ":")
		for k, p := range []string{from, to} {
			if k == 1 && !isRange || n >= 15 {
				break
			}
			v, err := strconv.ParseUint(p, 10, 16)
			if err != nil {
				return never()
			}
			copy(b[2+2*n:], binaryutil.NativeEndian.PutUint16(uint16(v)))
			if k == 0 && isRange {
				b[32+n] = 1
			}
			n++
		}
	}
	b[1] = byte(n)
	if not {
		b[47] = 1
	}
	return multiportMatch(b)
}
