package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	gossh "golang.org/x/crypto/ssh"
)

const realSSHD = "/usr/sbin/sshd"

// kinds are the host keys that tsshd has, and their names in its state folder.
var kinds = map[string]string{gossh.KeyAlgoED25519: "ed25519", gossh.KeyAlgoECDSA256: "ecdsa", gossh.KeyAlgoRSA: "rsa"}

// sshdConfig is the part of an sshd_config(5) that is heeded.
type sshdConfig struct {
	dir       string // of the file
	port      string
	addr      string
	pidFile   string
	hostKeys  []string
	acceptEnv []string
}

func readConfig(name string) (sshdConfig, error) {
	c := sshdConfig{dir: filepath.Dir(name), port: "22", addr: "127.0.0.1"}
	text, err := os.ReadFile(name)
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch strings.ToLower(f[0]) {
		case "port":
			c.port = f[1]
		case "listenaddress":
			c.addr = f[1]
		case "pidfile":
			c.pidFile = f[1]
		case "hostkey":
			c.hostKeys = append(c.hostKeys, f[1])
		case "acceptenv":
			c.acceptEnv = append(c.acceptEnv, f[1:]...)
		case "match":
			return c, nil
		}
	}
	return c, nil
}

// sshd is the program that the tests take for sshd.
func sshd(args []string) error {
	config, inetd := "", false
	for i, a := range args {
		switch {
		case a == "-i":
			inetd = true
		case a == "-f" && i+1 < len(args):
			config = args[i+1]
		case a == "-t": // of a configuration that is not ours to judge
			return nil
		case len(a) == 2 && strings.Contains("TGV?", a[1:]):
			return syscall.Exec(realSSHD, append([]string{realSSHD}, args...), os.Environ())
		}
	}
	c, err := readConfig(config)
	if err != nil {
		return err
	}
	if inetd {
		return c.serveOne()
	}
	if os.Getenv("REGRESS_DAEMON") == "" { // the caller waits for the file with the pid
		cmd := exec.Command("/proc/self/exe", append([]string{"sshd"}, args...)...)
		cmd.Env = append(os.Environ(), "REGRESS_DAEMON=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	return c.daemon(args)
}

func (c sshdConfig) daemon(args []string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(c.addr, c.port))
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if err := os.WriteFile(c.pidFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return err
	}
	defer os.Remove(c.pidFile)
	go func() { // ends with the process
		<-signals
		l.Close()
	}()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		f, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err != nil {
			return err
		}
		cmd := exec.Command("/proc/self/exe", append([]string{"sshd", "-i"}, args...)...)
		cmd.Stdin, cmd.Stdout = f, f
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		err = cmd.Start()
		f.Close()
		if err != nil {
			return err
		}
		go cmd.Wait()
	}
}

// serveOne becomes tsshd, with the configuration's host keys and a policy that lets the
// caller be the caller.
func (c sshdConfig) serveOne() error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	// A folder for each set of keys: tests change them.
	keys, sum := map[string][]byte{}, sha256.New()
	for _, k := range c.hostKeys {
		text, err := os.ReadFile(k)
		if err != nil {
			return err
		}
		if s, err := gossh.ParsePrivateKey(text); err == nil && kinds[s.PublicKey().Type()] != "" {
			keys[kinds[s.PublicKey().Type()]] = text
			sum.Write(text)
		}
	}
	state := filepath.Join(c.dir, fmt.Sprintf("tssh-state-%x", sum.Sum(nil)[:6]))
	if err := os.MkdirAll(state, 0o711); err != nil {
		return err
	}
	for kind, text := range keys {
		tmp := filepath.Join(state, fmt.Sprintf("%s.%d", kind, os.Getpid()))
		if err := os.WriteFile(tmp, text, 0o600); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(state, "ssh_host_"+kind+"_key")); err != nil {
			return err
		}
	}
	env := slices.Clone(c.acceptEnv)
	for i := range env {
		env[i] = `"` + env[i] + `"`
	}
	policy := filepath.Join(state, fmt.Sprintf("policy.%d", os.Getpid()))
	text := fmt.Sprintf(`{"tagOwners":{"tag:web":["tests@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],
		"ssh":[{"action":"accept","src":["tests@example.com"],"dst":["tag:web"],"users":["root",%q],"acceptEnv":[%s]}]}`, me.Username, strings.Join(env, ","))
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		return err
	}
	tsshd := os.Getenv("REGRESS_TSSHD")
	return syscall.Exec(tsshd, []string{tsshd, "inetd", "--identity", "tests@example.com,name=tests", "--self", "web,tag:web", "--policy", policy, "--state", state}, os.Environ())
}
