package sshd_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/recording"
)

// permitting is the usual policy with a permit.
func permitting(permit string) string {
	return strings.Replace(usual(), `"users":[`, `"permit":`+permit+`,"users":[`, 1)
}

// answering listens and answers each connection, once it has said all, with how much that
// was and a long reply: what half-closes must get right.
func answering(t *testing.T, l net.Listener) (addr string) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, _ := io.Copy(io.Discard, c)
				fmt.Fprintf(c, "%d\n", n)
				_, _ = c.Write(make([]byte, 1<<20))
			}()
		}
	}()
	return l.Addr().String()
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ask speaks to answering through c.
func ask(t *testing.T, c io.ReadWriter, n int) {
	t.Helper()
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := fmt.Sprintf("%d\n", n); err != nil || !bytes.HasPrefix(got, []byte(want)) || len(got) != len(want)+1<<20 {
		t.Errorf("%d bytes came back after %d: %.20q %v", len(got), n, got, err)
	}
}

func (k taken) forwards() []recording.Forward {
	var out []recording.Forward
	for _, e := range k.events {
		var f recording.Forward
		if e.Kind == recording.KindForward && json.Unmarshal(e.Data, &f) == nil {
			out = append(out, f)
		}
	}
	return out
}

// one finds the only forward event of a state and type.
func (k taken) one(t *testing.T, state, typ string) recording.Forward {
	t.Helper()
	var found []recording.Forward
	for _, f := range k.forwards() {
		if f.State == state && f.Type == typ {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d events of a forward %s %s in %+v", len(found), typ, state, k.forwards())
	}
	return found[0]
}

// folder is one that the account can work in.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fw")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestForwardLocal(t *testing.T) {
	r := newRig(t, permitting(`{"shell":true,"exec":true,"forwardLocal":["127.0.0.0/8:*"],"forwardUnix":["/tmp/*/s"]}`))
	u := account(t)
	tcp := answering(t, listen(t, "tcp", "127.0.0.1:0"))
	_, port, _ := net.SplitHostPort(tcp)
	dir := folder(t)
	sock := filepath.Join(dir, "s")
	ln := listen(t, "unix", sock).(*net.UnixListener)
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := make(chan uint32, 1)
	go func() {
		c, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		raw, _ := c.SyscallConn()
		_ = raw.Control(func(fd uintptr) {
			cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
			if err == nil {
				peer <- cred.Uid
			}
		})
		_, _ = io.Copy(c, c)
	}()
	c := r.client(u.Username)
	fc, err := c.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, fc.(io.ReadWriter), 100_000)
	// A name is allowed where an address that it leads to is.
	if fc, err = c.Dial("tcp", "localhost:"+port); err != nil {
		t.Fatal(err)
	}
	ask(t, fc.(io.ReadWriter), 3)
	uc, err := c.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(uc, "hello")
	if b := make([]byte, 5); readFull(uc, b) != nil || string(b) != "hello" {
		t.Errorf("unix: %q", b)
	}
	if uid := <-peer; strconv.Itoa(int(uid)) != u.Uid {
		t.Errorf("the socket was connected to by uid %d, not %s", uid, u.Uid)
	}
	uc.Close()
	for _, c := range []struct {
		network, addr, words string
		dial                 func(string, string) (net.Conn, error)
	}{
		{"tcp", "192.0.2.1:80", "not allowed", c.Dial}, {"unix", "/run/other", "not allowed", c.Dial}, {"unix", dir + "/x/../s", "detours", c.Dial}, {"tcp", "127.0.0.1:1", "refused", c.Dial},
	} {
		_, err := c.dial(c.network, c.addr)
		var no *gossh.OpenChannelError
		if !errors.As(err, &no) || !strings.Contains(no.Message, c.words) {
			t.Errorf("%s: %v", c.addr, err)
		}
	}
	c.Close()
	k := r.recordings(1)[0]
	var closed []recording.Forward
	for _, f := range k.forwards() {
		if f.State == "closed" && f.Type == "local" {
			closed = append(closed, f)
		}
	}
	if len(closed) != 2 || closed[0].Target != tcp || closed[0].Sent != 100_000 || closed[0].Received != 7+1<<20 {
		t.Errorf("closed %+v", closed)
	}
	if f := k.one(t, "closed", "unix"); f.Target != sock || f.Sent != 5 || f.Received != 5 {
		t.Errorf("%+v", f)
	}
	if f := k.one(t, "refused", "local"); f.Target != "192.0.2.1:80" {
		t.Errorf("%+v", f)
	}
	if f := k.one(t, "failed", "local"); f.Target != "127.0.0.1:1" {
		t.Errorf("%+v", f)
	}
}

