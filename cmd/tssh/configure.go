package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"tssh/netnode/localapi"
	"tssh/ssh/sshconfig"
)

// config is `tssh config`: print, install or remove what makes stock ssh use the mesh.
func (a *app) config(ctx context.Context, args []string) error {
	f := a.flags("config")
	install := f.Bool("install", false, "")
	uninstall := f.Bool("uninstall", false, "")
	known := f.String("known-hosts", "", "") // asked by ssh itself, see package sshconfig
	if err := f.parse(args, 0, 0, "config [--install | --uninstall]"); err != nil {
		return err
	}
	if *known != "" {
		return a.knownHosts(ctx, *known)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return failed("%v", err)
	}
	dir := filepath.Join(home, ".ssh")
	if *uninstall {
		changed, err := sshconfig.Uninstall(dir)
		if err != nil {
			return failed("%v", err)
		}
		a.say(changed, "ssh no longer uses the mesh", "nothing to remove")
		return nil
	}
	in, err := a.stockInput(ctx, dir)
	if err != nil {
		return err
	}
	text, err := sshconfig.Text(in)
	if err != nil {
		return failed("%v", err)
	}
	if !*install {
		_, err := a.out.Write(text)
		return err
	}
	changed, err := sshconfig.Install(dir, text)
	if err != nil {
		return failed("%v", err)
	}
	a.say(changed, "ssh, scp, sftp, rsync and git now reach hosts of the mesh by name: ssh HOST."+in.Mesh+".internal", "ssh knows the mesh already")
	return nil
}

func (a *app) say(changed bool, yes, no string) {
	if changed {
		fmt.Fprintln(a.out, yes)
		return
	}
	fmt.Fprintln(a.out, no)
}

// stockInput collects the names of the mesh, less those that mean something else here.
func (a *app) stockInput(ctx context.Context, dir string) (sshconfig.Input, error) {
	_, st, err := a.ready(ctx)
	if err != nil {
		return sshconfig.Input{}, err
	}
	exe, err := self()
	if err != nil {
		return sshconfig.Input{}, failed("%v", err)
	}
	taken := map[string]bool{}
	if b, err := readSome(filepath.Join(dir, "config")); err == nil {
		taken = sshconfig.HostNames(b)
	}
	if b, err := readSome("/etc/hosts"); err == nil {
		for l := range strings.Lines(string(b)) {
			l, _, _ = strings.Cut(l, "#")
			if fields := strings.Fields(l); len(fields) > 1 {
				for _, n := range fields[1:] {
					taken[strings.ToLower(n)] = true
				}
			}
		}
	}
	in := sshconfig.Input{Mesh: st.Mesh, Tssh: exe, Taken: func(n string) bool { return taken[n] }}
	if a.socket != "" {
		if in.Socket, err = filepath.Abs(a.socket); err != nil {
			return in, failed("%v", err)
		}
	}
	for _, p := range st.Peers {
		if p.SSH {
			in.Hosts = append(in.Hosts, sshconfig.Host{Name: p.Name, Addrs: p.Addrs})
		}
	}
	return in, nil
}

func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4<<20))
}

// knownHosts answers ssh's KnownHostsCommand. For a name that is not the mesh's it says
// nothing, and ssh then refuses.
func (a *app) knownHosts(ctx context.Context, asked string) error {
	host, err := sshconfig.HostOf(asked)
	if err != nil {
		return failed("%v", err)
	}
	c, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	r, err := c.Resolve(ctx, host)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := sshconfig.KnownHosts(asked, r.HostKeys)
	if err != nil {
		return failed("%v", err)
	}
	_, err = a.out.Write(b)
	return err
}

// stockOptions are the same settings as arguments, for programs of OpenSSH that tssh runs.
func (a *app) stockOptions() ([]string, error) {
	exe, err := self()
	if err != nil {
		return nil, failed("%v", err)
	}
	socket := ""
	if a.socket != "" {
		if socket, err = filepath.Abs(a.socket); err != nil {
			return nil, failed("%v", err)
		}
	}
	opts, err := sshconfig.Options(exe, socket)
	if err != nil {
		return nil, failed("%v", err)
	}
	return slices.Concat([]string{"-F", "none"}, opts), nil
}

// self is the path of this program as it was called: a link that stays when the program
// behind it is replaced is better in a settings file than where it points to today.
func self() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	called, err := exec.LookPath(os.Args[0])
	if err != nil {
		return exe, nil
	}
	if called, err = filepath.Abs(called); err != nil {
		return exe, nil
	}
	a, err1 := os.Stat(called)
	b, err2 := os.Stat(exe)
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		return exe, nil
	}
	return called, nil
}

func isNotFound(err error) bool {
	e, ok := err.(*localapi.Error)
	return ok && e.Code == localapi.CodeNotFound
}
