//go:build unix

package localapi

import (
	"fmt"
	"os"
	"syscall"
)

func tryLock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// SafeDir wants a real directory of ours, or root's, that others cannot write to. A link to one
// may only be of our own or root's making.
func SafeDir(dir string) error {
	if fi, err := os.Lstat(dir); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() && st.Uid != 0 {
			return fmt.Errorf("localapi: socket directory %s was made by somebody else", dir)
		}
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("localapi: socket directory: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() {
		return fmt.Errorf("localapi: socket directory %s is not a directory", dir)
	}
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("localapi: socket directory %s belongs to uid %d", dir, st.Uid)
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("localapi: socket directory %s can be written to by others (mode %o)", dir, fi.Mode().Perm())
	}
	return nil
}
