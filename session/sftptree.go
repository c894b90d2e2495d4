package session

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tree is the part of the file system that an sftp channel has: all of the host's, or a
// folder that it sees as /.
//
// In a folder every name is resolved by the kernel (openat2, RESOLVE_IN_ROOT), so that
// neither .. nor a symbolic link leads out, whoever changes what in the meantime; nothing
// is checked first and used then. What has no descriptor to act on, as a removal, is done
// to the last part of the name in its folder's descriptor, and does not follow it. A link
// that says an absolute path is about the folder. Bind mounts in it do lead out: only root
// makes them. Links in /proc that are none (magic links) are refused.
type tree struct {
	root *os.File // nil for the whole host
	name string   // of the folder on the host
}

// openTree opens the folder as the user; "" is the whole host, ~ the home.
func openTree(folder, home string) (*tree, error) {
	if folder == "" {
		return &tree{}, nil
	}
	if rest, ok := strings.CutPrefix(folder, "~"); ok {
		folder = strings.TrimSuffix(home, "/") + rest
	}
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	t := &tree{root: os.NewFile(uintptr(fd), folder), name: path.Clean(folder)}
	// A kernel, or a container's filter, without the call shows here and not later.
	probe, err := t.in("/", unix.O_PATH, 0)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("openat2: %w", err)
	}
	unix.Close(probe)
	return t, nil
}

func (t *tree) close() {
	if t.root != nil {
		t.root.Close()
	}
}

// shown is a name as the host has it, for the recording.
func (t *tree) shown(name string) string {
	if t.root == nil || name == "" {
		return name
	}
	return path.Join(t.name, path.Clean("/"+name))
}

// maxAgain bounds how often a resolution is begun anew because something was renamed
// meanwhile; who renames all the time gets an error.
const maxAgain = 128

