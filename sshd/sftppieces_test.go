package sshd_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/pkg/sftp"
)

// A file that goes in pieces through several channels has its sum in the recording, once;
// one of which a part went through, or that changed meanwhile, has none.
func TestSFTPInPieces(t *testing.T) {
	u := account(t)
	r := newRig(t, usual())
	cl := r.client(u.Username)
	var c []*sftp.Client
	for range 3 {
		x, err := sftp.NewClient(cl)
		if err != nil {
			t.Fatal(err)
		}
		c = append(c, x)
	}
	dir := filepath.Join(u.HomeDir, "tssh-test-pieces")
	if err := c[0].Mkdir(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := make([]byte, 3<<20)
	rand.Read(data)
	const part = 1 << 20
	move := func(name string, write bool, parts int, meanwhile func()) {
		var files []*sftp.File
		for i := range c {
			flag := os.O_RDONLY
			if write {
				flag = os.O_WRONLY | os.O_CREATE
			}
			f, err := c[i].OpenFile(filepath.Join(dir, name), flag)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		for i := parts - 1; i >= 0; i-- { // the last part first
			b, err := make([]byte, part), error(nil)
			if write {
				_, err = files[i].WriteAt(data[i*part:(i+1)*part], int64(i*part))
			} else if _, err = files[i].ReadAt(b, int64(i*part)); err == nil && !bytes.Equal(b, data[i*part:(i+1)*part]) {
				t.Errorf("%s: other bytes", name)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		meanwhile()
		for _, f := range files {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	nothing := func() {}
	move("whole", true, 3, nothing)
	move("whole", false, 3, nothing)
	move("part", true, 3, nothing)
	move("part", false, 2, nothing)
	move("changed", true, 3, nothing)
	move("changed", false, 3, func() {
		if err := os.WriteFile(filepath.Join(dir, "changed"), make([]byte, len(data)), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	for _, x := range c {
		x.Close()
	}
	cl.Close()
	sum := sha256.Sum256(data)
	got := map[string][]string{}
	moved := map[string]int64{}
	for _, rec := range r.recordings(1) {
		for _, f := range rec.files(t) {
			if f.Op == "put" || f.Op == "get" {
				key := f.Op + " " + filepath.Base(f.Path)
				moved[key] += f.Bytes
				if got[key] = append(got[key], f.SHA256); f.Error != "" {
					t.Errorf("%+v", f)
				}
			}
		}
	}
	for key, want := range map[string]string{"put whole": hex.EncodeToString(sum[:]), "get whole": hex.EncodeToString(sum[:]), "put part": hex.EncodeToString(sum[:]), "get part": "", "get changed": ""} {
		sums := got[key]
		if len(sums) != 3 || sums[0] != "" || sums[1] != "" || sums[2] != want {
			t.Errorf("%s: sums %q, want the last to be %q", key, sums, want)
		}
	}
	if moved["put whole"] != int64(len(data)) || moved["get part"] != 2*part {
		t.Errorf("bytes: %v", moved)
	}
}
