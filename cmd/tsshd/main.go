//go:build linux

package main

import (
	"fmt"
	"os"

	"tssh/netnode/serve"
	"tssh/session"
)

func main() {
	// First of all, and before anything is looked at: one of these is started for every
	// SSH connection.
	if len(os.Args) == 2 && os.Args[1] == "conn" {
		os.Exit(session.Main(os.Stderr))
	}
	// And one of these, as an ordinary user, for those who serve a program of theirs.
	if len(os.Args) == 2 && os.Args[1] == "dial" {
		os.Exit(serve.HelperMain())
	}
	os.Exit(dispatch(os.Args[1:]))
}

func dispatch(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: tsshd run --state DIR [--join-file FILE|-] [--hostname NAME] [--tun NAME | --userspace] [--udp-port N]")
		fmt.Fprintln(os.Stderr, "       tsshd rotate-keys [--socket PATH]")
		fmt.Fprintln(os.Stderr, "       tsshd uninstall [--state DIR] [--tun NAME] [--purge]")
		return 2
	}
	switch args[0] {
	case "run":
		return runCommand(args[1:], os.Stdin, os.Stderr)
	case "inetd":
		return inetdCommand(args[1:], os.Stdin, os.Stdout, os.Stderr)
	case "rotate-keys":
		return rotateCommand(args[1:], os.Stdout, os.Stderr)
	case "uninstall":
		return uninstallCommand(args[1:], os.Stdout, os.Stderr)
	case "version", "--version":
		fmt.Println("tsshd", version)
		return 0
	}
	return explain(os.Stderr, fail("unknown command %q", args[0]).hint("tsshd run --state DIR"))
}