// in opens a name in the folder.
func (t *tree) in(name string, flags int, mode uint32) (int, error) {
	if name == "" {
		name = "/"
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode & 0o7777)
	}
	for n := 0; ; n++ {
		fd, err := unix.Openat2(int(t.root.Fd()), name, &how)
		if err == nil || n >= maxAgain || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// with calls f with a descriptor of the name that can neither read nor write (O_PATH).
func (t *tree) with(name string, link bool, f func(fd int) error) error {
	flags := unix.O_PATH
	if link {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := t.in(name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// beside calls f with the folder that a name is in, and the last part of the name.
func (t *tree) beside(name string, f func(dir int, base string) error) error {
	trimmed := strings.TrimRight(name, "/")
	dir, base := path.Split(trimmed)
	if base == "" || base == "." || base == ".." {
		return unix.EBUSY // a folder by another name; the kernel says the same of /
	}
	if dir == "" {
		dir = "/"
	}
	fd, err := t.in(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd, base)
}

// both is beside for two names.
func (t *tree) both(from, to string, f func(d1 int, b1 string, d2 int, b2 string) error) error {
	return t.beside(from, func(d1 int, b1 string) error {
		return t.beside(to, func(d2 int, b2 string) error { return f(d1, b1, d2, b2) })
	})
}

func (t *tree) open(name string, flags int, mode uint32) (int, error) {
	if t.root == nil {
		return syscall.Open(name, flags, mode)
	}
	return t.in(name, flags, mode)
}

// stat is lstat with link.
func (t *tree) stat(name string, link bool, st *syscall.Stat_t) error {
	switch {
	case t.root != nil:
		return t.with(name, link, func(fd int) error { return syscall.Fstat(fd, st) })
	case link:
		return syscall.Lstat(name, st)
	}
	return syscall.Stat(name, st)
}

func (t *tree) readlink(name string) (string, error) {
	if t.root == nil {
		return os.Readlink(name)
	}
	var to string
	err := t.with(name, true, func(fd int) error {
		buf := make([]byte, 4097)
		n, err := unix.Readlinkat(fd, "", buf)
		if errors.Is(err, unix.ENOENT) {
			err = unix.EINVAL // what the kernel says of a descriptor of no link
		}
		to = string(buf[:max(0, n)])
		return err
	})
	return to, err
}

func (t *tree) remove(name string) error {
	if t.root == nil {
		return syscall.Unlink(name)
	}
	if strings.HasSuffix(name, "/") {
		return unix.ENOTDIR
	}
	return t.beside(name, func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) })
}

func (t *tree) rmdir(name string) error {
	if t.root == nil {
		return syscall.Rmdir(name)
	}
	return t.beside(name, func(dir int, base string) error { return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR) })
}

func (t *tree) mkdir(name string, mode uint32) error {
	if t.root == nil {
		return syscall.Mkdir(name, mode)
	}
	err := t.beside(name, func(dir int, base string) error { return unix.Mkdirat(dir, base, mode) })
	if errors.Is(err, unix.EBUSY) {
		return unix.EEXIST
	}
	return err
}

func (t *tree) symlink(says, name string) error {
	if t.root == nil {
		return syscall.Symlink(says, name)
	}
	return t.beside(name, func(dir int, base string) error { return unix.Symlinkat(says, dir, base) })
}

// link does not follow a link that is the last part, as link(2) does not.
func (t *tree) link(from, to string) error {
	if t.root == nil {
		return syscall.Link(from, to)
	}
	return t.both(from, to, func(d1 int, b1 string, d2 int, b2 string) error { return unix.Linkat(d1, b1, d2, b2, 0) })
}

// rename replaces what is there.
func (t *tree) rename(from, to string) error {
	if t.root == nil {
		return syscall.Rename(from, to)
	}
	return t.both(from, to, unix.Renameat)
}

// renameNew renames where nothing is in the way.
func (t *tree) renameNew(from, to string) error {
	if t.root == nil {
		return renameNewAt(unix.AT_FDCWD, from, unix.AT_FDCWD, to)
	}
	return t.both(from, to, renameNewAt)
}

func renameNewAt(d1 int, from string, d2 int, to string) error {
	err := unix.Renameat2(d1, from, d2, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// File systems that do not know the flag: a hard link does not replace either.
	if err := unix.Linkat(d1, from, d2, to, 0); err == nil {
		return unix.Unlinkat(d1, from, 0)
	}
	var st unix.Stat_t
	if unix.Fstatat(d2, to, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return syscall.EEXIST
	}
	return unix.Renameat(d1, from, d2, to)
}

func (t *tree) statfs(name string, st *unix.Statfs_t) error {
	if t.root == nil {
		return unix.Statfs(name, st)
	}
	return t.with(name, false, func(fd int) error { return unix.Fstatfs(fd, st) })
}

// setstat applies attributes to a name; link says not to follow one.
func (t *tree) setstat(name string, a attrs, link bool) error {
	if t.root == nil {
		return setstat(name, a, link)
	}
	return t.with(name, link, func(fd int) error {
		var errs []error
		self := "/proc/self/fd/" + strconv.Itoa(fd) // the very file, wherever its name leads by now
		if a.flags&attrSize != 0 && !link {
			errs = append(errs, syscall.Truncate(self, int64(a.size)))
		}
		if a.flags&attrTimes != 0 {
			errs = append(errs, unix.UtimesNanoAt(fd, "", a.times(), unix.AT_EMPTY_PATH))
		}
		if a.flags&attrMode != 0 && !link {
			errs = append(errs, syscall.Chmod(self, a.mode&0o7777))
		}
		if a.flags&attrIDs != 0 {
			errs = append(errs, unix.Fchownat(fd, "", int(a.uid), int(a.gid), unix.AT_EMPTY_PATH))
		}
		return errors.Join(errs...)
	})
}

// entry is lstat of an entry of an open directory. What is above the folder is not looked
// at: there .. is the folder itself.
func (t *tree) entry(dir int, name string, st *syscall.Stat_t) error {
	if t.root != nil && name == ".." {
		var a, b unix.Stat_t
		if err := errors.Join(unix.Fstat(dir, &a), unix.Fstat(int(t.root.Fd()), &b)); err != nil {
			return err
		}
		if a.Dev == b.Dev && a.Ino == b.Ino {
			name = "."
		}
	}
	return fstatat(dir, name, st)
}

// maxLinks is how many symbolic links one name may lead over, as for the kernel.
const maxLinks = 40

// real resolves as much of a name as there is. It is a name only: whatever is done to it
// later is resolved anew.
func (t *tree) real(name string) string {
	if t.root == nil {
		return realPath(name)
	}
	todo := strings.Split(name, "/")
	at, links := "/", 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		to, err := t.readlink(next)
		if err != nil || links == maxLinks {
			at = next // no link, or not there
			continue
		}
		links++
		if strings.HasPrefix(to, "/") {
			at = "/"
		}
		todo = append(strings.Split(to, "/"), todo...)
		if len(todo) > 4096 {
			break
		}
	}
	return at
}

// realPath resolves as much of a path as there is.
func realPath(name string) string {
	clean := path.Clean(name)
	rest := ""
	for at := clean; ; {
		if r, err := filepath.EvalSymlinks(at); err == nil {
			return path.Join(r, rest)
		}
		if at == "/" {
			return clean
		}
		rest = path.Join(path.Base(at), rest)
		at = path.Dir(at)
	}
}

// setstat applies attributes to a path; link says not to follow one.
func setstat(name string, a attrs, link bool) error {
	var errs []error
	flag := 0
	if link {
		flag = unix.AT_SYMLINK_NOFOLLOW
	}
	if a.flags&attrSize != 0 && !link {
		errs = append(errs, syscall.Truncate(name, int64(a.size)))
	}
	if a.flags&attrTimes != 0 {
		errs = append(errs, unix.UtimesNanoAt(unix.AT_FDCWD, name, a.times(), flag))
	}
	if a.flags&attrMode != 0 && !link {
		errs = append(errs, syscall.Chmod(name, a.mode&0o7777))
	}
	if a.flags&attrIDs != 0 {
		errs = append(errs, unix.Fchownat(unix.AT_FDCWD, name, int(a.uid), int(a.gid), flag))
	}
	return errors.Join(errs...)
}

// fstatat is lstat of an entry of an open directory.
func fstatat(dir int, name string, st *syscall.Stat_t) error {
	var u unix.Stat_t
	if err := unix.Fstatat(dir, name, &u, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	*st = syscall.Stat_t{Size: u.Size, Uid: u.Uid, Gid: u.Gid, Mode: u.Mode, Nlink: u.Nlink, Atim: syscall.Timespec{Sec: u.Atim.Sec}, Mtim: syscall.Timespec{Sec: u.Mtim.Sec}}
	return nil
}
