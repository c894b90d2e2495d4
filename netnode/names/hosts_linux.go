package names

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// copyAttributes gives w the owner, mode and extended attributes (SELinux label, ACL) of
// the file at path. An error says that not all of it could be copied.
func copyAttributes(w *os.File, path string, was fs.FileInfo) error {
	st := was.Sys().(*syscall.Stat_t)
	if err := w.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := w.Chmod(was.Mode().Perm()); err != nil {
		return err
	}
	list := make([]byte, 64<<10)
	n, err := unix.Listxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(int(w.Fd()), name, value[:n], 0); err != nil {
			return err
		}
	}
	return nil
}

func links(st fs.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Nlink) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
