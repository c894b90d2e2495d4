package sshd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/recording"
	"tssh/session/control"
	"tssh/sshd"
)

// Clients that are written to go wrong, and connection processes that were taken over.

// open opens a session channel without a library's help.
func open(t *testing.T, c *gossh.Client) (gossh.Channel, <-chan *gossh.Request) {
	t.Helper()
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	return ch, reqs
}

func str(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

func window(cols, rows uint32) []byte {
	return gossh.Marshal(struct{ C, R, X, Y uint32 }{cols, rows, 0, 0})
}

func request(t *testing.T, ch gossh.Channel, name string, payload []byte) bool {
	t.Helper()
	type answer struct {
		ok  bool
		err error
	}
	got := make(chan answer, 1)
	go func() { ok, err := ch.SendRequest(name, true, payload); got <- answer{ok, err} }()
	select {
	case a := <-got:
		if a.err != nil {
			t.Fatalf("%s: %v", name, a.err)
		}
		return a.ok
	case <-time.After(20 * time.Second):
		t.Fatalf("%s was never answered", name)
		return false
	}
}

func TestAuthMethods(t *testing.T) {
	key := newSigner(t)
	for name, auth := range map[string][]gossh.AuthMethod{
		"none":      nil,
		"password":  {gossh.Password("whatever")},
		"publickey": {gossh.PublicKeys(key)},
		"keyboard-interactive": {gossh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) {
			if len(q) != 0 {
				return nil, errors.New("was asked something")
			}
			return nil, nil
		})},
	} {
		t.Run(name, func(t *testing.T) {
			// The client tries none first, whatever it has; session's own tests let each of
			// the others decide.
			r := newRig(t, usual())
			c, err := handshake(r.inetd(), account(t).Username, auth...)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if _, err := handshake(r.inetd(), "nobody-there", auth...); err == nil {
				t.Error("somebody else got in")
			}
		})
	}
}

// TestBadPTY sends a pty-req whose first length is as large as can be, others that are
// cut short, and then a good one on the same channel.
func TestBadPTY(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	ch, _ := open(t, c)
	good := append(append(str("xterm"), window(80, 24)...), str("")...)
	for n, bad := range [][]byte{nil, {0xff, 0xff, 0xff, 0xff}, append([]byte{0xff, 0xff, 0xff, 0xff}, good...), good[:len(good)-1], append(append(str("xterm"), window(80, 24)...), 0xff, 0xff, 0xff, 0xff)} {
		if request(t, ch, "pty-req", bad) {
			t.Errorf("bad pty-req %d was granted", n)
		}
	}
	if !request(t, ch, "pty-req", good) || !request(t, ch, "exec", str("stty size")) {
		t.Fatal("a good pty-req or exec was refused after the bad ones")
	}
	out, _ := io.ReadAll(ch)
	if string(out) != "24 80\r\n" {
		t.Errorf("got %q", out)
	}
}

// TestWindowChanges sends more window changes before the command than any queue holds.
func TestWindowChanges(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	ch, _ := open(t, c)
	if !request(t, ch, "pty-req", append(append(str("xterm"), window(80, 24)...), str("")...)) {
		t.Fatal("no pty")
	}
	for i := range uint32(50) {
		if _, err := ch.SendRequest("window-change", false, window(100+i, 40)); err != nil {
			t.Fatal(err)
		}
	}
	if !request(t, ch, "exec", str("stty size; read x; stty size; printf 'raw:'; stty raw; printf 'a\\nb\\n'")) {
		t.Fatal("no exec")
	}
	var out bytes.Buffer
	buf := make([]byte, 1)
	for !strings.HasSuffix(out.String(), "40 149\r\n") {
		if _, err := ch.Read(buf); err != nil {
			t.Fatalf("%v after %q", err, out.String())
		}
		out.Write(buf)
	}
	if !request(t, ch, "window-change", window(1, 2)) {
		t.Error("window-change refused")
	}
	fmt.Fprint(ch, "\n")
	rest, _ := io.ReadAll(ch)
	if !strings.HasSuffix(string(rest), "2 1\r\nraw:a\nb\n") {
		t.Errorf("then %q", rest)
	}
	var resizes int
	c.Close()
	for _, e := range r.recordings(1)[0].events {
		if e.Kind == recording.KindResize {
			resizes++
		}
	}
	if resizes != 51 {
		t.Errorf("%d resizes recorded", resizes)
	}
}

