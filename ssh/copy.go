package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// maxDepth bounds a tree: a host could offer one without end.
const maxDepth = 100

// maxLinks bounds links within folders that links led to: a host that hides where they
// lead could make a tree without end of a few.
const maxLinks = 8

// Files at once: on a long path each costs several round trips, which overlap then.
const (
	filesNear = 4
	filesFar  = 64
)

// leaveWithin is how long a copy that was broken off may still tidy up on the host.
const leaveWithin = 3 * time.Second

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

// Copy copies files, several at once, and a large one on a long path through several
// channels (segments.go).
//
// A file that does not exist yet is written under another name and gets its own when it is
// whole: a broken copy leaves nothing behind, or with Resume what the next one goes on
// with (resume.go). A file that exists is written in place, so that its owner, links and
// access rights stay; a broken copy then says so.
type Copy struct {
	Recursive bool
	Preserve  bool                                              // times and exact modes; otherwise the mode, less the umask
	Links     bool                                              // symbolic links as links, and none followed below the sources
	Resume    bool                                              // go on with what a broken copy left, skip what is there whole; keeps times
	Channels  int                                               // for one large file; 0: as many as the path is worth
	Progress  func(name string, done, total int64, finish bool) // may be nil; one call at a time
	Umask     fs.FileMode                                       // for new files, where the far side has none of ours
}

// job is one Run.
type job struct {
	Copy
	ctx   context.Context
	stop  context.CancelCauseFunc
	slots chan struct{} // files at once
	wg    sync.WaitGroup
	last  []func() error // what directories get when all is in them; owned by Run

	progress sync.Mutex
	mu       sync.Mutex
	errs     []error
}

// Run copies the sources to dst. With several sources dst must be a directory. What fails
// does not keep the others from being copied; the errors come joined. A connection that
// ends ends all, with its reason.
func (c Copy) Run(ctx context.Context, src []Place, dst Place) error {
	if dst.Path == "" {
		dst.Path = "."
	}
	var err error
	if dst.Path, err = dst.Files.tilde(dst.Path); err != nil {
		return fmt.Errorf("%s: %w", dst, err)
	}
	j := &job{Copy: c}
	j.Preserve = j.Preserve || j.Resume
	j.ctx, j.stop = context.WithCancelCause(ctx)
	defer j.stop(nil)
	far := false
	for _, p := range append([]Place{dst}, src...) {
		if cl := p.Files.client; cl != nil {
			far = far || p.Files.far()
			end := context.AfterFunc(cl.ctx, func() { j.stop(cl.Err()) })
			defer end()
			// A host that does not answer any more holds nobody up who has had enough.
			over := make(chan struct{})
			defer close(over)
			leave := context.AfterFunc(j.ctx, func() {
				select {
				case <-over:
				case <-time.After(leaveWithin):
					cl.conn.Close()
				}
			})
			defer leave()
		}
	}
	j.slots = make(chan struct{}, filesNear)
	if far {
		j.slots = make(chan struct{}, filesFar)
	}
	di, err := dst.Files.stat(dst.Path)
	isDir := err == nil && di.IsDir()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return j.told(pathError(dst.String(), err))
	}
	if !isDir && strings.HasSuffix(dst.Path, "/") && !c.Recursive {
		return fmt.Errorf("%s: is not a directory", dst)
	}
	var all []Place
	for _, s := range src {
		if s.Path == "" {
			s.Path = "."
		}
		found, err := expand(s)
		if err != nil {
			j.failed(err)
			continue
		}
		all = append(all, found...)
	}
	if len(all) > 1 && !isDir {
		j.failed(fmt.Errorf("%s: several files need a directory to go to, and this is none", dst))
		return errors.Join(j.errs...)
	}
	for _, s := range all {
		if j.ctx.Err() != nil {
			break
		}
		to := dst
		if isDir {
			name := s.Files.base(s.Path)
			if name == "." || name == ".." || name == "/" {
				name = "" // the content of a directory goes into the directory
			} else if !dst.Files.nameable(name) {
				j.failed(fmt.Errorf("%s: this name cannot be made in %s", s, dst))
				continue
			}
			to.Path = dst.Files.join(dst.Path, name)
		}
		fi, err := s.Files.stat(s.Path)
		if err != nil {
			j.failed(pathError(s.String(), err))
			continue
		}
		j.one(s, to, fi, false, 0, nil)
	}
	j.wg.Wait()
	for i := len(j.last) - 1; i >= 0 && j.ctx.Err() == nil; i-- {
		j.failed(j.last[i]())
	}
	return j.told(errors.Join(j.errs...))
}

// told gives the reason for which all ended, where there is one, instead of what it led to.
func (j *job) told(err error) error {
	if cause := context.Cause(j.ctx); cause != nil && err != nil {
		return cause
	}
	return err
}

func (j *job) failed(err error) {
	if err == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.errs = append(j.errs, err)
}

