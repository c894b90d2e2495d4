package sshd

import (
	"context"

	"tssh/session/control"
	"tssh/session/launch"
)

// scope opens a session at logind for the connection, whose process moves into the scope of
// that session. Without one the login is no less one, as with other servers.
func (l *link) scope(msg *control.GoMsg) {
	if l.s.cfg.Logind == nil {
		return
	}
	l.mu.Lock()
	acc, pid := l.grant.account, l.proc.pid
	l.mu.Unlock()
	o, err := l.s.cfg.Logind.Open(context.Background(), launch.LogindSession{UID: acc.UID, PID: pid, Service: "tsshd", RemoteUser: l.src.Who(), RemoteHost: l.srcAddr.String()})
	if err != nil {
		l.s.cfg.Log.Warn("logind", "node", l.src.Name, "as", acc.Name, "err", err)
		return
	}
	msg.Env, msg.Scope, msg.Scoped = o.Env, o.Fifo, true
}
