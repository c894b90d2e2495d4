package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// segment is one switched network: a bridge in a namespace that routes for it.
type segment struct {
	ns, bridge string
	v4, v6     netip.Prefix // zero: the family is not there
	gw4, gw6   netip.Addr
	isolated   bool // ports reach the router only, not each other
	next       int  // number of the last port, guarded by Lab.mu
}

// port makes addresses for one more machine on the segment.
func (s *segment) port(l *Lab) (n int, v4, v6 netip.Prefix) {
	l.mu.Lock()
	s.next++
	n = s.next
	l.mu.Unlock()
	if s.v4.IsValid() {
		a := s.v4.Masked().Addr().As4()
		a[3] = byte(n)
		v4 = netip.PrefixFrom(netip.AddrFrom4(a), s.v4.Bits())
	}
	if s.v6.IsValid() {
		a := s.v6.Masked().Addr().As16()
		a[14], a[15] = byte(n>>8), byte(n)
		v6 = netip.PrefixFrom(netip.AddrFrom16(a), s.v6.Bits())
	}
	return n, v4, v6
}

// plug connects the namespace ns to the segment with an interface of that name, and gives
// it addresses and default routes.
func (l *Lab) plug(ns, dev string, s *segment, defaults bool) (v4, v6 netip.Addr, err error) {
	n, p4, p6 := s.port(l)
	there := fmt.Sprintf("v%d", n)
	cmds := []string{
		"link add " + there + " netns " + s.ns + " type veth peer name " + dev + " netns " + ns,
		"-n " + s.ns + " link set " + there + " master " + s.bridge + " up",
	}
	if s.isolated {
		cmds = append(cmds, "-n "+s.ns+" link set "+there+" type bridge_slave isolated on")
	}
	cmds = append(cmds, l.address(ns, dev, s, p4, p6, defaults)...)
	if s == l.net {
		l.mu.Lock()
		for _, r := range l.routes {
			cmds = append(cmds, "-n "+ns+" -6 route replace "+r)
		}
		l.mu.Unlock()
	}
	if err := ip(cmds...); err != nil {
		return v4, v6, err
	}
	return p4.Addr(), p6.Addr(), nil
}

// address is the commands that give dev addresses of the segment and take it up.
func (l *Lab) address(ns, dev string, s *segment, p4, p6 netip.Prefix, defaults bool) []string {
	in := "-n " + ns + " "
	cmds := []string{in + "link set " + dev + " up"}
	if p4.IsValid() {
		cmds = append(cmds, in+"addr add "+p4.String()+" dev "+dev)
		if defaults && s.gw4.IsValid() {
			cmds = append(cmds, in+"route add default via "+s.gw4.String())
		}
	}
	if p6.IsValid() {
		cmds = append(cmds, in+"addr add "+p6.String()+" dev "+dev+" nodad")
		if s.gw6.IsValid() {
			cmds = append(cmds, in+"-6 route add default via "+s.gw6.String())
		}
	}
	return cmds
}

