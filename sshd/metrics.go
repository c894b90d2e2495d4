package sshd

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"tssh/policy"
	"tssh/session/control"
)

// counter is one line of the metrics: a name and the value of its only label. Values come
// from closed sets, never from a peer, so that nobody makes the page long.
type counter struct{ name, label, value string }

// counters are what was counted since the daemon started.
type counters struct {
	mu sync.Mutex
	n  map[counter]uint64
}

func (c *counters) add(name, label, value string) { c.addN(name, label, value, 1) }

func (c *counters) addN(name, label, value string, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[counter]uint64{}
	}
	c.n[counter{name, label, value}] += n
}

// Names of what is counted, with the help of each.
const (
	countConns    = "tssh_ssh_connections_total"
	countLimits   = "tssh_ssh_limit_reached_total"
	countLogins   = "tssh_ssh_logins_total"
	countChannels = "tssh_ssh_channels_total"
	countRefused  = "tssh_ssh_channels_refused_total"
	countRevoked  = "tssh_ssh_channels_revoked_total"
	countEnds     = "tssh_ssh_sessions_ended_total"
	countIn       = "tssh_ssh_received_bytes_total"
	countOut      = "tssh_ssh_sent_bytes_total"
)

var help = map[string]string{
	countConns:    "Connections from peers, by what became of them first.",
	countLimits:   "Connections turned away or ended because a limit was reached, by limit.",
	countLogins:   "Logins, by result.",
	countChannels: "Terminals, programs, subsystems and forwards that were allowed, by kind.",
	countRefused:  "Terminals, programs, subsystems and forwards that were refused, by kind.",
	countRevoked:  "Channels and forwards ended because the right to them went, by kind.",
	countIn:       "Bytes from clients on channels that have closed, by kind.",
	countOut:      "Bytes to clients on channels that have closed, by kind.",
	countEnds:     "Sessions that ended, by cause.",
}

// kindOf keeps a connection process's word for what it asks within the known ones.
func kindOf(kind string) string {
	if control.KindAsk(kind) == policy.AskNothing {
		return "other"
	}
	return kind
}

// maxCounted is the most that one channel counts for: it is its own process that says so.
const maxCounted = 1 << 50

// countBytes adds up what a channel carried that is closing.
func (l *link) countBytes(b *control.GoneMsg) {
	kind := ""
	l.mu.Lock()
	for _, a := range l.asks[b.Channel] {
		if k := kindOf(a.Kind); kind == "" || kind == "pty" {
			kind = k
		}
	}
	l.mu.Unlock()
	if kind == "" {
		return
	}
	l.s.counters.addN(countIn, "kind", kind, uint64(min(max(0, b.In), maxCounted)))
	l.s.counters.addN(countOut, "kind", kind, uint64(min(max(0, b.Out), maxCounted)))
}

// causeOf does the same for why a session ended.
func causeOf(cause string) string {
	if slices.Contains([]string{"closed", causeRevoked, causeTerminated, causeLost, causeShutdown, causeRecorder, "timeout", "idle", "expired"}, cause) {
		return cause
	}
	return "other"
}

// limitOf names the limit that the words are about.
func limitOf(say string) string {
	switch say {
	case sayTooManyConns:
		return "connections-per-peer"
	case sayTooManyLogins:
		return "handshakes-per-peer"
	}
	return "all"
}

// Metrics writes what the server does and did, in the text format of Prometheus. It names
// no peer and no person.
func (s *Server) Metrics(w io.Writer) error {
	var b strings.Builder
	gauge := func(name, words string, v int) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, words, name, name, v)
	}
	s.mu.Lock()
	conns, handshakes, peers := len(s.links), s.handshakes, len(s.byPeer)
	s.mu.Unlock()
	open := map[string]int{}
	sessions := 0
	for _, l := range s.all() {
		l.mu.Lock()
		if l.state == control.Running {
			sessions++
		}
		for _, asks := range l.asks {
			for _, a := range asks {
				open[kindOf(a.Kind)]++
			}
		}
		l.mu.Unlock()
	}
	gauge("tssh_ssh_connections", "Connections open, logged in or not.", conns)
	gauge("tssh_ssh_handshakes", "Connections that have not logged in yet.", handshakes)
	gauge("tssh_ssh_sessions", "Connections that are logged in.", sessions)
	gauge("tssh_ssh_peers", "People and tagged machines with a connection.", peers)
	if s.cfg.Spool != nil {
		used, most := s.cfg.Spool.Usage()
		gauge("tssh_spool_bytes", "Bytes that recordings take on this host until a recorder has them.", int(used))
		gauge("tssh_spool_limit_bytes", "Bytes that they may take.", int(most))
		gauge("tssh_spool_level", "0: room, 1: low, only what must be recorded is, 2: full, nothing begins.", int(s.cfg.Spool.Level()))
	}
	const channels = "tssh_ssh_channels"
	fmt.Fprintf(&b, "# HELP %s What is open in sessions, by kind.\n# TYPE %s gauge\n", channels, channels)
	for _, k := range slices.Sorted(maps.Keys(open)) {
		fmt.Fprintf(&b, "%s{kind=%q} %d\n", channels, k, open[k])
	}
	lim := s.cfg.Limits
	const limits = "tssh_ssh_limit"
	fmt.Fprintf(&b, "# HELP %s The limits in force.\n# TYPE %s gauge\n", limits, limits)
	for _, l := range []struct {
		name string
		v    int
	}{
		{"connections", lim.Conns}, {"connections-per-peer", lim.ConnsPerPeer}, {"handshakes", lim.Handshakes}, {"handshakes-per-peer", lim.HandshakesPerPeer},
		{"sessions-per-connection", lim.SessionsPerConn}, {"forwards-per-connection", lim.ForwardsPerConn},
	} {
		fmt.Fprintf(&b, "%s{limit=%q} %d\n", limits, l.name, l.v)
	}
	s.counters.mu.Lock()
	counts := maps.Clone(s.counters.n)
	s.counters.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b counter) int {
		return strings.Compare(a.name+" "+a.value, b.name+" "+b.value)
	})
	last := ""
	for _, k := range keys {
		if k.name != last {
			last = k.name
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s counter\n", k.name, help[k.name], k.name)
		}
		fmt.Fprintf(&b, "%s{%s=%q} %d\n", k.name, k.label, k.value, counts[k])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
