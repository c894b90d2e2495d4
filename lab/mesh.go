package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hub is a running tsshub on a host.
type Hub struct {
	Host  *Host
	Proc  *Proc
	State string
	URL   string
	args  []string
}

// StartHub starts a hub on h with a policy text; extra arguments go to tsshub serve.
func (l *Lab) StartHub(h *Host, policy string, extra ...string) (*Hub, error) {
	port, err := l.port(8443)
	if err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(h.Addr, port).String()
	return l.StartHubAt(h, addr, "https://"+addr, policy, extra...)
}

// StartHubAt is StartHub with an address to listen at and a URL of one's own.
func (l *Lab) StartHubAt(h *Host, listen, url, policy string, extra ...string) (*Hub, error) {
	file := h.Path("policy.hujson")
	if err := os.WriteFile(file, []byte(policy), 0o644); err != nil {
		return nil, err
	}
	hub := &Hub{Host: h, State: h.Path("hub"), URL: url}
	hub.args = append([]string{"serve", "--state", hub.State, "--listen", listen, "--url", hub.URL}, extra...)
	if err := hub.Start(); err != nil {
		return nil, err
	}
	if r := hub.Admin("policy", "set", file); r.Status != 0 {
		return nil, fmt.Errorf("lab: policy: %v", r)
	}
	return hub, nil
}

// Start starts the hub's program, also once more after it was stopped.
func (hub *Hub) Start() error {
	p, err := hub.Host.Start("tsshub", "tsshub", hub.args...)
	if err != nil {
		return err
	}
	hub.Proc = p
	return p.until(30*time.Second, func() error {
		if r := hub.Admin("user", "list"); r.Status != 0 {
			return errors.New(r.String())
		}
		return nil
	})
}

// Admin runs an administrator's verb on the hub.
func (hub *Hub) Admin(args ...string) Result {
	return hub.Host.Run("tsshub", append(args, "--state", hub.State)...)
}

// Token makes a join token: owner is a login or a tag.
func (hub *Hub) Token(owner string, extra ...string) (string, error) {
	kind := "--user"
	if strings.HasPrefix(owner, "tag:") {
		kind = "--tag"
	}
	r := hub.Admin(append([]string{"key", "create", kind, owner}, extra...)...)
	if r.Status != 0 {
		return "", fmt.Errorf("lab: key for %s: %v", owner, r)
	}
	return strings.TrimSpace(r.Stdout), nil
}

// Recorder is a recorder that stands alone.
type Recorder struct {
	Host  *Host
	Proc  *Proc
	State string
	args  []string
}

// Record starts a recorder with a tag on h.
func (hub *Hub) Record(h *Host, tag string, extra ...string) (*Recorder, error) {
	token, err := hub.Token(tag)
	if err != nil {
		return nil, err
	}
	file := h.Path("recorder-token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(file)
	r := &Recorder{Host: h, State: h.Path("recorder")}
	r.args = append([]string{"serve", "--roles", "recorder", "--state", r.State, "--hostname", h.Name}, extra...)
	return r, r.start("--join-file", file)
}

// Start starts the recorder again after it was stopped or killed.
func (r *Recorder) Start() error { return r.start() }

func (r *Recorder) start(extra ...string) error {
	p, err := r.Host.Start("tsshub", "tsshub", append(append([]string{}, r.args...), extra...)...)
	if err != nil {
		return err
	}
	r.Proc = p
	return p.until(30*time.Second, func() error {
		if got := r.Admin("recording", "list"); got.Status != 0 {
			return errors.New(got.String())
		}
		return nil
	})
}

// Admin runs an administrator's verb on the recorder.
func (r *Recorder) Admin(args ...string) Result {
	return r.Host.Run("tsshub", append(args, "--state", r.State)...)
}

// Node is a running tsshd on a host.
type Node struct {
	Host   *Host
	Proc   *Proc
	Name   string
	State  string
	Socket string
	args   []string
}

// Join starts tsshd on h, enrolled for owner, and waits until it is on the mesh. On a
// namespace it has a kernel TUN unless extra says otherwise.
func (hub *Hub) Join(h *Host, owner string, extra ...string) (*Node, error) {
	token, err := hub.Token(owner)
	if err != nil {
		return nil, err
	}
	l := h.lab
	n := &Node{Host: h, Name: h.Name, State: h.Path("node"), Socket: h.Path("tsshd.sock")}
	n.args = []string{"run", "--state", n.State, "--socket", n.Socket, "--hostname", h.Name}
	if l.Kernel {
		n.args = append(n.args, "--udp-port", "41641")
		if !slices.Contains(extra, "--userspace") {
			n.args = append(n.args, "--tun", "tssh0")
		}
	} else {
		port, err := l.port(0)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, "--udp-port", strconv.Itoa(int(port)), "--userspace")
	}
	n.args = append(n.args, extra...)
	file := h.Path("join-token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(file)
	return n, n.start("--join-file", file)
}

// Start starts the node's daemon again after it was stopped or killed.
func (n *Node) Start() error { return n.start() }

func (n *Node) start(extra ...string) error {
	p, err := n.Host.Start("tsshd", "tsshd", append(append([]string{}, n.args...), extra...)...)
	if err != nil {
		return err
	}
	n.Proc = p
	return p.until(30*time.Second, func() error {
		st, err := n.Status()
		if err == nil && st.State != "running" {
			err = fmt.Errorf("state is %q", st.State)
		}
		return err
	})
}

// Status is what the lab reads of `tssh status --json`.
type Status struct {
	State     string `json:"state"`
	HomeRelay string `json:"home_relay"`
	Self      struct {
		Name  string       `json:"name"`
		Addrs []netip.Addr `json:"addresses"`
	} `json:"self"`
	Peers []struct {
		Name      string  `json:"name"`
		Path      string  `json:"path"`
		Relay     string  `json:"relay"`
		LatencyMS float64 `json:"latency_ms"`
	} `json:"peers"`
}

// Status asks the node's daemon.
func (n *Node) Status() (Status, error) {
	var st Status
	r := n.Tssh("status", "--json")
	if r.Status != 0 {
		return st, errors.New(r.String())
	}
	return st, json.Unmarshal([]byte(r.Stdout), &st)
}

// Tssh runs tssh on the node's host, as the one who runs the lab.
func (n *Node) Tssh(args ...string) Result {
	return n.Host.Run("tssh", append([]string{"--socket", n.Socket}, args...)...)
}

// TsshCommand is Tssh for those who want to hold its ends.
func (n *Node) TsshCommand(args ...string) *exec.Cmd {
	return n.Host.Command("tssh", append([]string{"--socket", n.Socket}, args...)...)
}

// until waits for a condition while the daemon lives.
func (p *Proc) until(limit time.Duration, ok func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("lab: %s ended with status %d: %s", p.Name, p.Status(), p.Tail(2000))
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: %s not ready after %v: %w\n%s", p.Name, limit, err, p.Tail(2000))
		}
	}
}

// Until waits for a condition that becomes true by itself.
func Until(limit time.Duration, ok func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// port is the port to use: the usual one in a namespace of its own, a free one on loopback.
func (l *Lab) port(usual uint16) (uint16, error) {
	if l.Kernel && usual != 0 {
		return usual, nil
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}