// TestOrder looks at what comes after the data: exit-status, then EOF, then CLOSE; and a
// signal right behind exec reaches the program.
func TestOrder(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	for range 5 {
		ch, reqs := open(t, c)
		if !request(t, ch, "exec", str("echo out; exit 5")) {
			t.Fatal("no exec")
		}
		out, err := io.ReadAll(ch)
		if string(out) != "out\n" || err != nil {
			t.Fatalf("%q %v", out, err)
		}
		select { // EOF was read: the status must be here already
		case q := <-reqs:
			if q == nil || q.Type != "exit-status" || binary.BigEndian.Uint32(q.Payload) != 5 {
				t.Fatalf("got %+v", q)
			}
		default:
			t.Fatal("EOF before exit-status")
		}
		if q, more := <-reqs; more {
			t.Fatalf("got %s after the status", q.Type)
		}
	}
	ch, reqs := open(t, c)
	if !request(t, ch, "exec", str("exec sleep 60")) || !request(t, ch, "signal", str("TERM")) {
		t.Fatal("exec or signal refused")
	}
	q := <-reqs
	if q == nil || q.Type != "exit-signal" || !bytes.HasPrefix(q.Payload, str("TERM")) {
		t.Errorf("got %+v", q)
	}
}

// TestCoreDumped: exit-signal says whether there is a core, as it was: after the same death of
// the same account, started here.
func TestCoreDumped(t *testing.T) {
	u := account(t)
	r := newRig(t, usual())
	c := r.client(u.Username)
	for _, limit := range []string{"unlimited", "0"} {
		dir, err := os.MkdirTemp("", "core")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		command := "cd " + dir + " && ulimit -c " + limit + " && kill -ABRT $$"
		here := exec.Command("/bin/bash", "-c", command)
		if os.Getuid() == 0 {
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			here.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		}
		_ = here.Run()
		ws, ok := here.ProcessState.Sys().(syscall.WaitStatus)
		if !ok || ws.Signal() != syscall.SIGABRT || limit == "0" && ws.CoreDump() {
			t.Fatalf("here: %v", here.ProcessState)
		}
		ch, reqs := open(t, c)
		if !request(t, ch, "exec", str(command)) {
			t.Fatal("no exec")
		}
		q := <-reqs
		var got struct {
			Signal     string
			Core       bool
			Text, Lang string
		}
		if q == nil || q.Type != "exit-signal" || gossh.Unmarshal(q.Payload, &got) != nil || got.Signal != "ABRT" || got.Core != ws.CoreDump() {
			t.Errorf("limit %s: got %+v %+v; here a core: %v", limit, q, got, ws.CoreDump())
		}
		t.Logf("core limit %s: a core: %v", limit, got.Core)
	}
}

// TestBackground leaves a program holding the output, with and without a terminal.
func TestBackground(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	ch, reqs := open(t, c)
	if !request(t, ch, "exec", str("sleep 1.5 & echo now; exit 3")) {
		t.Fatal("no exec")
	}
	start := time.Now()
	if q := <-reqs; q == nil || q.Type != "exit-status" || time.Since(start) > time.Second {
		t.Errorf("status after %v: %+v", time.Since(start), q)
	}
	if out, _ := io.ReadAll(ch); string(out) != "now\n" || time.Since(start) < time.Second {
		t.Errorf("pipes: %q after %v, before the program let go", out, time.Since(start))
	}
	ch, _ = open(t, c)
	request(t, ch, "pty-req", append(append(str("xterm"), window(80, 24)...), str("")...))
	start = time.Now()
	if !request(t, ch, "exec", str("trap '' HUP; sleep 5 & echo now")) {
		t.Fatal("no exec")
	}
	if out, _ := io.ReadAll(ch); string(out) != "now\r\n" || time.Since(start) > 4*time.Second {
		t.Errorf("terminal: %q after %v", out, time.Since(start))
	}
}

// TestClosed closes one of two channels: its terminal hangs up, the other goes on.
func TestClosed(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	ch, _ := open(t, c)
	request(t, ch, "pty-req", append(append(str("xterm"), window(80, 24)...), str("")...))
	if !request(t, ch, "exec", str("echo $$; exec sleep 300")) {
		t.Fatal("no exec")
	}
	var pid int
	if _, err := fmt.Fscan(ch, &pid); err != nil {
		t.Fatal(err)
	}
	ch.Close()
	r.until("the program is hung up", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); return err != nil })
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo still"); string(out) != "still\n" || err != nil {
		t.Errorf("%q %v", out, err)
	}
}

// TestManySessions opens channels up to the limit, then one more.
func TestManySessions(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.SessionsPerConn = 12
	c := r.client(account(t).Username)
	for range 12 {
		ch, _ := open(t, c)
		if !request(t, ch, "exec", str("cat")) {
			t.Fatal("no exec")
		}
	}
	_, _, err := c.OpenChannel("session", nil)
	var no *gossh.OpenChannelError
	if !errors.As(err, &no) || !strings.Contains(no.Message, "too many sessions") {
		t.Errorf("got %v", err)
	}
}

