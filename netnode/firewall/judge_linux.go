package firewall

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

const (
	maxDepth = 64
	maxSteps = 100000 // rules on the way of one packet
)

// Judge reports where p ends, if it does.
func (r *Rules) Judge(p Packet) (Stop, bool) {
	w := newWalk(p)
	for _, c := range r.base {
		f := c.t.family
		if f == nftables.TableFamilyIPv4 && !p.Dst.Is4() || f == nftables.TableFamilyIPv6 && p.Dst.Is4() {
			continue
		}
		w.visited = w.visited[:0]
		v, at := w.chain(c, 0)
		policy := v == unknown && c.policy == nftables.ChainPolicyDrop
		if v == unknown {
			at = c
		}
		if v == drop || policy {
			s := Stop{Family: familyName(f), Table: c.t.name, Chain: at.name, Base: c.name, Policy: policy}
			s.By = w.whose(c, at)
			return s, true
		}
	}
	return Stop{}, false
}

// whose names the program that a chain is by.
func (w *walk) whose(base, at *chain) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(w.visited, func(c *chain) bool { return strings.HasPrefix(c.name, prefix) })
	}
	switch {
	case at.name == "ts-input":
		return "Tailscale"
	case base.t.name == "firewalld":
		return "firewalld"
	case has("ufw-") || has("ufw6-"):
		return "ufw"
	case base.name == "INPUT" && base.t.name == "filter", base.name == "PREROUTING":
		return "iptables"
	}
	return "nftables"
}

// outcome of a rule or a chain.
type outcome int

const (
	unknown outcome = iota // goes on
	accept
	drop
	back // return
	miss // the rule's conditions do not hold
)

// walk is one packet on its way.
type walk struct {
	p       Packet
	net     []byte // network header
	trans   []byte // transport header
	reg     [80]byte
	known   [80]bool
	visited []*chain
	steps   int
}

// newWalk makes the packet's headers.
func newWalk(p Packet) *walk {
	w := &walk{p: p, trans: make([]byte, 20)}
	proto := byte(unix.IPPROTO_UDP)
	if p.TCP {
		proto = unix.IPPROTO_TCP
		w.trans[12], w.trans[13] = 5<<4, 2 // SYN
	}
	binary.BigEndian.PutUint16(w.trans, 51820)
	binary.BigEndian.PutUint16(w.trans[2:], p.Port)
	if p.Dst.Is4() {
		w.net = make([]byte, 20)
		w.net[0], w.net[8], w.net[9] = 0x45, 64, proto
		copy(w.net[12:], p.Src.AsSlice())
		copy(w.net[16:], p.Dst.AsSlice())
	} else {
		w.net = make([]byte, 40)
		w.net[0], w.net[6], w.net[7] = 0x60, proto, 64
		copy(w.net[8:], p.Src.AsSlice())
		copy(w.net[24:], p.Dst.AsSlice())
	}
	return w
}

func (w *walk) proto() byte {
	if w.p.TCP {
		return unix.IPPROTO_TCP
	}
	return unix.IPPROTO_UDP
}

// chain walks c. The second value is where it was decided.
func (w *walk) chain(c *chain, depth int) (outcome, *chain) {
	if c == nil || depth > maxDepth || w.steps > maxSteps {
		return unknown, c
	}
	w.visited = append(w.visited, c)
	for _, r := range c.rules {
		if w.steps++; w.steps > maxSteps {
			return unknown, c
		}
		v, to := w.rule(c, r)
		if v == unknown && to != nil {
			sub := c.t.chains[to.Chain]
			got, at := w.chain(sub, depth+1)
			switch {
			case got == accept || got == drop:
				return got, at
			case to.Kind == expr.VerdictGoto:
				return unknown, c // back to whoever called this chain
			}
			continue
		}
		switch v {
		case accept, drop:
			return v, c
		case back:
			return unknown, c
		}
	}
	return unknown, c
}

// at is a register's place in the file, -1 for none.
func at(reg uint32) int {
	switch {
	case reg >= 1 && reg <= 4:
		return int(reg-1) * 16
	case reg >= 8 && reg < 24:
		return int(reg-8) * 4
	}
	return -1
}

func (w *walk) load(reg uint32, b []byte) {
	i := at(reg)
	if i < 0 || i+len(b) > len(w.reg) {
		return
	}
	end := min((i+len(b)+3)/4*4, len(w.reg))
	for j := i; j < end; j++ {
		w.reg[j], w.known[j] = 0, true
	}
	copy(w.reg[i:], b)
}

