package sshd_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tssh/recording"
)

// bound is a folder that sftp is bound to and one beside it, both the account's, so that
// only the binding keeps the two apart.
type bound struct {
	*rig
	base, in, out string
	user          string
}

const (
	secretSize = 4242
	innerSize  = 77
)

func newBound(t *testing.T, terms string) *bound {
	t.Helper()
	u := account(t)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	base, err := os.MkdirTemp("", "sshd-bound-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	b := &bound{base: base, in: filepath.Join(base, "in"), out: filepath.Join(base, "out"), user: u.Username}
	create := func(name string, size int) {
		t.Helper()
		var err error
		if size < 0 {
			err = os.Mkdir(name, 0o755)
		} else {
			err = os.WriteFile(name, bytes.Repeat([]byte("s"), size), 0o644)
		}
		if err == nil {
			err = os.Chown(name, uid, gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	create(b.in, -1)
	create(b.out, -1)
	create(filepath.Join(b.out, "secret"), secretSize)
	create(filepath.Join(b.out, "dir"), -1)
	create(filepath.Join(b.in, "mine"), innerSize)
	create(filepath.Join(b.in, "d"), -1)
	create(filepath.Join(b.in, "d", "e"), -1)
	b.rig = newRig(t, withTerms(fmt.Sprintf(`"permit":{"sftp":"write","sftpFolder":%q%s}`, b.in, terms)))
	return b
}

// outside is all there is to see of what is not in the folder.
func (b *bound) outside() string {
	b.t.Helper()
	var s strings.Builder
	err := filepath.WalkDir(b.out, func(name string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(name, &st)
		}
		fmt.Fprintln(&s, name, st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Mtim, st.Ctim)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s.String()
}

// TestSFTPFolderStock: what the stock clients do under such a rule.
func TestSFTPFolderStock(t *testing.T) {
	b := newBound(t, "")
	local := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(local, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	batch := fmt.Sprintf("pwd\ncd ../../..\npwd\nput %s a\nln -s /etc/passwd l\n-get l %s.l\nls -la\nrename a d/b\nchmod 600 d/b\nln d/b d/c\ncd d\nget /d/c %s.c\ndf\nmkdir /x\nrmdir /x\nrm /d/c\ncp /d/b /copy\n-get %s/secret\n-ls %s\n", local, local, local, b.out, b.base)
	got := b.run(batch, "sftp", append(append([]string{"-b", "-"}, b.options()...), b.user+"@web")...)
	if got.code != 0 || strings.Count(got.out, "Remote working directory: /\n") != 2 || strings.Contains(got.out, "4242") {
		t.Errorf("sftp: %+v", got)
	}
	if _, err := os.Stat(local + ".l"); err == nil {
		t.Error("a link led to the host's /etc/passwd")
	}
	for _, name := range []string{local + ".c", filepath.Join(b.in, "d/b"), filepath.Join(b.in, "copy")} {
		if c, err := os.ReadFile(name); err != nil || string(c) != "text" {
			t.Errorf("%s: %q %v", name, c, err)
		}
	}
	if got := b.run("", "scp", append(b.options(), local, b.user+"@web:/d/up")...); got.code != 0 {
		t.Errorf("scp up: %+v", got)
	}
	if got := b.run("", "scp", append(b.options(), b.user+"@web:d/up", local+".d")...); got.code != 0 {
		t.Errorf("scp down: %+v", got)
	}
	before := b.outside()
	if got := b.run("", "scp", append(b.options(), "-O", local, b.user+"@web:x")...); got.code == 0 || !strings.Contains(got.err, "commands are not allowed in this login") {
		t.Errorf("scp -O: %+v", got)
	}
	if got := b.run("", "rsync", "-e", shell(append([]string{"ssh"}, b.options()...)), local, b.user+"@web:"+b.out+"/x"); got.code == 0 || !strings.Contains(got.err, "commands are not allowed in this login") {
		t.Errorf("rsync: %+v", got)
	}
	if got := b.ssh("", b.user); got.code != 255 || !strings.Contains(got.err, "a shell is not allowed in this login") {
		t.Errorf("a shell: %+v", got)
	}
	if b.outside() != before {
		t.Error("something is outside")
	}
	// The recording has the host's names.
	var put, named bool
	for _, k := range b.recordings(6) {
		for _, f := range k.files(t) {
			put = put || f.Op == "put" && f.Path == filepath.Join(b.in, "a") && f.SHA256 != ""
			if f.Path != "" && f.Path != b.in && !strings.HasPrefix(f.Path, b.in+"/") {
				t.Errorf("a path that is not in the folder: %+v", f)
			}
		}
		named = named || len(k.notes("folder")) == 1 && strings.Contains(k.notes("folder")[0], b.in)
	}
	if !put || !named {
		t.Errorf("recorded: put %v, the folder %v", put, named)
	}
}

// TestSFTPFolderAttacked tries every request there is with every kind of name that could
// lead out.
func TestSFTPFolderAttacked(t *testing.T) {
	b := newBound(t, "")
	s := newRawSFTP(t, b.client(b.user))
	links := map[string]string{"up": "..", "far": "../../../../../../..", "rel": "../out", "abs": b.out, "base": b.base, "root": "/", "d/e/up": "../../../out", "file": "../out/secret", "absfile": b.out + "/secret", "loop": "loop", "dangling": b.out + "/made"}
	for name, to := range links {
		if c := code(s.ask(20, str(to), str(name))); c != 0 {
			t.Fatalf("symlink %s: %d", name, c)
		}
	}
	before := b.outside()
	var names []string
	for _, dir := range []string{"", "/", "..", "/..", "../..", "d/../..", "d/e/../../..", "./.././..", "up", "far", "base", "root", "root/..", "d/e/up/..", "abs/..", b.base, "/proc/self/cwd/.."} {
		names = append(names, dir+"/out/secret", dir+"/out/new", dir+"/out/dir", dir+"/out")
	}
	for _, dir := range []string{"rel", "abs", "d/e/up", b.out, "/proc/self/root" + b.out, "/proc/1/root" + b.out} {
		names = append(names, dir, dir+"/", dir+"/secret", dir+"/new", dir+"/dir", dir+"/.", dir+"/dir/..")
	}
	names = append(names, "file", "absfile", "loop", "dangling", "..", "/..", ".", "/", "", "../", "d/..", strings.Repeat("../", 500)+b.out[1:]+"/secret")
	write := u32(2 | 8 | 16)
	extended := func(name string, rest ...[]byte) [][]byte { return append([][]byte{str(name)}, rest...) }
	// By hand what attributes ask for: size 1, owner, mode 0777, times 1.
	attrs := bytes.Join([][]byte{u32(1 | 2 | 4 | 8), u64(1), u32(0), u32(0), u32(0o777), u32(1), u32(1)}, nil)
	mode := bytes.Join([][]byte{u32(4), u32(0o4777)}, nil)
	inner := str("mine")
	restore := func() {
		t.Helper()
		if _, err := os.Lstat(filepath.Join(b.in, "mine")); err == nil {
			return
		}
		if err := os.WriteFile(filepath.Join(b.in, "mine"), bytes.Repeat([]byte("i"), innerSize), 0o666); err != nil {
			t.Fatal(err)
		}
		uid, gid := b.ids()
		if err := os.Chown(filepath.Join(b.in, "mine"), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		n := str(name)
		for _, q := range []struct {
			what string
			typ  byte
			body [][]byte
		}{
			{"stat", 17, [][]byte{n}}, {"lstat", 7, [][]byte{n}}, {"realpath", 16, [][]byte{n}}, {"readlink", 19, [][]byte{n}}, {"opendir", 11, [][]byte{n}},
			{"open to read", 3, [][]byte{n, u32(1), u32(0)}}, {"open to write", 3, [][]byte{n, write, u32(0)}}, {"open to append", 3, [][]byte{n, u32(4), u32(0)}}, {"open to make", 3, [][]byte{n, u32(2 | 8 | 32), mode}},
			{"setstat", 9, [][]byte{n, attrs}}, {"mode", 9, [][]byte{n, mode}}, {"lsetstat", 200, extended("lsetstat@openssh.com", n, attrs)},
			{"statvfs", 200, extended("statvfs@openssh.com", n)}, {"expand-path", 200, extended("expand-path@openssh.com", n)}, {"expand-path of the home", 200, extended("expand-path@openssh.com", str("~/"+name))},
			{"mkdir", 14, [][]byte{n, u32(0)}}, {"symlink", 20, [][]byte{str("/etc/passwd"), n}},
			{"hardlink to", 200, extended("hardlink@openssh.com", inner, n)}, {"hardlink from", 200, extended("hardlink@openssh.com", n, str("stolen"))},
			{"rename to", 18, [][]byte{inner, n}}, {"rename from", 18, [][]byte{n, str("stolen2")}},
			{"posix-rename to", 200, extended("posix-rename@openssh.com", inner, n)}, {"posix-rename from", 200, extended("posix-rename@openssh.com", n, str("stolen3"))},
			{"rmdir", 15, [][]byte{n}}, {"remove", 13, [][]byte{n}},
		} {
			restore()
			// What is inside is put back, so that each request meets the same.
			for link, to := range links {
				if now, err := os.Readlink(filepath.Join(b.in, link)); err != nil || now != to {
					os.RemoveAll(filepath.Join(b.in, link))
					if err := os.MkdirAll(filepath.Dir(filepath.Join(b.in, link)), 0o777); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink(to, filepath.Join(b.in, link)); err != nil {
						t.Fatal(err)
					}
				}
			}
			typ, answer := s.ask(q.typ, q.body...)
			switch {
			case typ == 102: // a handle: what is behind it is not the secret
				if q.what == "open to read" {
					if typ, data := s.ask(5, answer, u64(0), u32(32768)); typ == 103 && len(data) == 4+secretSize {
						t.Errorf("%s of %q reads the secret", q.what, name)
					}
				}
				if q.what == "opendir" {
					if typ, list := s.ask(12, answer); typ == 104 && bytes.Contains(list, []byte("secret")) {
						t.Errorf("%s of %q lists the secret", q.what, name)
					}
				}
				s.ask(4, answer)
			case typ == 105 && bytes.HasPrefix(answer[4:], u64(secretSize)):
				t.Errorf("%s of %q is of the secret", q.what, name)
			case typ == 104 && strings.Contains(q.what, "path") && bytes.Contains(answer, []byte(b.base)) && !saysHost(name, b.base):
				t.Errorf("%s of %q tells of the host: %q", q.what, name, answer)
			}
			if b.outside() != before {
				t.Fatalf("%s of %q changed what is outside\n%s\n%s", q.what, name, before, b.outside())
			}
		}
	}
	var st unix.Stat_t
	_ = filepath.WalkDir(b.in, func(name string, _ fs.DirEntry, _ error) error {
		if unix.Lstat(name, &st) == nil && st.Size == secretSize && st.Mode&unix.S_IFMT == unix.S_IFREG {
			t.Errorf("%s is the secret", name)
		}
		return nil
	})
	if unix.Lstat(b.in, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Error("the folder itself is gone")
	}
}

// saysHost reports whether a name goes over what the client itself wrote of the host's.
func saysHost(name, base string) bool {
	for _, s := range []string{base, "abs", "base", "dangling"} {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}

func (b *bound) ids() (uid, gid int) {
	u := account(b.t)
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

// TestSFTPFolderRaces: a part of the name is a folder at one moment and a link to outside
// at the next, while requests go over it.
func TestSFTPFolderRaces(t *testing.T) {
	b := newBound(t, "")
	uid, gid := b.ids()
	a, link := filepath.Join(b.in, "a"), filepath.Join(b.in, "link")
	for _, err := range []error{os.Mkdir(a, 0o777), os.Mkdir(a+"/dir", 0o777), os.WriteFile(a+"/secret", make([]byte, innerSize), 0o666), os.Symlink("../out", link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{a, a + "/dir", a + "/secret"} {
		if err := os.Chown(name, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	before := b.outside()
	stop := make(chan struct{})
	var flips int
	var flipper sync.WaitGroup
	flipper.Go(func() { // ends with stop
		for {
			select {
			case <-stop:
				return
			default:
			}
			if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE) == nil {
				flips++
			}
		}
	})
	cl := b.client(b.user)
	var wg sync.WaitGroup
	requests, inside := 0, 0
	s := newRawSFTP(t, cl)
	wg.Go(func() {
		for n, end := 0, time.Now().Add(3*time.Second); time.Now().Before(end) && !t.Failed(); n++ {
			name := str("a/x" + strconv.Itoa(n%7))
			for _, q := range []struct {
				typ  byte
				body [][]byte
			}{
				{17, [][]byte{str("a/secret")}}, {3, [][]byte{str("a/secret"), u32(1), u32(0)}}, {9, [][]byte{str("a/secret"), u32(4 | 8), u32(0o600), u32(1), u32(1)}}, {3, [][]byte{name, u32(2 | 8), u32(0)}}, {13, [][]byte{name}},
				{14, [][]byte{name, u32(0)}}, {15, [][]byte{name}}, {18, [][]byte{str("mine"), name}}, {18, [][]byte{name, str("mine")}}, {20, [][]byte{str("x"), name}}, {13, [][]byte{name}},
				{200, [][]byte{str("hardlink@openssh.com"), str("a/secret"), str("hard")}}, {7, [][]byte{str("hard")}}, {13, [][]byte{str("hard")}}, {11, [][]byte{str("a/dir/..")}}, {17, [][]byte{str("a/dir/../secret")}}, {17, [][]byte{str("a/../out/secret")}},
			} {
				requests++
				typ, answer := s.ask(q.typ, q.body...)
				switch typ {
				case 105:
					if bytes.HasPrefix(answer[4:], u64(secretSize)) {
						t.Errorf("attributes of the secret after %d flips", flips)
					}
					inside++
				case 102:
					if q.typ == 3 && q.body[1][3] == 1 {
						if typ, data := s.ask(5, answer, u64(0), u32(32768)); typ == 103 && len(data) != 4+innerSize {
							t.Errorf("%d bytes of another file", len(data)-4)
						}
					}
					if q.typ == 11 {
						if typ, list := s.ask(12, answer); typ == 104 && bytes.Contains(list, u64(secretSize)) {
							t.Error("a listing of what is outside")
						}
					}
					s.ask(4, answer)
					inside++
				}
			}
		}
	})
	wg.Wait()
	close(stop)
	flipper.Wait()
	if b.outside() != before {
		t.Errorf("what is outside was changed\n%s\n%s", before, b.outside())
	}
	t.Logf("%d requests, %d of which found something, over %d flips", requests, inside, flips)
	if inside == 0 || flips < 100 {
		t.Error("nothing was tried")
	}
}

// TestSFTPFolderGone: without the folder there is no file transfer, and the person is told.
func TestSFTPFolderGone(t *testing.T) {
	b := newBound(t, "")
	if err := os.RemoveAll(b.in); err != nil {
		t.Fatal(err)
	}
	got := b.run("ls\n", "sftp", append(append([]string{"-b", "-"}, b.options()...), b.user+"@web")...)
	if got.code == 0 || !strings.Contains(got.err, "bound to a folder of this host, which could not be opened") {
		t.Errorf("%+v", got)
	}
	k := b.recordings(1)[0]
	if len(k.notes("refused")) != 1 || k.bytes(1, recording.KindStderr) == "" {
		t.Errorf("recorded: %q", k.notes("refused"))
	}
}
