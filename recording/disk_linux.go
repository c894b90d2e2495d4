package recording

import (
	"os"
	"syscall"
)

// datasync makes what was written to f durable.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}

const (
	fallocKeepSize  = 1
	fallocPunchHole = 2
)

// punch gives the disk space of the first bytes of f back. A file system that cannot
// keeps them; they are counted then.
func punch(f *os.File, from, to int64) bool {
	return syscall.Fallocate(int(f.Fd()), fallocKeepSize|fallocPunchHole, from, to-from) == nil
}

// freeBytes is the room for root on the file system of dir.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bfree) * st.Bsize, nil
}

// diskUsage is what a file takes, without its holes.
func diskUsage(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
