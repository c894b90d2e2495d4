//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"tssh/netnode/localapi"
)

// minKeyAge keeps a hub from being busy with its nodes' keys.
const minKeyAge = time.Minute

// keyAge reads 30d, 12h or never.
func keyAge(s string) (time.Duration, error) {
	if s == "never" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if n, ok := strings.CutSuffix(s, "d"); ok {
		var days int
		if days, err = strconv.Atoi(n); err == nil && days < 100000 {
			d = time.Duration(days) * 24 * time.Hour
		}
	}
	if err != nil || d < minKeyAge {
		return 0, fail("--rotate-keys %q is not an age of a minute or more", s).hint("such as 30d, 12h or never")
	}
	return d, nil
}

// rotateCommand has the running daemon make other keys.
func rotateCommand(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("tsshd rotate-keys", flag.ContinueOnError)
	fs.SetOutput(stderr)
	socket := fs.String("socket", localapi.SystemPath, "socket of the daemon")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil && fs.NArg() > 0:
		err = fail("unexpected argument %q", fs.Arg(0)).hint("tsshd rotate-keys [--socket PATH]")
	case err == nil:
		err = rotateKeys(*socket)
	}
	if err == nil {
		fmt.Fprintln(stdout, "this node has new keys, and the hub has told the others")
	}
	return explain(stderr, err)
}

func rotateKeys(socket string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := localapi.NewClient(socket).Rotate(ctx)
	var e *localapi.Error
	switch {
	case localapi.NotRunning(err), errors.Is(err, os.ErrPermission):
		return fail("no daemon that you may manage is listening at %s", socket).hint("run it as root while tsshd runs; --socket says where")
	case errors.As(err, &e):
		return fail("%s", e.Words)
	}
	return err
}
