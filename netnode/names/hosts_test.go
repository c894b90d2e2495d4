package names

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const theirs = "127.0.0.1\tlocalhost\n# a comment with web in it\n10.0.0.1 db-1.example db-1 # taken\n"

func hostsFile(t *testing.T, content string) *File {
	t.Helper()
	f := &File{Path: filepath.Join(t.TempDir(), "hosts"), ID: "tssh0"}
	if err := os.WriteFile(f.Path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, f *File) string {
	t.Helper()
	b, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const block = `# tssh:tssh0 begin: hosts of the mesh corp, kept by tsshd; write above or below
100.127.255.254 db-1.corp.internal # tssh:tssh0
100.64.0.7 web.corp.internal web # tssh:tssh0
fd7a:7373:6800::7 web.corp.internal web # tssh:tssh0
# tssh:tssh0 end
`

func TestBlock(t *testing.T) {
	f := hostsFile(t, theirs)
	left, err := f.Apply(corp())
	if err != nil || left != "left out, since it means something else on this computer: db-1" {
		t.Fatalf("%q %v", left, err)
	}
	if got := content(t, f); got != theirs+block {
		t.Errorf("applied:\n%s", got)
	}
	st, err := os.Stat(f.Path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if !f.Intact() {
		t.Error("not intact after it was written")
	}
	// The same again does not touch the file.
	before := st
	if _, err := f.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	if st, err = os.Stat(f.Path); err != nil || !os.SameFile(st, before) || !st.ModTime().Equal(before.ModTime()) {
		t.Error("rewritten without a reason")
	}
	// Other people write above, below and into it; none of it is lost.
	if err := os.WriteFile(f.Path, []byte("# top\n"+theirs+strings.Replace(block, "fd7a", "10.9.9.9 mine\nfd7a", 1)+"10.0.0.2 after"), 0o640); err != nil {
		t.Fatal(err)
	}
	if f.Intact() {
		t.Error("a change was not seen")
	}
	if _, err := f.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	want := "# top\n" + theirs + "10.9.9.9 mine\n10.0.0.2 after"
	if got := content(t, f); got != want+"\n"+strings.Replace(block, "begin", "begin no-newline", 1) {
		t.Errorf("with strangers:\n%s", got)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, f); got != want {
		t.Errorf("removed:\n%q", got)
	}
}

// Whatever stood there before stands there after, byte for byte.
func TestThereAndBack(t *testing.T) {
	for _, before := range []string{"", "\n", "\n\n", "x", "x\n", "x\r\ny\r\n", "\x00\xff\n", theirs, strings.TrimSuffix(theirs, "\n"),
		"# tssh:tssh1 begin: another mesh's\n100.64.0.9 web # tssh:tssh1\n# tssh:tssh1 end\n", "# tssh:tssh0 beginning of something else\n", "1.2.3.4 x # tssh:tssh0x\n"} {
		f := hostsFile(t, before)
		for range 2 { // the second as a daemon that was killed would find it
			if _, err := f.Apply(corp()); err != nil {
				t.Fatal(err)
			}
			f = &File{Path: f.Path, ID: f.ID}
		}
		if before != "" && !strings.Contains(content(t, f), "db-1.corp.internal") {
			t.Errorf("%q: no block", before)
		}
		if err := f.Remove(); err != nil {
			t.Fatal(err)
		}
		if got := content(t, f); got != before {
			t.Errorf("%q came back as %q", before, got)
		}
		if left, _ := os.ReadDir(filepath.Dir(f.Path)); len(left) != 1 {
			t.Errorf("%q: left behind: %v", before, left)
		}
	}
}

func FuzzThereAndBack(f *testing.F) {
	f.Add(theirs)
	f.Add(theirs + block)
	f.Add("x # tssh:tssh0\n# tssh:tssh0 begin no-newline new-file: \n\n")
	file := &File{ID: "tssh0"}
	f.Fuzz(func(t *testing.T, in string) {
		once, _ := file.strip([]byte(in))
		for line := range strings.Lines(in) { // every line of others is there, in order
			if !file.isOurs([]byte(line)) && !strings.Contains(string(once), strings.TrimSuffix(line, "\n")) {
				t.Fatalf("%q lost %q", in, line)
			}
		}
		if twice, _ := file.strip(once); strings.TrimSuffix(string(twice), "\n") != strings.TrimSuffix(string(once), "\n") {
			t.Fatalf("%q: %q and then %q", in, once, twice)
		}
	})
}

func TestNoFile(t *testing.T) {
	f := &File{Path: filepath.Join(t.TempDir(), "hosts"), ID: "tssh0"}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	if got := content(t, f); !strings.HasPrefix(got, "# tssh:tssh0 begin new-file: ") {
		t.Errorf("%s", got)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.Path); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
	// With somebody's line in it, it stays.
	f.Apply(corp())
	os.WriteFile(f.Path, []byte("1.2.3.4 x\n"+content(t, f)), 0o644)
	if err := f.Remove(); err != nil || content(t, f) != "1.2.3.4 x\n" {
		t.Errorf("%v", err)
	}
}

func TestSymlinkAndHardlinkStay(t *testing.T) {
	f := hostsFile(t, theirs)
	dir := filepath.Dir(f.Path)
	link := &File{Path: filepath.Join(dir, "link"), ID: "tssh0"}
	if err := os.Symlink("hosts", link.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(f.Path, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if _, err := link.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link.Path); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the symbolic link is gone: %v %v", st, err)
	}
	hard := &File{Path: filepath.Join(dir, "hard")}
	if content(t, hard) != theirs+block || content(t, f) != theirs+block {
		t.Error("the hard link has another content")
	}
	if err := link.Remove(); err != nil || content(t, hard) != theirs {
		t.Errorf("removed: %v", err)
	}
}

func TestTooMuch(t *testing.T) {
	var hosts []Host
	for i := range maxHosts + 5 {
		hosts = append(hosts, Host{fmt.Sprintf("h%04d", i), []netip.Addr{netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})}})
	}
	f := hostsFile(t, theirs)
	left, err := f.Apply(New("corp", meshRanges, hosts))
	if err != nil || left != "5 hosts are left out, a hosts file takes 2000" {
		t.Errorf("%q %v", left, err)
	}
	if n := strings.Count(content(t, f), "\n"); n != 3+2+maxHosts {
		t.Errorf("%d lines", n)
	}
	big := hostsFile(t, strings.Repeat("#\n", maxFile/2+1))
	if _, err := big.Apply(corp()); err == nil {
		t.Error("a file beyond the limit was written")
	}
	if err := os.Mkdir(filepath.Join(t.TempDir(), "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := (&File{Path: t.TempDir(), ID: "x"}).Apply(corp()); err == nil {
		t.Error("a folder was written")
	}
}

// What another program writes between our reading and our writing is not lost.
func TestChangedMeanwhile(t *testing.T) {
	f := hostsFile(t, theirs)
	n := 0
	err := f.change(func(rest []byte, _ bool) []byte {
		if n++; n == 1 {
			if err := os.WriteFile(f.Path, []byte(theirs+"10.0.0.3 late\n"), 0o640); err != nil {
				t.Fatal(err)
			}
			later := time.Now().Add(time.Hour)
			os.Chtimes(f.Path, later, later)
		}
		return []byte("# tssh:tssh0 begin: \n# tssh:tssh0 end\n")
	})
	if err != nil || n != 2 || content(t, f) != theirs+"10.0.0.3 late\n# tssh:tssh0 begin: \n# tssh:tssh0 end\n" {
		t.Errorf("%d %v\n%s", n, err, content(t, f))
	}
}
