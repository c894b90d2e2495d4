package filter

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tssh/policy"
)

// Reason is what became of a packet: Pass, or why it was dropped.
type Reason uint8

const (
	Pass        Reason = iota
	Malformed          // not an IP packet we can judge
	SourceRoute        // asks for a way of its own
	NoRules            // no map yet
	NotOurs            // for an address that is not the node's own
	NoPeer             // from, or to, an address that is no peer's
	Spoofed            // going out from an address that is not the node's own: routed through the host
	Denied             // the policy does not allow the flow
	NoFlow             // an answer to nothing
	Fragment           // a fragment that cannot be judged
	ICMP               // an ICMP message that a mesh has no use for, or about nothing we sent
	HiddenPort         // to the port that really is behind the SSH port
	reasons
)

var reasonNames = [reasons]string{"pass", "malformed", "source-route", "no-rules", "not-ours", "no-peer", "spoofed",
	"denied", "no-flow", "fragment", "icmp", "hidden-port"}

func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "?"
}

// Rules are what packets are judged by: one immutable snapshot of map and policy.
type Rules struct {
	Self  []netip.Addr                    // the node's own addresses
	Peers map[netip.Addr]*policy.Identity // every address a packet may come from
	// Allow says whether the policy lets a flow in; policy.Filter has it. Nil allows nothing.
	Allow func(src *policy.Identity, srcAddr, dstAddr netip.Addr, proto uint8, port uint16) bool
	// AdmitPorts are TCP ports every peer may reach whatever the policy says.
	AdmitPorts []uint16
	// HiddenPort, if set, is never reached from the mesh: the SSH port is rewritten to it.
	HiddenPort uint16
}

func (r *Rules) admits(p *packet) bool {
	if p.proto == protoTCP && slices.Contains(r.AdmitPorts, p.dstPort) {
		return true
	}
	return r.Allow != nil && r.Allow(r.Peers[p.src], p.src, p.dst, p.proto, p.dstPort)
}

// Filter judges the packets of one node. It may be used by many goroutines.
type Filter struct {
	now func() time.Time

	rules atomic.Pointer[Rules]
	drops [reasons]atomic.Uint64

	out   *table[flowKey] // flows this node began
	frags *table[fragmentKey]

	mu sync.RWMutex
	in map[netip.Addr]*table[flowKey] // by peer: flows without connections that it began
}

// New makes a Filter that drops everything until SetRules.
func New() *Filter {
	return &Filter{now: time.Now, out: newTable[flowKey](maxOutFlows),
		frags: newTable[fragmentKey](maxFragments), in: map[netip.Addr]*table[flowKey]{}}
}

// Connection is a TCP connection as seen from here.
type Connection struct{ Local, Peer netip.AddrPort }

// Begun tells of connections that this node began before this process did, so that
// answers in them pass.
func (f *Filter) Begun(list []Connection) {
	now := f.now().UnixNano()
	for _, c := range list {
		f.out.put(flowKey{c.Local.Addr(), c.Peer.Addr(), c.Local.Port(), c.Peer.Port(), protoTCP}, now)
	}
}

