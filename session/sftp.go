package session

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tssh/recording"
)

// sftpExtensions are announced with the version, name and version of each.
var sftpExtensions = [][2]string{
	{"posix-rename@openssh.com", "1"}, {"statvfs@openssh.com", "2"}, {"fstatvfs@openssh.com", "2"}, {"hardlink@openssh.com", "1"},
	{"fsync@openssh.com", "1"}, {"lsetstat@openssh.com", "1"}, {"limits@openssh.com", "1"}, {"expand-path@openssh.com", "1"},
	{"copy-data", "1"}, {"users-groups-by-id@openssh.com", "1"},
}

// maxHandles bounds open files and directories of one channel.
const maxHandles = 512

// sftpServer serves one subsystem channel, one request after the other.
type sftpServer struct {
	s       *channel
	r       *bufio.Reader
	w       *bufio.Writer
	files   *tree
	home    string // where relative names begin
	handles map[string]*sftpHandle
	last    uint64
	names   idNames
	changes *bool  // may it change files; nil while that was not asked
	out     []byte // of the answer being made
	data    []byte // read into
}

// sftpHandle is an open file or directory.
type sftpHandle struct {
	path  string
	file  *os.File
	dir   bool
	sent  bool // of a directory: everything was listed
	write bool
	read  bool
	apend bool

	moved int64     // bytes, either way
	next  int64     // where the next sequential access would be
	sum   hash.Hash // nil once the access was not sequential
	err   string    // the first error of a read or write
	key   pieceKey  // of piece
	piece *piece    // nil: nothing that has a sum
}

func (s *channel) requestSFTP() bool {
	if s.started {
		return false
	}
	s.started = true
	if say, ok := s.c.ask(s.id, "sftp", ""); !ok {
		return s.denied("sftp", say)
	}
	folder := s.c.grant.Load().Folder
	files, err := openTree(folder, s.c.acc.Home)
	if err != nil {
		return s.denied("sftp", "file transfer is bound to a folder of this host, which could not be opened: "+err.Error())
	}
	if s.recordOpen("sftp", "") != nil {
		files.close()
		return false
	}
	home := s.c.acc.Home
	if files.root != nil {
		home = "/"
		s.c.note(s.id, "folder", "file transfer is bound to "+files.name)
	}
	// No process: this one is the user already. It ends with the channel.
	srv := &sftpServer{s: s, files: files, home: home, handles: map[string]*sftpHandle{}, names: newIDNames()}
	srv.r = bufio.NewReaderSize(countReader{s}, 64<<10)
	srv.w = bufio.NewWriterSize(countWriter{s}, 64<<10)
	s.files = make(chan struct{})
	go func() { // ends with the channel; awaited by wait
		defer close(s.files)
		defer files.close()
		err := srv.serve()
		exit := recording.Exit{}
		if err != nil {
			exit.Status = 1
			s.c.note(s.id, "refused", plain(clip(err.Error(), 512)))
		}
		if s.c.recordJSON(s.id, recording.KindExit, exit) == nil {
			sendExit(s.ch, exit)
			_ = s.ch.CloseWrite()
		}
		_ = s.ch.Close()
	}()
	return true
}

// countReader reads the channel and counts.
type countReader struct{ s *channel }

func (c countReader) Read(p []byte) (int, error) {
	n, err := c.s.ch.Read(p)
	c.s.typing.count(n)
	c.s.c.touch()
	return n, err
}

// countWriter writes to the channel and counts.
type countWriter struct{ s *channel }

func (c countWriter) Write(p []byte) (int, error) {
	n, err := c.s.ch.Write(p)
	c.s.sent.Add(int64(n))
	return n, err
}

