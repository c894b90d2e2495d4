package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/pkg/sftp"
	gossh "golang.org/x/crypto/ssh"
)

// host is an SSH server on loopback that runs real programs, and misbehaves as told.
type host struct {
	t    *testing.T
	key  gossh.Signer
	addr string

	banner  string   // before the login is decided
	refuse  bool     // every login
	early   string   // said before the version line, then closed
	prompts []string // of keyboard-interactive; nil admits none
	end     *ended   // sent when a session has begun
	deaf    bool     // takes no global request

	mu      sync.Mutex
	modes   string
	sizes   []Size
	env     []string
	signals []string
	conns   []net.Conn
}

func newSigner(t *testing.T) gossh.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gossh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h *host) start(t *testing.T) *host {
	t.Helper()
	h.t, h.key = t, newSigner(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns = append(h.conns, c)
			h.mu.Unlock()
			wg.Go(func() { h.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		h.cut()
		wg.Wait()
	})
	return h
}

// cut breaks all connections.
func (h *host) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.Close()
	}
}

func (h *host) serve(c net.Conn) {
	defer c.Close()
	if h.early != "" {
		io.WriteString(c, h.early)
		return
	}
	cfg := &gossh.ServerConfig{
		NoClientAuth: true,
		NoClientAuthCallback: func(gossh.ConnMetadata) (*gossh.Permissions, error) {
			if h.refuse || h.prompts != nil {
				return nil, errors.New("no")
			}
			return nil, nil
		},
		BannerCallback: func(gossh.ConnMetadata) string { return h.banner },
	}
	if h.refuse {
		cfg.PasswordCallback = func(gossh.ConnMetadata, []byte) (*gossh.Permissions, error) { return nil, errors.New("no") }
	}
	if h.prompts != nil {
		cfg.KeyboardInteractiveCallback = func(_ gossh.ConnMetadata, ask gossh.KeyboardInteractiveChallenge) (*gossh.Permissions, error) {
			_, err := ask("", "look here", h.prompts, make([]bool, len(h.prompts)))
			return nil, err
		}
	}
	cfg.AddHostKey(h.key)
	conn, chans, reqs, err := gossh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for r := range reqs {
			if h.deaf {
				continue
			}
			if r.Type == "tcpip-forward" {
				wg.Go(func() { h.forwardBack(conn, r) })
				continue
			}
			if r.WantReply {
				r.Reply(false, nil)
			}
		}
	})
	for nc := range chans {
		switch nc.ChannelType() {
		case "session":
			ch, reqs, err := nc.Accept()
			if err == nil {
				wg.Go(func() { h.session(conn, ch, reqs) })
			}
		case "direct-tcpip":
			var m directTCPIP
			if gossh.Unmarshal(nc.ExtraData(), &m) != nil || m.Host == "nowhere" {
				nc.Reject(gossh.ConnectionFailed, "no such place\x1b[2J")
				continue
			}
			if m.Host == "secret" {
				nc.Reject(gossh.Prohibited, "forwarding is not allowed [denied]")
				continue
			}
			ch, reqs, err := nc.Accept()
			if err != nil {
				continue
			}
			go gossh.DiscardRequests(reqs)
			wg.Go(func() { // echo after the half-close
				b, _ := io.ReadAll(ch)
				ch.Write(b)
				ch.Close()
			})
		default:
			nc.Reject(gossh.UnknownChannelType, "no")
		}
	}
}

func (h *host) forwardBack(conn *gossh.ServerConn, r *gossh.Request) {
	r.Reply(true, gossh.Marshal(struct{ Port uint32 }{4321}))
	var ch gossh.Channel
	var reqs <-chan *gossh.Request
	err := errors.New("not yet")
	for i := 0; err != nil && i < 100; i++ { // the client may still be noting our answer
		time.Sleep(10 * time.Millisecond)
		ch, reqs, err = conn.OpenChannel("forwarded-tcpip", gossh.Marshal(directTCPIP{"127.0.0.1", 4321, "127.0.0.1", 1}))
	}
	if err != nil {
		return
	}
	go gossh.DiscardRequests(reqs)
	io.WriteString(ch, "from the host")
	ch.CloseWrite()
	io.Copy(io.Discard, ch)
	ch.Close()
}

func (h *host) session(conn *gossh.ServerConn, ch gossh.Channel, reqs <-chan *gossh.Request) {
	defer ch.Close()
	var cmd *exec.Cmd
	var term *os.File
	var p *ptyRequest
	var wg sync.WaitGroup
	defer func() {
		if cmd != nil && cmd.Process != nil {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		wg.Wait()
	}()
	for r := range reqs {
		ok := true
		switch r.Type {
		case "pty-req":
			p = new(ptyRequest)
			ok = gossh.Unmarshal(r.Payload, p) == nil
			h.mu.Lock()
			h.modes = p.Modes
			h.sizes = append(h.sizes, Size{p.Cols, p.Rows, p.Width, p.Height})
			h.mu.Unlock()
		case "window-change":
			var w windowChange
			gossh.Unmarshal(r.Payload, &w)
			h.mu.Lock()
			h.sizes = append(h.sizes, Size(w))
			h.mu.Unlock()
		case "env":
			var e envRequest
			gossh.Unmarshal(r.Payload, &e)
			h.mu.Lock()
			h.env = append(h.env, e.Name+"="+e.Value)
			h.mu.Unlock()
		case "signal":
			var s oneString
			gossh.Unmarshal(r.Payload, &s)
			h.mu.Lock()
			h.signals = append(h.signals, s.S)
			h.mu.Unlock()
			if n := Signal(s.S).Number(); cmd != nil && n != 0 {
				syscall.Kill(-cmd.Process.Pid, syscall.Signal(n))
			}
		case "subsystem":
			s, err := sftp.NewServer(ch)
			if err != nil {
				ok = false
				break
			}
			wg.Go(func() { s.Serve(); ch.Close() })
		case "exec", "shell":
			var c oneString
			gossh.Unmarshal(r.Payload, &c)
			if c.S == "forbidden" {
				ok = false
				break
			}
			if c.S == "vanish" {
				r.Reply(true, nil)
				return
			}
			cmd = exec.Command("/bin/sh", "-c", c.S)
			if p != nil {
				var err error
				if term, err = pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(p.Cols), Rows: uint16(p.Rows)}); err != nil {
					h.t.Error(err)
				}
				wg.Go(func() { io.Copy(term, ch) })
				wg.Go(func() { io.Copy(ch, term); h.finish(cmd, ch); term.Close() })
			} else {
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				in, _ := cmd.StdinPipe()
				cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
				if err := cmd.Start(); err != nil {
					h.t.Error(err)
				}
				wg.Go(func() { io.Copy(in, ch); in.Close() })
				wg.Go(func() { h.finish(cmd, ch) })
			}
			if h.end != nil {
				wg.Go(func() {
					conn.SendRequest("ended@tssh", true, gossh.Marshal(*h.end))
					conn.Close()
				})
			}
		default:
			ok = false
		}
		if r.WantReply {
			r.Reply(ok, nil)
		}
	}
}

func (h *host) finish(cmd *exec.Cmd, ch gossh.Channel) {
	cmd.Wait()
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		name := strings.TrimPrefix(map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGKILL: "KILL"}[ws.Signal()], "SIG")
		ch.SendRequest("exit-signal", false, gossh.Marshal(exitSignal{Signal: name, Message: "gone\x1b[31m"}))
	} else {
		ch.SendRequest("exit-status", false, gossh.Marshal(exitStatus{uint32(ws.ExitStatus())}))
	}
	ch.CloseWrite()
	ch.Close()
}