func readFull(r io.Reader, b []byte) error { _, err := io.ReadFull(r, b); return err }

// background starts a stock ssh with forwards only, which ends with the test, and
// names the file that has its words.
func (r *rig) background(who string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("ssh", append(append(append(args, "-o", "LogLevel=INFO", "-o", "ExitOnForwardFailure=yes"), r.options()...), who+"@web")...)
	said := filepath.Join(r.t.TempDir(), "stderr")
	errw, err := os.Create(said)
	if err != nil {
		r.t.Fatal(err)
	}
	defer errw.Close()
	cmd.Stderr = errw
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return said
}

// TestStockForwards uses every way in which stock ssh carries connections to the host.
func TestStockForwards(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	tcp := answering(t, listen(t, "tcp", "127.0.0.1:0"))
	dir := folder(t)
	far := filepath.Join(dir, "far")
	ul := listen(t, "unix", far)
	if err := os.Chmod(far, 0o666); err != nil {
		t.Fatal(err)
	}
	answering(t, ul)
	near := filepath.Join(dir, "near")
	toTCP := filepath.Join(dir, "totcp")
	r.background(u.Username, "-N", "-L", near+":"+far, "-L", toTCP+":"+tcp)
	for _, sock := range []string{near, toTCP} {
		r.until("ssh listens on "+sock, func() bool { _, err := os.Stat(sock); return err == nil })
		c, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		ask(t, c, 70_000)
		c.Close()
	}
	// -W: its half-close is the end of standard input.
	got := r.run(strings.Repeat("x", 1234), "ssh", append(r.options(), "-W", tcp, u.Username+"@web")...)
	if !strings.HasPrefix(got.out, "1234\n") || len(got.out) != 5+1<<20 || got.code != 0 {
		t.Errorf("-W: %d bytes, %.20q, status %d %s", len(got.out), got.out, got.code, got.err)
	}
	// -D, with curl as the program behind it.
	web := listen(t, "tcp", "127.0.0.1:0")
	t.Cleanup(func() { web.Close() })
	go func() { // ends with the listener
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\nthrough socks")
			c.Close()
		}
	}()
	port := freePort(t)
	r.background(u.Username, "-N", "-D", port)
	r.until("ssh listens for SOCKS", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if got := r.run("", "curl", "-sS", "--noproxy", "", "--socks5-hostname", "127.0.0.1:"+port, "http://"+web.Addr().String()+"/"); got.out != "through socks" {
		t.Errorf("-D: %+v", got)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestStockRemote listens on the host: a port that the host chooses, and a unix socket
// that is the account's.
func TestStockRemote(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	tcp := answering(t, listen(t, "tcp", "127.0.0.1:0"))
	dir := folder(t)
	sock := filepath.Join(dir, "r")
	said := r.background(u.Username, "-N", "-R", "0:"+tcp, "-R", sock+":"+tcp)
	r.until("the host listens", func() bool { _, err := os.Stat(sock); return err == nil })
	var st unix.Stat_t
	if err := unix.Lstat(sock, &st); err != nil || strconv.Itoa(int(st.Uid)) != u.Uid || st.Mode&0o777 != 0o600 {
		t.Errorf("the socket is %d's with mode %o (%v)", st.Uid, st.Mode, err)
	}
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, c, 9)
	c.Close()
	port := ""
	r.until("ssh says which port it is", func() bool {
		b, _ := os.ReadFile(said)
		m := regexp.MustCompile(`Allocated port (\d+) for remote forward`).FindSubmatch(b)
		if m != nil {
			port = string(m[1])
		}
		return m != nil
	})
	if c, err = net.Dial("tcp", "127.0.0.1:"+port); err != nil {
		t.Fatal(err)
	}
	ask(t, c, 77_000)
	c.Close()
}

// TestRemoteForward asks for listeners by hand: a port of the host's choice, its
// cancellation, what is taken, what is not allowed.
func TestRemoteForward(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	l, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	answering(t, l)
	near, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, near, 200_000)
	near.Close()
	_, port, _ := net.SplitHostPort(addr)
	if _, err := c.Listen("tcp", "127.0.0.1:"+port); err == nil {
		t.Error("one address was given out twice")
	}
	l.Close()
	r.until("the port is free", func() bool {
		again, err := net.Listen("tcp", addr)
		if err == nil {
			again.Close()
		}
		return err == nil
	})
	if ok, _, err := c.SendRequest("cancel-tcpip-forward", true, gossh.Marshal(struct {
		Addr string
		Port uint32
	}{"127.0.0.1", 9})); ok || err != nil {
		t.Errorf("what is not there was taken back: %v %v", ok, err)
	}
	for _, bad := range []string{"0.0.0.0:0", "192.0.2.9:0"} {
		if l, err := c.Listen("tcp", bad); err == nil {
			t.Errorf("listening on %s was allowed", l.Addr())
		}
	}
	if os.Getuid() == 0 { // the account is not root, then
		if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(b)) == "1024" {
			if _, err := c.Listen("tcp", "127.0.0.1:999"); err == nil {
				t.Error("a low port was given to an ordinary account")
			}
		}
	}
	c.Close()
	k := r.recordings(1)[0]
	if f := k.one(t, "closed", "remote"); f.Target != "127.0.0.1:0" || f.Received != 200_000 || f.Sent != 7+1<<20 || f.Origin == "" {
		t.Errorf("%+v", f)
	}
	k.one(t, "closed", "remote-listen")
}

