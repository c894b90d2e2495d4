package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ways are the two directions and from host to host.
func ways(t *testing.T, f func(t *testing.T, from, to *Files)) {
	far, here := remote(t), LocalFiles()
	for _, c := range []struct {
		name     string
		from, to *Files
	}{{"up", here, far}, {"down", far, here}, {"across", far, far}} {
		t.Run(c.name, func(t *testing.T) { f(t, c.from, c.to) })
	}
}

func random(t *testing.T, name string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	rand.Read(b)
	if err := os.WriteFile(name, b, 0o640); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCopyThroughSeveralChannels(t *testing.T) {
	ways(t, func(t *testing.T, from, to *Files) {
		dir := t.TempDir()
		want := random(t, dir+"/src", 5*segment+12345)
		var done int64
		job := Copy{Channels: 3, Progress: func(_ string, n, total int64, finish bool) {
			if finish {
				done = n
			}
		}}
		if err := job.Run(t.Context(), []Place{{from, "", dir + "/src"}}, Place{to, "", dir + "/dst"}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(dir + "/dst"); !bytes.Equal(got, want) || done != int64(len(want)) {
			t.Errorf("%d bytes of %d, progress %d", len(got), len(want), done)
		}
		for _, f := range []*Files{from, to} {
			if f.client != nil && len(f.more) != 2 {
				t.Errorf("%d further channels", len(f.more))
			}
		}
	})
}

// No segment is handed out that is further than maxGap from the first one missing: resume
// counts on it.
func TestSegmentsKeepTogether(t *testing.T) {
	q := newQueue(0, 1<<40)
	first, _, _ := q.take()
	var offs []int64
	for range maxGap/segment - 1 {
		off, _, ok := q.take()
		if !ok {
			t.Fatal("no segment")
		}
		offs = append(offs, off)
	}
	for _, off := range offs {
		q.finished(off, nil)
	}
	var wg sync.WaitGroup
	got := make(chan int64, 1)
	wg.Go(func() {
		off, _, _ := q.take()
		got <- off
	})
	select {
	case off := <-got:
		t.Fatalf("segment at %d with the first one open", off)
	case <-time.After(100 * time.Millisecond):
	}
	q.finished(first, nil)
	if off := <-got; off != maxGap {
		t.Errorf("next segment at %d", off)
	}
	wg.Wait()
}

// breaking fails after so many bytes.
type breaking struct {
	*os.File
	left int
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the link broke")
	}
	n, err := b.File.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func TestResume(t *testing.T) {
	for _, where := range []string{"here", "there"} {
		t.Run(where, func(t *testing.T) {
			dir := t.TempDir()
			want := random(t, dir+"/src", maxGap+maxGap/2)
			to := LocalFiles()
			if where == "there" {
				to = remote(t)
			}
			src := LocalFiles()
			open := src.open
			var reads []*breaking
			limit := maxGap + maxGap/4
			src.open = func(p string) (io.ReadCloser, error) {
				f, err := os.Open(p)
				if err != nil {
					return nil, err
				}
				b := &breaking{f, limit}
				reads = append(reads, b)
				return struct { // without ReadAt and WriteTo
					io.Reader
					io.Seeker
					io.Closer
				}{b, f, f}, nil
			}
			run := func() error {
				return Copy{Resume: true}.Run(t.Context(), []Place{{src, "", dir + "/src"}}, Place{to, "", dir + "/dst"})
			}
			err := run()
			if err == nil || !strings.Contains(err.Error(), "the link broke (what is there is kept for the next --resume)") {
				t.Fatal(err)
			}
			parts, _ := filepath.Glob(dir + "/dst.tssh-part-*")
			if len(parts) != 1 {
				t.Fatalf("kept: %v", parts)
			}
			if _, err := os.Stat(dir + "/dst"); err == nil {
				t.Fatal("an incomplete file has its name")
			}
			limit = len(want)
			if err := run(); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(dir + "/dst"); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes of %d, or others", len(got), len(want))
			}
			if again := len(want) - reads[1].left; again >= len(want) || again < maxGap {
				t.Errorf("%d bytes were read the second time", again)
			}
			// What is there whole is not opened again.
			src.open = func(string) (io.ReadCloser, error) { t.Error("opened"); return nil, fs.ErrInvalid }
			if err := run(); err != nil {
				t.Fatal(err)
			}
			// A changed source begins anew, into the file that is there.
			src.open = open
			other := random(t, dir+"/src", 100)
			if err := run(); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(dir + "/dst"); !bytes.Equal(got, other) {
				t.Error("the changed source was not copied")
			}
			if left, _ := filepath.Glob(dir + "/dst?*"); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// In a folder that others may write to, what they put where a partial copy would be is not
// gone on with.
func TestResumeOnlyOurOwn(t *testing.T) {
	dir := t.TempDir()
	want := random(t, dir+"/src", maxGap+1)
	fi, _ := os.Stat(dir + "/src")
	s := Place{LocalFiles(), "", dir + "/src"}
	for name, to := range map[string]*Files{"here": LocalFiles(), "there": remote(t)} {
		part := partialName(dir+"/dst", s, fi)
		write(t, dir+"/victim", strings.Repeat("v", 100), 0o600)
		if err := os.Symlink(dir+"/victim", part); err != nil {
			t.Fatal(err)
		}
		if err := (Copy{Resume: true}).Run(t.Context(), []Place{s}, Place{to, "", dir + "/dst"}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantFile(t, dir+"/victim", strings.Repeat("v", 100), 0o600)
		if got, _ := os.ReadFile(dir + "/dst"); !bytes.Equal(got, want) {
			t.Errorf("%s: not copied", name)
		}
		os.Remove(dir + "/dst")
		os.Remove(part)
	}
}

func TestLinks(t *testing.T) {
	ways(t, func(t *testing.T, from, to *Files) {
		dir := t.TempDir()
		write(t, dir+"/src/sub/f", "text", 0o644)
		write(t, dir+"/src/g", "more", 0o644)
		links := map[string]string{"/to-f": "sub/f", "/to-sub": "sub", "/nowhere": "gone", "/sub/up": "..", "/sub/self": "."}
		for at, where := range links {
			if err := os.Symlink(where, dir+"/src"+at); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time over what is there
			if err := (Copy{Recursive: true, Links: true}).Run(t.Context(), []Place{{from, "", dir + "/src/."}}, Place{to, "", dir + "/as-links"}); err != nil {
				t.Fatal(err)
			}
		}
		for at, where := range links {
			if got, _ := os.Readlink(dir + "/as-links" + at); got != where {
				t.Errorf("%s leads to %q", at, got)
			}
		}
		wantFile(t, dir+"/as-links/sub/f", "text", 0o644)
		// Followed: those that lead back are named and left out, and end the copy of nothing else.
		err := Copy{Recursive: true}.Run(t.Context(), []Place{{from, "", dir + "/src"}}, Place{to, "", dir + "/followed"})
		if err == nil || strings.Count(err.Error(), "leads back") != 2+2 || strings.Count(err.Error(), "nowhere") != 1 {
			t.Errorf("loops: %v", err)
		}
		wantFile(t, dir+"/followed/to-f", "text", 0o644)
		wantFile(t, dir+"/followed/to-sub/f", "text", 0o644)
	})
}

// A host that lists a link and a folder of the same name does not lead us out of the tree,
// nor does it the second time, when the link is there.
func TestHostileLinkAndFolder(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(dir+"/outside", 0o755)
	src := hostile()
	entries := map[string][]fs.FileInfo{"tree": {link{"x"}, info{name: "x", dir: true}, link{"y"}, info{name: "y"}}, "x": {info{name: "evil"}}}
	src.stat = func(p string) (fs.FileInfo, error) { return info{name: filepath.Base(p), dir: true}, nil }
	src.readDir = func(p string) ([]fs.FileInfo, error) { return entries[filepath.Base(p)], nil }
	src.readLink = func(p string) (string, error) {
		return map[string]string{"x": dir + "/outside", "y": dir + "/outside/file"}[filepath.Base(p)], nil
	}
	os.MkdirAll(dir+"/second/tree", 0o755)
	os.Symlink(dir+"/outside", dir+"/second/tree/x")
	os.Symlink(dir+"/outside/file", dir+"/second/tree/y")
	for _, to := range []string{"/first", "/second"} {
		if err := (Copy{Recursive: true, Links: true}).Run(t.Context(), []Place{{src, "web", "tree"}}, Place{LocalFiles(), "", dir + to}); err == nil {
			t.Errorf("%s: no error", to)
		}
	}
	if got, _ := os.ReadDir(dir + "/outside"); len(got) != 0 {
		t.Errorf("outside: %v", got)
	}
}

type link struct{ name string }

func (l link) Name() string       { return l.name }
func (l link) Size() int64        { return 1 }
func (l link) Mode() fs.FileMode  { return fs.ModeSymlink | 0o777 }
func (l link) ModTime() time.Time { return time.Unix(1e9, 0) }
func (l link) IsDir() bool        { return false }
func (l link) Sys() any           { return nil }

func TestCopyOntoItself(t *testing.T) {
	far := remote(t)
	dir := t.TempDir()
	write(t, dir+"/f", "precious", 0o644)
	os.Symlink("f", dir+"/l")
	for _, to := range []string{"/f", "/l", "/./f"} {
		err := Copy{}.Run(t.Context(), []Place{{far, "web", dir + "/f"}}, Place{far, "web", dir + to})
		if err == nil || !strings.Contains(err.Error(), "the same file") {
			t.Errorf("%s: %v", to, err)
		}
		wantFile(t, dir+"/f", "precious", 0o644)
	}
}

func TestNamesOfAnyBytes(t *testing.T) {
	ways(t, func(t *testing.T, from, to *Files) {
		dir := t.TempDir()
		names := []string{"new\nline", "bad\xff\xfeutf8", "esc\x1b[2J", " blank ", "-dash", "ä", "quote'\"", `back\slash`, "star*", "~tilde", ".hidden"}
		for _, n := range names {
			write(t, dir+"/src/"+n, n, 0o644)
		}
		var said []string
		job := Copy{Recursive: true, Progress: func(name string, _, _ int64, _ bool) { said = append(said, name) }}
		if err := job.Run(t.Context(), []Place{{from, "", dir + "/src"}}, Place{to, "", dir + "/dst"}); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			wantFile(t, dir+"/dst/"+n, n, 0o644)
		}
		if s := strings.Join(said, ""); strings.ContainsAny(s, "\x1b\n\xff") {
			t.Errorf("shown: %q", s)
		}
		// One of them, written out.
		if err := (Copy{}).Run(t.Context(), []Place{{from, "", dir + "/src/star*"}}, Place{to, "", dir + "/one"}); err != nil {
			t.Fatal(err)
		}
		wantFile(t, dir+"/one", "star*", 0o644)
	})
}

func TestPatterns(t *testing.T) {
	far := remote(t)
	dir := t.TempDir()
	for _, n := range []string{"a1", "a2", "b1", ".a3", "d/a1", "d/x", "e/a1", "star*", "sub dir/f"} {
		write(t, dir+"/"+n, "", 0o644)
	}
	for pattern, want := range map[string]string{
		"a*": "a1 a2", "*1": "a1 b1", ".a*": ".a3", "[ab]1": "a1 b1", "?1": "a1 b1", "*/a1": "d/a1 e/a1", "{b,a}1": "b1 a1", "{d,e}/{a1,x}": "d/a1 d/x e/a1",
		"none*": "", `star\*`: "star*", `s*\*`: "star*", "sub*/f": "sub dir/f", "{a1}": "", "a{1,2}": "a1 a2", "a{1": "",
	} {
		got, err := far.match(dir + "/" + pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], dir+"/")
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %q, want %q", pattern, s, want)
		}
	}
	if got := braces(strings.Repeat("{a,b}", 40)); len(got) > 2*maxBraces {
		t.Errorf("%d words", len(got))
	}
	if p, err := far.tilde("~/x"); err != nil || p != "./x" {
		t.Error(p, err)
	}
	if _, err := far.tilde("~other/x"); err == nil {
		t.Error("the home of another account")
	}
}

func TestManyFilesAndFolders(t *testing.T) {
	ways(t, func(t *testing.T, from, to *Files) {
		dir := t.TempDir()
		old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		var want []string
		for i := range 300 {
			n := fmt.Sprintf("%d/%d/f%d", i%7, i%3, i)
			write(t, dir+"/src/"+n, n, 0o644)
			want = append(want, n)
		}
		os.Chmod(dir+"/src/3", 0o555)
		t.Cleanup(func() { os.Chmod(dir+"/src/3", 0o755); os.Chmod(dir+"/dst/3", 0o755) })
		os.Chtimes(dir+"/src/1/1", old, old)
		os.Chtimes(dir+"/src/3", old, old)
		job := Copy{Recursive: true, Preserve: true}
		if err := job.Run(t.Context(), []Place{{from, "", dir + "/src"}}, Place{to, "", dir + "/dst"}); err != nil {
			t.Fatal(err)
		}
		for _, n := range want {
			wantFile(t, dir+"/dst/"+n, n, 0o644)
		}
		for _, n := range []string{"1/1", "3"} {
			if fi, err := os.Stat(dir + "/dst/" + n); err != nil || !fi.ModTime().Equal(old) {
				t.Errorf("%s: %v %v", n, fi.ModTime(), err)
			}
		}
		if fi, _ := os.Stat(dir + "/dst/3"); fi.Mode().Perm() != 0o555 {
			t.Errorf("mode %o", fi.Mode().Perm())
		}
	})
}

// A connection that ends ends the copy with its reason, once, however many files are left.
func TestCopyWhenTheConnectionEnds(t *testing.T) {
	h := (&host{}).start(t)
	far, err := h.dial(t).Files()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range 200 {
		write(t, fmt.Sprintf("%s/src/%03d", dir, i), "x", 0o644)
	}
	var n int
	job := Copy{Recursive: true, Progress: func(string, int64, int64, bool) {
		if n++; n == 20 {
			h.cut()
		}
	}}
	err = job.Run(context.Background(), []Place{{LocalFiles(), "", dir + "/src"}}, Place{far, "web", dir + "/dst"})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeUnreachable {
		t.Fatalf("%v", err)
	}
}
