package ssh

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/pkg/sftp"
)

// Files is a place that files are copied from or to: this machine, or a host over sftp.
// Paths of a host have slashes; paths of this machine are the system's.
type Files struct {
	stat     func(p string) (fs.FileInfo, error) // follows symbolic links
	readDir  func(p string) ([]fs.FileInfo, error)
	open     func(p string) (io.ReadCloser, error)
	create   func(p string, mode fs.FileMode, exclusive bool) (io.WriteCloser, error)
	mkdir    func(p string, mode fs.FileMode) error
	chmod    func(p string, mode fs.FileMode) error
	chtimes  func(p string, mtime time.Time) error
	rename   func(from, to string) error
	remove   func(p string) error
	glob     func(p string) ([]string, error)
	join     func(elem ...string) string
	base     func(p string) string
	close    func() error
	nameable func(name string) bool // may be made as an entry of a directory
}

// Close ends the sftp session of a host.
func (f *Files) Close() error { return f.close() }

// LocalFiles is this machine.
func LocalFiles() *Files {
	return &Files{
		stat: os.Stat,
		readDir: func(p string) ([]fs.FileInfo, error) {
			entries, err := os.ReadDir(p)
			if err != nil {
				return nil, err
			}
			infos := make([]fs.FileInfo, 0, len(entries))
			for _, e := range entries {
				i, err := e.Info()
				if errors.Is(err, fs.ErrNotExist) {
					continue // went away meanwhile
				}
				if err != nil {
					return nil, err
				}
				infos = append(infos, i)
			}
			return infos, nil
		},
		open: func(p string) (io.ReadCloser, error) { return os.Open(p) },
		create: func(p string, mode fs.FileMode, exclusive bool) (io.WriteCloser, error) {
			flag := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			if exclusive {
				flag |= os.O_EXCL
			}
			return os.OpenFile(p, flag, mode)
		},
		mkdir:   os.Mkdir,
		chmod:   os.Chmod,
		chtimes: func(p string, m time.Time) error { return os.Chtimes(p, m, m) },
		rename:  os.Rename,
		remove:  os.Remove,
		glob:    func(p string) ([]string, error) { return nil, nil }, // the local shell has done it
		join:    filepath.Join,
		base:    filepath.Base,
		close:   func() error { return nil },
		// A host chooses these names: none may lead out of the directory, and none may be
		// something else than a name on this system (a drive, a stream, a device).
		nameable: func(n string) bool {
			return n != "." && n != ".." && n != "" && filepath.IsLocal(n) && !strings.ContainsAny(n, "/\x00") && filepath.Base(n) == n
		},
	}
}

// Files opens an sftp session.
func (c *Client) Files() (*Files, error) {
	ch, reqs, err := c.conn.OpenChannel("session", nil)
	if err != nil {
		return nil, c.openError("a session", err)
	}
	r := &run{c: c, s: Session{Subsystem: "sftp"}, ch: ch, ctx: c.ctx}
	c.wg.Go(func() { r.requests(reqs) }) // ends with the channel
	if err := r.ask(); err != nil {
		ch.Close()
		return nil, err
	}
	go io.Copy(io.Discard, ch.Stderr()) // ends with the channel; undrained it would stall the rest
	s, err := sftp.NewClientPipe(ch, ch, sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(128))
	if err != nil {
		ch.Close()
		return nil, failure(CodeDenied, err, "%s did not start sftp: %s", c.cfg.Host, line(err.Error()))
	}
	return &Files{
		stat:    s.Stat,
		readDir: s.ReadDir,
		open:    func(p string) (io.ReadCloser, error) { return s.Open(p) },
		create: func(p string, mode fs.FileMode, exclusive bool) (io.WriteCloser, error) {
			flag := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			if exclusive {
				flag = os.O_WRONLY | os.O_CREATE | os.O_EXCL
			}
			f, err := s.OpenFile(p, flag)
			if err != nil {
				return nil, err
			}
			if exclusive {
				// A new file has the mode it will have before it has content.
				if err := f.Chmod(mode); err != nil {
					f.Close()
					s.Remove(p)
					return nil, err
				}
			}
			return f, nil
		},
		mkdir: func(p string, mode fs.FileMode) error {
			if err := s.Mkdir(p); err != nil {
				return err
			}
			return s.Chmod(p, mode)
		},
		chmod:    s.Chmod,
		chtimes:  func(p string, m time.Time) error { return s.Chtimes(p, m, m) },
		rename:   func(from, to string) error { return rename(s, from, to) },
		remove:   s.Remove,
		glob:     s.Glob,
		join:     path.Join,
		base:     path.Base,
		close:    func() error { err := s.Close(); ch.Close(); return err },
		nameable: func(n string) bool { return n != "" && n != "." && n != ".." && !strings.ContainsAny(n, "/\x00") },
	}, nil
}

// rename replaces the target where the host can do that in one step.
func rename(s *sftp.Client, from, to string) error {
	if _, ok := s.HasExtension("posix-rename@openssh.com"); ok {
		return s.PosixRename(from, to)
	}
	return s.Rename(from, to)
}

// pathError takes the operation out of an error and keeps path and reason, one line.
func pathError(p string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %s", line(p), line(err.Error()))
}
