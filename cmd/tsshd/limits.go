//go:build linux

package main

import (
	"flag"
	"io"
	"time"

	"tssh/sshd"
)

// limitFlags are the limits that an administrator may want others of. The defaults are
// sshd's own, named here so that --help shows them.
func limitFlags(fs *flag.FlagSet, l *sshd.Limits) {
	d := sshd.DefaultLimits()
	fs.IntVar(&l.Conns, "max-connections", d.Conns, "SSH connections at a time")
	fs.IntVar(&l.ConnsPerPeer, "max-connections-per-peer", d.ConnsPerPeer, "SSH connections at a time of one person or tagged machine")
	fs.IntVar(&l.Handshakes, "max-logins", d.Handshakes, "SSH connections at a time that have not logged in yet")
	fs.IntVar(&l.HandshakesPerPeer, "max-logins-per-peer", d.HandshakesPerPeer, "of these, of one person or tagged machine")
	fs.IntVar(&l.SessionsPerConn, "max-sessions", d.SessionsPerConn, "shells and programs at a time on one SSH connection")
	fs.IntVar(&l.ForwardsPerConn, "max-forwards", d.ForwardsPerConn, "forwarded connections and listeners at a time on one SSH connection")
	fs.DurationVar(&l.LoginGrace, "login-grace", d.LoginGrace, "time for a login, after which the connection is closed")
	fs.DurationVar(&l.ClientAlive, "client-alive", d.ClientAlive, "a client that has not answered for this long is gone")
}

// checkLimits refuses what would be taken for the default, or for no limit.
func checkLimits(l sshd.Limits) error {
	for name, v := range map[string]int{"max-connections": l.Conns, "max-connections-per-peer": l.ConnsPerPeer, "max-logins": l.Handshakes, "max-logins-per-peer": l.HandshakesPerPeer,
		"max-sessions": l.SessionsPerConn, "max-forwards": l.ForwardsPerConn} {
		if v < 1 {
			return fail("--%s %d is not a limit", name, v).hint("give a number from 1 on")
		}
	}
	if l.LoginGrace < time.Second || l.ClientAlive < time.Second {
		return fail("--login-grace and --client-alive must be at least one second")
	}
	return nil
}

// metrics is what the SSH server counts; nothing while the node is down.
func (h *host) metrics(w io.Writer) error {
	srv := h.server.Load()
	if srv == nil {
		return nil
	}
	return srv.Metrics(w)
}