// SetRules puts r in force for every packet from now on, those of old flows included.
func (f *Filter) SetRules(r *Rules) {
	f.rules.Store(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	for a := range f.in {
		if r.Peers[a] == nil {
			delete(f.in, a)
		}
	}
}

// Drops counts the packets dropped since the start, by reason.
func (f *Filter) Drops() map[string]uint64 {
	m := map[string]uint64{}
	for r := Malformed; r < reasons; r++ {
		if n := f.drops[r].Load(); n > 0 {
			m[r.String()] = n
		}
	}
	return m
}

// In judges a packet from a peer.
func (f *Filter) In(b []byte) Reason {
	why := f.judgeIn(b)
	if why != Pass {
		f.drops[why].Add(1)
	}
	return why
}

func (f *Filter) judgeIn(b []byte) Reason {
	r := f.rules.Load()
	if r == nil {
		return NoRules
	}
	p, why := parse(b, false)
	if why != Pass {
		return why
	}
	if !slices.Contains(r.Self, p.dst) {
		return NotOurs
	}
	if r.Peers[p.src] == nil {
		return NoPeer
	}
	if p.fragment {
		return f.fragment(r, &p, f.now().UnixNano())
	}
	switch p.proto {
	case protoTCP:
		if r.HiddenPort != 0 && p.dstPort == r.HiddenPort {
			return HiddenPort
		}
		if r.admits(&p) {
			return Pass
		}
		if p.flags&(tcpSYN|tcpACK|tcpRST) == tcpSYN || p.flags&(tcpACK|tcpRST) == 0 {
			return Denied
		}
		if f.out.has(inKey(&p), f.now().UnixNano()) {
			return Pass
		}
		return NoFlow
	case protoICMP4, protoICMP6:
		return f.icmp(r, &p, b, f.now().UnixNano())
	}
	return f.connectionless(r, &p, f.now().UnixNano())
}

// connectionless judges protocols in which the first packet of a flow looks like any other.
func (f *Filter) connectionless(r *Rules, p *packet, now int64) Reason {
	k := inKey(p)
	if f.out.has(k, now) {
		return Pass
	}
	if !r.admits(p) {
		return Denied
	}
	f.begun(p.src).put(k, now)
	return Pass
}

func (f *Filter) icmp(r *Rules, p *packet, b []byte, now int64) Reason {
	switch p.echo() {
	case echoRequest:
		p.dstPort = 0
		if r.admits(p) {
			return Pass
		}
		return Denied
	case echoReply:
		if f.out.has(inKey(p), now) {
			return Pass
		}
		return NoFlow
	}
	q, _, ok := p.quote(b)
	if !ok || !slices.Contains(r.Self, q.src) || q.dst != p.src {
		return ICMP // nobody but the peer itself is on the way to it
	}
	// The quoted packet left this node: in a flow it began, or in one that the peer may begin.
	if f.out.has(outKey(&q), now) {
		return Pass
	}
	back := packet{src: q.dst, dst: q.src, proto: q.proto, srcPort: q.dstPort, dstPort: q.srcPort}
	if q.echo() != 0 {
		back.dstPort = 0
	}
	if r.HiddenPort != 0 && q.proto == protoTCP && q.srcPort == r.HiddenPort || !r.admits(&back) {
		return ICMP
	}
	return Pass
}

// fragment judges what is not whole: the first fragment decides for the rest, which must
// follow it. TCP is never fragmented on purpose and is refused.
func (f *Filter) fragment(r *Rules, p *packet, now int64) Reason {
	k := fragmentKey{p.src, p.dst, p.proto, p.id}
	if !p.first {
		if p.proto == protoTCP || p.offset < 8 || !f.frags.has(k, now) {
			return Fragment
		}
		return Pass
	}
	why := Fragment
	switch {
	case p.proto == protoTCP:
	case p.echo() == echoRequest:
		p.dstPort = 0
		if why = Pass; !r.admits(p) {
			why = Denied
		}
	case p.echo() == echoReply:
		if why = Pass; !f.out.has(inKey(p), now) {
			why = NoFlow
		}
	case p.proto == protoICMP4, p.proto == protoICMP6:
	default:
		why = f.connectionless(r, p, now)
	}
	if why == Pass {
		f.frags.put(k, now)
	}
	return why
}

// Out judges a packet to a peer, and remembers the flows it begins.
func (f *Filter) Out(b []byte) Reason {
	why := f.judgeOut(b)
	if why != Pass {
		f.drops[why].Add(1)
	}
	return why
}

func (f *Filter) judgeOut(b []byte) Reason {
	r := f.rules.Load()
	if r == nil {
		return NoRules
	}
	p, why := parse(b, false)
	if why != Pass {
		return why
	}
	// First: the kernel itself greets the multicast groups of a device, from no address of ours.
	if r.Peers[p.dst] == nil {
		return NoPeer
	}
	if !slices.Contains(r.Self, p.src) {
		return Spoofed
	}
	if !p.first {
		return Pass
	}
	k := outKey(&p)
	if p.proto == protoTCP {
		if p.flags&(tcpSYN|tcpACK) == tcpSYN {
			f.out.put(k, f.now().UnixNano())
		}
		return Pass
	}
	now := f.now().UnixNano()
	switch p.proto {
	case protoICMP4, protoICMP6:
		if p.echo() == echoRequest {
			f.out.put(k, now)
		}
	default:
		// An answer in a flow of the peer's begins nothing, or a service that keeps sending
		// would reopen what a new policy closed.
		if t := f.begunBy(p.dst); t == nil || !t.has(k, now) {
			f.out.put(k, now)
		}
	}
	return Pass
}

func (f *Filter) begunBy(peer netip.Addr) *table[flowKey] {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.in[peer]
}

func (f *Filter) begun(peer netip.Addr) *table[flowKey] {
	if t := f.begunBy(peer); t != nil {
		return t
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.in[peer] == nil {
		f.in[peer] = newTable[flowKey](maxInFlows)
	}
	return f.in[peer]
}

func inKey(p *packet) flowKey {
	return flowKey{p.dst, p.src, p.dstPort, p.srcPort, p.proto}
}

func outKey(p *packet) flowKey {
	return flowKey{p.src, p.dst, p.srcPort, p.dstPort, p.proto}
}