// expand resolves a pattern on a host; a name that exists as it is written is itself.
func expand(s Place) ([]Place, error) {
	p, err := s.Files.tilde(s.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	s.Path = p
	_, err = s.Files.stat(s.Path)
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

// one copies what fi is of. Fresh says that nothing can be at d. Trail are the real paths
// of the directories whose links were followed to come here.
func (j *job) one(s, d Place, fi fs.FileInfo, fresh bool, depth int, trail []string) {
	switch {
	case j.ctx.Err() != nil:
	case fi.IsDir() && !j.Recursive:
		j.failed(fmt.Errorf("%s: is a directory (copy it with -r)", s))
	case fi.IsDir() && depth >= maxDepth:
		j.failed(fmt.Errorf("%s: more than %d directories deep", s, maxDepth))
	case fi.IsDir():
		j.failed(j.tree(s, d, fi, fresh, depth, trail))
	case fi.Mode()&fs.ModeSymlink != 0: // with Links
		j.last = append(j.last, func() error { return j.link(s, d) })
	case !fi.Mode().IsRegular() && depth > 0:
		j.failed(fmt.Errorf("%s: neither a file nor a directory, left out", s))
	default:
		select {
		case j.slots <- struct{}{}:
		case <-j.ctx.Done():
			return
		}
		j.wg.Go(func() { // ends with the file, which ends with ctx
			defer func() { <-j.slots }()
			j.failed(j.file(s, d, fi, fresh))
		})
	}
}

func (j *job) tree(s, d Place, fi fs.FileInfo, fresh bool, depth int, trail []string) error {
	made := fresh
	if !fresh {
		look := d.Files.stat
		if j.Links && depth > 0 {
			look = d.Files.lstat // nothing goes through a link that is there
		}
		di, err := look(d.Path)
		switch {
		case err == nil && !di.IsDir():
			return fmt.Errorf("%s: is not a directory", d)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return pathError(d.String(), err)
		}
		made = err != nil
	}
	if made {
		// Writable for us while it is filled; its own mode comes last.
		if err := d.Files.mkdir(d.Path, 0o700|j.mode(fi)); err != nil {
			return pathError(d.String(), err)
		}
	}
	entries, err := s.Files.readDir(s.Path)
	if err != nil {
		return pathError(s.String(), err)
	}
	j.last = append(j.last, func() error {
		var errs []error
		if made && j.mode(fi)&0o700 != 0o700 || j.Preserve {
			if err := d.Files.chmod(d.Path, j.mode(fi)); err != nil {
				errs = append(errs, pathError(d.String(), err))
			}
		}
		if j.Preserve {
			if err := d.Files.chtimes(d.Path, fi.ModTime()); err != nil {
				errs = append(errs, pathError(d.String(), err))
			}
		}
		return errors.Join(errs...)
	})
	for _, e := range entries {
		if e.Name() == "." || e.Name() == ".." {
			continue
		}
		if j.ctx.Err() != nil {
			break
		}
		if !d.Files.nameable(e.Name()) || !s.Files.nameable(e.Name()) {
			j.failed(fmt.Errorf("%s: an entry named %q cannot be made here, left out", s, line(e.Name())))
			continue
		}
		from, to := s, d
		from.Path, to.Path = s.Files.join(s.Path, e.Name()), d.Files.join(d.Path, e.Name())
		next := trail
		if link := e.Mode()&fs.ModeSymlink != 0; link && !j.Links || e.Mode() == 0 { // an entry without attributes
			if e, err = s.Files.stat(from.Path); err != nil {
				j.failed(pathError(from.String(), err))
				continue
			}
			if link && e.IsDir() {
				if next, err = follow(s, from, trail); err != nil {
					j.failed(err)
					continue
				}
			}
		}
		j.one(from, to, e, made, depth+1, next)
	}
	return nil
}

// follow refuses a link that leads back to where we came from: to a directory that has one
// of the links on the way here below it.
func follow(dir, link Place, trail []string) ([]string, error) {
	here, err := dir.Files.realPath(dir.Path)
	if err != nil {
		return nil, pathError(dir.String(), err)
	}
	to, err := dir.Files.realPath(link.Path)
	if err != nil {
		return nil, pathError(link.String(), err)
	}
	next := append(append([]string{}, trail...), here)
	if len(next) > maxLinks {
		return nil, fmt.Errorf("%s: more than %d links to directories within each other, left out", link, maxLinks)
	}
	for _, from := range next {
		if from == to || strings.HasPrefix(from, strings.TrimSuffix(to, "/")+"/") {
			return nil, fmt.Errorf("%s: this link leads back to %q, left out", link, line(to))
		}
	}
	return next, nil
}

// link makes a symbolic link, last of all: nothing is written through one.
func (j *job) link(s, d Place) error {
	to, err := s.Files.readLink(s.Path)
	if err != nil {
		return pathError(s.String(), err)
	}
	if di, err := d.Files.lstat(d.Path); err == nil {
		if di.Mode()&fs.ModeSymlink == 0 {
			return fmt.Errorf("%s: is there and is no link", d)
		}
		if is, err := d.Files.readLink(d.Path); err == nil && is == to {
			return nil
		}
		if err := d.Files.remove(d.Path); err != nil {
			return pathError(d.String(), err)
		}
	}
	if err := d.Files.symlink(to, d.Path); err != nil {
		return pathError(d.String(), err)
	}
	return nil
}

func (j *job) mode(fi fs.FileInfo) fs.FileMode {
	if j.Preserve {
		return fi.Mode().Perm()
	}
	return fi.Mode().Perm() &^ j.Umask
}
