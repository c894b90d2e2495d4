package names

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxFile  = 4 << 20 // a hosts file beyond that is left alone
	maxHosts = 2000    // programs read the whole file for every name
)

// File is our block in a hosts file. Several may share one file, each with its own ID.
type File struct {
	Path string
	ID   string // letters, digits and dashes; a device's name
	// Own are names that this computer has for itself; they are not taken either.
	Own []string

	seen fs.FileInfo // as we left it
	want []byte
}

func (f *File) mark() string  { return "# tssh:" + f.ID }
func (f *File) begin() string { return f.mark() + " begin" }
func (f *File) end() string   { return f.mark() + " end" }

const (
	flagNoNewline = " no-newline" // what stood before the block did not end in one
	flagNew       = " new-file"   // there was no file
)

// isOurs tells our lines from everybody else's: each carries the mark at its end, or is the
// first or last one.
func (f *File) isOurs(line []byte) bool {
	s := strings.TrimRight(string(line), "\r\n")
	return strings.HasSuffix(s, " "+f.mark()) || s == f.end() || strings.HasPrefix(s, f.begin()+" ") || strings.HasPrefix(s, f.begin()+":")
}

// strip is the file without our lines, everything else as it was.
func (f *File) strip(b []byte) (rest []byte, isNew bool) {
	added := -1 // where the newline stands that was put in front of the block
	for line := range bytes.Lines(b) {
		if !f.isOurs(line) {
			rest = append(rest, line...)
			continue
		}
		if flags, ok := strings.CutPrefix(string(line), f.begin()); ok {
			flags, _, _ = strings.Cut(flags, ":")
			isNew = isNew || strings.Contains(flags, flagNew)
			if strings.Contains(flags, flagNoNewline) {
				added = len(rest)
			}
		}
	}
	if added > 0 && added == len(rest) { // else somebody has written on behind us
		rest = bytes.TrimSuffix(rest, []byte("\n"))
	}
	return rest, isNew
}

// taken are the names that the other lines give.
func taken(rest []byte, own []string) map[string]bool {
	t := map[string]bool{}
	for line := range bytes.Lines(rest) {
		s, _, _ := strings.Cut(string(line), "#")
		if fields := strings.Fields(s); len(fields) > 1 {
			for _, n := range fields[1:] {
				t[strings.TrimSuffix(strings.ToLower(n), ".")] = true
			}
		}
	}
	for _, n := range own {
		t[strings.TrimSuffix(strings.ToLower(n), ".")] = true
	}
	return t
}

// some is the first three of a list, and how many more there are.
func some(list []string) string {
	if n := len(list) - 3; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:3], ", "), n)
	}
	return strings.Join(list, ", ")
}

// Apply writes the names of t. It says in words what of them is not in the file.
func (f *File) Apply(t *Table) (left string, err error) {
	return left, f.change(func(rest []byte, isNew bool) []byte {
		if t.Domain() == "" || len(t.hosts) == 0 {
			left = ""
			return nil
		}
		has := taken(rest, f.Own)
		var lines []string
		var skipped []string
		for i, h := range t.hosts {
			if i == maxHosts {
				break
			}
			var names []string
			for _, n := range []string{h.Name + "." + t.domain, h.Name} {
				if has[n] {
					skipped = append(skipped, n)
				} else if isLabel(h.Name) {
					names = append(names, n)
				}
			}
			if len(names) == 0 {
				continue
			}
			for _, a := range h.Addrs {
				lines = append(lines, a.String()+" "+strings.Join(names, " ")+" "+f.mark()+"\n")
			}
		}
		left = ""
		if n := len(t.hosts) - maxHosts; n > 0 {
			left = fmt.Sprintf("%d hosts are left out, a hosts file takes %d", n, maxHosts)
		} else if len(skipped) > 0 {
			left = "left out, since it means something else on this computer: " + some(skipped)
		}
		head := f.begin()
		if isNew {
			head += flagNew
		}
		if len(rest) > 0 && rest[len(rest)-1] != '\n' {
			head = "\n" + head + flagNoNewline
		}
		return []byte(head + ": hosts of the mesh " + t.mesh + ", kept by tsshd; write above or below\n" + strings.Join(lines, "") + f.end() + "\n")
	})
}

