package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"tssh/ssh"
)

// openForwards makes the listeners of -L, -R and -D before the session begins.
func openForwards(fw *ssh.Forwards, c *command, notice func(string)) error {
	for _, f := range c.forwards {
		err := openForward(fw, c, f, notice)
		if err == nil {
			continue
		}
		if c.failFwd || c.noCommand {
			return err
		}
		notice(err.Error())
	}
	return nil
}

func openForward(fw *ssh.Forwards, c *command, f forward, notice func(string)) error {
	if f.kind == 'R' {
		port, err := fw.Remote(f.listen, f.to)
		if err == nil && f.listen.Path == "" && f.listen.Port == 0 {
			to := " as a SOCKS proxy"
			if f.to != (ssh.Endpoint{}) {
				to = " for " + f.to.String()
			}
			notice(fmt.Sprintf("the host listens on port %d%s", port, to))
		}
		return err
	}
	l, err := listenHere(f, c.gateway, c.unlink)
	if err != nil {
		return err
	}
	if f.kind == 'L' {
		fw.Local(l, f.to)
	} else {
		fw.Dynamic(l)
	}
	return nil
}

// listenHere listens for programs of this machine, or with -g of others.
func listenHere(f forward, gateway, unlink bool) (net.Listener, error) {
	if f.listen.Path != "" {
		return listenPath(f.listen.Path, unlink)
	}
	host := f.listen.Host
	if f.own && gateway {
		host = ""
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(f.listen.Port))))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, failed("port %d is taken by another program", f.listen.Port).withCode("limit")
	case errors.Is(err, os.ErrPermission):
		return nil, failed("you may not listen on port %d here", f.listen.Port).withCode("denied")
	case err != nil:
		return nil, failed("cannot listen on %s here: %v", f.listen, err)
	}
	return l, nil
}

// listenPath makes a socket that only this account can connect to. One that is there stays,
// unless nobody listens on it any more, or the person says that it may go.
func listenPath(path string, unlink bool) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			c.Close()
		}
		if unlink || errors.Is(err, syscall.ECONNREFUSED) {
			if err := os.Remove(path); err != nil {
				return nil, failed("%s is there and cannot be removed", path)
			}
		}
	}
	restore := privateUmask() // no forward carries anything yet, so no file is made meanwhile
	l, err := net.Listen("unix", path)
	restore()
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, failed("%s is there already", path)
	case err != nil:
		return nil, failed("cannot listen on %s here: %v", path, err)
	}
	return l, nil
}