func (w *walk) forget(reg uint32, n int) {
	if i := at(reg); i >= 0 {
		for j := i; j < min(i+n, len(w.known)); j++ {
			w.known[j] = false
		}
	}
}

// get is n bytes from a register, nil when they are not known.
func (w *walk) get(reg uint32, n int) []byte {
	i := at(reg)
	if i < 0 || i+n > len(w.reg) || slices.Contains(w.known[i:i+n], false) {
		return nil
	}
	return w.reg[i : i+n]
}

// rule is what one rule does: with unknown and a verdict it calls that chain.
func (w *walk) rule(c *chain, r *nftables.Rule) (outcome, *expr.Verdict) {
	clear(w.known[:])
	for _, e := range r.Exprs {
		v, to := w.expr(c, e)
		if v == miss {
			return unknown, nil
		}
		if v != unknown || to != nil {
			return v, to
		}
	}
	return unknown, nil
}

func verdict(v *expr.Verdict) (outcome, *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictAccept, expr.VerdictStop, expr.VerdictQueue:
		return accept, nil
	case expr.VerdictDrop:
		return drop, nil
	case expr.VerdictReturn:
		return back, nil
	case expr.VerdictJump, expr.VerdictGoto:
		return unknown, v
	}
	return miss, nil // continue
}

func (w *walk) expr(c *chain, e expr.Any) (outcome, *expr.Verdict) {
	when := func(ok bool) (outcome, *expr.Verdict) {
		if ok {
			return unknown, nil
		}
		return miss, nil
	}
	switch e := e.(type) {
	case *expr.Verdict:
		return verdict(e)
	case *expr.Reject:
		return drop, nil
	case *expr.Meta:
		if !e.SourceRegister {
			w.meta(e)
		}
	case *expr.Payload:
		if e.OperationType == expr.PayloadWrite {
			break
		}
		from := map[expr.PayloadBase][]byte{expr.PayloadBaseNetworkHeader: w.net, expr.PayloadBaseTransportHeader: w.trans}[e.Base]
		if int64(e.Offset)+int64(e.Len) > int64(len(from)) {
			return miss, nil
		}
		w.load(e.DestRegister, from[e.Offset:e.Offset+e.Len])
	case *expr.Immediate:
		w.load(e.Register, e.Data)
	case *expr.Ct:
		w.ct(e)
	case *expr.Fib:
		w.fib(e)
	case *expr.Bitwise:
		b := w.get(e.SourceRegister, int(e.Len))
		if b == nil || len(e.Mask) < len(b) || len(e.Xor) < len(b) {
			w.forget(e.DestRegister, int(e.Len))
			break
		}
		out := make([]byte, len(b))
		for i := range b {
			out[i] = b[i]&e.Mask[i] ^ e.Xor[i]
		}
		w.load(e.DestRegister, out)
	case *expr.Byteorder:
		b := slices.Clone(w.get(e.SourceRegister, int(e.Len)))
		if b == nil || e.Size == 0 {
			w.forget(e.DestRegister, int(e.Len))
			break
		}
		if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
			for i := 0; i+int(e.Size) <= len(b); i += int(e.Size) {
				slices.Reverse(b[i : i+int(e.Size)])
			}
		}
		w.load(e.DestRegister, b)
	case *expr.Cmp:
		b := w.get(e.Register, len(e.Data))
		return when(b != nil && compare(e.Op, bytes.Compare(b, e.Data)))
	case *expr.Range:
		b := w.get(e.Register, len(e.FromData))
		if b == nil {
			return miss, nil
		}
		in := bytes.Compare(b, e.FromData) >= 0 && bytes.Compare(b, e.ToData) <= 0
		return when(in == (e.Op == expr.CmpOpEq))
	case *expr.Lookup:
		return w.lookup(c, e)
	case *expr.Limit:
		return when(!e.Over)
	case *expr.Match:
		return when(w.match(e))
	case *expr.Target:
		return target(e)
	case *expr.Counter, *expr.Log, *expr.Notrack, *expr.Dynset, *expr.Quota, *expr.Objref:
	default:
		return miss, nil // a condition that we cannot judge
	}
	return unknown, nil
}

func compare(op expr.CmpOp, c int) bool {
	switch op {
	case expr.CmpOpEq:
		return c == 0
	case expr.CmpOpNeq:
		return c != 0
	case expr.CmpOpLt:
		return c < 0
	case expr.CmpOpLte:
		return c <= 0
	case expr.CmpOpGt:
		return c > 0
	case expr.CmpOpGte:
		return c >= 0
	}
	return false
}

