package session

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	if len(b) >= unix.PathMax { // the kernel takes none, and a name is resolved part by part
		return "", syscall.ENAMETOOLONG
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
