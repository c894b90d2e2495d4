package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNames has stock programs look up hosts of the mesh, through the block in the hosts
// file and at the node's own DNS server.
func TestNames(t *testing.T) {
	m := theMesh(t)
	h, err := m.lab.AddHost("namer")
	if err != nil {
		t.Fatal(err)
	}
	hosts := h.Path("etc", "hosts") // the host's /etc is this folder
	// A name that stands in the file already means what it meant: "hub" is another machine here.
	before := "127.0.0.1 localhost\n192.0.2.80 hub\n# no newline at the end"
	if err := os.WriteFile(hosts, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := m.hub.Join(h, "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	getent := func(name string) string {
		r := h.Run("getent", "ahostsv4", name)
		addr, _, _ := strings.Cut(r.Stdout, " ")
		return addr
	}
	// known waits until a name has an address, or none with "".
	known := func(name, addr string) {
		t.Helper()
		if err := Until(20*time.Second, func() error {
			if got := getent(name); got != addr {
				b, _ := os.ReadFile(hosts)
				return fmt.Errorf("%s is %q, want %q; the file:\n%s", name, got, addr, b)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	known("web", m.webAddr)
	known("web.lab.internal", m.webAddr)
	known("hub", "192.0.2.80")
	if a := getent("hub.lab.internal"); a == "" || a == "192.0.2.80" {
		t.Errorf("the hub's full name is %q", a)
	}
	if r := h.Run("getent", "hosts", m.webAddr); !strings.Contains(r.Stdout, "web.lab.internal") {
		t.Errorf("who has %s: %v", m.webAddr, r)
	}
	if r := n.Tssh("status"); !strings.Contains(r.Stdout, "names:     /etc/hosts; left out, since it means something else") {
		t.Errorf("%v", r)
	}

	// Who is there, asked as a program in any language would (docs/whois.md).
	for _, form := range []string{m.webAddr, m.webAddr + ":53122"} {
		r := h.Run("curl", "-s", "--unix-socket", n.Socket, "http://localapi/v1/whois?addr="+form)
		if !strings.Contains(r.Stdout, `"name":"web","tags":["tag:web"],"addresses":["`+m.webAddr+`",`) {
			t.Errorf("whois %s: %v", form, r)
		}
		if r := n.Tssh("whois", form, "--json"); !strings.Contains(r.Stdout, `"name": "web"`) {
			t.Errorf("tssh whois %s: %v", form, r)
		}
	}
	if r := h.Run("curl", "-s", "--unix-socket", n.Socket, "http://localapi/v1/whois?addr=192.0.2.1"); r.Stdout != `{"code":"not-found","error":"no node of the mesh has the address 192.0.2.1"}`+"\n" {
		t.Errorf("whois of nobody: %v", r)
	}

	// dig, at the node's own address: UDP, TCP, reverse, what is not ours.
	st, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	dig := func(on *Host, args ...string) string {
		r := on.Run("dig", append([]string{"+time=2", "+tries=2", "+noall", "+answer", "+comments"}, args...)...)
		return r.Stdout
	}
	for _, own := range st.Self.Addrs {
		at := "@" + own.String()
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{at, "web.lab.internal", "A"}, "IN\tA\t" + m.webAddr},
			{[]string{at, "+tcp", "web.lab.internal", "A"}, "IN\tA\t" + m.webAddr},
			{[]string{at, "-x", m.webAddr}, "IN\tPTR\tweb.lab.internal."},
			{[]string{at, "web.lab.internal", "A"}, "flags: qr aa rd"},
			{[]string{at, "web.lab.internal", "A"}, "EDNS: version: 0, flags:; udp: 1232"},
			{[]string{at, "nobody.lab.internal", "A"}, "status: NXDOMAIN"},
			{[]string{at, "example.com", "A"}, "status: REFUSED"},
		} {
			if out := dig(h, c.args...); !strings.Contains(out, c.want) {
				t.Errorf("dig %v has no %q:\n%s", c.args, c.want, out)
			}
		}
	}

	// A peer gets no answer, whatever the policy lets it reach.
	m.setPolicy(t, `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`)
	defer m.setPolicy(t, basePolicy)
	at := "@" + st.Self.Addrs[0].String()
	if err := Until(20*time.Second, func() error { // the policy is in force: the port is open
		if r := m.laptop.Host.Run("bash", "-c", "exec 3<>/dev/tcp/"+st.Self.Addrs[0].String()+"/53"); r.Status != 0 {
			return fmt.Errorf("port 53 cannot be reached: %v", r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{"+notcp", "+tcp"} {
		if out := dig(m.laptop.Host, "+time=1", "+tries=1", extra, at, "web.lab.internal"); strings.Contains(out, m.webAddr) || strings.Contains(out, "status:") {
			t.Errorf("a peer was answered (%s):\n%s", extra, out)
		}
	}

	// Others write into the file while the node runs; a host is renamed, and removed.
	other, err := m.lab.AddHost("fleeting")
	if err != nil {
		t.Fatal(err)
	}
	fleeting, err := m.hub.Join(other, "tag:web")
	if err != nil {
		t.Fatal(err)
	}
	fs, err := fleeting.Status()
	if err != nil {
		t.Fatal(err)
	}
	known("fleeting", fs.Self.Addrs[0].String())
	f, err := os.OpenFile(hosts, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("192.0.2.81 printer\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	fleeting.Proc.Stop()
	if r := m.hub.Admin("node", "remove", "fleeting"); r.Status != 0 {
		t.Fatalf("%v", r)
	}
	known("fleeting", "")
	known("fleeting.lab.internal", "")
	known("printer", "192.0.2.81")
	if out := dig(h, at, "fleeting.lab.internal"); !strings.Contains(out, "status: NXDOMAIN") {
		t.Errorf("a removed host:\n%s", out)
	}
	after := before + "\n192.0.2.81 printer\n"

	// Stopped: the file is what the others made of it.
	is := func(when, want string) {
		t.Helper()
		if b, err := os.ReadFile(hosts); err != nil || string(b) != want {
			t.Errorf("%s, the hosts file is\n%s\n(%v) want\n%s", when, b, err, want)
		}
		if left, err := filepath.Glob(h.Path("etc", ".hosts*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v %v", when, left, err)
		}
	}
	n.Proc.Stop()
	is("after stop", after)
	// Killed: the block stays, and goes when the next daemon does not want it.
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	known("web", m.webAddr)
	n.Proc.Kill()
	known("web", m.webAddr)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	known("web", m.webAddr)
	if b, err := os.ReadFile(hosts); err != nil || strings.Count(string(b), "web.lab.internal") != 2 || strings.Count(string(b), "begin") != 1 {
		t.Errorf("after a kill and a start:\n%s", b)
	}
	// Down and up.
	if r := n.Tssh("down"); r.Status != 0 {
		t.Fatalf("%v", r)
	}
	is("down", after)
	if r := n.Tssh("up"); r.Status != 0 {
		t.Fatalf("%v", r)
	}
	known("web", m.webAddr)
	n.Proc.Kill()
	n.args = append(n.args, "--names", "off")
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Until(20*time.Second, func() error {
		if r := n.Tssh("status"); !strings.Contains(r.Stdout, "names:     off\n") {
			return fmt.Errorf("%v", r)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	is("killed, then started with names off", after)
	if out := dig(h, "+time=1", "+tries=1", at, "web.lab.internal"); strings.Contains(out, "status:") {
		t.Errorf("off, and something answers:\n%s", out)
	}
	n.Proc.Stop()
}
