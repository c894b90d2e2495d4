package netnode_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
)

const kernelPolicy = `{
	"tagOwners": {"tag:web": ["alice@example.com"]},
	"acls": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:22,80,922"]},
		{"action": "accept", "proto": "icmp", "src": ["alice@example.com"], "dst": ["tag:web:*"]},
		{"action": "accept", "src": ["tag:web"], "dst": ["alice@example.com:80"]},
	],
}`

// lan is two or three hosts in network namespaces of their own:
//
//	ctr 10.98.0.2 --- 10.98.0.1 web 10.99.0.1 --- 10.99.0.2 lap
//	             (web masquerades)   fd99::1        fd99::2
type lan struct {
	t            testing.TB
	bin          string
	web, lap     string // namespaces
	ctr          string // only after addContainer
	dir          string
	webCfg, lapC nodeConfig
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("kernel TUNs and network namespaces need root")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

func newLAN(t testing.TB) *lan {
	t.Helper()
	needRoot(t)
	id := fmt.Sprintf("nn%d", os.Getpid())
	l := &lan{t: t, web: id + "w", lap: id + "l"}
	var err error
	if l.dir, err = os.MkdirTemp("", "netnode-test-"); err != nil { // nobody must be able to run what is in it
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(l.dir) })
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l.bin = filepath.Join(l.dir, "helper")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{l.web, l.lap} {
		l.run("ip", "netns", "add", ns)
		t.Cleanup(func() { l.run("ip", "netns", "del", ns) })
		l.run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	l.wire(l.web, l.lap, "99")
	l.makeNodes()
	return l
}

// wire joins two namespaces with the network 10.N.0.0/24 and fdN::/64.
func (l *lan) wire(a, b, n string) {
	l.run("ip", "link", "add", "v"+n, "netns", a, "type", "veth", "peer", "name", "v"+n, "netns", b)
	for i, ns := range []string{a, b} {
		l.run("ip", "-n", ns, "addr", "add", fmt.Sprintf("10.%s.0.%d/24", n, i+1), "dev", "v"+n)
		l.run("ip", "-n", ns, "addr", "add", fmt.Sprintf("fd%s::%d/64", n, i+1), "dev", "v"+n, "nodad")
		l.run("ip", "-n", ns, "link", "set", "v"+n, "up")
	}
}

func (l *lan) run(args ...string) string {
	l.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *lan) makeNodes() {
	mk := func(n int, id policy.Identity) (nodeConfig, netmap.Peer) {
		key, err := netmap.NewWGPrivate()
		if err != nil {
			l.t.Fatal(err)
		}
		id.ID = fmt.Sprintf("n%d", n)
		id.Addrs = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("100.64.0.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd7a:7373:6800::%d", n))}
		return nodeConfig{Key: key.Encode(), TUN: "tssh0", RunDir: filepath.Join(l.dir, id.Name), Port: 41641, Self: id, Policy: kernelPolicy,
			Endpoints: filepath.Join(l.dir, id.Name+".json")}, netmap.Peer{Identity: id, Key: key.Public()}
	}
	var w, p netmap.Peer
	l.webCfg, w = mk(1, policy.Identity{Name: "web", Tags: []policy.Tag{"tag:web"}})
	l.lapC, p = mk(2, policy.Identity{Name: "laptop", User: "alice@example.com"})
	l.webCfg.Peers, l.lapC.Peers = []netmap.Peer{p}, []netmap.Peer{w}
	l.webCfg.At = map[string]netip.AddrPort{"n2": netip.MustParseAddrPort("10.99.0.2:41641")}
	l.lapC.At = map[string]netip.AddrPort{"n1": netip.MustParseAddrPort("10.99.0.1:41641")}
}

// proc is a helper that runs.
type proc struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *bufio.Reader
	stderr *bytes.Buffer
	ended  bool
}

func (l *lan) command(ns, mode, arg string, more ...string) *exec.Cmd {
	args := append([]string{"--net=/run/netns/" + ns}, more...)
	cmd := exec.Command("nsenter", append(args, l.bin)...)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode+" "+arg)
	return cmd
}

// start runs a helper until stop or kill, and waits for its "ready".
func (l *lan) start(ns, mode, arg string, more ...string) *proc {
	l.t.Helper()
	p := &proc{t: l.t, cmd: l.command(ns, mode, arg, more...), stderr: new(bytes.Buffer)}
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		l.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("%s says:\n%s", mode, p.stderr)
		}
		p.kill()
	})
	if line, err := p.out.ReadString('\n'); line != "ready\n" {
		p.kill()
		l.t.Fatalf("%s: %q, %v\n%s", mode, line, err, p.stderr)
	}
	return p
}

