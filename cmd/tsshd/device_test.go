//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNobodyElseLocksADevice: everybody may open a run directory, and so could lock it and keep
// the daemon from coming back. Another daemon is kept out all the same.
func TestNobodyElseLocksADevice(t *testing.T) {
	f := runFlags{tun: "tssh0", runDir: filepath.Join(t.TempDir(), "tssh0"), state: t.TempDir()}
	if err := os.Mkdir(f.runDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // at the second start there is the file, too
		var held []*os.File
		err := filepath.WalkDir(f.runDir, func(path string, e os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil || info.Mode().Perm()&0o004 == 0 {
				return err // others cannot open it
			}
			d, err := os.Open(path)
			if err == nil {
				held = append(held, d)
				err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			}
			return err
		})
		if err != nil || len(held) == 0 {
			t.Fatal(held, err)
		}
		unlock, err := lockDevice(f)
		if err != nil {
			t.Fatalf("a local user holds what everybody may open: %v", err)
		}
		if again, err := lockDevice(f); err == nil {
			again()
			t.Error("a second daemon has the device")
		}
		unlock()
		for _, d := range held {
			d.Close()
		}
	}
}
