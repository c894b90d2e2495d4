//go:build unix

package main

import (
	"os"
	"syscall"
)

const (
	userSignal1 = syscall.SIGUSR1
	userSignal2 = syscall.SIGUSR2
)

func sessionSignalList() []os.Signal {
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, userSignal1, userSignal2}
}
