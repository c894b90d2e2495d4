package ssh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// maxDepth bounds a tree: a host could offer one without end, or a link could lead back.
const maxDepth = 100

// Place is a path somewhere.
type Place struct {
	Files *Files
	Host  string // for words; "" is this machine
	Path  string // "" is the home directory of the host
}

// String is the place as it is written on the command line, safe to print.
func (p Place) String() string {
	if p.Host == "" {
		return line(p.Path)
	}
	return line(p.Host + ":" + p.Path)
}

// Copy copies files.
//
// A file that does not exist yet is written under another name and gets its own when it is
// whole: a broken copy leaves nothing behind. A file that exists is written in place, so
// that its owner, links and access rights stay; a broken copy then says so.
type Copy struct {
	Recursive bool
	Preserve  bool                                              // times and exact modes; otherwise the mode, less the umask
	Progress  func(name string, done, total int64, finish bool) // may be nil
	Umask     fs.FileMode                                       // for new files, where the far side has none of ours
}

// Run copies the sources to dst. With several sources dst must be a directory. What fails
// does not keep the others from being copied; the errors come joined.
func (c Copy) Run(ctx context.Context, src []Place, dst Place) error {
	if dst.Path == "" {
		dst.Path = "."
	}
	di, err := dst.Files.stat(dst.Path)
	isDir := err == nil && di.IsDir()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pathError(dst.String(), err)
	}
	var errs []error
	var all []Place
	for _, s := range src {
		if s.Path == "" {
			s.Path = "."
		}
		found, err := expand(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, found...)
	}
	if len(all) > 1 && !isDir {
		return errors.Join(append(errs, fmt.Errorf("%s: several files need a directory to go to, and this is none", dst))...)
	}
	for _, s := range all {
		if ctx.Err() != nil {
			break
		}
		to := dst
		if isDir {
			name := s.Files.base(s.Path)
			if name == "." || name == ".." || name == "/" {
				name = "" // the content of a directory goes into the directory
			} else if !dst.Files.nameable(name) {
				errs = append(errs, fmt.Errorf("%s: this name cannot be made in %s", s, dst))
				continue
			}
			to.Path = dst.Files.join(dst.Path, name)
		}
		if err := c.one(ctx, s, to, 0); err != nil {
			errs = append(errs, err)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		errs = append(errs, cause)
	}
	return errors.Join(errs...)
}

// expand resolves a pattern on a host; a name that exists as it is written is itself.
func expand(s Place) ([]Place, error) {
	_, err := s.Files.stat(s.Path)
	if err == nil {
		return []Place{s}, nil
	}
	names, gerr := s.Files.glob(s.Path)
	if gerr != nil || len(names) == 0 {
		return nil, pathError(s.String(), err)
	}
	out := make([]Place, len(names))
	for i, n := range names {
		out[i] = Place{s.Files, s.Host, n}
	}
	return out, nil
}

func (c Copy) one(ctx context.Context, s, d Place, depth int) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	fi, err := s.Files.stat(s.Path)
	if err != nil {
		return pathError(s.String(), err)
	}
	switch {
	case fi.IsDir() && !c.Recursive:
		return fmt.Errorf("%s: is a directory (copy it with -r)", s)
	case fi.IsDir() && depth >= maxDepth:
		return fmt.Errorf("%s: more than %d directories deep, or a link that leads back", s, maxDepth)
	case fi.IsDir():
		return c.tree(ctx, s, d, fi, depth)
	case !fi.Mode().IsRegular() && depth > 0:
		return fmt.Errorf("%s: neither a file nor a directory, left out", s)
	}
	return c.file(ctx, s, d, fi)
}