func (w *walk) meta(e *expr.Meta) {
	switch e.Key {
	case expr.MetaKeyIIFNAME:
		w.load(e.Register, append([]byte(w.p.In), make([]byte, max(0, 16-len(w.p.In)))...))
	case expr.MetaKeyOIFNAME:
		w.load(e.Register, make([]byte, 16))
	case expr.MetaKeyL4PROTO:
		w.load(e.Register, []byte{w.proto()})
	case expr.MetaKeyNFPROTO:
		w.load(e.Register, []byte{map[bool]byte{true: unix.NFPROTO_IPV4, false: unix.NFPROTO_IPV6}[w.p.Dst.Is4()]})
	case expr.MetaKeyPROTOCOL:
		w.load(e.Register, map[bool][]byte{true: {8, 0}, false: {0x86, 0xdd}}[w.p.Dst.Is4()])
	case expr.MetaKeyMARK, expr.MetaKeyIIFGROUP, expr.MetaKeyPKTTYPE: // none, none, for us
		w.load(e.Register, make([]byte, 4))
	default:
		w.forget(e.Register, 16)
	}
}

func (w *walk) ct(e *expr.Ct) {
	switch e.Key {
	case expr.CtKeySTATE:
		w.load(e.Register, binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW))
	case expr.CtKeySTATUS, expr.CtKeyMARK:
		w.load(e.Register, make([]byte, 4))
	case expr.CtKeyDIRECTION:
		w.load(e.Register, []byte{0})
	default:
		w.forget(e.Register, 16)
	}
}

// Kinds of address of the kernel's routing.
const (
	kindUnicast = 1
	kindLocal   = 2
)

func (w *walk) fib(e *expr.Fib) {
	switch {
	case e.ResultADDRTYPE && e.FlagDADDR:
		w.load(e.Register, binaryutil.NativeEndian.PutUint32(kindLocal))
	case e.ResultADDRTYPE && e.FlagSADDR:
		w.load(e.Register, binaryutil.NativeEndian.PutUint32(kindUnicast))
	case e.FlagPRESENT:
		w.load(e.Register, []byte{1}) // there is a way back
	default:
		w.forget(e.Register, 16)
	}
}

func (w *walk) lookup(c *chain, e *expr.Lookup) (outcome, *expr.Verdict) {
	s := c.t.sets[e.SetName]
	if s == nil {
		return miss, nil
	}
	el, ok, sure := s.find(w, e.SourceRegister)
	if !sure || ok == e.Invert {
		return miss, nil
	}
	if !e.IsDestRegSet || el == nil {
		return unknown, nil
	}
	if e.DestRegister == 0 { // a verdict map
		v := mapped(el.Val)
		if v == nil {
			return miss, nil
		}
		return verdict(v)
	}
	w.load(e.DestRegister, el.Val)
	return unknown, nil
}

// mapped reads a verdict of a map, which the library leaves as the attributes that it is:
// NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN.
func mapped(b []byte) *expr.Verdict {
	var v *expr.Verdict
	chain := ""
	for len(b) >= 4 {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&0x3fff
		if n < 4 || n > len(b) {
			return nil
		}
		switch data := b[4:n]; {
		case kind == unix.NFTA_VERDICT_CODE && len(data) == 4:
			v = &expr.Verdict{Kind: expr.VerdictKind(int32(binary.BigEndian.Uint32(data)))}
		case kind == unix.NFTA_VERDICT_CHAIN:
			chain = strings.TrimRight(string(data), "\x00")
		}
		b = b[min((n+3)/4*4, len(b)):]
	}
	if v != nil {
		v.Chain = chain
	}
	return v
}

// find looks for what is in the register; not sure means that it cannot be known.
func (s *set) find(w *walk, reg uint32) (found *nftables.SetElement, ok, sure bool) {
	var best *nftables.SetElement
	var key []byte
	for i := range s.elements {
		el := &s.elements[i]
		if key = w.get(reg, len(el.Key)); key == nil {
			return nil, false, false
		}
		switch {
		case len(el.KeyEnd) > 0:
			if within(key, el.Key, el.KeyEnd) {
				return el, true, true
			}
		case !s.interval:
			if bytes.Equal(key, el.Key) {
				return el, true, true
			}
		case bytes.Compare(el.Key, key) <= 0:
			// Where an interval ends at the beginning of another one, both are in the list.
			if best == nil || bytes.Compare(el.Key, best.Key) > 0 || bytes.Equal(el.Key, best.Key) && best.IntervalEnd {
				best = el
			}
		}
	}
	if best != nil && !best.IntervalEnd {
		return best, true, true
	}
	return nil, false, true
}

