package session

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMessageOfTheDay(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"run/motd.dynamic": "today", "etc/motd": "admin\n", "run/motd": "hidden\n", "usr/lib/motd.d/a": "package a\n", "usr/lib/motd.d/b": "package b\n", "etc/motd.d/b": "", "run/motd.d/c": "c\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "etc/motd.d/pipe"), 0o644); err != nil { // must not hold up a login
		t.Fatal(err)
	}
	var b bytes.Buffer
	messageOfTheDay(&b, root)
	if want := "today\nadmin\npackage a\nc\n"; b.String() != want {
		t.Errorf("%q, not %q", b.String(), want)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/motd"), bytes.Repeat([]byte("x"), 2*maxMOTD), 0o644); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if messageOfTheDay(&b, root); b.Len() > maxMOTD+10 {
		t.Errorf("%d bytes", b.Len())
	}
}
