package netnode_test

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"tssh/netnode"
	"tssh/netnode/netmap"
	"tssh/netnode/path"
	"tssh/policy"
)

// The tests of the kernel TUN run this test binary again in network namespaces; what it
// does there is in helperEnv, a mode and its argument.
const helperEnv = "NETNODE_TEST_HELPER"

func TestMain(m *testing.M) {
	if v := os.Getenv(helperEnv); v != "" {
		mode, arg, _ := strings.Cut(v, " ")
		os.Exit(helper(mode, arg))
	}
	os.Exit(m.Run())
}

func helper(mode, arg string) int {
	var err error
	switch mode {
	case "node":
		err = helperNode(arg)
	case "conn": // a session's process: echoes on descriptor 3 until the other side ends
		f := os.NewFile(3, "conn")
		var c net.Conn
		if c, err = net.FileConn(f); err == nil {
			f.Close()
			_, err = io.Copy(c, c)
		}
	case "serve": // host services on every address
		err = helperServe(arg)
	case "dial":
		err = helperDial(arg)
	case "hear":
		err = helperHear(arg)
	case "utter":
		err = helperUtter(arg)
	case "tick":
		err = helperTick(arg)
	case "attach":
		err = helperAttach(arg)
	case "evil":
		err = helperEvil(arg)
	case "uninstall":
		err = netnode.Uninstall("tssh0", arg)
	case "sink":
		err = helperSink(false)
	case "source":
		err = helperSink(true)
	case "bulk":
		err = helperBulk(arg)
	default:
		err = fmt.Errorf("no mode %q", mode)
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// nodeConfig is a node's whole world.
type nodeConfig struct {
	Key         string
	TUN, RunDir string
	NoNamespace bool
	Endpoints   string // file
	Port        int
	AdmitPorts  []uint16
	Mode        string // of the processes that get the connections; empty: conn
	Self        policy.Identity
	Peers       []netmap.Peer
	At          map[string]netip.AddrPort // peers by id
	Policy      string
	LocalUsers  []uint32
}

func (c nodeConfig) netmap() (*netmap.Map, error) {
	p, problems := policy.Parse("test", []byte(c.Policy))
	if p == nil {
		return nil, fmt.Errorf("policy: %v", problems)
	}
	return &netmap.Map{Self: c.Self, SelfAddrs: c.Self.Addrs, Peers: c.Peers, Policy: p, Mesh: "test",
		Range4: netip.MustParsePrefix("100.64.0.0/10"), Range6: netip.MustParsePrefix("fd7a:7373:6800::/48")}, nil
}

// helperNode runs a node until its standard input ends. Each SSH connection is greeted with
// the peer's name and given to a process of its own, as tsshd does.
func helperNode(arg string) error {
	var c nodeConfig
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return err
	}
	key, err := netmap.ParseWGPrivate(c.Key)
	if err != nil {
		return err
	}
	m, err := c.netmap()
	if err != nil {
		return err
	}
	n, err := netnode.New(netnode.Config{PrivateKey: key, TUN: c.TUN, RunDir: c.RunDir, NoNamespace: c.NoNamespace, UDPPort: c.Port, AdmitPorts: c.AdmitPorts,
		LocalUsers:    func(policy.Identity) []uint32 { return c.LocalUsers },
		EndpointsFile: c.Endpoints, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		return err
	}
	n.SetMap(m)
	for id, a := range c.At {
		n.SetEndpoints(id, netmap.Where{Endpoints: []netip.AddrPort{a}})
	}
	l, err := n.ListenSSH()
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tcp := conn.(*net.TCPConn)
			id, ok := n.WhoIs(tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
			if !ok {
				id.Name = "nobody"
			}
			fmt.Fprintf(tcp, "mesh-ssh %s\n", id.Name)
			f, err := tcp.File()
			if err != nil {
				panic(err)
			}
			mode := c.Mode
			if mode == "" {
				mode = "conn"
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{helperEnv + "=" + mode}
			cmd.ExtraFiles = []*os.File{f}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			f.Close()
			tcp.Close()
			go cmd.Wait()
		}
	}()
	fmt.Println("ready")
	s := bufio.NewScanner(os.Stdin)
	for s.Scan() {
		if s.Text() == "status" {
			b, err := json.Marshal(n.Status())
			if err != nil {
				return err
			}
			fmt.Println(string(b))
		}
	}
	return n.Close()
}

const bulkSize = 256 << 20

// helperSink reads descriptor 3 to its end and answers with the number of bytes; as a source
// it sends bulkSize bytes.
func helperSink(source bool) error {
	f := os.NewFile(3, "conn")
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	f.Close()
	if source {
		_, err := io.Copy(c, io.LimitReader(zeros{}, bulkSize))
		return err
	}
	n, err := io.Copy(io.Discard, c)
	fmt.Fprintln(c, n)
	return err
}

// helperBulk is the other end: "up ADDR" or "down ADDR".
func helperBulk(arg string) error {
	way, addr, _ := strings.Cut(arg, " ")
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	var n int64
	if way == "up" {
		if _, err := io.Copy(c, io.LimitReader(zeros{}, bulkSize)); err != nil {
			return err
		}
		c.(*net.TCPConn).CloseWrite()
		_, err = fmt.Fscan(r, &n)
	} else {
		n, err = io.Copy(io.Discard, r)
	}
	fmt.Println("moved", n)
	return err
}

// helperServe greets on TCP ports of every address of the host.
func helperServe(ports string) error {
	for p := range strings.FieldsSeq(ports) {
		l, err := net.Listen("tcp", ":"+p)
		if err != nil {
			return err
		}
		go func() { // ends with the process
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "host-service\n")
				go func() {
					io.Copy(c, c)
					c.Close()
				}()
			}
		}()
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// helperHear answers datagrams at a port of every address, and prints where each came from.
func helperHear(port string) error {
	c, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() { // ends with the process
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			fmt.Println("from", from)
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// helperUtter sends a datagram from each "SOURCE>DESTINATION", in order, and waits for the answer to the last.
func helperUtter(arg string) error {
	var c *net.UDPConn
	for w := range strings.FieldsSeq(arg) {
		from, to, _ := strings.Cut(w, ">")
		src, err := net.ResolveUDPAddr("udp", from)
		if err != nil {
			return err
		}
		dst, err := net.ResolveUDPAddr("udp", to)
		if err != nil {
			return err
		}
		if c, err = net.DialUDP("udp", src, dst); err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 100)); err != nil {
		return err
	}
	fmt.Println("answered")
	return nil
}

// helperDial says what greets at each address: "ADDR[%DEVICE] GREETING", or why nothing does.
func helperDial(addrs string) error {
	var wg sync.WaitGroup
	for a := range strings.FieldsSeq(addrs) {
		wg.Go(func() { fmt.Print(a, " ", greeting(a), "\n") })
	}
	wg.Wait()
	return nil
}

func greeting(a string) string {
	addr, dev, bound := strings.Cut(a, "%")
	d := net.Dialer{Timeout: 2500 * time.Millisecond}
	if bound {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), dev) })
			if cerr != nil {
				return cerr
			}
			return err
		}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return "none: " + err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2500 * time.Millisecond))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "none: " + err.Error()
	}
	return strings.TrimSpace(line)
}

