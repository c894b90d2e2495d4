package netmap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// syncDir does nothing: Windows has no way to flush a directory, and NTFS journals renames.
func syncDir(string) error { return nil }

// writable reports whether dir is a folder or can become one. Rights are found out when
// writing: Windows has no cheap question for them.
func writable(dir string) error {
	for {
		st, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
			continue
		}
		if err == nil && !st.IsDir() {
			return &fs.PathError{Op: "state folder", Path: dir, Err: errors.New("not a folder")}
		}
		return err
	}
}
