package session

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// requestAgent gives the session a socket behind which the client's agent answers
// (auth-agent-req@openssh.com). A connection has one such socket, made for the first
// session that asks and there until the connection ends, as other servers have it: what
// runs on in tmux still finds it while another session of the connection is open.
func (s *channel) requestAgent() bool {
	c := s.c
	if s.started || s.agent {
		return false
	}
	c.agentMu.Lock()
	defer c.agentMu.Unlock()
	if c.agentPath() == "" {
		if !c.openAgent() {
			return false
		}
	} else if !c.mayForward("agent", "agent-listen") {
		return false
	}
	s.agent = true
	return true
}

// mayForward asks once more about what another session has already.
func (c *conn) mayForward(kind, typ string) bool {
	f, say := c.newForward(kind, typ, "", "")
	if f == nil {
		c.limited(say)
		return false
	}
	defer f.done()
	return f.ask() == ""
}

// agentPath is the agent's socket, "" while there is none.
func (c *conn) agentPath() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agentAt
}

func (c *conn) setAgentPath(path string) {
	c.mu.Lock()
	c.agentAt = path
	c.mu.Unlock()
}

// openAgent makes the socket, as the user, in a folder that only the user can enter.
// Called with agentMu held.
func (c *conn) openAgent() bool {
	l := &listener{sc: c.server.Load(), channel: "auth-agent@openssh.com", each: "agent"}
	path := ""
	if !c.listenFor(l, "agent", "agent-listen", "", func() error {
		dir, err := os.MkdirTemp("/tmp", "ssh-")
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		path = filepath.Join(dir, fmt.Sprintf("agent.%d", os.Getpid()))
		ln, remove, err := listenUnix(c.ctx, path)
		if err != nil {
			_ = os.Remove(dir)
			return err
		}
		l.ls = []net.Listener{ln}
		l.over = func() {
			c.setAgentPath("")
			remove()
			_ = os.Remove(dir)
		}
		return nil
	}) {
		return false
	}
	c.setAgentPath(path)
	l.start()
	return true
}
