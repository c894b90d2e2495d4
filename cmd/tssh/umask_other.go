//go:build !unix

package main

func currentUmask() int { return 0o022 }