// within compares concatenated keys. Fields of up to four bytes are judged as they are; longer
// ones word by word, which is right for prefixes and single addresses.
func within(key, from, to []byte) bool {
	if len(from) != len(key) || len(to) != len(key) {
		return false
	}
	for i := 0; i < len(key); i += 4 {
		j := min(i+4, len(key))
		if bytes.Compare(key[i:j], from[i:j]) < 0 || bytes.Compare(key[i:j], to[i:j]) > 0 {
			return false
		}
	}
	return true
}

// match judges a match of iptables. What is not known does not match.
func (w *walk) match(e *expr.Match) bool {
	inRange := func(p uint16, r [2]uint16) bool { return p >= r[0] && p <= r[1] }
	switch x := e.Info.(type) {
	case *xt.Comment:
		return true
	case *xt.Udp:
		return !w.p.TCP && inRange(51820, x.SrcPorts) == (x.InvFlags&xt.UdpInvSrcPorts == 0) && inRange(w.p.Port, x.DstPorts) == (x.InvFlags&xt.UdpInvDestPorts == 0)
	case *xt.Tcp:
		return w.p.TCP && inRange(51820, x.SrcPorts) == (x.InvFlags&xt.TcpInvSrcPorts == 0) && inRange(w.p.Port, x.DstPorts) == (x.InvFlags&xt.TcpInvDestPorts == 0) &&
			x.Option == 0 && (2&x.FlagsMask == x.FlagsCmp) == (x.InvFlags&xt.TcpInvFlags == 0)
	case *xt.ConntrackMtinfo1:
		return ctstate(x.MatchFlags, x.InvertFlags, uint16(x.StateMask))
	case *xt.ConntrackMtinfo2:
		return ctstate(x.MatchFlags, x.InvertFlags, x.StateMask)
	case *xt.ConntrackMtinfo3:
		return ctstate(x.MatchFlags, x.InvertFlags, x.StateMask)
	case *xt.AddrType:
		return kind(x.Source, kindUnicast, x.InvertSource) && kind(x.Dest, kindLocal, x.InvertDest)
	case *xt.AddrTypeV1:
		const invertSource, invertDest = 1, 2
		return kind(x.Source, kindUnicast, x.Flags&invertSource != 0) && kind(x.Dest, kindLocal, x.Flags&invertDest != 0)
	case *xt.Unknown:
		switch {
		case e.Name == "limit":
			return true
		case e.Name == "multiport" && e.Rev == 1:
			return w.multiport(*x)
		case e.Name == "state" && len(*x) >= 4:
			return binary.NativeEndian.Uint32(*x)&ctNew != 0
		}
	}
	return false
}

// ctNew is the state of a packet that begins a connection, as xt_conntrack counts bits.
const ctNew = 1 << 3

func ctstate(match, invert, mask uint16) bool {
	const state, rest = uint16(1), ^uint16(1 | 1<<13) // XT_CONNTRACK_STATE and its alias
	if match&rest != 0 {
		return false
	}
	return match&state == 0 || (mask&ctNew != 0) == (invert&state == 0)
}

func kind(mask uint16, is int, invert bool) bool {
	return mask == 0 || (mask&(1<<is) != 0) != invert
}

// multiportMatch is a multiport match with that content.
func multiportMatch(b []byte) expr.Any {
	info := xt.Unknown(b)
	return &expr.Match{Name: "multiport", Rev: 1, Info: &info}
}

// multiport reads struct xt_multiport_v1: flags, count, ports[15], pflags[15], invert.
func (w *walk) multiport(b []byte) bool {
	const ports, pflags, invert = 2, 32, 47
	if len(b) <= invert {
		return false
	}
	if b[0] == 0 { // of the source
		return false
	}
	hit := false
	for i := 0; i < min(int(b[1]), 15); i++ {
		from := binary.NativeEndian.Uint16(b[ports+2*i:])
		to := from
		if b[pflags+i] != 0 && i+1 < 15 {
			i++
			to = binary.NativeEndian.Uint16(b[ports+2*i:])
		}
		hit = hit || w.p.Port >= from && w.p.Port <= to
	}
	return hit != (b[invert] != 0)
}

func target(e *expr.Target) (outcome, *expr.Verdict) {
	switch e.Name {
	case "REJECT", "DROP", "TARPIT":
		return drop, nil
	case "ACCEPT", "QUEUE", "NFQUEUE":
		return accept, nil
	}
	return unknown, nil // marks, logs and counts
}
