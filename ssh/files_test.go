package ssh

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// remote is the sftp side of a test host, whose paths are this machine's.
func remote(t *testing.T) *Files {
	t.Helper()
	f, err := (&host{}).start(t).dial(t).Files()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.realPath = filepath.EvalSymlinks // the library's server does not resolve links, real ones do
	return f
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != text {
		t.Fatalf("%s: %d bytes, %v", path, len(b), err)
	}
	if fi, _ := os.Stat(path); mode != 0 && fi.Mode().Perm() != mode {
		t.Errorf("%s: mode %o, want %o", path, fi.Mode().Perm(), mode)
	}
}

func TestCopyBothWays(t *testing.T) {
	far, here := remote(t), LocalFiles()
	for _, c := range []struct {
		name     string
		from, to *Files
	}{{"up", here, far}, {"down", far, here}, {"across", far, far}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			big := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB: many sftp packets
			write(t, dir+"/src/big", big, 0o640)
			write(t, dir+"/src/sub/run", "#!/bin/sh\n", 0o755)
			write(t, dir+"/src/sub/empty", "", 0o600)
			old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
			os.Chtimes(dir+"/src/big", old, old)
			var seen, finished int64
			job := Copy{Recursive: true, Preserve: true, Progress: func(_ string, done, _ int64, fin bool) {
				if fin {
					finished++
					seen += done
				}
			}}
			if err := job.Run(t.Context(), []Place{{c.from, "a", dir + "/src"}}, Place{c.to, "b", dir + "/dst"}); err != nil {
				t.Fatal(err)
			}
			wantFile(t, dir+"/dst/big", big, 0o640)
			wantFile(t, dir+"/dst/sub/run", "#!/bin/sh\n", 0o755)
			wantFile(t, dir+"/dst/sub/empty", "", 0o600)
			if fi, _ := os.Stat(dir + "/dst/big"); !fi.ModTime().Equal(old) {
				t.Errorf("time %v", fi.ModTime())
			}
			if finished != 3 || seen != int64(len(big))+10 {
				t.Errorf("progress: %d files, %d bytes", finished, seen)
			}
			left, _ := filepath.Glob(dir + "/dst/*.tssh-*")
			if len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A file that exists is written in place: it stays the same file, with its mode.
func TestCopyOverAFile(t *testing.T) {
	far := remote(t)
	dir := t.TempDir()
	write(t, dir+"/src", "new", 0o644)
	write(t, dir+"/dst", "old and longer", 0o600)
	if err := os.Link(dir+"/dst", dir+"/other"); err != nil {
		t.Fatal(err)
	}
	if err := (Copy{}).Run(t.Context(), []Place{{LocalFiles(), "", dir + "/src"}}, Place{far, "web", dir + "/dst"}); err != nil {
		t.Fatal(err)
	}
	wantFile(t, dir+"/other", "new", 0o600)
}

type failing struct {
	io.Reader
	after func()
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		if f.after != nil {
			f.after()
		}
		return n, errors.New("the link broke")
	}
	return n, err
}
func (f *failing) Close() error { return nil }

func TestBrokenCopyLeavesNothing(t *testing.T) {
	src := LocalFiles()
	src.open = func(string) (io.ReadCloser, error) { return &failing{Reader: strings.NewReader("half")}, nil }
	for name, dst := range map[string]*Files{"local": LocalFiles(), "remote": remote(t)} {
		dir := t.TempDir()
		write(t, dir+"/src", "whole", 0o644)
		write(t, dir+"/there", "before", 0o644)
		err := Copy{}.Run(t.Context(), []Place{{src, "", dir + "/src"}}, Place{dst, "x", dir + "/dst"})
		if err == nil || !strings.Contains(err.Error(), "the link broke") {
			t.Fatalf("%s: %v", name, err)
		}
		entries, _ := os.ReadDir(dir)
		if len(entries) != 2 {
			t.Errorf("%s: left behind: %v", name, entries)
		}
		err = Copy{}.Run(t.Context(), []Place{{src, "", dir + "/src"}}, Place{dst, "x", dir + "/there"})
		if err == nil || !strings.Contains(err.Error(), "the file is incomplete") {
			t.Errorf("%s: over a file: %v", name, err)
		}
	}
}

// info is a directory entry that a host made up.
type info struct {
	fs.FileInfo
	name string
	dir  bool
}

func (i info) Name() string { return i.name }
func (i info) IsDir() bool  { return i.dir }
func (i info) Size() int64  { return 4 }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
func (i info) ModTime() time.Time { return time.Unix(1e9, 0) }

// hostile offers a tree with names that lead elsewhere, and one without end.
func hostile(names ...string) *Files {
	f := LocalFiles()
	f.stat = func(p string) (fs.FileInfo, error) {
		base := filepath.Base(p)
		return info{name: base, dir: base == "tree" || base == "loop"}, nil
	}
	f.readDir = func(p string) ([]fs.FileInfo, error) {
		if filepath.Base(p) == "loop" {
			return []fs.FileInfo{info{name: "loop", dir: true}}, nil
		}
		var out []fs.FileInfo
		for _, n := range names {
			out = append(out, info{name: n})
		}
		return out, nil
	}
	f.open = func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("evil")), nil }
	f.nameable = func(string) bool { return true }
	return f
}

func TestHostileNamesStayInside(t *testing.T) {
	dir := t.TempDir()
	src := hostile("../outside", "/etc/outside", "..", "sub/inner", "", "nul\x00x", "good", "esc\x1b[2J")
	err := Copy{Recursive: true}.Run(t.Context(), []Place{{src, "web", "tree"}}, Place{LocalFiles(), "", dir + "/in"})
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\x00") || strings.Count(err.Error(), "cannot be made here") != 5 {
		t.Errorf("%v", err)
	}
	wantFile(t, dir+"/in/good", "evil", 0)
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("outside: %v", entries)
	}
	if entries, _ := os.ReadDir(dir + "/in"); len(entries) != 2 {
		t.Errorf("inside: %v", entries)
	}
	err = Copy{Recursive: true}.Run(t.Context(), []Place{{src, "web", "loop"}}, Place{LocalFiles(), "", dir + "/deep"})
	if err == nil || !strings.Contains(err.Error(), "directories deep") {
		t.Errorf("endless tree: %v", err)
	}
}

func TestCopyIsBrokenOff(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	src := LocalFiles()
	src.open = func(string) (io.ReadCloser, error) {
		return &failing{Reader: strings.NewReader("half"), after: func() { cancel(why) }}, nil
	}
	write(t, dir+"/a", "1", 0o644)
	write(t, dir+"/b", "2", 0o644)
	os.Mkdir(dir+"/to", 0o755)
	err := Copy{}.Run(ctx, []Place{{src, "", dir + "/a"}, {src, "", dir + "/b"}}, Place{LocalFiles(), "", dir + "/to"})
	if !errors.Is(err, why) {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir + "/to"); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}
