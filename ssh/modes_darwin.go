package ssh

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TIOCGETA
	iutf8      = unix.IUTF8
	vdisable   = 0xff
)