func (l *lan) node(ns string, c nodeConfig) *proc {
	l.t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.start(ns, "node", string(b))
}

// stop ends it the ordinary way and returns its last words.
func (p *proc) stop() string {
	p.t.Helper()
	p.stdin.Close()
	out, _ := io.ReadAll(p.out)
	p.ended = true
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("ended with %v\n%s%s", err, out, p.stderr)
	}
	return string(out)
}

func (p *proc) kill() {
	if !p.ended {
		p.ended = true
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// ask runs a helper to its end and returns what it printed, by the first word.
func (l *lan) ask(ns, mode, arg string, more ...string) map[string]string {
	l.t.Helper()
	out, err := l.command(ns, mode, arg, more...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[k] = v
	}
	return m
}

var asNobody = []string{"--setuid", "65534", "--setgid", "65534"}

// dial asks what is at addrs as seen from ns.
func (l *lan) dial(ns string, addrs ...string) map[string]string {
	l.t.Helper()
	return l.ask(ns, "dial", strings.Join(addrs, " "))
}

const (
	web4, web6 = "100.64.0.1", "[fd7a:7373:6800::1]"
	lap4, lap6 = "100.64.0.2", "[fd7a:7373:6800::2]"
)

func (l *lan) uninstall() {
	l.t.Helper()
	for ns, dir := range map[string]string{l.web: l.webCfg.RunDir, l.lap: l.lapC.RunDir} {
		if got := l.ask(ns, "uninstall", dir); len(got) != 0 {
			l.t.Errorf("uninstall: %v", got)
		}
		if out := l.run("ip", "-n", ns, "link"); strings.Contains(out, "tssh0") {
			l.t.Errorf("a TUN is left:\n%s", out)
		}
		for _, f := range []string{"-4", "-6"} {
			if out := l.run("ip", "-n", ns, f, "rule"); strings.Contains(out, "7373") {
				l.t.Errorf("a rule is left:\n%s", out)
			}
		}
		if _, err := os.Lstat(filepath.Join(dir, "ssh.netns")); !errors.Is(err, fs.ErrNotExist) {
			l.t.Errorf("the pin is left: %v", err)
		}
	}
}

// TestKernelTUN is a host with an sshd of its own on port 22, reached over the mesh.
func TestKernelTUN(t *testing.T) {
	for _, c := range []struct {
		name    string
		rewrite bool
	}{{"namespace", false}, {"rewrite", true}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLAN(t)
			t.Cleanup(l.uninstall)
			l.webCfg.NoNamespace, l.lapC.NoNamespace = c.rewrite, c.rewrite
			l.start(l.web, "serve", "22 80 81")
			web := l.node(l.web, l.webCfg)
			lap := l.node(l.lap, l.lapC)

			got := l.dial(l.lap, web4+":22", web6+":22", web4+":80", web6+":80", web4+":81", web6+":81", web4+":922", web6+":922", "10.99.0.1:22")
			for a, want := range map[string]string{
				web4 + ":22": "mesh-ssh laptop", web6 + ":22": "mesh-ssh laptop", // ours, not the host's
				web4 + ":80": "host-service", web6 + ":80": "host-service", // allowed by the policy
				"10.99.0.1:22": "host-service", // outside the mesh the host's is untouched
			} {
				if got[a] != want {
					t.Errorf("laptop at %s: %q, want %q", a, got[a], want)
				}
			}
			for _, a := range []string{web4 + ":81", web6 + ":81", web4 + ":922", web6 + ":922"} {
				if !strings.HasPrefix(got[a], "none: ") {
					t.Errorf("laptop at %s: %q, want nothing", a, got[a])
				}
			}
			if _, err := exec.LookPath("ping"); err == nil {
				for _, a := range []string{web4, strings.Trim(web6, "[]")} {
					l.run("nsenter", "--net=/run/netns/"+l.lap, "ping", "-c1", "-W5", a)
				}
			}

			l.locals(t, "while it runs")
			web.kill()
			l.locals(t, "while it is away")
			web = l.node(l.web, l.webCfg)
			if got := l.dial(l.lap, web4+":22")[web4+":22"]; got != "mesh-ssh laptop" {
				t.Errorf("after the restart: %q", got)
			}
			web.stop()
			lap.stop()
		})
	}
}

