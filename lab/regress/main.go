package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const where = "/usr/lib/openssh/regress"

// passing are the tests that apply; all of them pass. docs/clients.md says why not the rest.
var passing = strings.Fields(`connect connect-uri proto-version exit-status exit-status-signal transfer stderr-data stderr-after-eof
	broken-pipe try-ciphers yes-head keyscan scp scp3 scp-uri sftp sftp-cmds sftp-badcmds sftp-batch sftp-glob sftp-perm sftp-uri
	kextype keytype integrity localcommand host-expand percent knownhosts knownhosts-command putty-transfer putty-ciphers putty-kex
	agent dynamic-forward forwarding multiplex cipher-speed`)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sshd" {
		if err := sshd(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "regress: sshd:", err)
			os.Exit(255)
		}
		return
	}
	bin := flag.String("bin", "bin", "folder with tsshd")
	limit := flag.Duration("limit", 10*time.Minute, "time for one test")
	verbose := flag.Bool("v", false, "print the logs of tests that fail")
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		names = passing
	}
	if err := regress(*bin, names, *limit, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "regress: error:", err)
		os.Exit(1)
	}
}

func regress(bin string, names []string, limit time.Duration, verbose bool) error {
	tsshd, err := filepath.Abs(filepath.Join(bin, "tsshd"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tssh-regress-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	obj := filepath.Join(dir, "obj")
	if out, err := exec.Command("cp", "-a", where, obj).CombinedOutput(); err != nil {
		return fmt.Errorf("the tests of Debian's openssh-tests: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// What the tests run is a path, without arguments.
	wrapper := filepath.Join(dir, "sshd")
	if err := os.WriteFile(wrapper, fmt.Appendf(nil, "#!/bin/sh\nREGRESS_TSSHD=%s exec %s sshd \"$@\"\n", tsshd, self), 0o755); err != nil {
		return err
	}
	ssh := filepath.Join(dir, "ssh")
	if err := os.WriteFile(ssh, []byte(sshWrapper), 0o755); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	var failed []string
	for _, n := range names {
		begin := time.Now()
		out, err := one(obj, n, ssh, wrapper, tsshd, port, limit)
		word := "ok"
		if err != nil {
			word = "FAILED (" + err.Error() + ")"
			failed = append(failed, n)
		}
		fmt.Printf("%-20s %6.1f s  %s\n", n, time.Since(begin).Seconds(), word)
		if err != nil && verbose {
			fmt.Println(out)
			for _, f := range []string{"failed-regress.log", "failed-ssh.log", "failed-sshd.log"} {
				b, _ := os.ReadFile(filepath.Join(obj, f))
				fmt.Printf("--- %s\n%s\n", f, b[max(0, len(b)-6000):])
			}
		}
		os.Remove(filepath.Join(obj, "failed-regress.log"))
	}
	fmt.Printf("%d of %d passed\n", len(names)-len(failed), len(names))
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, " "))
	}
	return nil
}

func one(obj, name, ssh, wrapper, tsshd string, port int, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "test-exec.sh", obj, filepath.Join(obj, name+".sh"))
	cmd.Dir = obj
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "SSH_") }),
		".OBJDIR="+obj, ".CURDIR="+obj, "BUILDDIR="+obj, "OBJ="+obj, "SUDO=", "TEST_SHELL=sh", "TEST_SSH_SSH="+ssh, "TEST_SSH_SSHD="+wrapper, "TEST_SSH_SFTPSERVER=/usr/lib/openssh/sftp-server",
		"TEST_SSH_PLINK=plink", "TEST_SSH_PUTTYGEN=puttygen", "TEST_SSH_IPV6=yes", "TEST_SSH_ECC=yes", "TEST_SSH_UNSAFE_PERMISSIONS=1", "REGRESS_TSSHD="+tsshd, fmt.Sprint("TEST_SSH_PORT=", port), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 3 * time.Second
	out, err := cmd.CombinedOutput()
	// A test that did not come to its end leaves the daemon it started.
	if b, rerr := os.ReadFile(filepath.Join(obj, "pidfile")); rerr == nil {
		if pid, perr := strconv.Atoi(strings.TrimSpace(string(b))); perr == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("after %v", limit)
	} else if err == nil && strings.Contains(string(out), "SKIPPED") {
		err = fmt.Errorf("skipped: %s", strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// sshWrapper is what the tests take for ssh: it names, when it is asked what it has, only what
// tsshd has too. What tsshd is without is so on purpose.
const sshWrapper = `#!/bin/sh
case "$*" in
*'-Q '*) what=${*##*-Q } ;;
*) exec /usr/bin/ssh "$@" ;;
esac
case "$what" in
kex | cipher | cipher-auth | mac | key-plain) /usr/bin/ssh "$@" | grep -Fx -e curve25519-sha256 -e curve25519-sha256@libssh.org -e ecdh-sha2-nistp256 \
	-e mlkem768x25519-sha256 -e diffie-hellman-group14-sha256 -e diffie-hellman-group16-sha512 \
	-e aes128-gcm@openssh.com -e aes256-gcm@openssh.com -e chacha20-poly1305@openssh.com -e aes128-ctr -e aes192-ctr -e aes256-ctr \
	-e hmac-sha2-256-etm@openssh.com -e hmac-sha2-512-etm@openssh.com -e hmac-sha2-256 -e hmac-sha2-512 \
	-e ssh-ed25519 -e ecdsa-sha2-nistp256 -e ssh-rsa ;;
*) exec /usr/bin/ssh "$@" ;;
esac
`

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
