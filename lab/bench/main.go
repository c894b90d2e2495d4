package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tssh/lab"
)

const policyText = `{
	"tagOwners": {"tag:web": [], "tag:crowd": []},
	"acls": [{"action": "accept", "src": ["alice@example.com", "tag:crowd"], "dst": ["tag:web:*"]}],
	"ssh":  [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]}],
}`

func main() {
	bin := flag.String("bin", "bin", "folder with tssh, tsshd and tsshub")
	mib := flag.Int("mib", 512, "size of a copy in MiB")
	rounds := flag.Int("rounds", 5, "rounds of each copy")
	logins := flag.Int("logins", 30, "logins of each server")
	sessions := flag.Int("sessions", 100, "idle sessions for the memory row")
	seconds := flag.Int("seconds", 5, "length of a run of iperf3")
	crowd := flag.Int("crowd", 5000, "peers in the map for the last rows")
	only := flag.String("only", "", "parts to run, of: "+strings.Join(partNames, " "))
	flag.Parse()
	if err := bench(*bin, *only, *mib, *rounds, *logins, *sessions, *seconds, *crowd); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// bed is the two hosts and the two servers.
type bed struct {
	hub         *lab.Hub
	web, laptop *lab.Node
	sshd        *lab.Proc
	mesh, plain string // addresses of web
	hostKey     string
	authorized  string
	common      []string
}

// partNames are the parts in the order in which they are run; some leave the bed as the next one needs it.
var partNames = strings.Fields("logins copies files crowd memory cold throughput relayed filter peers long")

func bench(bin, only string, mib, rounds, logins, sessions, seconds, crowd int) (err error) {
	if os.Getuid() != 0 {
		return errors.New("the hosts are network namespaces: run as root")
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tssh-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	l, err := lab.New(dir, bin, true)
	if err != nil {
		return err
	}
	defer l.Close()
	b := &bed{}
	if err := b.setUp(l); err != nil {
		return err
	}
	fmt.Printf("| what | tsshd | OpenSSH sshd (or what is in brackets) | ratio |\n|---|---|---|---|\n")
	parts := map[string]func() error{
		"logins": func() error { b.idle("memory, daemon idle"); return b.logins(logins) },
		"copies": func() error { return b.copies(mib, rounds) },
		"files":  func() error { return b.files(mib, rounds) },
		"crowd":  func() error { return b.crowdOfLogins(50, rounds) },
		"memory": func() error {
			if only == "" {
				time.Sleep(30 * time.Second) // until memory is given back
				b.idle("memory, daemon half a minute after the copies")
			}
			return b.memory(sessions)
		},
		"cold":       func() error { return b.cold(rounds) },
		"throughput": func() error { return b.throughput(seconds, rounds) },
		"relayed":    func() error { return b.relayed(l, seconds, rounds) },
		"filter":     filterCost,
		"peers":      func() error { return b.crowd([]int{1, 100, crowd}, dir) },
		"long":       func() error { return b.long(mib, rounds) },
	}
	for _, name := range partNames {
		if only != "" && !slices.Contains(strings.Fields(strings.ReplaceAll(only, ",", " ")), name) {
			continue
		}
		if err := parts[name](); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b *bed) idle(what string) {
	p := pair{[]float64{pss(b.web.Proc.PID())}, []float64{pss(b.sshd.PID())}}
	p.row(what, "MiB")
}

func (b *bed) setUp(l *lab.Lab) error {
	var hosts []*lab.Host
	for _, name := range []string{"hub", "web", "laptop"} {
		h, err := l.AddHost(name, lab.Account{Name: "deploy", UID: 4001})
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	web, laptop := hosts[1], hosts[2]
	hostKey, userKey := web.Path("host_key"), laptop.Path("id")
	for _, k := range []string{hostKey, userKey} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", k).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	pub, err := os.ReadFile(userKey + ".pub")
	if err != nil {
		return err
	}
	authorized := web.Path("authorized_keys")
	if err := os.WriteFile(authorized, pub, 0o644); err != nil {
		return err
	}
	b.hostKey, b.authorized = hostKey, authorized
	if b.sshd, err = b.startSSHD(web); err != nil {
		return err
	}
	if b.hub, err = l.StartHubAt(hosts[0], hosts[0].Addr.String()+":443", "https://"+hosts[0].Addr.String()+":443", policyText, "--mesh", "bench", "--relay-rate", "1000000000"); err != nil {
		return err
	}
	if r := b.hub.Admin("user", "add", "alice@example.com"); r.Status != 0 {
		return errors.New(r.String())
	}
	if b.web, err = b.hub.Join(web, "tag:web"); err != nil {
		return err
	}
	if b.laptop, err = b.hub.Join(laptop, "alice@example.com"); err != nil {
		return err
	}
	st, err := b.web.Status()
	if err != nil {
		return err
	}
	b.mesh, b.plain = st.Self.Addrs[0].String(), web.Addr.String()
	b.common = []string{"-F", "none", "-o", "UserKnownHostsFile=" + laptop.Path("known_hosts"), "-o", "StrictHostKeyChecking=accept-new",
		"-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", userKey, "-l", "deploy"}
	return lab.Until(20*time.Second, func() error {
		for _, a := range []string{b.mesh, b.plain} {
			if r := laptop.Run("ssh", b.ssh(a, "true")...); r.Status != 0 {
				return errors.New(r.String())
			}
		}
		return nil
	})
}

func (b *bed) startSSHD(web *lab.Host) (*lab.Proc, error) {
	return web.Start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "none", "-h", b.hostKey, "-o", "PidFile=none", "-o", "UsePAM=no",
		"-o", "AuthorizedKeysFile="+b.authorized, "-o", "StrictModes=no", "-o", "MaxSessions=200", "-o", "MaxStartups=200", "-p", "22", "-p", "2222", "-o", "Subsystem=sftp internal-sftp")
}

func (b *bed) ssh(addr string, command ...string) []string {
	return append(append(slices.Clone(b.common), addr), command...)
}

// pair is a figure for both servers over several rounds.
type pair struct{ ours, theirs []float64 }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func (p pair) row(what, unit string) {
	row(what, unit, median(p.ours), median(p.theirs))
}

func row(what, unit string, ours, theirs float64) {
	fmt.Printf("| %s | %.4g %s | %.4g %s | %.2f |\n", what, ours, unit, theirs, unit, ours/theirs)
}

func (b *bed) logins(n int) error {
	var wall pair
	for range n {
		for _, x := range []struct {
			addr string
			wall *[]float64
		}{{b.mesh, &wall.ours}, {b.plain, &wall.theirs}} {
			begin := time.Now()
			c := b.laptop.Host.Command("ssh", b.ssh(x.addr, "true")...)
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("login at %s: %w: %s", x.addr, err, out)
			}
			*x.wall = append(*x.wall, time.Since(begin).Seconds()*1000)
		}
	}
	wall.row("connect and run true, wall", "ms")
	return nil
}

func (b *bed) copies(mib, rounds int) error {
	zeros := fmt.Sprintf("head -c %dM /dev/zero", mib)
	for _, dir := range []string{"up", "down"} {
		p, err := b.all(rounds, func(to server) (float64, error) {
			args := append([]string{"-p", to.port}, b.ssh(to.addr, zeros)...)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			c := b.laptop.Host.CommandContext(ctx, "ssh", args...)
			if dir == "up" {
				c = b.laptop.Host.CommandContext(ctx, "sh", "-c", zeros+" | ssh -p "+to.port+" "+joined(b.ssh(to.addr, "'cat >/dev/null'")))
			}
			var stderr strings.Builder
			c.Stderr = &stderr
			begin := time.Now()
			if err := c.Run(); err != nil {
				return 0, fmt.Errorf("copy %s at %s: %w: %s", dir, to.addr, err, stderr.String())
			}
			return float64(mib) / time.Since(begin).Seconds(), nil
		})
		if err != nil {
			return err
		}
		p.rows(fmt.Sprintf("%d MiB %s, stock ssh", mib, dir), "MiB/s")
	}
	return nil
}

func (b *bed) memory(n int) error {
	for _, count := range []int{1, n} {
		var p pair
		for _, x := range []struct {
			addr string
			root int
			to   *[]float64
		}{{b.mesh, b.web.Proc.PID(), &p.ours}, {b.plain, b.sshd.PID(), &p.theirs}} {
			before := tree(x.root)
			var clients []*exec.Cmd
			for range count {
				c := b.laptop.Host.Command("ssh", b.ssh(x.addr, "echo in; exec sleep 600")...)
				out, err := c.StdoutPipe()
				if err != nil {
					return err
				}
				if err := c.Start(); err != nil {
					return err
				}
				clients = append(clients, c)
				if _, err := out.Read(make([]byte, 8)); err != nil {
					return fmt.Errorf("session at %s: %w", x.addr, err)
				}
			}
			time.Sleep(3 * time.Second)
			*x.to = append(*x.to, (tree(x.root)-before)/float64(count))
			for _, c := range clients {
				c.Process.Signal(syscall.SIGTERM)
				c.Wait()
			}
			time.Sleep(2 * time.Second)
		}
		p.row(fmt.Sprintf("memory per idle session, %d at once", count), "MiB")
	}
	return nil
}

// pss is a process's proportional set size in MiB.
func pss(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}

// tree is the memory of a daemon and of the server processes below it, or of the
// connection processes that tsshd let go of; the sessions' own programs are left out.
func tree(root int) float64 {
	sum := pss(root)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", root))
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil || pid == root {
			continue
		}
		if other, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && other == exe && sameNet(pid, root) {
			sum += pss(pid)
		}
	}
	return sum
}

func sameNet(a, b int) bool {
	x, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", a))
	y, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", b))
	return x != "" && x == y
}