// TestForwardRevoked takes forwards away from a connection whose shell may stay.
func TestForwardRevoked(t *testing.T) {
	r := newRig(t, permitting(`{"shell":true,"exec":true,"forwardLocal":["*"],"forwardRemote":["localhost:*"]}`))
	tcp := listen(t, "tcp", "127.0.0.1:0")
	defer tcp.Close()
	d := r.daemon()
	c := d.client(account(t).Username)
	run := start(t, c, false, "echo $$; exec sleep 300")
	pid := pidOf(r, run)
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) }) // without a terminal it would go on
	fc, err := c.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	host, err := tcp.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	l, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.policy(permitting(`{"shell":true,"exec":true}`))
	if err := d.cmd.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	_ = host.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := host.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the forward goes on: %v", err)
	}
	if _, err := io.ReadAll(fc); err != nil {
		t.Errorf("the client's end: %v", err)
	}
	r.until("the listener is gone", func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := c.Dial("tcp", tcp.Addr().String()); err == nil {
		t.Error("a new forward was made")
	}
	if !alive(pid) {
		t.Error("the shell went with the forward")
	}
}

// TestStockAgent lists the keys of a real agent from a session on the host.
func TestStockAgent(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	dir := t.TempDir()
	sock := filepath.Join(dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", sock)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	r.until("the agent is there", func() bool { _, err := os.Stat(sock); return err == nil })
	key := filepath.Join(dir, "key")
	env := []string{"SSH_AUTH_SOCK=" + sock}
	for _, args := range [][]string{{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "forwarded", "-f", key}, {"ssh-add", "-q", key}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", args, out)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", sock)
	got := r.run("", "ssh", append(r.options(), "-A", u.Username+"@web", `ssh-add -l; stat -c '%a %U' "$(dirname "$SSH_AUTH_SOCK")"; echo "$SSH_AUTH_SOCK"`)...)
	lines := strings.Split(got.out, "\n")
	if len(lines) < 3 || !strings.Contains(lines[0], "forwarded") || lines[1] != "700 "+u.Username {
		t.Fatalf("got %+v", got)
	}
	k := r.recordings(1)[0]
	if f := k.one(t, "closed", "agent"); f.Sent == 0 || f.Received == 0 {
		t.Errorf("%+v", f)
	}
	k.one(t, "closed", "agent-listen")
	if _, err := os.Stat(filepath.Dir(lines[2])); err == nil {
		t.Errorf("%s was left", lines[2])
	}
	r.policy(permitting(`{"shell":true,"exec":true}`))
	if got := r.run("", "ssh", append(r.options(), "-A", u.Username+"@web", `echo "[$SSH_AUTH_SOCK]"`)...); got.out != "[]\n" {
		t.Errorf("without the right: %+v", got)
	}
}

// TestStockX11 draws nothing on a display that is none, but asks it as an X program does.
func TestStockX11(t *testing.T) {
	if _, err := exec.LookPath("xauth"); err != nil && os.Getuid() != 0 {
		t.Skip("xauth is not installed")
	}
	r := newRig(t, permitting(`{"shell":true,"exec":true,"x11":true}`))
	u := account(t)
	var x net.Listener
	display := 0
	for display = 2000; x == nil && display < 2100; display++ {
		x, _ = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 6000+display))
	}
	display--
	if x == nil {
		t.Fatal("no display is free")
	}
	defer x.Close()
	setup := make(chan []byte, 1)
	go func() {
		c, err := x.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 12+20+16)
		if readFull(c, b) == nil {
			setup <- b
			fmt.Fprint(c, "welcome!")
		}
	}()
	// The cookie that xauth got on the host goes into a connection's first packet.
	program := `c=$(xauth -q list "$DISPLAY" | sed 's/.* //'); n=${DISPLAY##*:}; n=${n%.*}
exec 3<>/dev/tcp/127.0.0.1/$((6000+n))
printf 'l\0\013\0\0\0\022\0\020\0\0\0MIT-MAGIC-COOKIE-1\0\0' >&3
printf "$(printf %s "$c" | sed 's/../\\x&/g')" >&3
head -c 8 <&3; echo " $DISPLAY"`
	t.Setenv("DISPLAY", fmt.Sprintf("127.0.0.1:%d", display))
	t.Setenv("XAUTHORITY", filepath.Join(t.TempDir(), "xauth"))
	got := r.run("", "ssh", append(r.options(), "-Y", u.Username+"@web", program)...)
	if !regexp.MustCompile(`^welcome! localhost:\d+\.0\n$`).MatchString(got.out) {
		t.Fatalf("got %+v", got)
	}
	if b := <-setup; !bytes.Contains(b, []byte("MIT-MAGIC-COOKIE-1")) {
		t.Errorf("the display was asked with %q", b)
	}
	k := r.recordings(1)[0]
	if f := k.one(t, "closed", "x11"); f.Sent != 8 || f.Received != 48 {
		t.Errorf("%+v", f)
	}
	r.policy(usual())
	if got := r.run("", "ssh", append(r.options(), "-Y", u.Username+"@web", `echo "[$DISPLAY]"`)...); got.out != "[]\n" {
		t.Errorf("without the right: %+v", got)
	}
}

