package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// renamed has the node's next start use another device.
func (n *Node) renamed(tun string) {
	n.args[slices.Index(n.args, "--tun")+1] = tun
}

// TestDaemonsAndTheirDevices starts daemons that would be in each other's way, and one whose
// device got another name.
func TestDaemonsAndTheirDevices(t *testing.T) {
	m := ownMesh(t)
	h := m.web.Host
	token, err := m.hub.Token("tag:web")
	if err != nil {
		t.Fatal(err)
	}
	file := h.Path("token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := m.tick(t, "ssh", m.sshArgs()...)
	second := func(prefix ...string) Result {
		args := append(prefix, h.lab.Bin+"/tsshd", "run", "--state", h.Path("second"), "--socket", h.Path("k2.sock"), "--tun", "tssh0", "--udp-port", "0", "--hostname", "second", "--join-file", file)
		return h.Run(args[0], args[1:]...)
	}
	for name, prefix := range map[string][]string{"beside it": {}, "in another network namespace": {"unshare", "-n"}} {
		r := second(prefix...)
		if want := fmt.Sprintf("another tsshd (process %d) uses the device tssh0", m.web.Proc.PID()); r.Status != 1 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "--tun") || tree(t, h.Path("second")) != "" {
			t.Errorf("%s, want %q: %v", name, want, r)
		}
	}
	if r := h.Run("tsshd", m.web.args...); r.Status != 1 || !strings.Contains(r.Stderr, fmt.Sprintf("another tsshd (process %d) uses the state folder", m.web.Proc.PID())) {
		t.Errorf("with the same state folder: %v", r)
	}
	a.await(t, 10)

	m.web.Proc.Stop()
	if r := second(); r.Status != 1 || !strings.Contains(r.Stderr, "1 session is still open under the device tssh0, of another node") || tree(t, h.Path("second")) != "" {
		t.Errorf("while the first is away: %v", r)
	}
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	a.await(t, 20)

	m.web.Proc.Stop()
	m.web.renamed("other1")
	since := time.Now()
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	if r := h.Run("ip", "link", "show", "tssh0"); r.Status == 0 {
		t.Errorf("the former device is still there: %v", r)
	}
	if r := h.Run("ls", "/run/tssh/tssh0"); r.Status == 0 {
		t.Errorf("the former run directory is still there: %v", r)
	}
	if !strings.Contains(m.web.Proc.Tail(1<<20), "former=tssh0 now=other1 sessions=1") {
		t.Errorf("the log does not say so: %s", m.web.Proc.Tail(4000))
	}
	m.logsIn(t)
	t.Logf("reached again %v after the start", time.Since(since))
	if err := Until(20*time.Second, func() error {
		for _, r := range m.recordings(t) {
			if r.Live {
				return fmt.Errorf("%s is still open", r.ID)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// A device that was there before is used, and left.
	if r := h.Run("ip", "tuntap", "add", "dev", "theirs", "mode", "tun"); r.Status != 0 {
		t.Fatal(r)
	}
	for _, tun := range []string{"theirs", "tssh0"} {
		m.web.Proc.Stop()
		m.web.renamed(tun)
		if err := m.web.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.Run("ip", "link", "show", "theirs"); r.Status != 0 {
		t.Errorf("somebody else's device is gone: %v", r)
	}
	if r := h.Run("ip", "link", "show", "other1"); r.Status == 0 {
		t.Errorf("the node's own is still there: %v", r)
	}
}
