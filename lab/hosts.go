package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Lab is a set of hosts on one switch. Close removes all of it.
type Lab struct {
	Dir    string // everything the hosts write
	Bin    string // where tssh, tsshd and tsshub are
	Kernel bool   // hosts are namespaces; otherwise folders

	prefix  string
	etcOnce sync.Once
	etcErr  error
	routes  []string // of IPv6 on the switch: "PREFIX via ROUTER"
	net     *segment // the switch all is on in the end, the lab's Internet
	mu      sync.Mutex
	hosts   []*Host
	routers []*Router
	wires   []*Wire
	procs   []*Proc
}

// labs counts the labs of this process, for names.
var labs atomic.Int32

// Account is one account of a host, with a home folder of its own.
type Account struct {
	Name string
	UID  int
}

// Host is one computer of the lab.
type Host struct {
	Name  string
	Addr  netip.Addr // in its network; loopback when hosts are folders
	Addr6 netip.Addr // invalid: none
	Dir   string

	lab    *Lab
	seg    *segment
	ns     string
	holder *exec.Cmd
}

// New makes a lab in dir with the programs in bin. With kernel set it needs root.
func New(dir, bin string, kernel bool) (*Lab, error) {
	l := &Lab{Dir: dir, Bin: bin, Kernel: kernel, prefix: fmt.Sprintf("ts%d", os.Getpid())}
	if n := labs.Add(1); n > 1 {
		l.prefix += fmt.Sprintf("x%d", n)
	}
	if !kernel {
		return l, nil
	}
	if err := run("ip", "netns", "add", l.sw()); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	third := byte(1 + os.Getpid()%250)
	l.net = &segment{ns: l.sw(), bridge: "br0", v4: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, third, 0}), 24),
		v6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, third}), 64)}
	in := "-n " + l.sw() + " "
	err := ip(in+"link set lo up", in+"link add br0 type bridge mcast_snooping 0", in+"link set br0 up")
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func (l *Lab) sw() string { return l.prefix + "-sw" }

// AddHost makes a host on the switch, with accounts beside the machine's own.
func (l *Lab) AddHost(name string, accounts ...Account) (*Host, error) {
	return l.addHost(name, l.net, accounts)
}

func (l *Lab) addHost(name string, s *segment, accounts []Account) (*Host, error) {
	h := &Host{Name: name, lab: l, seg: s, Dir: filepath.Join(l.Dir, name), Addr: netip.MustParseAddr("127.0.0.1")}
	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		return nil, err
	}
	if l.Kernel {
		h.ns = l.prefix + "-" + name
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	if !l.Kernel {
		return h, nil
	}
	err := ip("netns add "+h.ns, "-n "+h.ns+" link set lo up")
	if err == nil {
		h.Addr, h.Addr6, err = l.plug(h.ns, "eth0", s, s != l.net)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: host %s: %w", name, err)
	}
	if !h.Addr.IsValid() {
		h.Addr = h.Addr6
	}
	if err := h.hold(accounts); err != nil {
		return nil, fmt.Errorf("lab: host %s: %w", name, err)
	}
	return h, nil
}

// hold starts the process that keeps the host's namespaces, with an /etc, a /run and a
// /var/log of the host's own. /etc is a copy as a whole: a single file mounted over would
// go when somebody adds an account to the machine itself.
func (h *Host) hold(accounts []Account) error {
	etc := h.Path("etc")
	template, err := h.lab.etc()
	if err != nil {
		return err
	}
	if err := run("cp", "-al", template, etc); err != nil { // a copy takes half a second in some file systems
		return err
	}
	for _, f := range []string{"passwd", "group", "shadow", "hosts"} { // those that are changed in place
		if err := run("cp", "-a", "--remove-destination", filepath.Join(template, f), etc); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		line func(Account) string
	}{
		{"passwd", func(a Account) string {
			return fmt.Sprintf("%[1]s:x:%[2]d:%[2]d::%[3]s:/bin/bash\n", a.Name, a.UID, h.Home(a.Name))
		}},
		{"group", func(a Account) string { return fmt.Sprintf("%s:x:%d:\n", a.Name, a.UID) }},
		{"shadow", func(a Account) string { return a.Name + ":*:20000:0:99999:7:::\n" }},
	} {
		own, err := os.OpenFile(filepath.Join(etc, f.name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			if _, err := own.WriteString(f.line(a)); err != nil {
				return err
			}
		}
		if err := own.Close(); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		if err := os.MkdirAll(h.Home(a.Name), 0o750); err != nil {
			return err
		}
		if err := os.Chown(h.Home(a.Name), a.UID, a.UID); err != nil {
			return err
		}
	}
	log := filepath.Join(h.Dir, "var-log")
	if err := os.MkdirAll(log, 0o755); err != nil {
		return err
	}
	script := []string{"set -e", "mount --bind " + etc + " /etc", "mount --bind " + log + " /var/log", "mount -t tmpfs -o mode=755 tmpfs /run",
		"mkdir -p /run/sshd /run/lock", "echo ready", "exec sleep infinity"}
	h.holder = exec.Command("ip", "netns", "exec", h.ns, "sh", "-c", strings.Join(script, "\n"))
	h.holder.Stderr = os.Stderr
	h.holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := h.holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.holder.Start(); err != nil {
		return err
	}
	ready := make([]byte, 6)
	if _, err := io.ReadFull(out, ready); err != nil {
		return fmt.Errorf("namespaces not ready: %w", err)
	}
	return nil
}

// etc is the lab's copy of /etc, of which every host has a copy made of links.
func (l *Lab) etc() (string, error) {
	l.etcOnce.Do(func() { l.etcErr = run("cp", "-a", "/etc", filepath.Join(l.Dir, ".etc")) })
	return filepath.Join(l.Dir, ".etc"), l.etcErr
}

// Home is the home folder of an account of this host.
func (h *Host) Home(account string) string { return filepath.Join(h.Dir, "home-"+account) }

// Path is a path in the host's own folder.
func (h *Host) Path(elem ...string) string {
	return filepath.Join(append([]string{h.Dir}, elem...)...)
}

// Command is a program run on the host, in its namespaces. The lab's programs are found by name.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return h.CommandContext(context.Background(), name, args...)
}