// TestStockMultiplexed runs 20 sessions at once on one connection, and ends one of them.
func TestStockMultiplexed(t *testing.T) {
	r := newRig(t, usual())
	u := account(t)
	sock := filepath.Join(folder(t), "mux")
	r.background(u.Username, "-N", "-M", "-S", sock)
	r.until("the master is there", func() bool { _, err := os.Stat(sock); return err == nil })
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			want := fmt.Sprintf("%d\n", n)
			if got := r.run(want, "ssh", "-F", "/dev/null", "-S", sock, u.Username+"@web", "cat; sleep 0.5; exit "+strconv.Itoa(n)); got.out != want || got.code != n {
				t.Errorf("%d: %+v", n, got)
			}
		})
	}
	wg.Wait()
	if got := r.run("", "ssh", "-F", "/dev/null", "-S", sock, "-O", "exit", "web"); got.code != 0 {
		t.Errorf("exit: %+v", got)
	}
	if k := r.recordings(1)[0]; k.end.Cause != "closed" {
		t.Errorf("%+v", k.end)
	}
}

// TestStockRekey changes keys every megabyte while bytes flow both ways.
func TestStockRekey(t *testing.T) {
	r := newRig(t, usual())
	in := make([]byte, 12<<20)
	rand.Read(in)
	got := r.run(string(in), "ssh", append(r.options(), "-o", "RekeyLimit=1M", account(t).Username+"@web", "cat")...)
	if got.out != string(in) || got.code != 0 {
		t.Errorf("%d bytes of %d, status %d, %s", len(got.out), len(in), got.code, got.err)
	}
}