// locals has processes of the host try to reach the SSH listener, and to take over the TUN.
func (l *lan) locals(t *testing.T, when string) {
	t.Helper()
	addrs := []string{"127.0.0.1:22", "[::1]:22", "127.0.0.1:922", "[::1]:922", "10.99.0.1:922", "[fd99::1]:922",
		web4 + ":22", web6 + ":22", web4 + ":922", web6 + ":922",
		web4 + ":22%tssh0", web6 + ":22%tssh0", web4 + ":922%tssh0", web6 + ":922%tssh0", web4 + ":922%lo", web6 + ":922%lo"}
	for who, more := range map[string][]string{"nobody": asNobody, "root": nil} {
		got := l.ask(l.web, "dial", strings.Join(addrs, " "), more...)
		if len(got) != len(addrs) {
			t.Fatalf("%s %s: %v", who, when, got)
		}
		for a, said := range got {
			if strings.Contains(said, "mesh-ssh") {
				t.Errorf("%s %s at %s: %q", who, when, a, said)
			}
		}
		if said := got["127.0.0.1:22"]; said != "host-service" {
			t.Errorf("the host's own service %s: %q", when, said)
		}
	}
	if got := l.ask(l.web, "attach", "tssh0"); !strings.Contains(got["error:"], "not permitted") && !strings.Contains(got["error:"], "busy") {
		t.Errorf("nobody attaches to the TUN %s: %v", when, got)
	}
}

// TestSessionOutlivesDaemon kills the daemon under an open connection.
func TestSessionOutlivesDaemon(t *testing.T) {
	for _, c := range []struct {
		name    string
		rewrite bool
	}{{"namespace", false}, {"rewrite", true}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLAN(t)
			t.Cleanup(l.uninstall)
			l.webCfg.NoNamespace = c.rewrite
			web := l.node(l.web, l.webCfg)
			l.node(l.lap, l.lapC)
			tick4 := l.start(l.lap, "tick", web4+":22")
			tick6 := l.start(l.lap, "tick", web6+":22")
			for _, away := range []time.Duration{0, 2 * time.Second} {
				time.Sleep(300 * time.Millisecond)
				web.kill()
				time.Sleep(away)
				web = l.node(l.web, l.webCfg)
				time.Sleep(3 * time.Second)
			}
			for _, p := range []*proc{tick4, tick6} {
				p.stdin.Close()
				out, _ := io.ReadAll(p.out)
				p.ended = true
				if err := p.cmd.Wait(); err != nil || !strings.HasPrefix(string(out), "ticks ") {
					t.Errorf("the session ended: %v: %s", err, out)
				}
				t.Logf("%s", bytes.TrimSpace(out))
			}
		})
	}
}

// TestOutgoingConnectionOutlivesDaemon is the other direction: the host is the client.
func TestOutgoingConnectionOutlivesDaemon(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	web := l.node(l.web, l.webCfg)
	l.node(l.lap, l.lapC)
	l.start(l.lap, "serve", "80")
	tick := l.start(l.web, "tick", lap4+":80")
	web.kill()
	l.node(l.web, l.webCfg)
	time.Sleep(2 * time.Second)
	t.Logf("%s", strings.TrimSpace(tick.stop()))
}

func TestPeerReachesOnlyTheMeshAddress(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	l.start(l.web, "serve", "22 80")
	l.webCfg.AdmitPorts = []uint16{22, 80} // the policy would stop much of it too
	web := l.node(l.web, l.webCfg)
	evil := evilConfig{l.lapC, []string{web4 + ":22", "10.99.0.1:22", "10.99.0.1:80", "127.0.0.1:22", "[fd99::1]:22", "[::1]:80", web4 + ":80"}}
	b, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	got := l.ask(l.lap, "evil", string(b))
	for _, a := range evil.Dial {
		want := "none: "
		switch a {
		case web4 + ":22":
			want = "mesh-ssh"
		case web4 + ":80":
			want = "host-service"
		}
		if !strings.HasPrefix(got[a], want) {
			t.Errorf("a peer at %s: %q, want %q", a, got[a], want)
		}
	}
	io.WriteString(web.stdin, "status\n")
	line, _ := web.out.ReadString('\n')
	var s struct{ Drops map[string]uint64 }
	if err := json.Unmarshal([]byte(line), &s); err != nil || s.Drops["not-ours"] == 0 {
		t.Errorf("drops are not counted: %v, %v", s.Drops, err)
	}
}