// Remove takes our lines out.
func (f *File) Remove() error { return f.change(func([]byte, bool) []byte { return nil }) }

// Intact reports whether the file is as Apply left it.
func (f *File) Intact() bool {
	now, err := os.Stat(f.Path)
	return err == nil && f.seen != nil && os.SameFile(now, f.seen) && now.Size() == f.seen.Size() && now.ModTime().Equal(f.seen.ModTime())
}

// change replaces our block by what block makes of the rest of the file.
func (f *File) change(block func(rest []byte, isNew bool) []byte) error {
	path, err := filepath.EvalSymlinks(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		path, err = f.Path, nil
	}
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	for range 5 {
		old, was, err := read(path)
		if err != nil {
			return err
		}
		rest, isNew := f.strip(old)
		mine := block(rest, isNew || was == nil)
		if was == nil && mine == nil {
			return nil
		}
		if mine == nil && isNew && len(rest) == 0 {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("names: %w", err)
			}
			f.seen = nil
			return nil
		}
		next := append(rest, mine...)
		if was == nil || !bytes.Equal(next, old) {
			err := write(path, "."+filepath.Base(path)+".tssh-"+f.ID, was, next)
			if errors.Is(err, errChanged) {
				continue
			}
			if err != nil {
				return fmt.Errorf("names: %w", err)
			}
		}
		f.seen, err = os.Stat(path)
		return err
	}
	return fmt.Errorf("names: %s: other programs keep changing it", path)
}

// errChanged is of a file that another program wrote meanwhile.
var errChanged = errors.New("changed meanwhile")

// read is the file and what it was when it was read; nil when there is none.
func read(path string) ([]byte, fs.FileInfo, error) {
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("names: %w", err)
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("names: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, nil, fmt.Errorf("names: %s is no file, or one larger than %d MiB: left alone", path, maxFile>>20)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("names: %w", err)
	}
	return b, st, nil
}

// write puts next into place by rename, or, where the file cannot be replaced (it is a mount
// of its own, as in containers, has other links, or attributes that we may not copy) by
// writing into it.
func write(path, tmpName string, was fs.FileInfo, next []byte) error {
	if was != nil && links(was) > 1 {
		return inPlace(path, was, next)
	}
	tmp := filepath.Join(filepath.Dir(path), tmpName)
	os.Remove(tmp) // of a daemon that was killed here
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if was == nil {
			return err
		}
		return inPlace(path, was, next)
	}
	defer os.Remove(tmp)
	_, err = w.Write(next)
	if err == nil && was != nil {
		if err = copyAttributes(w, path, was); err != nil {
			w.Close()
			return inPlace(path, was, next)
		}
	} else if err == nil {
		err = w.Chmod(0o644)
	}
	if err == nil {
		err = w.Sync()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if !same(path, was) {
		return errChanged
	}
	if err := os.Rename(tmp, path); err != nil {
		if was == nil {
			return err
		}
		return inPlace(path, was, next)
	}
	return syncDir(filepath.Dir(path))
}

func same(path string, was fs.FileInfo) bool {
	now, err := os.Stat(path)
	if was == nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && os.SameFile(now, was) && now.Size() == was.Size() && now.ModTime().Equal(was.ModTime())
}

// inPlace overwrites the file from its first byte on; our block is its end, so what others
// wrote is overwritten by itself.
func inPlace(path string, was fs.FileInfo, next []byte) error {
	if !same(path, was) {
		return errChanged
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = w.WriteAt(next, 0)
	if err == nil {
		err = w.Truncate(int64(len(next)))
	}
	if err == nil {
		err = w.Sync()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	return err
}
