package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeKeysChangeUnderSessions changes the keys of both ends of running sessions, one of
// them on a node without a kernel TUN.
func TestNodeKeysChangeUnderSessions(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	h, err := m.lab.AddHost("pad", Account{"deploy", deployUID})
	if err != nil {
		t.Fatal(err)
	}
	pad, err := m.hub.Join(h, "alice@example.com", "--userspace")
	if err != nil {
		t.Fatal(err)
	}
	a, b := m.tick(t, "ssh", m.sshArgs()...), m.tick(t, "tssh", m.tsshArgs()...)
	s := startStream(t, pad, "web")
	stolen := m.web.Host.Path("stolen-keys")
	if err := os.CopyFS(stolen, os.DirFS(m.web.State)); err != nil {
		t.Fatal(err)
	}
	keys := func(n *Node) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(n.State, "node.json"))
		var v struct {
			WG      string `json:"wg_private"`
			Control string `json:"control_private"`
		}
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil || v.WG == "" || v.Control == "" {
			t.Fatal(err)
		}
		return v.WG + v.Control
	}
	for _, n := range []*Node{m.web, m.laptop, pad} {
		was, pid := keys(n), n.Proc.PID()
		s.calm()
		begun := time.Now()
		if n == m.laptop {
			r := n.Host.Run("tsshd", "rotate-keys", "--socket", n.Socket)
			if r.Status != 0 || !strings.Contains(r.Stdout, "new keys") {
				t.Fatal(r)
			}
		} else if r := n.Tssh("up", "--rotate"); r.Status != 0 || !strings.Contains(r.Stdout, "new keys") {
			t.Fatal(r)
		}
		took := time.Since(begun)
		a.await(t, 20)
		b.await(t, 20)
		s.more(8 * chunk)
		t.Logf("%s: new keys after %v, longest gap in a stream %v", n.Name, took.Round(time.Millisecond), s.longest().Round(time.Millisecond))
		if keys(n) == was || n.Proc.PID() != pid {
			t.Errorf("%s has the same keys, or was started anew", n.Name)
		}
		if p, err := m.laptop.ping("web"); err != nil {
			t.Errorf("after %s: %v %v", n.Name, p, err)
		}
	}
	a.inOrder(t)
	b.inOrder(t)
	s.finish()
	if r := m.laptop.Tssh("status"); !strings.Contains(r.Stdout, "keys:      since ") {
		t.Errorf("status: %v", r)
	}
	// New sessions too, and after a restart.
	m.web.Proc.Kill()
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	m.logsIn(t)
	a.await(t, 5)

	// Who has the former keys is nobody.
	thief, err := m.lab.AddHost("thief")
	if err != nil {
		t.Fatal(err)
	}
	p, err := thief.Start("tsshd", "tsshd", "run", "--state", stolen, "--socket", thief.Path("s.sock"), "--tun", "tssh0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if err := Until(30*time.Second, func() error {
		r := thief.Run("tssh", "--socket", thief.Path("s.sock"), "status")
		if !strings.Contains(r.Stdout, "the hub does not know this node") {
			return errors.New(r.String())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	m.logsIn(t)
	a.await(t, 5)
	a.inOrder(t)
}

// TestExpiryAndBack ends a membership and brings it back.
func TestExpiryAndBack(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	st, err := m.laptop.Status()
	if err != nil {
		t.Fatal(err)
	}
	says := func(r Result, words ...string) error {
		for _, w := range words {
			if !strings.Contains(r.Stdout+r.Stderr, w) {
				return fmt.Errorf("no %q: %v", w, r)
			}
		}
		return nil
	}
	// Ahead of the end.
	if r := m.hub.Admin("node", "extend", "laptop", "--for", "30h"); r.Status != 0 {
		t.Fatal(r)
	}
	if err := Until(20*time.Second, func() error {
		return says(m.laptop.Tssh("status"), "expires:   this computer's membership ends in 29 hours", "tssh up --join-file FILE")
	}); err != nil {
		t.Error(err)
	}
	if err := says(m.laptop.Tssh("deploy@web", "true"), "membership ends in 29 hours"); err != nil {
		t.Error(err)
	}
	// After it.
	if r := m.hub.Admin("node", "expire", "laptop"); r.Status != 0 {
		t.Fatal(r)
	}
	if err := Until(20*time.Second, func() error {
		return says(m.laptop.Tssh("status"), "state:     expired", "membership has ended: tssh up --join-file FILE")
	}); err != nil {
		t.Error(err)
	}
	for _, verb := range [][]string{{"deploy@web", "true"}, {"ping", "web"}, {"ls"}, {"whois", m.webAddr}} {
		r := m.laptop.Tssh(verb...)
		if err := says(r, "membership has expired", "[expired]", "hint: "); err != nil || r.Status != 255 && r.Status != 1 {
			t.Errorf("%v: %v", verb, err)
		}
	}
	// With a token it is the same computer.
	token, err := m.hub.Token("alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	file := m.laptop.Host.Path("again-token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := m.laptop.Tssh("up", "--join-file", file); r.Status != 0 {
		t.Fatal(r)
	}
	again, err := m.laptop.Status()
	if err != nil || again.Self.Name != st.Self.Name || len(again.Self.Addrs) != 2 || again.Self.Addrs[0] != st.Self.Addrs[0] || again.Self.Addrs[1] != st.Self.Addrs[1] {
		t.Errorf("before %+v, after %+v %v", st.Self, again.Self, err)
	}
	m.logsIn(t)

	// The same for a host that people log in to: expired with a session, started again with
	// a token.
	l := m.tick(t, "ssh", m.sshArgs()...)
	web, err := m.web.Status()
	if err != nil {
		t.Fatal(err)
	}
	if r := m.hub.Admin("node", "expire", "web"); r.Status != 0 {
		t.Fatal(r)
	}
	if err := Until(20*time.Second, func() error {
		if n := m.running("tick"); n > 0 {
			return fmt.Errorf("%d sessions still run on web", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	l.cmd.Process.Kill()
	if token, err = m.hub.Token("tag:web"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := m.web.Tssh("up", "--join-file", file); r.Status != 0 {
		t.Fatal(r)
	}
	again, err = m.web.Status()
	if err != nil || again.Self.Name != "web" || again.Self.Addrs[0] != web.Self.Addrs[0] {
		t.Errorf("web before %+v, after %+v %v", web.Self, again.Self, err)
	}
	m.logsIn(t)

	// A start with a token that is newer than what the host knows of the hub's key.
	m.web.Proc.Stop()
	m.hub.Proc.Stop()
	if r := m.hub.Admin("rotate-key"); r.Status != 0 {
		t.Fatal(r)
	}
	if err := m.hub.Start(); err != nil {
		t.Fatal(err)
	}
	if token, err = m.hub.Token("tag:web"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.web.start("--join-file", file); err != nil {
		t.Fatal(err)
	}
	m.logsIn(t)
}

// TestSocketOpenedAnew has the host's kernel refuse every packet of the node's for a while:
// what runs goes on by the relay, the socket is opened anew, and the direct path comes back.
func TestSocketOpenedAnew(t *testing.T) {
	needRoot(t)
	t.Parallel()
	w := newWorld(t, "coord,relay,recorder")
	p := w.pair(t, "sock", nil, nil)
	var anyFamily netip.Addr // both hosts have both, and either is as good
	s := startStream(t, p.laptop, p.web.Name)
	_, took := p.laptop.via(t, p.web.Name, "direct", anyFamily, 60*time.Second)
	t.Logf("direct after %v", took)
	s.more(8 * chunk)
	s.calm()
	if r := p.laptop.Host.Run("sh", "-c", `nft 'add table inet refuse; add chain inet refuse out { type filter hook output priority 0; }; add rule inet refuse out udp sport 41641 drop'`); r.Status != 0 {
		t.Fatal(r)
	}
	const says = "the UDP socket is opened anew"
	if err := Until(60*time.Second, func() error {
		if !strings.Contains(p.laptop.Proc.Tail(1<<20), says) {
			return errors.New("no new socket: " + p.laptop.Proc.Tail(1000))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("new socket")
	_, took = p.laptop.via(t, p.web.Name, "relay", netip.Addr{}, 60*time.Second)
	t.Logf("relay after %v", took)
	s.more(8 * chunk)
	t.Logf("longest gap %v", s.longest().Round(time.Millisecond))
	if r := p.laptop.Host.Run("nft", "delete", "table", "inet", "refuse"); r.Status != 0 {
		t.Fatal(r)
	}
	_, took = p.laptop.via(t, p.web.Name, "direct", anyFamily, 60*time.Second)
	t.Logf("direct again after %v", took)
	s.more(8 * chunk)
	s.finish()
}

// TestNamesOfNodes renames a host under the eyes of another, has two hosts want one name,
// and sees that a name and an address that were given up are nobody's.
func TestNamesOfNodes(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	l := m.tick(t, "ssh", m.sshArgs()...)
	getent := func(name, want string) error {
		r := m.laptop.Host.Run("getent", "ahostsv4", name)
		if addr, _, _ := strings.Cut(r.Stdout, " "); addr != want {
			return fmt.Errorf("%s is %q, want %q", name, addr, want)
		}
		return nil
	}
	wait := func(f func() error) time.Duration {
		t.Helper()
		begun := time.Now()
		if err := Until(20*time.Second, f); err != nil {
			t.Error(err)
		}
		return time.Since(begun)
	}
	wait(func() error { return getent("web", m.webAddr) })
	if r := m.hub.Admin("node", "rename", "web", "web-blue"); r.Status != 0 {
		t.Fatal(r)
	}
	took := wait(func() error { return errors.Join(getent("web-blue", m.webAddr), getent("web", "")) })
	t.Logf("another host's /etc/hosts had the new name after %v", took.Round(time.Millisecond))
	wait(func() error {
		if r := m.laptop.Tssh("deploy@web-blue", "echo in"); r.Stdout != "in\n" {
			return errors.New(r.String())
		}
		return nil
	})
	if r := m.laptop.Tssh("deploy@web", "true"); r.Status != 255 || !strings.Contains(r.Stderr, `no host called "web"`) {
		t.Errorf("the former name: %v", r)
	}
	if st, err := m.web.Status(); err != nil || st.Self.Name != "web-blue" {
		t.Errorf("the host's own status: %+v %v", st.Self, err)
	}
	l.await(t, 5)
	l.inOrder(t)

	// The former name rests, the present one is taken; the words say so, and the folder of the
	// one that was refused stays away.
	h, err := m.lab.AddHost("second", Account{"deploy", deployUID})
	if err != nil {
		t.Fatal(err)
	}
	token, err := m.hub.Token("tag:web", "--reusable")
	if err != nil {
		t.Fatal(err)
	}
	state := h.Path("node")
	for name, words := range map[string]string{"web": "the name rests until", "web-blue": "another node is called web-blue"} {
		if _, err := joinOnce(h, state, token, name); err == nil || !strings.Contains(err.Error(), "ended with status 1") || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(state); !os.IsNotExist(err) {
			t.Errorf("%s: the state folder is there: %v", name, err)
		}
	}
	if r := m.hub.Admin("node", "rename", "laptop", "web"); r.Status == 0 || !strings.Contains(r.Stderr, "rests until") {
		t.Errorf("a name that rests: %v", r)
	}
	if r := m.hub.Admin("node", "rename", "web-blue", "web"); r.Status != 0 {
		t.Errorf("its own former name: %v", r)
	}
	wait(func() error { return getent("web", m.webAddr) })

	// A removed host's name is free at once, its address is not.
	l.cmd.Process.Kill()
	m.web.Proc.Stop()
	if r := m.hub.Admin("node", "remove", "web"); r.Status != 0 {
		t.Fatal(r)
	}
	wait(func() error { return getent("web", "") })
	n, err := m.hub.Join(h, "tag:web", "--hostname", "web")
	if err != nil {
		t.Fatal(err)
	}
	st, err := n.Status()
	if err != nil || st.Self.Name != "web" || st.Self.Addrs[0].String() == m.webAddr {
		t.Errorf("the next web: %+v %v", st.Self, err)
	}
	wait(func() error { return getent("web", st.Self.Addrs[0].String()) })
	if r := m.laptop.Tssh("whois", m.webAddr); r.Status == 0 || !strings.Contains(r.Stderr, "no node of the mesh has the address") {
		t.Errorf("the address that rests: %v", r)
	}
}