func (c Copy) tree(ctx context.Context, s, d Place, fi fs.FileInfo, depth int) error {
	made := false
	if di, err := d.Files.stat(d.Path); err == nil && !di.IsDir() {
		return fmt.Errorf("%s: is not a directory", d)
	} else if err != nil {
		// Writable for us while it is filled; its own mode comes last.
		if err := d.Files.mkdir(d.Path, 0o700|c.mode(fi)); err != nil {
			return pathError(d.String(), err)
		}
		made = true
	}
	entries, err := s.Files.readDir(s.Path)
	if err != nil {
		return pathError(s.String(), err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() == "." || e.Name() == ".." {
			continue
		}
		if !d.Files.nameable(e.Name()) || !s.Files.nameable(e.Name()) {
			errs = append(errs, fmt.Errorf("%s: an entry named %q cannot be made here, left out", s, line(e.Name())))
			continue
		}
		from, to := s, d
		from.Path, to.Path = s.Files.join(s.Path, e.Name()), d.Files.join(d.Path, e.Name())
		if err := c.one(ctx, from, to, depth+1); err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
		}
	}
	if made && c.mode(fi)&0o700 != 0o700 {
		if err := d.Files.chmod(d.Path, c.mode(fi)); err != nil {
			errs = append(errs, pathError(d.String(), err))
		}
	}
	if c.Preserve {
		if err := d.Files.chtimes(d.Path, fi.ModTime()); err != nil {
			errs = append(errs, pathError(d.String(), err))
		}
	}
	return errors.Join(errs...)
}

func (c Copy) mode(fi fs.FileInfo) fs.FileMode {
	if c.Preserve {
		return fi.Mode().Perm()
	}
	return fi.Mode().Perm() &^ c.Umask
}

func (c Copy) file(ctx context.Context, s, d Place, fi fs.FileInfo) error {
	in, err := s.Files.open(s.Path)
	if err != nil {
		return pathError(s.String(), err)
	}
	defer in.Close()
	at, fresh := d.Path, false
	if di, err := d.Files.stat(d.Path); errors.Is(err, fs.ErrNotExist) {
		fresh, at = true, d.Path+".tssh-"+rand.Text()[:8]
	} else if err != nil {
		return pathError(d.String(), err)
	} else if di.IsDir() {
		return fmt.Errorf("%s: is a directory", d)
	}
	out, err := d.Files.create(at, c.mode(fi), fresh)
	if err != nil {
		return pathError(d.String(), err)
	}
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	n, err := c.bytes(out, in, s, fi.Size())
	if cerr := out.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	if err == nil && c.Preserve {
		if err = d.Files.chmod(at, c.mode(fi)); err == nil {
			err = d.Files.chtimes(at, fi.ModTime())
		}
	}
	if err == nil && fresh {
		err = d.Files.rename(at, d.Path)
	}
	if err != nil && fresh {
		d.Files.remove(at) // best effort: the connection may be what failed
		return pathError(d.String(), err)
	}
	if err != nil {
		return fmt.Errorf("%w (the file is incomplete: %d bytes were written)", pathError(d.String(), err), n)
	}
	return nil
}

// bytes copies with whichever side's fast way there is: sftp keeps many requests in flight
// in its WriteTo and ReadFrom.
func (c Copy) bytes(out io.Writer, in io.Reader, s Place, total int64) (int64, error) {
	if c.Progress == nil {
		return io.Copy(out, in)
	}
	m := &meter{c: c, name: s.String(), total: total, last: time.Now()}
	defer m.end()
	switch {
	case isReaderFrom(out):
		return out.(io.ReaderFrom).ReadFrom(&meterReader{in, m})
	default:
		return io.Copy(&meterWriter{out, m}, in)
	}
}

func isReaderFrom(w io.Writer) bool {
	_, ok := w.(interface {
		ReadFromWithConcurrency(io.Reader, int) (int64, error)
	})
	return ok
}

// meter counts and reports ten times a second.
type meter struct {
	c           Copy
	name        string
	done, total int64
	last        time.Time
}

func (m *meter) add(n int) {
	m.done += int64(n)
	if now := time.Now(); now.Sub(m.last) > 100*time.Millisecond {
		m.last = now
		m.c.Progress(m.name, m.done, m.total, false)
	}
}

func (m *meter) end() { m.c.Progress(m.name, m.done, m.total, true) }

type meterReader struct {
	io.Reader
	m *meter
}

func (r *meterReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.m.add(n)
	return n, err
}

// Size lets sftp choose how many requests to keep in flight.
func (r *meterReader) Size() int64 { return r.m.total }

type meterWriter struct {
	io.Writer
	m *meter
}

func (w *meterWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.m.add(n)
	return n, err
}
