package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/session/launch"
)

// Displays that are given out, as other servers do: below are real ones.
const (
	firstDisplay = 10
	lastDisplay  = 1000
	xPort        = 6000
	xauthTime    = 5 * time.Second
)

// x11Request is the payload of x11-req (RFC 4254 section 6.3.1).
type x11Request struct {
	single        bool
	proto, cookie string
	screen        uint32
}

func parseX11(p payload) (x11Request, bool) {
	if len(p) < 1 {
		return x11Request{}, false
	}
	r := x11Request{single: p[0] != 0}
	p = p[1:]
	proto, ok1 := p.str()
	cookie, ok2 := p.str()
	screen, ok3 := p.u32()
	r.proto, r.cookie, r.screen = string(proto), string(cookie), screen
	// Both become a line of input for xauth.
	ok := ok1 && ok2 && ok3 && xWord(r.proto, 64, "-_.") && xWord(r.cookie, 512, "") && len(r.cookie)%2 == 0 && screen < 1000
	return r, ok
}

func xWord(s string, most int, more string) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(more, c) >= 0) {
			return false
		}
	}
	return true
}

// requestX11 listens for X programs on loopback and leaves the client's cookie with xauth.
// The cookie is the client's own: what a program shows with it is checked there.
func (s *channel) requestX11(p payload) bool {
	r, ok := parseX11(p)
	if !ok || s.started || s.display != "" {
		return false
	}
	xauth, err := exec.LookPath("xauth")
	if err != nil {
		xauth, err = exec.LookPath("/usr/bin/xauth")
	}
	if err != nil {
		s.c.note(s.id, "refused", "x11: xauth is not installed on this host")
		return false
	}
	l := &listener{sc: s.c.server.Load(), channel: "x11", each: "x11", single: r.single}
	l.extra = func(nc net.Conn) []byte {
		host, port := addrPort(nc.RemoteAddr())
		return gossh.Marshal(struct {
			Host string
			Port uint32
		}{host, port})
	}
	display := 0
	if !s.c.listenFor(l, "x11", "x11-listen", "", func() error {
		for display = firstDisplay; display < lastDisplay; display++ {
			ls, err := listenTCP(s.c.ctx, bind{"localhost", uint32(xPort + display)})
			if err == nil {
				l.ls = ls
				return s.addCookie(xauth, fmt.Sprintf("unix:%d.%d", display, r.screen), r)
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				return err
			}
		}
		return errors.New("no display is free")
	}) {
		return false
	}
	s.display = fmt.Sprintf("localhost:%d.%d", display, r.screen)
	s.x11 = l
	l.start()
	return true
}

// addCookie runs xauth as the user, with nothing of the client's in its arguments.
func (s *channel) addCookie(xauth, display string, r x11Request) error {
	ctx, cancel := context.WithTimeout(s.c.ctx, xauthTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, xauth, "-q", "-")
	acc := s.c.acc
	cmd.Dir = "/"
	cmd.Env = launch.Environment(launch.EnvFacts{Account: acc})
	cmd.Stdin = strings.NewReader("remove " + display + "\nadd " + display + " " + r.proto + " " + r.cookie + "\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("xauth: %w: %s", err, plain(clip(string(out), 128)))
	}
	return nil
}

// forwardEnv is what the session's forwards add to its environment.
func (s *channel) forwardEnv() []string {
	var env []string
	if path := s.c.agentPath(); s.agent && path != "" {
		env = append(env, "SSH_AUTH_SOCK="+path)
	}
	if s.display != "" {
		env = append(env, "DISPLAY="+s.display)
	}
	return env
}
