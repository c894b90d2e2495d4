package sshd

import (
	"io"
	"net"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
)

// handed is a connection that the host's own SSH server has.
type handed struct {
	l *link // has the identity and counts in the limits; it has no process
	p *pump
}

const sayNoOwnServer = "no policy rule is about you on this host, and its own SSH server does not answer"

// dialTime bounds the connection to a server on this very host.
const dialTime = 5 * time.Second

// handsOver reports whether a connection goes to the host's own server: it is configured,
// the network rules let the peer reach port 22, and no ssh rule at all is about this peer
// and this host. Where one is, it alone decides, also when it refuses.
func (l *link) handsOver() bool {
	p := l.s.cfg.Policy()
	if l.s.cfg.FallThrough == "" || p == nil {
		return false
	}
	src, ok := l.peer()
	self := l.s.cfg.Self()
	return ok && self.Valid() && !p.Reaches(src, self) &&
		policy.EvaluateNet(p, policy.NetRequest{Src: src, Dst: self, SrcAddr: l.srcAddr, DstAddr: l.dstAddr, Proto: 6, Port: 22}).Allow
}

// handOver carries the bytes of a connection to the host's own server until one of them
// ends it, or the policy does.
func (s *Server) handOver(l *link, c net.Conn) {
	defer s.leave(l)
	// One that is not written down does not happen.
	e := audit.Entry{Kind: "session.handover", Who: l.src.Who(), Node: l.src.Name, Verdict: "handed over", Text: "no ssh rule is about this peer; the host's own SSH server decides, and nothing is recorded"}
	if !s.hush.allow(l.src, &e) {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, "tssh: "+sayTooManyLogins+"\r\n")
		c.Close()
		return
	}
	inner, err := net.DialTimeout("tcp", s.cfg.FallThrough, dialTime)
	if err != nil {
		s.cfg.Log.Warn("the host's own SSH server", "addr", s.cfg.FallThrough, "err", err)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, "tssh: "+sayNoOwnServer+"\r\n")
		c.Close()
		return
	}
	// Said before the first byte goes over.
	s.cfg.Log.Info("connection handed over", "node", l.src.Name, "login", l.src.Who(), "to", s.cfg.FallThrough)
	s.audit(e)
	h := &handed{l, startPump(c, inner)}
	s.mu.Lock()
	s.settleLocked(l) // its own server counts logins under way
	s.handed[h] = struct{}{}
	s.mu.Unlock()
	if !l.handsOver() { // the policy changed before it was noted
		h.p.abort()
	}
	<-h.p.done
	s.mu.Lock()
	delete(s.handed, h)
	s.mu.Unlock()
}

// reviewHanded ends the connections that would not be handed over any more; all of them
// when the daemon stops.
func (s *Server) reviewHanded(all bool) {
	s.mu.Lock()
	var open []*handed
	for h := range s.handed {
		open = append(open, h)
	}
	s.mu.Unlock()
	for _, h := range open {
		if all || !h.l.handsOver() {
			h.p.abort()
		}
	}
}
