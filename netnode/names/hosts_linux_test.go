package names

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttributesStay(t *testing.T) {
	f := hostsFile(t, theirs)
	root := os.Getuid() == 0
	if root {
		if err := os.Chown(f.Path, 1234, 4321); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(f.Path, 0o664); err != nil {
		t.Fatal(err)
	}
	attr := unix.Setxattr(f.Path, "user.tssh-test", []byte("kept"), 0) == nil
	before, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("not replaced by rename")
	}
	a, b := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if a.Uid != b.Uid || a.Gid != b.Gid || a.Mode != b.Mode {
		t.Errorf("%d:%d %o became %d:%d %o", a.Uid, a.Gid, a.Mode, b.Uid, b.Gid, b.Mode)
	}
	if attr {
		v := make([]byte, 16)
		if n, err := unix.Getxattr(f.Path, "user.tssh-test", v); err != nil || string(v[:n]) != "kept" {
			t.Errorf("the attribute is gone: %v", err)
		}
	}
}

// In a container /etc/hosts is a mount of its own, which nothing can replace.
func TestBindMount(t *testing.T) {
	if os.Getenv("NAMES_TEST_MOUNTED") == "" {
		if os.Getuid() != 0 {
			t.Skip("mounting needs root")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestBindMount$", "-test.v")
		cmd.Env = append(os.Environ(), "NAMES_TEST_MOUNTED=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	under := hostsFile(t, theirs)
	f := hostsFile(t, "hidden")
	if err := unix.Mount(under.Path, f.Path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(f.Path, unix.MNT_DETACH)
	if _, err := f.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	if content(t, f) != theirs+block || content(t, under) != theirs+block {
		t.Errorf("mounted:\n%s\nunder it:\n%s", content(t, f), content(t, under))
	}
	if err := f.Remove(); err != nil || content(t, under) != theirs {
		t.Errorf("removed: %v\n%s", err, content(t, under))
	}
	if left, _ := os.ReadDir(filepath.Dir(f.Path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
