//go:build unix

package main

import "syscall"

// currentUmask can only be read by setting it; nothing else runs yet that makes files.
func currentUmask() int {
	m := syscall.Umask(0o077)
	syscall.Umask(m)
	return m
}

// privateUmask makes what is made until restore the account's alone.
func privateUmask() (restore func()) {
	m := syscall.Umask(0o177)
	return func() { syscall.Umask(m) }
}
