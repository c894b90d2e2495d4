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
	"sync"
	"time"

	"github.com/pkg/sftp"
)

// Files is a place that files are copied from or to: this machine, or a host over sftp.
// Paths of a host have slashes; paths of this machine are the system's.
type Files struct {
	stat     func(p string) (fs.FileInfo, error) // follows symbolic links
	lstat    func(p string) (fs.FileInfo, error)
	readDir  func(p string) ([]fs.FileInfo, error)
	readLink func(p string) (string, error)
	symlink  func(to, p string) error
	realPath func(p string) (string, error)
	open     func(p string) (io.ReadCloser, error)
	create   func(p string, mode fs.FileMode, exclusive bool) (io.WriteCloser, error)
	reopen   func(p string) (io.WriteCloser, error) // for writing, as it is
	mkdir    func(p string, mode fs.FileMode) error
	chmod    func(p string, mode fs.FileMode) error
	chtimes  func(p string, mtime time.Time) error
	rename   func(from, to string) error
	remove   func(p string) error
	mine     func(fi fs.FileInfo) bool // belongs to who we are there
	glob     func(p string) ([]string, error)
	tilde    func(p string) (string, error)
	join     func(elem ...string) string
	base     func(p string) string
	close    func() error
	nameable func(name string) bool // may be made as an entry of a directory

	client *Client       // nil: this machine
	rtt    time.Duration // a round trip to the host, about

	mu   sync.Mutex
	more map[int]func() (*Files, error) // further channels to the same host
	wg   sync.WaitGroup                 // what goes on with them
}

// Close ends the sftp session of a host.
func (f *Files) Close() error {
	f.wg.Wait()
	for _, more := range f.more {
		if m, err := more(); err == nil {
			m.close()
		}
	}
	f.more = nil
	return f.close()
}

// another is a further channel to the same host, the i-th; it is opened once.
func (f *Files) another(i int) (*Files, error) {
	f.mu.Lock()
	if f.more == nil {
		f.more = map[int]func() (*Files, error){}
	}
	if f.more[i] == nil {
		f.more[i] = sync.OnceValues(f.client.Files)
	}
	more := f.more[i]
	f.mu.Unlock()
	return more()
}

// background runs what Close of either waits for.
func (f *Files) background(other *Files, run func()) {
	other.wg.Add(1)
	f.wg.Go(func() {
		defer other.wg.Done()
		run()
	})
}

// LocalFiles is this machine.
func LocalFiles() *Files {
	return &Files{
		stat:     os.Stat,
		lstat:    os.Lstat,
		readLink: os.Readlink,
		symlink:  os.Symlink,
		realPath: func(p string) (string, error) {
			p, err := filepath.EvalSymlinks(p)
			if err == nil {
				p, err = filepath.Abs(p)
			}
			return p, err
		},
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
		reopen: func(p string) (io.WriteCloser, error) {
			return os.OpenFile(p, os.O_WRONLY|noFollow, 0)
		},
		mine:    func(fi fs.FileInfo) bool { return ownedByUs(fi) },
		tilde:   func(p string) (string, error) { return p, nil }, // the local shell has done it
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
	begun := time.Now()
	ch, reqs, err := c.conn.OpenChannel("session", nil)
	if err != nil {
		return nil, c.openError("a session", err)
	}
	r := &run{c: c, s: Session{Subsystem: "sftp"}, ch: ch, ctx: c.ctx}
	c.wg.Go(func() { r.requests(reqs) }) // ends with the channel
	rtt := time.Since(begun)
	begun = time.Now()
	if err := r.ask(); err != nil {
		ch.Close()
		return nil, err
	}
	rtt = min(rtt, time.Since(begun))
	begun = time.Now()
	go io.Copy(io.Discard, ch.Stderr()) // ends with the channel; undrained it would stall the rest
	s, err := sftp.NewClientPipe(ch, ch, sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(128))
	if err != nil {
		ch.Close()
		return nil, failure(CodeDenied, err, "%s did not start sftp: %s", c.cfg.Host, line(err.Error()))
	}
	rtt = min(rtt, time.Since(begun))
	// Who we are there is who owns the home, where sftp begins.
	home := sync.OnceValues(func() (fs.FileInfo, error) { return s.Stat(".") })
	files := &Files{
		client:   c,
		rtt:      rtt,
		stat:     s.Stat,
		lstat:    s.Lstat,
		readDir:  s.ReadDir,
		readLink: s.ReadLink,
		symlink:  s.Symlink,
		realPath: s.RealPath,
		reopen:   func(p string) (io.WriteCloser, error) { return s.OpenFile(p, os.O_WRONLY) },
		mine: func(fi fs.FileInfo) bool {
			h, err := home()
			if err != nil {
				return false
			}
			own, ok := h.Sys().(*sftp.FileStat)
			its, ok2 := fi.Sys().(*sftp.FileStat)
			return ok && ok2 && own.UID == its.UID
		},
		tilde: func(p string) (string, error) {
			rest, ok := strings.CutPrefix(p, "~")
			switch {
			case !ok:
				return p, nil
			case rest == "":
				return ".", nil
			case rest[0] == '/':
				return "./" + strings.TrimLeft(rest, "/"), nil
			}
			return "", errors.New("write out where another account's home is (or ./~ for a name that begins so)")
		},
		open: func(p string) (io.ReadCloser, error) { return s.Open(p) },
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
		join:     path.Join,
		base:     path.Base,
		close:    func() error { err := s.Close(); ch.Close(); return err },
		nameable: func(n string) bool { return n != "" && n != "." && n != ".." && !strings.ContainsAny(n, "/\x00") },
	}
	files.glob = files.match
	return files, nil
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
