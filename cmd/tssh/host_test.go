package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"github.com/pkg/sftp"
	gossh "golang.org/x/crypto/ssh"
)

// serveHost is an SSH server that runs real programs as whoever runs the test; its name says
// how it misbehaves.
func serveHost(l net.Listener, name string, key gossh.Signer) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serveConn(c, name, key) // ends with the connection
	}
}

func serveConn(c net.Conn, name string, key gossh.Signer) {
	defer c.Close()
	if name == "full" {
		io.WriteString(c, "too many logins from your machine are under way [limit]\r\n")
		return
	}
	banner := map[string]string{
		"web":      "Welcome to web.\x1b[2J\r\n",
		"refuses":  "Please note.\r\ntssh: policy does not let alice log in here\r\n",
		"recorder": "tssh: the rule for this login insists on a recorder, and this host cannot reach one yet [recorder]\r\n",
		"check":    "tssh: this login needs you to sign in again first [check-needed]\r\n",
	}[name]
	cfg := &gossh.ServerConfig{
		NoClientAuth:   true,
		BannerCallback: func(gossh.ConnMetadata) string { return banner },
		NoClientAuthCallback: func(m gossh.ConnMetadata) (*gossh.Permissions, error) {
			if name == "web" && m.User() != "stranger" || name == "ends" {
				return nil, nil
			}
			return nil, errors.New("refused")
		},
		PasswordCallback: func(gossh.ConnMetadata, []byte) (*gossh.Permissions, error) { return nil, errors.New("refused") },
	}
	cfg.AddHostKey(key)
	conn, chans, reqs, err := gossh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	go func() { // ends with the connection
		for r := range reqs {
			r.Reply(false, nil)
		}
	}()
	for nc := range chans {
		if nc.ChannelType() != "session" {
			nc.Reject(gossh.Prohibited, "forwarding is not offered on this host yet")
			continue
		}
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		go serveSession(conn, name, ch, reqs) // ends with the channel
	}
}

func serveSession(conn *gossh.ServerConn, name string, ch gossh.Channel, reqs <-chan *gossh.Request) {
	defer ch.Close()
	cmd := exec.Command("/bin/sh")
	var size *pty.Winsize
	for r := range reqs {
		ok := true
		switch r.Type {
		case "pty-req":
			var p struct {
				Term       string
				W, H, X, Y uint32
				Modes      string
			}
			gossh.Unmarshal(r.Payload, &p)
			size = &pty.Winsize{Cols: uint16(p.W), Rows: uint16(p.H)}
			cmd.Env = append(os.Environ(), "TERM="+p.Term)
		case "env":
			var e struct{ Name, Value string }
			gossh.Unmarshal(r.Payload, &e)
			cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
		case "signal":
			var s struct{ Name string }
			gossh.Unmarshal(r.Payload, &s)
			if cmd.Process != nil && s.Name == "TERM" {
				syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			}
		case "subsystem":
			if srv, err := sftp.NewServer(ch); err == nil {
				go func() { srv.Serve(); ch.Close() }() // ends with the channel
			}
		case "exec", "shell":
			var x struct{ Command string }
			gossh.Unmarshal(r.Payload, &x)
			if x.Command != "" {
				cmd.Args = append(cmd.Args, "-c", x.Command)
			}
			cmd.Env = append(cmd.Env, "PS1=web> ", "LOGIN="+conn.User())
			go runProgram(conn, name, cmd, size, ch) // ends with the program
		default:
			ok = false
		}
		if r.WantReply {
			r.Reply(ok, nil)
		}
	}
}

func runProgram(conn *gossh.ServerConn, name string, cmd *exec.Cmd, size *pty.Winsize, ch gossh.Channel) {
	defer ch.Close()
	if name == "ends" {
		conn.SendRequest("ended@tssh", true, gossh.Marshal(struct{ Code, Words string }{"revoked", "your access to this host was taken back"}))
		conn.Close()
		return
	}
	if size != nil {
		f, err := pty.StartWithSize(cmd, size)
		if err != nil {
			return
		}
		go io.Copy(f, ch) // ends with the channel
		io.Copy(ch, f)
		cmd.Wait()
		f.Close()
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err := cmd.StdinPipe()
		if err != nil {
			return
		}
		cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
		var once sync.Once
		if cmd.Start() != nil {
			return
		}
		go func() { io.Copy(in, ch); once.Do(func() { in.Close() }) }() // ends with the channel
		cmd.Wait()
		once.Do(func() { in.Close() })
	}
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		ch.SendRequest("exit-signal", false, gossh.Marshal(struct {
			Signal        string
			Core          bool
			Message, Lang string
		}{strings.TrimPrefix(map[syscall.Signal]string{syscall.SIGTERM: "SIGTERM", syscall.SIGKILL: "SIGKILL"}[ws.Signal()], "SIG"), false, "", ""}))
	} else {
		ch.SendRequest("exit-status", false, gossh.Marshal(struct{ Status uint32 }{uint32(ws.ExitStatus())}))
	}
	ch.CloseWrite()
}
