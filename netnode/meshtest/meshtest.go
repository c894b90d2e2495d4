package meshtest

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/netnode"
	"tssh/netnode/netmap"
	"tssh/policy"
)

// Node says what to make. Exactly one of User and Tags is set.
type Node struct {
	Name   string
	User   policy.Login
	Role   policy.Role
	Tags   []policy.Tag
	Config func(*netnode.Config) // changes before New; may be nil
}

// Mesh is a running mesh. Its methods are for the test's goroutine.
type Mesh struct {
	t       testing.TB
	mu      sync.Mutex
	members []*member
	policy  *policy.Policy
	rev     int64
}

type member struct {
	Node
	cfg  netnode.Config
	key  netmap.WGPrivate
	id   policy.Identity
	node *netnode.Node // nil while stopped
	gone bool
}

var (
	range4 = netip.MustParsePrefix("100.64.0.0/10")
	range6 = netip.MustParsePrefix("fd7a:7373:6800::/48")
)

// New starts the nodes and gives everybody the map. The nth node has the addresses
// 100.64.0.n and fd7a:7373:6800::n, counted from 1.
func New(t testing.TB, policyText string, nodes ...Node) *Mesh {
	t.Helper()
	m := &Mesh{t: t}
	checkLeaks(t)
	dir := t.TempDir() // removed after the nodes stopped
	t.Cleanup(func() {
		for _, x := range m.members {
			m.stop(x)
		}
	})
	for i, spec := range nodes {
		key, err := netmap.NewWGPrivate()
		if err != nil {
			t.Fatal(err)
		}
		a4 := netip.AddrFrom4([4]byte{100, 64, 0, byte(i + 1)})
		b6 := range6.Addr().As16()
		b6[15] = byte(i + 1)
		x := &member{Node: spec, key: key, id: policy.Identity{
			ID: fmt.Sprintf("n%d", i+1), Name: spec.Name, User: spec.User, Role: spec.Role, Tags: spec.Tags,
			Addrs: []netip.Addr{a4, netip.AddrFrom16(b6)},
		}}
		x.cfg = netnode.Config{PrivateKey: key, EndpointsFile: filepath.Join(dir, spec.Name+".json"), Log: slog.New(slog.DiscardHandler)}
		if spec.Config != nil {
			spec.Config(&x.cfg)
		}
		m.members = append(m.members, x)
		m.start(x)
	}
	m.SetPolicy(policyText)
	for _, x := range m.members {
		m.publish(x)
	}
	return m
}

func (m *Mesh) start(x *member) {
	m.t.Helper()
	n, err := netnode.New(x.cfg)
	if err != nil {
		m.t.Fatalf("start %s: %v", x.Name, err)
	}
	x.node = n
}

func (m *Mesh) stop(x *member) {
	if x.node == nil {
		return
	}
	if err := x.node.Close(); err != nil {
		m.t.Errorf("close %s: %v", x.Name, err)
	}
	x.node = nil
}

func (m *Mesh) member(name string) *member {
	m.t.Helper()
	for _, x := range m.members {
		if x.Name == name {
			return x
		}
	}
	m.t.Fatalf("no node %q", name)
	return nil
}

// Node is the running node of that name.
func (m *Mesh) Node(name string) *netnode.Node { return m.member(name).node }

// Identity is what the map says about a node.
func (m *Mesh) Identity(name string) policy.Identity { return m.member(name).id }

// Addr is a node's IPv4 address, Addr6 its IPv6 one.
func (m *Mesh) Addr(name string) netip.Addr  { return m.member(name).id.Addrs[0] }
func (m *Mesh) Addr6(name string) netip.Addr { return m.member(name).id.Addrs[1] }

// Endpoint is where a node's UDP socket is on loopback.
func (m *Mesh) Endpoint(name string) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), m.member(name).node.Port())
}

// publish tells all others where x is.
func (m *Mesh) publish(x *member) {
	for _, y := range m.members {
		if y != x && y.node != nil {
			y.node.SetEndpoints(x.id.ID, netmap.Where{Endpoints: []netip.AddrPort{m.Endpoint(x.Name)}})
		}
	}
}

// SetPolicy puts a policy in force everywhere; "" means none has come yet.
func (m *Mesh) SetPolicy(text string) {
	m.t.Helper()
	m.policy = nil
	if text != "" {
		p, problems := policy.Parse("policy.hujson", []byte(text))
		for _, x := range problems {
			if !x.Warning {
				m.t.Fatal(x.Error())
			}
		}
		m.policy = p
	}
	m.push()
}

// Remove takes a node out of everybody's map. It keeps running and does not know.
func (m *Mesh) Remove(name string) {
	m.member(name).gone = true
	m.push()
}

// Restart stops a node, as a daemon is stopped, and starts it again after away. Others
// are not told where it is now, and it is not told where they are: it knows what its
// endpoints file says.
func (m *Mesh) Restart(name string, away time.Duration) {
	m.t.Helper()
	x := m.member(name)
	m.stop(x)
	time.Sleep(away)
	m.start(x)
	m.give(x)
}

// Move is Restart on another UDP port.
func (m *Mesh) Move(name string) {
	m.t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.member(name).cfg.UDPPort = c.LocalAddr().(*net.UDPAddr).Port
	c.Close()
	m.Restart(name, 0)
}

// push gives the present map to every node that is in it.
func (m *Mesh) push() {
	m.rev++
	for _, x := range m.members {
		if x.node != nil && !x.gone {
			m.give(x)
		}
	}
}

func (m *Mesh) give(x *member) {
	nm := &netmap.Map{Self: x.id, SelfAddrs: x.id.Addrs, Policy: m.policy, Revision: m.rev, Mesh: "test", Range4: range4, Range6: range6}
	for _, y := range m.members {
		if y != x && !y.gone {
			nm.Peers = append(nm.Peers, netmap.Peer{Identity: y.id, Key: y.key.Public()})
		}
	}
	x.node.SetMap(nm)
}

// checkLeaks fails the test if goroutines of ours are left when everything is closed.
func checkLeaks(t testing.TB) {
	before := stacks()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for {
			var left []string
			for id, s := range stacks() {
				if _, was := before[id]; !was {
					left = append(left, s)
				}
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines left:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// stacks are the goroutines that run code of this module, of WireGuard or of the stack.
func stacks() map[string]string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	out := map[string]string{}
	for _, s := range strings.Split(string(buf), "\n\n") {
		head, _, _ := strings.Cut(s, " [")
		if strings.Contains(s, "testing.") && !strings.Contains(s, "created by tssh") {
			continue
		}
		if strings.Contains(s, "tssh/netnode") || strings.Contains(s, "golang.zx2c4.com/wireguard") || strings.Contains(s, "gvisor.dev/gvisor") {
			out[head] = s
		}
	}
	return out
}