// TestStockHostKeys: a client that knows one key of the host learns the other, with proof.
func TestStockHostKeys(t *testing.T) {
	r := newRig(t, usual())
	known := filepath.Join(t.TempDir(), "known")
	keys := hostKeys(r.Dir)
	if err := os.WriteFile(known, append([]byte("web "), gossh.MarshalAuthorizedKey(keys[0].PublicKey())...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.background(account(t).Username, "-N", "-o", "UserKnownHostsFile="+known, "-o", "UpdateHostKeys=yes", "-o", "HostKeyAlgorithms=ssh-ed25519,ecdsa-sha2-nistp256", "-o", "StrictHostKeyChecking=yes")
	for _, k := range keys {
		want := bytes.TrimSpace(gossh.MarshalAuthorizedKey(k.PublicKey()))
		r.until("the client knows "+k.PublicKey().Type(), func() bool { b, _ := os.ReadFile(known); return bytes.Contains(b, want) })
	}
}

// TestNoMoreSessions: what the client gave up it does not get back.
func TestNoMoreSessions(t *testing.T) {
	r := newRig(t, usual())
	c := r.client(account(t).Username)
	if ok, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil); !ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	if _, _, err := c.OpenChannel("session", nil); err == nil {
		t.Error("a session was opened")
	}
}

// TestDeadClient: a client that answers nothing is gone within the time for it.
func TestDeadClient(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.ClientAlive = 300 * time.Millisecond
	cfg := &gossh.ClientConfig{User: account(t).Username, HostKeyCallback: gossh.InsecureIgnoreHostKey()}
	c, _, _, err := gossh.NewClientConn(r.inetd(), "web", cfg) // nobody reads the requests
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.OpenChannel("session", nil); err != nil {
		t.Fatal(err)
	}
	if k := r.recordings(1)[0]; k.end.Cause != "timeout" {
		t.Errorf("%+v", k.end)
	}
}

// TestSilentWhileAway: while there is no daemon the silence of a client does not count.
func TestSilentWhileAway(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.ClientAlive = time.Second
	d := r.daemon()
	nc := &holdable{Conn: d.connect()}
	cfg := &gossh.ClientConfig{User: account(t).Username, HostKeyCallback: gossh.InsecureIgnoreHostKey()}
	sc, chans, reqs, err := gossh.NewClientConn(nc, "web", cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := gossh.NewClient(sc, chans, reqs)
	defer c.Close()
	run := start(t, c, false, "cat")
	st := r.states()
	if len(st) != 1 {
		t.Fatalf("%+v", st)
	}
	nc.hold(true)
	d.kill()
	time.Sleep(3 * time.Second) // what is tested: three times the limit passes
	d = r.daemon()
	nc.hold(false)
	fmt.Fprintln(run.in, "still here")
	r.until("the echo", func() bool { return run.out.String() == "still here\n" })
	// With a daemon it does.
	nc.hold(true)
	r.until("the silent client is gone", func() bool { return gone(st[0].PID) })
}

// holdable is a connection whose writes wait while it is held: a client that is silent.
type holdable struct {
	net.Conn
	mu sync.Mutex
}

func (h *holdable) hold(on bool) {
	if on {
		h.mu.Lock()
	} else {
		h.mu.Unlock()
	}
}

func (h *holdable) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Conn.Write(p)
}

// TestForwardLimit: one too many is refused, and counts again once another has ended.
func TestForwardLimit(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.ForwardsPerConn = 3
	tcp := listen(t, "tcp", "127.0.0.1:0")
	defer tcp.Close()
	c := r.client(account(t).Username)
	var open []net.Conn
	for range 3 {
		fc, err := c.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, fc)
	}
	_, err := c.Dial("tcp", tcp.Addr().String())
	var no *gossh.OpenChannelError
	if !errors.As(err, &no) || no.Reason != gossh.ResourceShortage {
		t.Errorf("got %v", err)
	}
	if _, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a listener above the limit")
	}
	host, err := tcp.Accept()
	if err != nil {
		t.Fatal(err)
	}
	host.Close()
	for _, fc := range open {
		fc.Close()
	}
	r.until("there is room again", func() bool {
		fc, err := c.Dial("tcp", tcp.Addr().String())
		if err == nil {
			fc.Close()
		}
		return err == nil
	})
}
