//go:build unix

package netmap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writable reports whether files can be made in dir, or dir itself be made, without
// trying: a join that fails later must leave no trace.
func writable(dir string) error {
	for {
		st, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			up := filepath.Dir(dir)
			if up == dir {
				return err
			}
			dir = up
			continue
		}
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return &fs.PathError{Op: "state folder", Path: dir, Err: unix.ENOTDIR}
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return &fs.PathError{Op: "write in", Path: dir, Err: err}
		}
		return nil
	}
}
