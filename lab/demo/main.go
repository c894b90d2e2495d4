package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"tssh/lab"
)

func main() {
	bin := flag.String("bin", "bin", "folder with tssh, tsshd and tsshub")
	userspace := flag.Bool("userspace", false, "userspace nodes on loopback even as root")
	stay := flag.Bool("stay", term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())), "stay up at the end until Ctrl-C")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, *bin, os.Getuid() == 0 && !*userspace, *stay); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: error: %v\n", err)
		os.Exit(1)
	}
}

// scene is what the steps share.
type scene struct {
	lab    *lab.Lab
	kernel bool

	hub                *lab.Hub
	web, laptop, phone *lab.Node
	account            string // the local user alice may be
	replay             string // address of the replay page, with its token
	recording          string // id of the recording played
}

func demo(ctx context.Context, bin string, kernel, stay bool) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	for _, p := range []string{"tssh", "tsshd", "tsshub"} {
		if _, err := exec.LookPath(filepath.Join(bin, p)); err != nil {
			return fmt.Errorf("%s is not built: run make demo", p)
		}
	}
	if kernel {
		if err := canKernel(); err != nil {
			fmt.Printf("note: %v; so the hosts are userspace nodes on loopback\n", err)
			kernel = false
		}
	}
	dir, err := os.MkdirTemp("", "tssh-demo-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // accounts of the hosts have their homes below it
		return err
	}
	defer os.RemoveAll(dir)
	l, err := lab.New(dir, bin, kernel)
	if err != nil {
		return err
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	s := &scene{lab: l, kernel: kernel, account: "deploy"}
	if !kernel {
		if s.account, err = ownAccount(); err != nil {
			return err
		}
	}
	begin := time.Now()
	n := 0
	for _, step := range steps {
		if step.kernelOnly && !kernel {
			continue
		}
		n++
		fmt.Printf("\n%s %s\n", bold(fmt.Sprintf("%2d.", n)), bold(step.title))
		if err := step.do(s); err != nil {
			return fmt.Errorf("step %d (%s): %w", n, step.title, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted")
		}
	}
	fmt.Printf("\n%s in %.0f seconds.\n", bold("All of it did what it says"), time.Since(begin).Seconds())
	if !stay {
		return nil
	}
	s.invite()
	<-ctx.Done()
	fmt.Println("\nTaking the hosts down.")
	return nil
}

// ownAccount is the account to log in to on userspace nodes: one's own, or as root one
// that an ordinary person of this machine has, if there is any.
func ownAccount() (string, error) {
	if os.Getuid() == 0 {
		if name := os.Getenv("SUDO_USER"); name != "" && name != "root" {
			return name, nil
		}
		b, err := os.ReadFile("/etc/passwd")
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if uid, err := strconv.Atoi(f[min(2, len(f)-1)]); err == nil && len(f) == 7 && uid >= 1000 && uid < 60000 && strings.HasSuffix(f[6], "sh") {
				return f[0], nil
			}
		}
	}
	me, err := user.Current()
	if err != nil {
		return "", err
	}
	return me.Username, nil
}

// canKernel reports whether this root may make namespaces and TUN devices.
func canKernel() error {
	if err := exec.Command("unshare", "--net", "true").Run(); err != nil {
		return fmt.Errorf("this machine does not let root make network namespaces")
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun cannot be opened")
	}
	return f.Close()
}

// invite says what one can try while the hosts are up.
func (s *scene) invite() {
	fmt.Printf("\nThe hosts stay up until Ctrl-C. In another terminal, as alice on her laptop:\n\n")
	fmt.Printf("    %s\n", s.shown(s.laptop, s.target()))
	fmt.Printf("    %s\n", s.shown(s.laptop, "root@web"))
	fmt.Printf("    %s\n", s.shown(s.laptop, "sessions"))
	fmt.Printf("\nThe replay page:\n\n    %s\n\n", s.replay)
}

func (s *scene) target() string { return s.account + "@web" }

// shown is a tssh command as one can type it.
func (s *scene) shown(n *lab.Node, args ...string) string {
	return strings.Join(n.TsshCommand(args...).Args, " ")
}

func bold(s string) string {
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		return s
	}
	return "\x1b[1m" + s + "\x1b[0m"
}