// TestTwice asks for a second program on a channel, and for nonsense.
func TestTwice(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	ch, _ := open(t, c)
	if request(t, ch, "exec", []byte{0, 0, 0, 9, 'x'}) || request(t, ch, "exec", str("a\x00b")) || request(t, ch, "nonsense@example.com", nil) || request(t, ch, "signal", str("TERM")) {
		t.Error("nonsense was granted")
	}
	if !request(t, ch, "exec", str("cat")) {
		t.Fatal("no exec")
	}
	if request(t, ch, "exec", str("id")) || request(t, ch, "shell", nil) || request(t, ch, "subsystem", str("sftp")) || request(t, ch, "env", append(str("LANG"), str("C")...)) {
		t.Error("a second program, or an environment after the first, was granted")
	}
	ok, _, err := c.SendRequest("nonsense@example.com", true, nil)
	if ok || err != nil {
		t.Errorf("global nonsense: %v %v", ok, err)
	}
	if _, _, err := c.OpenChannel("x11", nil); err == nil {
		t.Error("a channel of a type that clients do not open")
	}
}

// TestGarbage speaks no SSH.
func TestGarbage(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.LoginGrace = time.Second
	for name, words := range map[string]string{
		"http": "GET / HTTP/1.1\r\n\r\n", "ssh1": "SSH-1.5-x\r\n", "long": strings.Repeat("a", 70000),
		"kexinit": "SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff", "nothing": "", "cut": "SSH-2.0-x\r\n\x00\x00\x01\x00\x01\x14",
	} {
		t.Run(name, func(t *testing.T) {
			nc := r.inetd()
			go func() { _, _ = io.WriteString(nc, words) }() // the other end may not read it all
			_ = nc.SetReadDeadline(time.Now().Add(15 * time.Second))
			if _, err := io.ReadAll(nc); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("not closed: %v", err)
			}
		})
	}
	if n := len(r.audited2("session.open")); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// hostile is a connection process that was taken over: it has the descriptors of one, and
// says what would help it.
func hostile(what string) int {
	c, err := control.FromFile(os.NewFile(4, "control"), false)
	if err != nil {
		return 1
	}
	say := func(t control.Type, body any) (control.Message, error) {
		if err := c.Send(control.Message{Type: t, N: 1, Body: body}, nil); err != nil {
			return control.Message{}, err
		}
		m, f, err := c.Receive()
		if f != nil {
			f.Close()
		}
		return m, err
	}
	words, user, _ := strings.Cut(what, ":")
	if words != "ask first" {
		if _, err := say(control.Hello, &control.HelloMsg{Version: control.Version}); err != nil {
			return 1
		}
	}
	var m control.Message
	switch words {
	case "other name": // what was admitted is not what is begun
		if m, err = say(control.Auth, &control.AuthMsg{User: user, Method: "none"}); err == nil {
			m, err = say(control.Begin, &control.BeginMsg{User: "root"})
		}
	case "refused then begin":
		if m, err = say(control.Auth, &control.AuthMsg{User: user, Method: "none"}); err == nil {
			if m, err = say(control.Auth, &control.AuthMsg{User: "no-such", Method: "none"}); err == nil {
				m, err = say(control.Begin, &control.BeginMsg{User: user})
			}
		}
	case "begin at once":
		m, err = say(control.Begin, &control.BeginMsg{User: user})
	case "ask first":
		m, err = say(control.Ask, &control.AskMsg{Kind: "shell"})
	case "sign anything":
		m, err = say(control.Sign, &control.SignMsg{Data: []byte("a userauth request to another host, or anything else")})
	case "sign much":
		for range 5 {
			if m, err = say(control.Sign, &control.SignMsg{Data: make([]byte, 32)}); err != nil {
				break
			}
		}
	case "guess names":
		for n := range 20 {
			if m, err = say(control.Auth, &control.AuthMsg{User: fmt.Sprint("user", n)}); err != nil {
				break
			}
		}
	case "silent":
		time.Sleep(time.Hour)
	}
	if err == nil {
		fmt.Fprintf(os.Stderr, "hostile %s was answered %s\n", words, m.Type)
	}
	time.Sleep(time.Hour) // and does not go away
	return 0
}

func TestTakenOver(t *testing.T) {
	for _, what := range []string{"other name", "refused then begin", "begin at once", "ask first", "sign anything", "sign much", "guess names", "silent"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, usual())
			r.ConnArgs = []string{"hostile", what + ":" + account(t).Username}
			if what == "silent" { // the others are ended for what they do, however long they take to begin
				r.Limits = sshd.Limits{LoginGrace: 500 * time.Millisecond}
			}
			nc := r.inetd()
			_ = nc.SetReadDeadline(time.Now().Add(15 * time.Second))
			if _, err := io.ReadAll(nc); err != nil {
				t.Errorf("not ended: %v", err)
			}
			b, err := os.ReadFile(r.Dir + "/run/conn.log")
			if err != nil || strings.Contains(string(b), "answered") {
				t.Errorf("%s (%v)", b, err)
			}
			log, _ := os.ReadFile(r.Dir + "/log")
			if want := "broke the rules"; what != "silent" && !strings.Contains(string(log), want) {
				t.Errorf("the log does not say %q", want)
			}
			if n, _ := os.ReadDir(r.spool()); len(n) > 1 { // the spool's own lock at most
				t.Errorf("a recording was begun: %v", n)
			}
		})
	}
}
