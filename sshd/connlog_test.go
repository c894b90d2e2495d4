package sshd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestConnLogIsBounded writes much to the log of connection processes, through a descriptor
// that is kept as theirs are, while nobody connects.
func TestConnLogIsBounded(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	d.client(account(t).Username)
	name := filepath.Join(r.Dir, "run/conn.log")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := func(name string) int64 {
		st, err := os.Stat(name)
		if err != nil {
			return -1
		}
		return st.Size()
	}
	for range 3 {
		if _, err := f.Write(bytes.Repeat([]byte("words\n"), 1<<20)); err != nil {
			t.Fatal(err)
		}
		r.until("the file is emptied", func() bool { return size(name) == 0 })
	}
	if n := size(name + ".old"); n <= 0 || n > 1<<20 {
		t.Errorf("%d bytes of it are left", n)
	}
}
