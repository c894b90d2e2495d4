package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// serverVersion is our version line without its end.
const serverVersion = "SSH-2.0-tssh_1"

const (
	maxVersionLine = 255 // RFC 4253 section 4.2, with CR LF
	maxKexInit     = 35000
	// kexInitWait is how long to wait for a client's KEXINIT before the server's own is
	// sent; clients that wait for ours first lose this much and nothing else.
	kexInitWait = 2 * time.Second
	msgKexInit  = 20
)

var errVersion = errors.New("client does not speak SSH 2")

// greeted is the client's connection after its first words were read: it plays them
// again to the SSH library, and swallows the version line that library writes.
type greeted struct {
	net.Conn
	replay io.Reader // what greet read; owned by Read
	skip   int       // bytes of our version line still to swallow; owned by Write

	refused sync.Once
}

// greet exchanges version lines and, if it comes soon, reads the client's KEXINIT, which
// travels in clear, to choose what it is offered. That is safe because the key exchange
// signs both KEXINITs and both version lines.
func greet(c net.Conn) (*greeted, offer, error) {
	if _, err := io.WriteString(c, serverVersion+"\r\n"); err != nil {
		return nil, offer{}, fmt.Errorf("version: %w", err)
	}
	var seen bytes.Buffer
	version, err := versionLine(io.TeeReader(c, &seen))
	if err != nil {
		if errors.Is(err, errVersion) {
			_, _ = io.WriteString(c, "Invalid SSH identification string.\r\n")
		}
		return nil, offer{}, err
	}
	if !strings.HasPrefix(version, "SSH-2.0-") && !strings.HasPrefix(version, "SSH-1.99-") {
		_, _ = io.WriteString(c, "Protocol major versions differ.\r\n")
		return nil, offer{}, fmt.Errorf("%w: %.40q", errVersion, version)
	}
	first, err := kexInit(c, &seen)
	o := wholeOffer
	switch {
	case err == nil:
		o = first.offer()
	case !errors.Is(err, errLate):
		return nil, offer{}, err
	}
	return &greeted{Conn: c, replay: &seen, skip: len(serverVersion) + 2}, o, nil
}

// versionLine reads up to the first line feed, byte by byte: nothing after it may be taken.
func versionLine(r io.Reader) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for len(line) < maxVersionLine {
		if _, err := io.ReadFull(r, one); err != nil {
			return "", fmt.Errorf("version: %w", err)
		}
		if one[0] == '\n' {
			s := strings.TrimSuffix(string(line), "\r")
			if !strings.HasPrefix(s, "SSH-") {
				return "", errVersion
			}
			return s, nil
		}
		line = append(line, one[0])
	}
	return "", errVersion
}

// errLate means that the client says nothing before it has heard us.
var errLate = errors.New("no KEXINIT yet")

// kexLists are the first name-lists of a KEXINIT (RFC 4253 section 7.1).
type kexLists struct {
	kex, hostKeys, toServer, toClient []string
}

// kexInit reads the client's first packet into seen, in any case, and what it offers.
func kexInit(c net.Conn, seen *bytes.Buffer) (kexLists, error) {
	head := make([]byte, 4)
	if err := c.SetReadDeadline(time.Now().Add(kexInitWait)); err != nil {
		return kexLists{}, fmt.Errorf("deadline: %w", err)
	}
	n, err := io.ReadFull(c, head)
	seen.Write(head[:n])
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return kexLists{}, errLate
	}
	if err != nil {
		return kexLists{}, fmt.Errorf("KEXINIT: %w", err)
	}
	size := binary.BigEndian.Uint32(head)
	if size < 2 || size > maxKexInit {
		return kexLists{}, fmt.Errorf("KEXINIT of %d bytes", size)
	}
	packet := make([]byte, size)
	n, err = io.ReadFull(c, packet)
	seen.Write(packet[:n])
	if errors.As(err, &ne) && ne.Timeout() {
		return kexLists{}, errLate
	}
	if err != nil {
		return kexLists{}, fmt.Errorf("KEXINIT: %w", err)
	}
	return parseKexInit(packet)
}

// parseKexInit reads a packet after its length: padding length, payload, padding.
func parseKexInit(packet []byte) (kexLists, error) {
	bad := errors.New("KEXINIT is malformed")
	if len(packet) < 1 || int(packet[0]) > len(packet)-1 {
		return kexLists{}, bad
	}
	p := packet[1 : len(packet)-int(packet[0])]
	if len(p) < 17 || p[0] != msgKexInit {
		return kexLists{}, bad
	}
	r := payload(p[17:])
	var lists [4][]string // key exchange, host key, ciphers to the server, to the client
	for i := range lists {
		s, ok := r.str()
		if !ok {
			return kexLists{}, bad
		}
		lists[i] = strings.Split(string(s), ",")
	}
	return kexLists{lists[0], lists[1], lists[2], lists[3]}, nil
}

func (g *greeted) Read(p []byte) (int, error) {
	if g.replay != nil {
		n, err := g.replay.Read(p)
		if err == nil {
			return n, nil
		}
		g.replay = nil
	}
	return g.Conn.Read(p)
}

func (g *greeted) Write(p []byte) (int, error) {
	if g.skip > 0 {
		n := min(g.skip, len(p))
		g.skip -= n
		m, err := 0, error(nil)
		if n < len(p) {
			m, err = g.Conn.Write(p[n:])
		}
		return n + m, err
	}
	return g.Conn.Write(p)
}

// refuse ends the connection so that the client gets to read what was written last: our
// side is closed, and the rest waits a moment for the client's. Closing at once could
// reset the connection over bytes that crossed ours, and lose the words.
func (g *greeted) refuse() {
	g.refused.Do(func() {
		half, ok := g.Conn.(interface{ CloseWrite() error })
		if !ok || half.CloseWrite() != nil {
			g.Conn.Close()
			return
		}
		_ = g.Conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, io.LimitReader(g.Conn, 1<<20))
		g.Conn.Close()
	})
}
