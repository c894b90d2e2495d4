package session

import (
	"encoding/binary"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tssh/recording"
)

// change does what changes the file system, and the extensions.
func (v *sftpServer) change(typ byte, id uint32, p payload) error {
	switch typ {
	case fxFsetstat:
		h, err := v.get(&p)
		if err != nil {
			return err
		}
		a, ok := p.attrs()
		if !ok {
			return errSFTPPacket
		}
		return v.record(recording.File{Op: "setstat", Path: h.path}, v.fsetstat(h, a))
	case fxExtended:
		name, ok := p.str()
		if !ok {
			return errSFTPPacket
		}
		return v.extended(string(name), id, p)
	}
	if typ == fxSymlink {
		return v.symlink(p)
	}
	name, err := v.path(&p)
	if err != nil {
		return err
	}
	switch typ {
	case fxSetstat:
		a, ok := p.attrs()
		if !ok {
			return errSFTPPacket
		}
		return v.record(recording.File{Op: "setstat", Path: name}, v.files.setstat(name, a, false))
	case fxRemove:
		return v.record(recording.File{Op: "remove", Path: name}, v.files.remove(name))
	case fxMkdir:
		a, ok := p.attrs()
		if !ok {
			return errSFTPPacket
		}
		mode := uint32(0o777)
		if a.flags&attrMode != 0 {
			mode = a.mode & 0o7777
		}
		return v.record(recording.File{Op: "mkdir", Path: name}, v.files.mkdir(name, mode))
	case fxRmdir:
		return v.record(recording.File{Op: "rmdir", Path: name}, v.files.rmdir(name))
	case fxRename:
		to, err := v.path(&p)
		if err != nil {
			return err
		}
		// This version's rename must not replace (section 6.5).
		return v.record(recording.File{Op: "rename", Path: name, Target: to}, v.files.renameNew(name, to))
	}
	return errors.ErrUnsupported
}

// symlink takes its arguments as OpenSSH does and all others since, the other way round
// from the draft: first what the link says, which is not a path to resolve, then its name.
func (v *sftpServer) symlink(p payload) error {
	says, ok := p.str()
	if !ok || strings.IndexByte(string(says), 0) >= 0 {
		return errSFTPPacket
	}
	name, err := v.path(&p)
	if err != nil {
		return err
	}
	return v.record(recording.File{Op: "symlink", Path: name, Target: string(says)}, v.files.symlink(string(says), name))
}

func (v *sftpServer) extended(name string, id uint32, p payload) error {
	switch name {
	case "limits@openssh.com":
		v.begin(fxExtendedReply, id)
		for _, n := range []uint64{maxSFTPPacket, maxSFTPRead, maxSFTPRead, maxHandles} {
			v.out = binary.BigEndian.AppendUint64(v.out, n)
		}
		return nil
	case "fsync@openssh.com":
		h, err := v.get(&p)
		if err != nil {
			return err
		}
		err = h.file.Sync()
		h.failed(err)
		return err
	case "fstatvfs@openssh.com":
		h, err := v.get(&p)
		if err != nil {
			return err
		}
		var st unix.Statfs_t
		if err := v.control(h, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
			return err
		}
		v.statvfs(id, &st)
		return nil
	case "copy-data":
		return v.copyData(p)
	case "users-groups-by-id@openssh.com":
		return v.usersGroups(id, p)
	}
	from, err := v.path(&p)
	if err != nil {
		return err
	}
	switch name {
	case "statvfs@openssh.com":
		var st unix.Statfs_t
		if err := v.record(recording.File{Op: "statvfs", Path: from}, v.files.statfs(from, &st)); err != nil {
			return err
		}
		v.statvfs(id, &st)
		return nil
	case "expand-path@openssh.com":
		to := from
		if rest, ok := strings.CutPrefix(from, strings.TrimSuffix(v.home, "/")+"/~"); ok && (rest == "" || rest[0] == '/') {
			to = v.home + rest
		}
		return v.realPath(id, to)
	case "lsetstat@openssh.com":
		a, ok := p.attrs()
		if !ok {
			return errSFTPPacket
		}
		return v.record(recording.File{Op: "setstat", Path: from}, v.files.setstat(from, a, true))
	case "posix-rename@openssh.com", "hardlink@openssh.com":
		to, err := v.path(&p)
		if err != nil {
			return err
		}
		if name == "hardlink@openssh.com" {
			return v.record(recording.File{Op: "link", Path: from, Target: to}, v.files.link(from, to))
		}
		return v.record(recording.File{Op: "rename", Path: from, Target: to}, v.files.rename(from, to))
	}
	return errors.ErrUnsupported
}

// statvfs as PROTOCOL 4.3 of OpenSSH has it: eleven numbers.
func (v *sftpServer) statvfs(id uint32, st *unix.Statfs_t) {
	v.begin(fxExtendedReply, id)
	fsid := uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32
	flag := uint64(0)
	if st.Flags&unix.ST_RDONLY != 0 {
		flag |= 1
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		flag |= 2
	}
	for _, n := range []uint64{uint64(st.Bsize), uint64(st.Frsize), st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree, st.Ffree, fsid, flag, uint64(st.Namelen)} {
		v.out = binary.BigEndian.AppendUint64(v.out, n)
	}
}

// fsetstat applies attributes to an open file itself, wherever its name leads by now.
func (v *sftpServer) fsetstat(h *sftpHandle, a attrs) error {
	return v.control(h, func(fd int) error {
		var errs []error
		if a.flags&attrSize != 0 {
			errs = append(errs, syscall.Ftruncate(fd, int64(a.size)))
			if int64(a.size) != h.next {
				h.sum = nil
			}
		}
		if a.flags&attrTimes != 0 {
			t := a.times()
			errs = append(errs, unix.Futimes(fd, []unix.Timeval{{Sec: t[0].Sec}, {Sec: t[1].Sec}}))
		}
		if a.flags&attrMode != 0 {
			errs = append(errs, syscall.Fchmod(fd, a.mode&0o7777))
		}
		if a.flags&attrIDs != 0 {
			errs = append(errs, syscall.Fchown(fd, int(a.uid), int(a.gid)))
		}
		return errors.Join(errs...)
	})
}

func (a attrs) times() []unix.Timespec {
	return []unix.Timespec{{Sec: int64(a.atime)}, {Sec: int64(a.mtime)}}
}