// serve answers until the client closes. Its result is nil for an ordinary end.
func (v *sftpServer) serve() error {
	defer func() {
		for name, h := range v.handles {
			if h.err == "" && !h.dir {
				h.err = "broken off" // the client did not close it
			}
			_ = v.close(name)
		}
	}()
	var buf []byte
	first := true
	for {
		typ, p, b, err := readPacket(v.r, buf)
		buf = b
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		v.s.c.mayCome()
		select {
		case <-v.s.gone: // revoked: what is still waiting to be done is not done
			return nil
		default:
		}
		if first != (typ == fxInit) {
			return fmt.Errorf("%w: type %d", errSFTPPacket, typ)
		}
		if first {
			first = false
			v.version()
		} else {
			id, ok := p.u32()
			if !ok {
				return errSFTPPacket
			}
			v.begin(fxStatus, id)
			err := v.allowed(typ, p)
			if err == nil {
				err = v.handle(typ, id, p)
			}
			if err != nil {
				v.status(id, err)
			}
		}
		if v.s.c.journal.Err() != nil {
			return v.s.c.journal.Err() // what cannot be recorded is not answered
		}
		v.s.c.mayFlow()
		binary.BigEndian.PutUint32(v.out, uint32(len(v.out)-4))
		if _, err := v.w.Write(v.out); err != nil {
			return nil // the client is gone
		}
		if v.r.Buffered() == 0 {
			if err := v.w.Flush(); err != nil {
				return nil
			}
		}
	}
}

// begin starts an answer, with room for its length.
func (v *sftpServer) begin(typ byte, id uint32) {
	v.out = append(v.out[:0], 0, 0, 0, 0, typ)
	v.out = binary.BigEndian.AppendUint32(v.out, id)
}

func (v *sftpServer) version() {
	v.out = append(v.out[:0], 0, 0, 0, 0, fxVersion)
	v.out = binary.BigEndian.AppendUint32(v.out, sftpVersion)
	for _, e := range sftpExtensions {
		v.out = appendString(appendString(v.out, e[0]), e[1])
	}
}

func (v *sftpServer) status(id uint32, err error) {
	code, words := statusOf(err)
	v.begin(fxStatus, id)
	v.out = binary.BigEndian.AppendUint32(v.out, code)
	v.out = appendString(appendString(v.out, words), "en")
}

// record makes an event of an operation and returns its error, so that a handler can end
// with it.
func (v *sftpServer) record(f recording.File, err error) error {
	if f.Op != "symlink" { // of which the target is what it says
		f.Target = v.files.shown(f.Target)
	}
	f.Path, f.Target = clip(v.files.shown(f.Path), 4096), clip(f.Target, 4096)
	if err != nil {
		_, f.Error = statusOf(err)
	}
	if rerr := v.s.c.recordJSON(v.s.id, recording.KindFile, f); rerr != nil {
		return rerr
	}
	return err
}

// path reads a path; what is relative is so to the home directory.
func (v *sftpServer) path(p *payload) (string, error) {
	b, ok := p.str()
	if !ok || strings.IndexByte(string(b), 0) >= 0 {
		return "", errSFTPPacket
	}
	if s := string(b); strings.HasPrefix(s, "/") {
		return s, nil
	} else if s == "" {
		return v.home, nil
	} else {
		// Not cleaned: a/../b is not b where a is a link, and the kernel knows.
		return strings.TrimSuffix(v.home, "/") + "/" + s, nil
	}
}

// handle does one request; an error becomes the status.
func (v *sftpServer) handle(typ byte, id uint32, p payload) error {
	switch typ {
	case fxOpen:
		return v.open(id, p)
	case fxClose:
		h, ok := p.str()
		if !ok {
			return errSFTPPacket
		}
		err := v.close(string(h))
		v.status(id, err)
		return nil
	case fxRead:
		return v.read(id, p)
	case fxWrite:
		return v.write(id, p)
	case fxLstat, fxStat:
		name, err := v.path(&p)
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		err = v.files.stat(name, typ == fxLstat, &st)
		if err = v.record(recording.File{Op: "stat", Path: name}, err); err != nil {
			return err
		}
		v.attributes(id, &st)
		return nil
	case fxFstat:
		h, err := v.get(&p)
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := v.control(h, func(fd int) error { return syscall.Fstat(fd, &st) }); err != nil {
			return err
		}
		v.attributes(id, &st)
		return nil
	case fxOpendir:
		return v.opendir(id, p)
	case fxReaddir:
		return v.readdir(id, p)
	case fxRealpath:
		name, err := v.path(&p)
		if err != nil {
			return err
		}
		return v.realPath(id, name)
	case fxReadlink:
		name, err := v.path(&p)
		if err != nil {
			return err
		}
		to, err := v.files.readlink(name)
		if err = v.record(recording.File{Op: "readlink", Path: name, Target: to}, err); err == nil {
			v.oneName(id, to)
		}
		return err
	}
	err := v.change(typ, id, p)
	if err == nil && v.out[4] == fxStatus {
		v.status(id, nil)
	}
	return err
}

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

