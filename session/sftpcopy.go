package session

import (
	"errors"
	"io"
	"math"
	"os"
	"syscall"
)

// copyData copies between two open files on this host (copy-data, draft-ietf-secsh-filexfer-extensions-00
// section 7): the handle to read from, its offset and length (0: to the end), the handle to
// write to and its offset. It ends early when the channel does.
func (v *sftpServer) copyData(p payload) error {
	from, err := v.get(&p)
	if err != nil {
		return err
	}
	off, ok1 := p.u64()
	length, ok2 := p.u64()
	to, err := v.get(&p)
	if err != nil {
		return err
	}
	at, ok3 := p.u64()
	if !ok1 || !ok2 || !ok3 || off > 1<<62 || at > 1<<62 || from.dir || to.dir || !from.read || !to.write {
		return errSFTPPacket
	}
	// A file copied into itself never ends, or is not what was asked for.
	a, err1 := from.file.Stat()
	b, err2 := to.file.Stat()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if os.SameFile(a, b) {
		return errSFTPPacket
	}
	left := length
	if length == 0 {
		left = math.MaxInt64
	}
	if cap(v.data) < maxSFTPRead {
		v.data = make([]byte, maxSFTPRead)
	}
	for left > 0 {
		select {
		case <-v.s.gone:
			return syscall.ECANCELED
		default:
		}
		n, rerr := from.file.ReadAt(v.data[:min(left, maxSFTPRead)], int64(off))
		if n > 0 {
			piece := v.data[:n]
			from.moves(int64(off), piece)
			if to.apend {
				_, err = to.file.Write(piece)
			} else {
				_, err = to.file.WriteAt(piece, int64(at))
			}
			if err != nil {
				to.failed(err)
				return err
			}
			to.moves(int64(at), piece)
			off, at, left = off+uint64(n), at+uint64(n), left-uint64(n)
		}
		switch {
		case errors.Is(rerr, io.EOF) && length != 0 && left > 0:
			return io.EOF
		case errors.Is(rerr, io.EOF):
			return nil
		case rerr != nil:
			from.failed(rerr)
			return rerr
		}
	}
	return nil
}

// maxIDsAsked bounds one question about names.
const maxIDsAsked = 4096

// usersGroups answers users-groups-by-id@openssh.com: two strings full of ids, of users and
// of groups, for two full of names, which are empty where there is none.
func (v *sftpServer) usersGroups(id uint32, p payload) error {
	users, ok1 := p.str()
	groups, ok2 := p.str()
	if !ok1 || !ok2 || len(users)%4 != 0 || len(groups)%4 != 0 || len(users)+len(groups) > 4*maxIDsAsked {
		return errSFTPPacket
	}
	names := func(ids payload, name func(uint32) string) string {
		var b []byte
		for {
			n, ok := ids.u32()
			if !ok {
				return string(b)
			}
			s := name(n)
			if s == decimal(n) {
				s = "" // that is what there is when it has no name
			}
			b = appendString(b, s)
		}
	}
	u, g := names(users, v.names.user), names(groups, v.names.group)
	v.begin(fxExtendedReply, id)
	v.out = appendString(appendString(v.out, u), g)
	if len(v.out) > maxSFTPPacket {
		return syscall.E2BIG
	}
	return nil
}