// ip runs commands of ip, one after another, until one fails.
func ip(cmds ...string) error {
	for _, c := range cmds {
		if err := run("ip", strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

// NAT is what a router does to the source of what goes out, in the words of RFC 4787. Both
// kinds filter by address and port: only the one that was sent to can answer. nat_test.go
// proves what is said here.
type NAT int

const (
	// EndpointIndependent keeps the source port whatever the destination, as Linux's plain
	// masquerade does while no two hosts use the same one: a peer can be told the address
	// that a third one saw.
	EndpointIndependent NAT = iota
	// AddressAndPortDependent takes a random port for each destination ("symmetric"), as
	// Linux's masquerade with fully-random does.
	AddressAndPortDependent
)

// Routing is how a router is set up. The zero value is a home router: IPv4 behind an
// endpoint-independent NAT, hosts in the LAN reach each other.
type Routing struct {
	NAT        NAT
	Isolate    bool // hosts in the LAN reach the router and what is beyond, not each other
	OnlyTCP443 bool // nothing but TCP to port 443 goes out
	UDPTimeout int  // seconds a UDP mapping lives without traffic; 0: Linux's 30, and 120 when both sides spoke
	IPv6       bool // the LAN has IPv6 too, routed, with a firewall that lets answers in
	NoIPv4     bool // the LAN has no IPv4
}

// Router is a namespace between a LAN of its own and the switch, or another router's LAN.
type Router struct {
	Name string
	WAN  netip.Addr // outside, IPv4

	lab   *Lab
	ns    string
	up    *segment
	lan   *segment
	how   Routing
	fixed uint16 // external port of all UDP, 0: as NAT says
}

// AddRouter makes a router on the switch, the lab's Internet.
func (l *Lab) AddRouter(name string, how Routing) (*Router, error) {
	return l.addRouter(name, how, l.net, 1)
}

// AddRouter makes a router in this router's LAN: its hosts are behind both.
func (r *Router) AddRouter(name string, how Routing) (*Router, error) {
	return r.lab.addRouter(name, how, r.lan, int(r.lan.v4.Addr().As4()[2])+1)
}

func (l *Lab) addRouter(name string, how Routing, up *segment, depth int) (_ *Router, err error) {
	if !l.Kernel || how.IPv6 && up != l.net {
		return nil, errors.New("lab: routers need namespaces, and those with IPv6 a place on the switch")
	}
	r := &Router{Name: name, lab: l, ns: l.prefix + "-" + name, up: up, how: how}
	l.mu.Lock()
	l.routers = append(l.routers, r)
	number := len(l.routers)
	l.mu.Unlock()
	r.lan = &segment{ns: r.ns, bridge: "lan", isolated: how.Isolate, next: 1}
	defer func() {
		if err != nil {
			err = fmt.Errorf("lab: router %s: %w", name, err)
		}
	}()
	if !how.NoIPv4 {
		// The same network behind every router, as in the world.
		r.lan.v4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(depth), 0}), 24)
		r.lan.gw4 = netip.AddrFrom4([4]byte{192, 168, byte(depth), 1})
	}
	if err := ip("netns add "+r.ns, "-n "+r.ns+" link set lo up", "-n "+r.ns+" link add lan type bridge mcast_snooping 0", "-n "+r.ns+" link set lan up"); err != nil {
		return nil, err
	}
	wan4, wan6, err := l.plug(r.ns, "wan", up, true)
	if err != nil {
		return nil, err
	}
	r.WAN = wan4
	if how.IPv6 {
		a := l.net.v6.Addr().As16()
		a[6], a[7] = byte(number>>8)|0x80, byte(number)
		r.lan.v6 = netip.PrefixFrom(netip.AddrFrom16(a), 64)
		a[15] = 1
		r.lan.gw6 = netip.AddrFrom16(a)
		if err := ip("-n " + r.ns + " addr add " + r.lan.gw6.String() + "/64 dev lan nodad"); err != nil {
			return nil, err
		}
		if err := l.announce(r, r.lan.v6.String()+" via "+wan6.String()); err != nil {
			return nil, err
		}
	}
	if r.lan.v4.IsValid() {
		if err := ip("-n " + r.ns + " addr add " + r.lan.gw4.String() + "/24 dev lan"); err != nil {
			return nil, err
		}
	}
	if err := r.inside("", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0"); err != nil {
		return nil, err
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	if how.UDPTimeout > 0 { // known once conntrack is used
		if err := r.inside("", "sysctl", "-qw", fmt.Sprintf("net.netfilter.nf_conntrack_udp_timeout=%d", how.UDPTimeout),
			fmt.Sprintf("net.netfilter.nf_conntrack_udp_timeout_stream=%d", how.UDPTimeout)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// announce tells everything on the switch the way to a router's LAN: a small Internet has no
// need of routers of its own.
func (l *Lab) announce(from *Router, route string) error {
	l.mu.Lock()
	l.routes = append(l.routes, route)
	var cmds []string
	for _, h := range l.hosts {
		if h.seg == l.net && h.Addr6.IsValid() {
			cmds = append(cmds, "-n "+h.ns+" -6 route replace "+route)
		}
	}
	for _, r := range l.routers {
		if r.up == l.net && r != from && r.WAN.IsValid() {
			cmds = append(cmds, "-n "+r.ns+" -6 route replace "+route)
		}
	}
	l.mu.Unlock()
	return ip(cmds...)
}

// load sets the router's rules. What comes from outside unasked is dropped without a word,
// also what is for the router itself: a packet that it took would leave a conntrack entry
// that takes the port from the host behind it which is just about to send to its sender.
func (r *Router) load() error {
	how := ""
	switch {
	case r.fixed != 0:
		how = fmt.Sprintf(" to :%d", r.fixed)
	case r.how.NAT == AddressAndPortDependent:
		how = " random,fully-random"
	}
	out := `iifname "lan" oifname "wan" accept`
	if r.how.OnlyTCP443 {
		out = `iifname "lan" oifname "wan" tcp dport 443 accept`
	}
	rules := fmt.Sprintf(`flush ruleset
table inet fw {
	chain input {
		type filter hook input priority filter; policy accept;
		iifname "wan" ct state established,related accept
		iifname "wan" meta l4proto ipv6-icmp accept
		iifname "wan" drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" oifname "lan" accept comment "bridged frames come by here where br_netfilter is loaded"
		%s
	}
}
table ip nat {
	chain out {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" meta l4proto udp masquerade%s
		oifname "wan" masquerade%s
	}
}
`, out, how, strings.TrimPrefix(how, fmt.Sprintf(" to :%d", r.fixed)))
	return r.inside(rules, "nft", "-f", "-")
}

// inside runs a command in the router's namespace.
func (r *Router) inside(stdin, name string, args ...string) error {
	c := exec.Command("ip", append([]string{"netns", "exec", r.ns, name}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// AddHost makes a host in the router's LAN.
func (r *Router) AddHost(name string, accounts ...Account) (*Host, error) {
	return r.lab.addHost(name, r.lan, accounts)
}

// Rebind makes the router forget every UDP mapping and send all UDP from now on from
// another port, as after a restart: what peers and relays know of its hosts is void. One
// host behind it must use UDP only.
func (r *Router) Rebind(port uint16) error {
	r.fixed = port
	if err := r.load(); err != nil {
		return err
	}
	return r.forget()
}

// BlockUDP lets nothing but TCP to port 443 out from now on, or takes that back.
func (r *Router) BlockUDP(on bool) error {
	r.how.OnlyTCP443 = on
	if err := r.load(); err != nil {
		return err
	}
	return r.forget()
}

func (r *Router) forget() error {
	// It fails when there is nothing to forget.
	if err := r.inside("", "conntrack", "-D", "-p", "udp"); err != nil && !strings.Contains(err.Error(), "0 flow entries") {
		return err
	}
	return nil
}

// MoveTo takes the host out of its network and puts it into the router's, as a laptop
// that goes from one Wi-Fi to another: other address, other gateway.
func (h *Host) MoveTo(r *Router) error { return h.move(r.lan) }

// Readdress gives the host another address in the network it is in.
func (h *Host) Readdress() error { return h.move(h.seg) }

func (h *Host) move(s *segment) error {
	if err := ip("-n " + h.ns + " link del eth0"); err != nil {
		return err
	}
	var err error
	h.seg = s
	h.Addr, h.Addr6, err = h.lab.plug(h.ns, "eth0", s, s != h.lab.net)
	if !h.Addr.IsValid() {
		h.Addr = h.Addr6
	}
	return err
}