// CommandContext is Command that ends with ctx.
func (h *Host) CommandContext(ctx context.Context, name string, args ...string) *exec.Cmd {
	switch name {
	case "tssh", "tsshd", "tsshub", "derper", "wgalone":
		name = filepath.Join(h.lab.Bin, name)
	}
	if h.holder != nil {
		args = append([]string{"-t", fmt.Sprint(h.holder.Process.Pid), "-m", "-n", "--", name}, args...)
		name = "nsenter"
	}
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = h.Dir
	c.Env = append(os.Environ(), "PATH="+h.lab.Bin+":"+os.Getenv("PATH"))
	c.WaitDelay = 3 * time.Second
	return c
}

// Run runs a command to its end, at most a minute, and returns what it printed and its status.
func (h *Host) Run(name string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return Finish(h.CommandContext(ctx, name, args...))
}

// Result is a finished command.
type Result struct {
	Stdout, Stderr string
	Status         int // -1 when it did not end by itself
	Err            error
}

// Finish runs a command and collects its result.
func Finish(c *exec.Cmd) Result {
	var out, errb bytes.Buffer
	c.Stdout, c.Stderr = &out, &errb
	err := c.Run()
	r := Result{Stdout: out.String(), Stderr: errb.String(), Err: err}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
	default:
		r.Status = -1
	}
	return r
}

func (r Result) String() string {
	return fmt.Sprintf("status %d (%v)\nstdout: %s\nstderr: %s", r.Status, r.Err, r.Stdout, r.Stderr)
}

// Proc is a daemon of a host that the lab started.
type Proc struct {
	Name string
	Log  string // file with all it printed
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a daemon on the host, its output appended to <host>/<log>.log.
func (h *Host) Start(log, name string, args ...string) (*Proc, error) {
	p := &Proc{Name: h.Name + "/" + log, Log: h.Path(log + ".log"), done: make(chan struct{})}
	f, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p.cmd = h.Command(name, args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", p.Name, err)
	}
	go func() { // ends with the process
		p.cmd.Wait()
		close(p.done)
	}()
	h.lab.mu.Lock()
	h.lab.procs = append(h.lab.procs, p)
	h.lab.mu.Unlock()
	return p, nil
}

// PID of the daemon: nsenter execs in place, so it is the daemon itself.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the daemon is gone.
func (p *Proc) Exited() <-chan struct{} { return p.done }

// Status is the exit status of a daemon that is gone.
func (p *Proc) Status() int { <-p.done; return p.cmd.ProcessState.ExitCode() }

// Kill ends the daemon at once, as a crash would.
func (p *Proc) Kill() { p.cmd.Process.Kill(); <-p.done }

// Stop asks the daemon to end and waits at most ten seconds.
func (p *Proc) Stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Tail is the end of what the daemon printed.
func (p *Proc) Tail(n int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return string(b)
}

// Close stops every daemon and removes every namespace; the folder stays.
func (l *Lab) Close() error {
	l.mu.Lock()
	procs, hosts, routers, wires := l.procs, l.hosts, l.routers, l.wires
	l.procs, l.hosts, l.routers, l.wires = nil, nil, nil, nil
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range procs {
		select {
		case <-p.done:
		default:
			wg.Go(p.Stop)
		}
	}
	wg.Wait()
	for _, w := range wires {
		w.Close()
	}
	if !l.Kernel {
		return nil
	}
	errs := make([]error, len(hosts)+len(routers)+1)
	for i, h := range hosts {
		if h.ns == "" {
			continue
		}
		wg.Go(func() {
			h.killLeft()
			if h.holder != nil && h.holder.Process != nil {
				h.holder.Process.Kill()
				h.holder.Wait()
			}
			errs[i] = run("ip", "netns", "del", h.ns)
		})
	}
	for i, r := range routers {
		wg.Go(func() { errs[len(hosts)+i] = run("ip", "netns", "del", r.ns) })
	}
	wg.Wait()
	errs[len(errs)-1] = run("ip", "netns", "del", l.sw())
	return errors.Join(errs...)
}

// Left lists the processes that run in the host's network namespace, the holder left out.
func (h *Host) Left() []int {
	out, err := exec.Command("ip", "netns", "pids", h.ns).Output()
	if err != nil {
		return nil
	}
	var pids []int
	for f := range strings.FieldsSeq(string(out)) {
		var pid int
		if _, err := fmt.Sscan(f, &pid); err == nil && (h.holder == nil || pid != h.holder.Process.Pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killLeft ends what still runs in a namespace of ours: sessions outlive their daemon on purpose.
func (h *Host) killLeft() {
	for _, pid := range h.Left() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
