package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// saysHeaders is a program that answers with the headers that it got, on loopback only.
const saysHeaders = `require('http').createServer((q, s) => s.end(JSON.stringify(q.headers) + ' to uid ' + process.getuid() + '\n')).listen(3000, '127.0.0.1')`

// dialling is /proc/PID/status of the process on h that dials for somebody who serves, "" when there is none.
func dialling(h *Host) string {
	for _, pid := range h.Left() {
		dir := fmt.Sprintf("/proc/%d/", pid)
		args, err := os.ReadFile(dir + "cmdline")
		if err != nil || !strings.HasSuffix(string(args), "\x00dial\x00") {
			continue
		}
		if b, err := os.ReadFile(dir + "status"); err == nil {
			return string(b)
		}
	}
	return ""
}

// TestServe has an ordinary account serve a program on hosts of both kinds, and stock curl ask for it.
func TestServe(t *testing.T) {
	m := ownMesh(t)
	for _, kind := range []string{"kernel", "userspace"} {
		t.Run(kind, func(t *testing.T) {
			h, err := m.lab.AddHost("desk-"+kind, Account{"deploy", deployUID}, Account{"guest", guestUID})
			if err != nil {
				t.Fatal(err)
			}
			extra := []string{"--owner", "deploy"}
			if kind == "userspace" {
				extra = append(extra, "--userspace")
			}
			n, err := m.hub.Join(h, "alice@example.com", extra...)
			if err != nil {
				t.Fatal(err)
			}
			m.setPolicy(t, `{"tagOwners": {"tag:web": ["alice@example.com"]}, "acls": [{"action": "accept", "src": ["tag:web"], "dst": ["alice@example.com:3000"]}]}`)
			as := func(uid int, args ...string) Result {
				return h.Run("setpriv", append([]string{"--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid), "--clear-groups", m.lab.Bin + "/tssh", "--socket", n.Socket}, args...)...)
			}
			if r := as(guestUID, "serve", "3000"); r.Status != 1 || !strings.Contains(r.Stderr, "only root and the owner of this node may do that [denied]") {
				t.Errorf("another account serves: %v", r)
			}
			if r := as(deployUID, "serve", "192.0.2.1:3000"); r.Status != 2 {
				t.Errorf("another computer is served: %v", r)
			}
			r := as(deployUID, "serve", "--keep", "3000")
			if r.Status != 0 || r.Stdout != "http://"+h.Name+":3000\n" || !strings.Contains(r.Stderr, "warning: nothing listens on port 3000") {
				t.Fatalf("serve: %v", r)
			}

			// ask is what a browser on web gets, with a header that would be somebody else.
			ask := func(args ...string) Result {
				return m.web.Host.Run("curl", append([]string{"-sS", "--max-time", "20", "-H", "Tssh-Login: root@example.com", "http://" + h.Name + ":3000/"}, args...)...)
			}
			want := func(what, text string) {
				t.Helper()
				if err := Until(30*time.Second, func() error {
					if r := ask(); !strings.Contains(r.Stdout, text) || strings.Contains(r.Stdout, "root@example.com") {
						return fmt.Errorf("%s: %v", what, r)
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			want("no program", "does not answer: it is not running")
			p, err := h.Start("program", "node", "-e", saysHeaders)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			want("the program", `"tssh-node":"web","tssh-tags":"tag:web"`)
			if r := ask("-6"); kind == "kernel" && !strings.Contains(r.Stdout, `"tssh-node":"web"`) {
				t.Errorf("IPv6: %v", r)
			}
			if r := ask("-w", "%{http_code}", "-H", "Host: evil.example"); !strings.HasSuffix(r.Stdout, "421") {
				t.Errorf("another name: %v", r)
			}

			// A peer that the policy does not name, and the computer itself at its mesh address.
			if r := m.laptop.Host.Run("curl", "-sS", "--max-time", "2", "http://"+h.Name+":3000/"); r.Status == 0 {
				t.Errorf("a peer without the right: %v", r)
			}
			if kind == "kernel" {
				if r := h.Run("curl", "-sS", "--max-time", "5", "http://"+h.Name+":3000/"); r.Status == 0 {
					t.Errorf("the computer itself: %v", r)
				}
			}
			if r := as(deployUID, "serve", "status"); !strings.Contains(r.Stdout, "http://"+h.Name+":3000") || !strings.Contains(r.Stdout, "ok") {
				t.Errorf("status: %v", r)
			}

			// It was to be kept.
			n.Proc.Stop()
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			want("after a restart", `"tssh-node":"web"`)

			// The daemon is root's; who connects to the program is deploy, for good.
			helper := dialling(h)
			if id := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", deployUID); !strings.Contains(helper, id) || !strings.Contains(helper, "\nGroups:\t \n") || !strings.Contains(helper, "\nCapPrm:\t0000000000000000\n") {
				t.Errorf("the process that dials: %q", helper)
			}

			if r := as(deployUID, "serve", "off", "3000"); r.Status != 0 {
				t.Errorf("off: %v", r)
			}
			if r := ask(); r.Status == 0 {
				t.Errorf("after off: %v", r)
			}
			if r := as(deployUID, "serve", "off", "3000"); r.Status != 1 || !strings.Contains(r.Stderr, "port 3000 is not served") {
				t.Errorf("off again: %v", r)
			}
			n.Proc.Kill()
			if err := Until(20*time.Second, func() error {
				if left := dialling(h); left != "" {
					return fmt.Errorf("outlives the daemon: %q", left)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
}
