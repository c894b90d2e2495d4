//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tssh/netnode"
	"tssh/netnode/localapi"
	"tssh/netnode/names"
)

// uninstallCommand is `tsshd uninstall`: it takes away what outlives the daemon on
// purpose, and with it every session that is still open.
func uninstallCommand(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("tsshd uninstall", flag.ContinueOnError)
	fs.SetOutput(stderr)
	state := fs.String("state", "/var/lib/tsshd", "folder of the node's state and recordings")
	tun := fs.String("tun", defaultTUN, "name of the kernel TUN device")
	purge := fs.Bool("purge", false, "remove the state folder too: the node's keys, and recordings that no recorder has")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		return explain(stderr, fail("unexpected argument %q", fs.Arg(0)).hint("tsshd uninstall [--state DIR] [--tun NAME] [--purge]"))
	}
	return explain(stderr, uninstall(*state, *tun, *purge, stdout))
}

func uninstall(state, tun string, purge bool, stdout io.Writer) error {
	if os.Getuid() != 0 {
		return fail("uninstall needs root").hint("run it as root; a userspace node leaves nothing but its --state folder")
	}
	unlock, err := lockState(state)
	switch {
	case err == nil:
		defer unlock()
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	runDir := filepath.Join("/run/tssh", tun)
	unlock, err = lockRun(runDir, tun, "stop it first")
	switch {
	case err == nil:
		defer unlock()
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err := names.NewFile("/etc/hosts", tun).Remove(); err != nil {
		return fail("the names in /etc/hosts stay").because(err)
	}
	if err := netnode.Uninstall(tun, runDir); err != nil {
		return fail("%s", strings.TrimPrefix(err.Error(), "netnode: ")).hint("stop tsshd first")
	}
	if err := errors.Join(os.RemoveAll(runDir), remove(localapi.SystemPath), remove(filepath.Dir(localapi.SystemPath))); err != nil {
		return fail("not everything is gone").because(err)
	}
	if readDevice(state).TUN == tun {
		if err := remove(filepath.Join(state, deviceFile)); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "the device %s, its routes, its names and the SSH namespace are gone\n", tun)
	if !purge {
		if _, err := os.Stat(state); err == nil {
			fmt.Fprintf(stdout, "the state folder %s stays (--purge removes it); on the hub: tsshub node remove NAME\n", state)
		}
		return nil
	}
	if _, err := os.Stat(filepath.Join(state, "node.json")); err != nil {
		return fail("%s is not the state folder of a node, it stays", state).hint("give the node's own with --state")
	}
	if err := os.RemoveAll(state); err != nil {
		return fail("the state folder %s is not all gone", state).because(err)
	}
	fmt.Fprintf(stdout, "the state folder %s is gone; on the hub: tsshub node remove NAME\n", state)
	return nil
}

// remove removes a file or an empty folder; one that is not there, or not empty because
// another daemon uses it, is fine.
func remove(name string) error {
	err := os.Remove(name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
