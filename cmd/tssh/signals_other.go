//go:build !unix

package main

import (
	"os"
	"syscall"
)

// There are no such signals here; the numbers are nobody's.
const (
	userSignal1 = syscall.Signal(0x101)
	userSignal2 = syscall.Signal(0x102)
)

func sessionSignalList() []os.Signal { return []os.Signal{syscall.SIGINT, syscall.SIGTERM} }
