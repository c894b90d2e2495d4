package ssh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"
)

// file copies one file.
func (j *job) file(s, d Place, fi fs.FileInfo, fresh bool) error {
	if !fresh {
		look := d.Files.stat
		if j.Links {
			look = d.Files.lstat
		}
		di, err := look(d.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fresh = true
		case err != nil:
			return pathError(d.String(), err)
		case di.IsDir():
			return fmt.Errorf("%s: is a directory", d)
		case di.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s: is a symbolic link, left out", d)
		case j.Resume && di.Size() == fi.Size() && di.ModTime().Unix() == fi.ModTime().Unix():
			j.report(s.String(), fi.Size(), fi.Size(), true)
			return nil
		case sameFile(s, d):
			return fmt.Errorf("%s and %s are the same file", s, d)
		}
	}
	in, err := s.Files.open(s.Path)
	if err != nil {
		return pathError(s.String(), err)
	}
	defer in.Close()
	t := &transfer{job: j, s: s, d: d, at: d.Path, in: in, size: fi.Size()}
	if err := t.openOutput(fi, fresh); err != nil {
		return pathError(d.String(), err)
	}
	stop := context.AfterFunc(j.ctx, func() { in.Close() })
	defer stop()
	err = t.bytes()
	if cerr := t.out.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err == nil && j.Preserve {
		if err = d.Files.chmod(t.at, j.mode(fi)); err == nil {
			err = d.Files.chtimes(t.at, fi.ModTime())
		}
	}
	if err == nil && fresh {
		err = d.Files.rename(t.at, d.Path)
	}
	if cause := context.Cause(j.ctx); cause != nil && err != nil {
		err = cause
	}
	switch {
	case err == nil:
		return nil
	case fresh && t.kept:
		return fmt.Errorf("%w (what is there is kept for the next --resume)", pathError(d.String(), err))
	case fresh:
		d.Files.remove(t.at) // best effort: the connection may be what failed
		return pathError(d.String(), err)
	}
	return fmt.Errorf("%w (the file is incomplete: %d bytes were written)", pathError(d.String(), err), t.done.done)
}

// sameFile finds a file copied over itself, which would leave nothing of it.
func sameFile(s, d Place) bool {
	if (s.Files.client == nil) != (d.Files.client == nil) || s.Files.client != nil && s.Files.client.cfg.Host != d.Files.client.cfg.Host {
		return false
	}
	a, err := s.Files.realPath(s.Path)
	b, err2 := d.Files.realPath(d.Path)
	return err == nil && err2 == nil && a == b
}

// transfer is the content of one file on its way.
type transfer struct {
	*job
	s, d  Place
	at    string // where it is written
	in    io.Reader
	out   io.WriteCloser
	start int64 // so much is there already
	size  int64
	kept  bool // what was written stays when the rest fails
	done  meter
}

// openOutput opens what is written to: the file itself, or another name for one that is not
// there yet.
func (t *transfer) openOutput(fi fs.FileInfo, fresh bool) (err error) {
	if fresh {
		t.at += ".tssh-" + rand.Text()[:8]
		if t.Resume && t.resumable() {
			t.at = partialName(t.d.Path, t.s, fi)
			if t.out, t.start, err = t.d.Files.goOn(t.at); err == nil {
				t.kept = true
				return nil
			}
			if !errors.Is(err, fs.ErrNotExist) { // somebody else's
				t.at = t.d.Path + ".tssh-" + rand.Text()[:8]
			} else {
				t.kept = true
			}
		}
	}
	t.out, err = t.d.Files.create(t.at, t.mode(fi), fresh)
	return err
}

// bytes copies, with whichever side's fast way there is: sftp keeps many requests in flight
// in its WriteTo and ReadFrom.
func (t *transfer) bytes() error {
	t.done = meter{j: t.job, name: t.s.String(), done: t.start, total: t.size, last: time.Now()}
	defer t.done.end()
	if n := t.channels(); n > 1 {
		return t.segments(n)
	}
	if t.start > 0 {
		for _, f := range []any{t.in, t.out} {
			if _, err := f.(io.Seeker).Seek(t.start, io.SeekStart); err != nil {
				return err
			}
		}
	}
	if isReaderFrom(t.out) {
		_, err := t.out.(io.ReaderFrom).ReadFrom(&meterReader{t.in, &t.done})
		return err
	}
	_, err := io.Copy(&meterWriter{t.out, &t.done}, t.in)
	return err
}

func isReaderFrom(w io.Writer) bool {
	_, ok := w.(interface {
		ReadFromWithConcurrency(io.Reader, int) (int64, error)
	})
	return ok
}

// report passes progress on, one at a time.
func (j *job) report(name string, done, total int64, finish bool) {
	if j.Progress == nil {
		return
	}
	j.progress.Lock()
	defer j.progress.Unlock()
	j.Progress(name, done, total, finish)
}

// meter counts and reports ten times a second.
type meter struct {
	j     *job
	name  string
	total int64

	mu   sync.Mutex
	done int64
	last time.Time
}

func (m *meter) add(n int) {
	m.mu.Lock()
	m.done += int64(n)
	done, now := m.done, time.Now()
	tell := now.Sub(m.last) > 100*time.Millisecond
	if tell {
		m.last = now
	}
	m.mu.Unlock()
	if tell {
		m.j.report(m.name, done, m.total, false)
	}
}

func (m *meter) end() { m.j.report(m.name, m.done, m.total, true) }

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
func (r *meterReader) Size() int64 { return max(0, r.m.total-r.m.done) }

type meterWriter struct {
	io.Writer
	m *meter
}

func (w *meterWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.m.add(n)
	return n, err
}