func (v *sftpServer) attributes(id uint32, st *syscall.Stat_t) {
	v.begin(fxAttrs, id)
	v.out = appendAttrs(v.out, st)
}

func (v *sftpServer) oneName(id uint32, name string) {
	v.begin(fxName, id)
	v.out = binary.BigEndian.AppendUint32(v.out, 1)
	v.out = appendString(appendString(v.out, name), name)
	v.out = binary.BigEndian.AppendUint32(v.out, 0)
}

// realPath answers with the resolved path.
func (v *sftpServer) realPath(id uint32, name string) error {
	to := v.files.real(name)
	v.oneName(id, to)
	return v.record(recording.File{Op: "realpath", Path: name, Target: to}, nil)
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

// control runs f on an open handle's descriptor.
func (v *sftpServer) control(h *sftpHandle, f func(fd int) error) error {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func (v *sftpServer) get(p *payload) (*sftpHandle, error) {
	b, ok := p.str()
	if !ok {
		return nil, errSFTPPacket
	}
	h := v.handles[string(b)]
	if h == nil {
		return nil, syscall.EBADF
	}
	return h, nil
}

func (v *sftpServer) put(id uint32, h *sftpHandle) {
	v.last++
	name := strconv.FormatUint(v.last, 10)
	v.handles[name] = h
	v.begin(fxHandle, id)
	v.out = appendString(v.out, name)
}

func (v *sftpServer) open(id uint32, p payload) error {
	name, err := v.path(&p)
	if err != nil {
		return err
	}
	pflags, ok := p.u32()
	a, ok2 := p.attrs()
	if !ok || !ok2 {
		return errSFTPPacket
	}
	h := &sftpHandle{path: name, read: pflags&openRead != 0, write: pflags&(openWrite|openAppend) != 0, apend: pflags&openAppend != 0}
	op := "get"
	if h.write {
		op = "put"
	}
	flags, err := openFlags(pflags)
	if err != nil {
		return v.record(recording.File{Op: op, Path: name}, err)
	}
	if len(v.handles) >= maxHandles {
		return v.record(recording.File{Op: op, Path: name}, syscall.EMFILE)
	}
	mode := uint32(0o666)
	if a.flags&attrMode != 0 {
		mode = a.mode & 0o7777
	}
	// O_NONBLOCK for the open alone: a named pipe without a writer would hold up the
	// channel for ever.
	fd, err := v.files.open(name, flags|syscall.O_NONBLOCK, mode)
	if err == nil {
		err = syscall.SetNonblock(fd, false)
	}
	if err != nil {
		return v.record(recording.File{Op: op, Path: name}, err)
	}
	h.file = os.NewFile(uintptr(fd), name)
	// Bytes read and written through one handle, or appended to what was there, are no
	// file's content.
	if h.read != h.write && !h.apend {
		h.sum = sha256.New()
		v.s.c.pieces.opened(h)
	}
	v.put(id, h)
	return nil
}

func (v *sftpServer) read(id uint32, p payload) error {
	h, err := v.get(&p)
	if err != nil {
		return err
	}
	off, ok1 := p.u64()
	n, ok2 := p.u32()
	if !ok1 || !ok2 || off > 1<<62 || h.dir || !h.read {
		return errSFTPPacket
	}
	n = min(n, maxSFTPRead)
	if cap(v.data) < int(n) {
		v.data = make([]byte, n)
	}
	got, err := h.file.ReadAt(v.data[:n], int64(off))
	if errors.Is(err, syscall.ESPIPE) { // a device or a pipe
		got, err = h.file.Read(v.data[:n])
	}
	if got == 0 {
		if n == 0 && err == nil {
			err = io.EOF
		}
		h.failed(err)
		return err
	}
	h.moves(int64(off), v.data[:got])
	v.begin(fxData, id)
	v.out = binary.BigEndian.AppendUint32(v.out, uint32(got))
	v.out = append(v.out, v.data[:got]...)
	return nil
}

func (v *sftpServer) write(id uint32, p payload) error {
	h, err := v.get(&p)
	if err != nil {
		return err
	}
	off, ok1 := p.u64()
	data, ok2 := p.str()
	if !ok1 || !ok2 || off > 1<<62 || h.dir || !h.write {
		return errSFTPPacket
	}
	if h.apend {
		_, err = h.file.Write(data)
	} else if _, err = h.file.WriteAt(data, int64(off)); errors.Is(err, syscall.ESPIPE) {
		_, err = h.file.Write(data)
	}
	if err != nil {
		h.failed(err)
		return err
	}
	h.moves(int64(off), data)
	v.status(id, nil)
	return nil
}

// moves counts bytes and keeps the sum while they come in order.
func (h *sftpHandle) moves(off int64, data []byte) {
	h.moved += int64(len(data))
	if h.sum == nil {
		return
	}
	if off != h.next {
		h.sum = nil
		return
	}
	h.sum.Write(data)
	h.next += int64(len(data))
}

func (h *sftpHandle) failed(err error) {
	if err != nil && !errors.Is(err, io.EOF) && h.err == "" {
		_, h.err = statusOf(err)
	}
}

// close closes a handle and makes the event of what was moved through it. There is a sum
// if the bytes went in order from the first, and the file now ends where they did; else
// the last handle may bring one (pieces).
func (v *sftpServer) close(name string) error {
	h := v.handles[name]
	if h == nil {
		return syscall.EBADF
	}
	delete(v.handles, name)
	f := recording.File{Op: "get", Path: h.path, Bytes: h.moved, Error: h.err}
	if h.dir {
		return h.file.Close()
	}
	if h.write {
		f.Op = "put"
	}
	if h.sum != nil && h.err == "" {
		if st, err := h.file.Stat(); err == nil && st.Size() == h.next {
			f.SHA256 = hex.EncodeToString(h.sum.Sum(nil))
		}
	}
	if sum := v.s.c.pieces.closing(h, f.SHA256 != ""); sum != "" {
		f.SHA256 = sum
	}
	err := h.file.Close()
	return v.record(f, err)
}

func (v *sftpServer) opendir(id uint32, p payload) error {
	name, err := v.path(&p)
	if err != nil {
		return err
	}
	if len(v.handles) >= maxHandles {
		return v.record(recording.File{Op: "list", Path: name}, syscall.EMFILE)
	}
	fd, err := v.files.open(name, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err = v.record(recording.File{Op: "list", Path: name}, err); err != nil {
		if fd > 0 {
			syscall.Close(fd)
		}
		return err
	}
	v.put(id, &sftpHandle{path: name, file: os.NewFile(uintptr(fd), name), dir: true})
	return nil
}

// dirPiece is how many entries one answer holds: with the longest names, within a packet.
const dirPiece = 100

func (v *sftpServer) readdir(id uint32, p payload) error {
	h, err := v.get(&p)
	if err != nil {
		return err
	}
	if !h.dir {
		return errSFTPPacket
	}
	var names []string
	if h.moved == 0 {
		names = []string{".", ".."} // counted once; clients that show them expect them
	}
	h.moved++
	more, err := h.file.Readdirnames(dirPiece)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	names = append(names, more...)
	if len(names) == 0 {
		return io.EOF
	}
	v.begin(fxName, id)
	v.out = binary.BigEndian.AppendUint32(v.out, uint32(len(names)))
	for _, n := range names {
		var st syscall.Stat_t
		// An entry that cannot be looked at (another user's FUSE mount, one that went in
		// the meantime) is listed without attributes; it does not fail the others.
		if err := v.control(h, func(fd int) error { return v.files.entry(fd, n, &st) }); err != nil {
			v.out = appendString(appendString(v.out, n), n)
			v.out = binary.BigEndian.AppendUint32(v.out, 0)
			continue
		}
		v.out = appendString(appendString(v.out, n), longName(n, &st, v.names.user(st.Uid), v.names.group(st.Gid)))
		v.out = appendAttrs(v.out, &st)
	}
	return nil
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
