package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Packet types of draft-ietf-secsh-filexfer-02 section 3.
const (
	fxInit          = 1
	fxVersion       = 2
	fxOpen          = 3
	fxClose         = 4
	fxRead          = 5
	fxWrite         = 6
	fxLstat         = 7
	fxFstat         = 8
	fxSetstat       = 9
	fxFsetstat      = 10
	fxOpendir       = 11
	fxReaddir       = 12
	fxRemove        = 13
	fxMkdir         = 14
	fxRmdir         = 15
	fxRealpath      = 16
	fxStat          = 17
	fxRename        = 18
	fxReadlink      = 19
	fxSymlink       = 20
	fxStatus        = 101
	fxHandle        = 102
	fxData          = 103
	fxName          = 104
	fxAttrs         = 105
	fxExtended      = 200
	fxExtendedReply = 201
)

// Status codes, section 7.
const (
	fxOK               = 0
	fxEOF              = 1
	fxNoSuchFile       = 2
	fxPermissionDenied = 3
	fxFailure          = 4
	fxBadMessage       = 5
	fxUnsupported      = 8
)

// Bits of an open, section 6.3, and of attributes, section 5.
const (
	openRead   = 1
	openWrite  = 2
	openAppend = 4
	openCreate = 8
	openTrunc  = 16
	openExcl   = 32

	attrSize     = 1
	attrIDs      = 2
	attrMode     = 4
	attrTimes    = 8
	attrExtended = 1 << 31
)

const (
	sftpVersion   = 3
	maxSFTPPacket = 256 << 10 // as other servers
	maxSFTPRead   = maxSFTPPacket - 1024
)

var errSFTPPacket = errors.New("sftp: malformed packet")

// readPacket reads one packet into buf, grown as needed, and returns its type and rest.
func readPacket(r io.Reader, buf []byte) (byte, payload, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, buf, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > maxSFTPPacket {
		return 0, nil, buf, fmt.Errorf("%w of %d bytes", errSFTPPacket, n)
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return 0, nil, buf, err
	}
	return buf[0], payload(buf[1:]), buf, nil
}

// attrs are file attributes as the client gave them.
type attrs struct {
	flags        uint32
	size         uint64
	uid, gid     uint32
	mode         uint32
	atime, mtime uint32
}

func (p *payload) attrs() (attrs, bool) {
	var a attrs
	ok := true
	take := func(v *uint32) {
		n, good := p.u32()
		*v, ok = n, ok && good
	}
	take(&a.flags)
	if a.flags&attrSize != 0 {
		n, good := p.u64()
		a.size, ok = n, ok && good
	}
	if a.flags&attrIDs != 0 {
		take(&a.uid)
		take(&a.gid)
	}
	if a.flags&attrMode != 0 {
		take(&a.mode)
	}
	if a.flags&attrTimes != 0 {
		take(&a.atime)
		take(&a.mtime)
	}
	if ok && a.flags&attrExtended != 0 {
		n, good := p.u32()
		for ok = good; ok && n > 0; n-- {
			_, ok1 := p.str()
			_, ok2 := p.str()
			ok = ok1 && ok2
		}
	}
	return a, ok
}

// appendAttrs adds what stat(2) says.
func appendAttrs(b []byte, st *syscall.Stat_t) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, attrSize|attrIDs|attrMode|attrTimes)
	b = be.AppendUint64(b, uint64(st.Size))
	b = be.AppendUint32(b, st.Uid)
	b = be.AppendUint32(b, st.Gid)
	b = be.AppendUint32(b, st.Mode)
	b = be.AppendUint32(b, uint32(st.Atim.Sec))
	return be.AppendUint32(b, uint32(st.Mtim.Sec))
}

// statusOf maps an error to a status code and words.
func statusOf(err error) (uint32, string) {
	var no syscall.Errno
	switch {
	case err == nil:
		return fxOK, "Success"
	case errors.Is(err, io.EOF):
		return fxEOF, "End of file"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EBADF):
		return fxNoSuchFile, "No such file"
	case errors.Is(err, fs.ErrPermission):
		return fxPermissionDenied, "Permission denied"
	case errors.Is(err, errSFTPPacket), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENAMETOOLONG):
		return fxBadMessage, "Bad message"
	case errors.Is(err, errors.ErrUnsupported):
		return fxUnsupported, "Operation unsupported"
	case errors.As(err, &no):
		return fxFailure, no.Error()
	}
	return fxFailure, "Failure"
}

// longName is a line as ls -l writes it, which clients show as it is.
func longName(name string, st *syscall.Stat_t, owner, group string) string {
	t := time.Unix(st.Mtim.Sec, 0)
	when := t.Format("Jan _2 15:04")
	if age := time.Since(t); age > 183*24*time.Hour || age < -time.Hour {
		when = t.Format("Jan _2  2006")
	}
	return fmt.Sprintf("%s %4d %-8s %-8s %8d %s %s", modeWord(st.Mode), st.Nlink, owner, group, st.Size, when, name)
}

// modeWord is the first column of ls -l.
func modeWord(m uint32) string {
	kinds := map[uint32]byte{syscall.S_IFDIR: 'd', syscall.S_IFLNK: 'l', syscall.S_IFCHR: 'c', syscall.S_IFBLK: 'b', syscall.S_IFIFO: 'p', syscall.S_IFSOCK: 's'}
	w := []byte("-rwxrwxrwx")
	if k, ok := kinds[m&syscall.S_IFMT]; ok {
		w[0] = k
	}
	for i := range 9 {
		if m&(1<<(8-i)) == 0 {
			w[i+1] = '-'
		}
	}
	special := func(bit uint32, at int, with, without byte) {
		if m&bit == 0 {
			return
		}
		if w[at] == 'x' {
			w[at] = with
		} else {
			w[at] = without
		}
	}
	special(syscall.S_ISUID, 3, 's', 'S')
	special(syscall.S_ISGID, 6, 's', 'S')
	special(syscall.S_ISVTX, 9, 't', 'T')
	return string(w)
}

// openFlags turns an open's bits into those of open(2).
func openFlags(pflags uint32) (int, error) {
	f := syscall.O_CLOEXEC | syscall.O_NOCTTY
	switch {
	case pflags&openRead != 0 && pflags&(openWrite|openAppend) != 0:
		f |= os.O_RDWR
	case pflags&(openWrite|openAppend) != 0:
		f |= os.O_WRONLY
	case pflags&openRead != 0:
		f |= os.O_RDONLY
	default:
		return 0, errSFTPPacket
	}
	for bit, flag := range map[uint32]int{openAppend: os.O_APPEND, openCreate: os.O_CREATE, openTrunc: os.O_TRUNC, openExcl: os.O_EXCL} {
		if pflags&bit != 0 {
			f |= flag
		}
	}
	return f, nil
}
