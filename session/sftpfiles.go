package session

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"strconv"
	"syscall"

	"tssh/recording"
)

// maxHandles bounds open files and directories of one channel.
const maxHandles = 512

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
