//go:build !unix

package main

func currentUmask() int { return 0o022 }

// privateUmask: the folder's list decides who may.
func privateUmask() (restore func()) { return func() {} }