// TestForwardedTraffic routes a container through a host that masquerades for it.
func TestForwardedTraffic(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	l.ctr = fmt.Sprintf("nn%dc", os.Getpid())
	l.run("ip", "netns", "add", l.ctr)
	t.Cleanup(func() { l.run("ip", "netns", "del", l.ctr) })
	l.wire(l.web, l.ctr, "98")
	l.run("ip", "-n", l.ctr, "route", "add", "default", "via", "10.98.0.1")
	l.run("ip", "-n", l.ctr, "-6", "route", "add", "default", "via", "fd98::1")
	enter := []string{"nsenter", "--net=/run/netns/" + l.web}
	l.run(append(enter, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")...)
	if _, err := exec.LookPath("nft"); err == nil {
		l.run(append(enter, "nft", "add table inet nat; add chain inet nat post { type nat hook postrouting priority 100; }; add rule inet nat post oifname tssh0 masquerade")...)
	}
	l.start(l.lap, "serve", "80")
	web := l.node(l.web, l.webCfg)
	l.node(l.lap, l.lapC)
	if got := l.dial(l.web, lap4+":80", lap6+":80"); got[lap4+":80"] != "host-service" || got[lap6+":80"] != "host-service" {
		t.Fatalf("the host itself: %v", got)
	}
	for a, said := range l.dial(l.ctr, lap4+":80", lap6+":80", web4+":22", web6+":22") {
		if !strings.HasPrefix(said, "none: ") {
			t.Errorf("a container at %s: %q", a, said)
		}
	}
	io.WriteString(web.stdin, "status\n")
	line, _ := web.out.ReadString('\n')
	var s struct{ Drops map[string]uint64 }
	// The container's packets for the peer, of both families; those for the host's own address are the LAN's.
	if err := json.Unmarshal([]byte(line), &s); err != nil || s.Drops["forwarded"] < 2 || s.Drops["lan"] == 0 || s.Drops["spoofed"] != 0 {
		t.Errorf("drops: %v, %v", s.Drops, err)
	}
}

func TestTUNInUse(t *testing.T) {
	l := newLAN(t)
	t.Cleanup(l.uninstall)
	web := l.node(l.web, l.webCfg)
	b, _ := json.Marshal(l.webCfg)
	got := l.ask(l.web, "node", string(b))["error:"]
	if !strings.Contains(got, fmt.Sprintf("process %d ", web.cmd.Process.Pid)) || !strings.Contains(got, "tssh0") {
		t.Errorf("a second daemon is told %q; want the TUN and process %d", got, web.cmd.Process.Pid)
	}
	if got := l.ask(l.web, "uninstall", l.webCfg.RunDir)["error:"]; !strings.Contains(got, "in use") {
		t.Errorf("uninstall under a running daemon: %q", got)
	}
	if err := syscall.Kill(web.cmd.Process.Pid, 0); err != nil {
		t.Error("the first daemon did not survive that")
	}
	web.stop()

	c := l.webCfg
	c.TUN = "v99"
	b, _ = json.Marshal(c)
	if got := l.ask(l.web, "node", string(b))["error:"]; !strings.Contains(got, "another kind") {
		t.Errorf("a name that is taken: %q", got)
	}
	if err := os.Chmod(l.webCfg.RunDir, 0o777); err != nil {
		t.Fatal(err)
	}
	b, _ = json.Marshal(l.webCfg)
	if got := l.ask(l.web, "node", string(b))["error:"]; !strings.Contains(got, "others can change it") {
		t.Errorf("a run directory that is everybody's: %q", got)
	}
	os.Chmod(l.webCfg.RunDir, 0o755)
}

// BenchmarkSSHPort moves 256 MiB through the SSH port of a host, each way it can be served,
// up (to the host) and down. cpu-s are those of the host's daemon alone.
func BenchmarkSSHPort(b *testing.B) {
	for _, way := range []string{"up", "down"} {
		for _, serve := range []string{"namespace", "rewrite"} {
			b.Run(way+"/"+serve, func(b *testing.B) {
				l := newLAN(b)
				b.Cleanup(l.uninstall)
				l.webCfg.NoNamespace = serve == "rewrite"
				l.webCfg.Mode = map[string]string{"up": "sink", "down": "source"}[way]
				web := l.node(l.web, l.webCfg)
				l.node(l.lap, l.lapC)
				l.ask(l.lap, "bulk", way+" "+web4+":22") // the handshake
				before := cpu(b, web.cmd.Process.Pid)
				b.SetBytes(bulkSize)
				for b.Loop() {
					if got := l.ask(l.lap, "bulk", way+" "+web4+":22"); got["moved"] != fmt.Sprint(bulkSize) {
						b.Fatal(got)
					}
				}
				used := cpu(b, web.cmd.Process.Pid) - before
				b.ReportMetric(float64(b.N)*bulkSize*8/1e6/b.Elapsed().Seconds(), "Mbit/s")
				b.ReportMetric(float64(b.N)*bulkSize*8/1e6/used, "Mbit/cpu-s")
			})
		}
	}
}

// cpu is the processor time of a process in seconds, as /proc/PID/stat has it.
func cpu(t testing.TB, pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system float64
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return (user + system) / 100 // USER_HZ
}
