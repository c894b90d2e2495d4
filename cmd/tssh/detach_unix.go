//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// detach gives the node a session of its own: signals of the terminal do not reach it.
func detach(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