// helperTick sends a line every 50 ms on one connection and waits for it to come back, until
// its standard input ends; it prints the number of lines and the longest wait.
func helperTick(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return err
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	fmt.Println("ready")
	end := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	var longest time.Duration
	for i := 0; ; i++ {
		start := time.Now()
		c.SetDeadline(start.Add(time.Minute))
		fmt.Fprintf(c, "tick %d\n", i)
		line, err := r.ReadString('\n')
		if err != nil || line != fmt.Sprintf("tick %d\n", i) {
			return fmt.Errorf("tick %d: %q, %v", i, line, err)
		}
		longest = max(longest, time.Since(start))
		select {
		case <-end:
			fmt.Printf("ticks %d longest %v\n", i+1, longest)
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// helperAttach tries to attach to a TUN.
// helperAttach opens the device file as root, which on some hosts alone may, and goes on
// as nobody: what is asked for is who may take a TUN that is there.
func helperAttach(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(65534, 65534, 65534), syscall.Setresuid(65534, 65534, 65534)); err != nil {
		return err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	fmt.Println("attached")
	return nil
}

// evilConfig is a member of the mesh that sends its packets where it likes.
type evilConfig struct {
	nodeConfig
	Dial []string
}

// helperEvil is a peer whose WireGuard takes every address to be the other node's.
func helperEvil(arg string) error {
	var c evilConfig
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return err
	}
	key, err := netmap.ParseWGPrivate(c.Key)
	if err != nil {
		return err
	}
	raw := key.Bytes()
	priv, err := ecdh.X25519().NewPrivateKey(raw[:])
	if err != nil {
		return err
	}
	b, err := path.New(path.Config{Private: priv})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go b.Run(ctx)
	dev, stack, err := netstack.CreateNetTUN(c.Self.Addrs, nil, 1280)
	if err != nil {
		return err
	}
	d := device.NewDevice(dev, b, device.NewLogger(device.LogLevelSilent, ""))
	d.DisableSomeRoamingForBrokenMobileSemantics()
	p := c.Peers[0]
	b.AddPeer(path.Key(p.Key))
	b.SetEndpoints(path.Key(p.Key), []netip.AddrPort{c.At[p.ID]})
	if err := d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n",
		key.Hex(), c.Port, p.Key.Hex(), hex.EncodeToString(p.Key[:]))); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	for _, a := range c.Dial {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		conn, err := stack.DialContextTCPAddrPort(ctx, netip.MustParseAddrPort(a))
		cancel()
		if err != nil {
			fmt.Println(a, "none:", err)
			continue
		}
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			line = "none: " + err.Error() + "\n"
		}
		fmt.Print(a, " ", line)
	}
	return nil
}
