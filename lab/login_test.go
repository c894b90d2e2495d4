package lab

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// stock is a stock OpenSSH client's command line on the laptop, as account deploy of the laptop.
func (m *mesh) stock(name string, args ...string) Result {
	opts := []string{"-F", "none", "-o", "UserKnownHostsFile=" + m.laptop.Host.Path("known_hosts"), "-o", "StrictHostKeyChecking=accept-new",
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=15"}
	return m.laptop.Host.Run(name, append(opts, args...)...)
}

// logsIn waits until the mesh lets alice in as deploy: policy and paths take a moment to arrive.
func (m *mesh) logsIn(t *testing.T) {
	t.Helper()
	err := Until(20*time.Second, func() error {
		if r := m.stock("ssh", "deploy@"+m.webAddr, "true"); r.Status != 0 {
			return errors.New(r.String())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\ntsshd on web: %s", err, m.web.Proc.Tail(3000))
	}
}

func TestStockClientsBesideTheHostsOwnSSHD(t *testing.T) {
	m := theMesh(t)
	m.logsIn(t)

	r := m.stock("ssh", "deploy@"+m.webAddr, "id -u; id -g; echo out; echo err >&2; exit 5")
	if r.Status != 5 || r.Stdout != fmt.Sprintf("%d\n%d\nout\n", deployUID, deployUID) || !strings.HasSuffix(r.Stderr, "err\n") {
		t.Errorf("exec: %v", r)
	}
	r = m.stock("ssh", "-tt", "deploy@"+m.webAddr, "tty; stty -a | head -1")
	if r.Status != 0 || !strings.Contains(r.Stdout, "/dev/pts/") {
		t.Errorf("terminal: %v", r)
	}

	big := make([]byte, 3<<20)
	rand.Read(big)
	file := m.laptop.Host.Path("big")
	if err := os.WriteFile(file, big, 0o644); err != nil {
		t.Fatal(err)
	}
	there := m.web.Host.Home("deploy")
	rsh := "ssh -F none -o BatchMode=yes -o UserKnownHostsFile=" + m.laptop.Host.Path("known_hosts")
	batch := m.laptop.Host.Path("batch")
	if err := os.WriteFile(batch, []byte("put "+file+" by-sftp\nget by-sftp "+file+".sftp\nls -l\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what        string
		up, down    Result
		there, back string
	}{
		{"scp", m.stock("scp", file, "deploy@"+m.webAddr+":by-scp"), m.stock("scp", "deploy@"+m.webAddr+":by-scp", file+".scp"), "by-scp", file + ".scp"},
		{"scp -O", m.stock("scp", "-O", file, "deploy@"+m.webAddr+":by-scp1"), m.stock("scp", "-O", "deploy@"+m.webAddr+":by-scp1", file+".scp1"), "by-scp1", file + ".scp1"},
		{"sftp", m.stock("sftp", "-b", batch, "deploy@"+m.webAddr), Result{}, "by-sftp", file + ".sftp"},
		{"rsync", m.laptop.Host.Run("rsync", "-e", rsh, file, "deploy@"+m.webAddr+":by-rsync"), m.laptop.Host.Run("rsync", "-e", rsh, "deploy@"+m.webAddr+":by-rsync", file+".rsync"), "by-rsync", file + ".rsync"},
	} {
		if c.up.Status != 0 || c.down.Status != 0 {
			t.Errorf("%s: up %v\ndown %v", c.what, c.up, c.down)
			continue
		}
		for _, f := range []string{there + "/" + c.there, c.back} {
			b, err := os.ReadFile(f)
			if err != nil || sha256.Sum256(b) != sha256.Sum256(big) {
				t.Errorf("%s: %s differs (%v)", c.what, f, err)
			}
		}
	}

	// The host's own sshd still answers on the LAN address, with its own key and its own rules.
	r = m.laptop.Host.Run("ssh-keyscan", "-t", "ed25519", m.web.Host.Addr.String())
	own, err := os.ReadFile(m.web.Host.Path("own_host_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Stdout, strings.Fields(string(own))[1]) {
		t.Errorf("the host's own sshd does not answer on its own address: %v", r)
	}
	r = m.laptop.Host.Run("ssh-keyscan", "-t", "ed25519", m.webAddr)
	if strings.Contains(r.Stdout, strings.Fields(string(own))[1]) || !strings.Contains(r.Stdout, "ssh-ed25519") {
		t.Errorf("the mesh address is not answered by tsshd: %v", r)
	}
}

func TestRootIsRefusedWithAReason(t *testing.T) {
	m := theMesh(t)
	m.logsIn(t)
	for _, r := range []Result{m.stock("ssh", "root@"+m.webAddr, "id"), m.laptop.Tssh("root@web", "id")} {
		if r.Status != 255 || r.Stdout != "" || !strings.Contains(r.Stderr, "root") || !strings.Contains(r.Stderr, "policy") {
			t.Errorf("root: %v", r)
		}
	}
	if r := m.laptop.Tssh("deploy@web", "id", "-un"); r.Status != 0 || r.Stdout != "deploy\n" {
		t.Errorf("tssh: %v", r)
	}
	if r := m.laptop.Tssh("root@web", "id"); !strings.HasSuffix(strings.TrimSpace(r.Stderr), "[denied]") {
		t.Errorf("no code at the end: %v", r)
	}
	// What the host decided is in the hub's audit log, and who asked for it.
	err := Until(20*time.Second, func() error {
		r := m.hub.Admin("audit", "--host", "web", "--since", "10m")
		for _, want := range []string{
			` session.refuse who=alice@example.com node=laptop host=web user=root verdict=deny `,
			` session.open who=alice@example.com node=laptop host=web user=deploy `,
			` session.close who=alice@example.com node=laptop host=web user=deploy `,
		} {
			if r.Status != 0 || !strings.Contains(r.Stdout, want) {
				return fmt.Errorf("no %q: %v", want, r)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNobodyElseReachesTheListener(t *testing.T) {
	m := theMesh(t)
	m.logsIn(t)
	st, err := m.web.Status()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(m.web.Host.Path("own_host_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	ownKey := strings.Fields(string(own))[1]

	// reach tries an SSH handshake with an address and says which key answered.
	reach := func(h *Host, user []string, addr string, port string) string {
		args := append(append([]string{}, user...), "timeout", "8", "ssh-keyscan", "-T", "4", "-t", "ed25519", "-p", port, addr)
		r := h.Run(args[0], args[1:]...)
		if i := strings.Index(r.Stdout, "ssh-ed25519 "); i >= 0 {
			return strings.TrimSpace(r.Stdout[i+len("ssh-ed25519 "):])
		}
		return ""
	}
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"}
	check := func(when string) {
		t.Helper()
		var wg sync.WaitGroup // most of them only end with their time limit
		for _, a := range st.Self.Addrs {
			for _, port := range []string{"22", "922"} {
				for _, as := range [][]string{nobody, nil} {
					wg.Go(func() {
						if key := reach(m.web.Host, as, a.String(), port); key != "" && key != ownKey {
							t.Errorf("%s: a local process (%v) reached our listener at %v port %s", when, as, a, port)
						}
					})
				}
			}
		}
		wg.Wait()
	}
	check("running")
	// A peer that sends to another address of the host: nothing answers, not even the host's sshd.
	if r := m.laptop.Host.Run("ip", "route", "replace", "203.0.113.9/32", "dev", "tssh0"); r.Status != 0 {
		t.Fatal(r)
	}
	if r := m.web.Host.Run("ip", "addr", "add", "203.0.113.9/32", "dev", "lo"); r.Status != 0 {
		t.Fatal(r)
	}
	defer m.web.Host.Run("ip", "addr", "del", "203.0.113.9/32", "dev", "lo")
	if key := reach(m.laptop.Host, nil, "203.0.113.9", "22"); key != "" {
		t.Errorf("a peer reached another address of the host: key %q", key)
	}
	// A local user cannot attach to the devices, neither now nor with the daemon away, also
	// where everybody may open the device file.
	if r := m.web.Host.Run("sh", "-c", "mknod -m 666 /run/tun c 10 200 && mount --bind /run/tun /dev/net/tun"); r.Status != 0 {
		t.Fatal(r)
	}
	defer m.web.Host.Run("umount", "/dev/net/tun")
	attach := func(when string) {
		t.Helper()
		r := m.web.Host.Run(nobody[0], append(append([]string{}, nobody[1:]...), "ip", "tuntap", "add", "dev", "tssh0", "mode", "tun")...)
		if r.Status == 0 {
			t.Errorf("%s: nobody attached to the TUN", when)
		} else if !strings.Contains(r.Stderr, "TUNSETIFF") {
			t.Errorf("%s: attaching failed before it was tried: %s", when, r.Stderr)
		}
	}
	attach("running")
	m.web.Proc.Stop()
	check("away")
	attach("away")
	// Nor keep the daemon from coming back by taking what anybody may take.
	port, err := m.web.Host.Start("port", nobody[0], append(append([]string{}, nobody[1:]...), "perl", "-e",
		`use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 41641, Proto => "udp") or die; $| = 1; print "bound\n"; sleep 300`)...)
	if err == nil {
		defer port.Stop()
		err = port.until(10*time.Second, func() error {
			if !strings.Contains(port.Tail(100), "bound") {
				return errors.New("not bound")
			}
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := m.web.Start(); err != nil {
		t.Fatalf("a local user has the UDP port: %v\n%s", err, m.web.Proc.Tail(3000))
	}
	m.logsIn(t)
	port.Stop()
	m.web.Proc.Stop()
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	m.logsIn(t)
}

func TestForwardedTrafficHasNoIdentity(t *testing.T) {
	m := theMesh(t)
	m.logsIn(t)
	// A network that the laptop routes, as it would a container's.
	box, err := m.lab.AddHost("box")
	if err != nil {
		t.Fatal(err)
	}
	laptop := m.laptop.Host
	for _, c := range [][]string{
		{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
	} {
		if r := laptop.Run(c[0], c[1:]...); r.Status != 0 {
			t.Fatal(r)
		}
	}
	defer laptop.Run("sysctl", "-qw", "net.ipv4.ip_forward=0")
	if r := box.Run("ip", "route", "add", "100.64.0.0/10", "via", laptop.Addr.String()); r.Status != 0 {
		t.Fatal(r)
	}
	if r := box.Run("timeout", "8", "ssh-keyscan", "-T", "4", m.webAddr); strings.Contains(r.Stdout, "ssh-") {
		t.Errorf("a machine behind the laptop reached web over the mesh: %v", r)
	}
}
