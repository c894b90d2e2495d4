package ssh

import (
	"bytes"
	"net"
	"strings"
	"sync"
)

// preamble keeps what a host says before its version line (RFC 4253 section 4.2 lets it):
// the only way to say "too many connections" without a handshake.
type preamble struct {
	net.Conn

	mu   sync.Mutex
	text []byte
	over bool // the version line was seen, or enough was kept
}

func (p *preamble) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over && n > 0 {
		p.text = append(p.text, b[:n]...)
		if i := versionLine(p.text); i >= 0 {
			p.text, p.over = p.text[:i], true
		} else if len(p.text) > 4<<10 {
			p.over = true
		}
	}
	return n, err
}

func (p *preamble) words() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, last := lastLine(string(p.text))
	return strings.TrimSpace(last)
}

// versionLine is where the line that starts with "SSH-" starts, or -1.
func versionLine(b []byte) int {
	if bytes.HasPrefix(b, []byte("SSH-")) {
		return 0
	}
	if i := bytes.Index(b, []byte("\nSSH-")); i >= 0 {
		return i + 1
	}
	return -1
}
