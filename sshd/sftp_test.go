package sshd_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"tssh/recording"
)

// TestSFTPClient uses a client that asks for what the stock one does not: handles for
// reading and writing, holes, appends, statvfs, links, times.
func TestSFTPClient(t *testing.T) {
	u := account(t)
	r := newRig(t, usual())
	cl := r.client(u.Username)
	c, err := sftp.NewClient(cl)
	if err != nil {
		t.Fatal(err)
	}
	wd, err := c.Getwd()
	if err != nil || wd != u.HomeDir {
		t.Errorf("working directory %q, %v", wd, err)
	}
	dir := filepath.Join(u.HomeDir, "tssh-test-sftp")
	if err := c.Mkdir("tssh-test-sftp"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }

	f, err := c.OpenFile(at("rw"), os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("world"), 6); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("hello "), 0); err != nil {
		t.Fatal(err)
	}
	// Renamed while open: what the handle does is about the file, not the name.
	if err := c.PosixRename(at("rw"), at("renamed")); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != 8 || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	f.Close()
	if b, err := os.ReadFile(at("renamed")); err != nil || string(b) != "hello wo" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := c.OpenFile(at("renamed"), os.O_WRONLY|os.O_CREATE|os.O_EXCL); err == nil {
		t.Error("O_EXCL opened what was there")
	}
	a, err := c.OpenFile(at("renamed"), os.O_WRONLY|os.O_APPEND)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("rld")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if b, _ := os.ReadFile(at("renamed")); string(b) != "hello world" {
		t.Errorf("%q", b)
	}
	if err := c.Symlink("../up/and away", at("link")); err != nil {
		t.Fatal(err)
	}
	if to, err := c.ReadLink(at("link")); err != nil || to != "../up/and away" {
		t.Errorf("%q %v", to, err)
	}
	if err := c.Link(at("renamed"), at("second")); err != nil {
		t.Fatal(err)
	}
	if err := c.Rename(at("renamed"), at("second")); err == nil {
		t.Error("rename replaced a file")
	}
	if v, err := c.StatVFS(dir); err != nil || v.Blocks == 0 {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := c.Stat(at("none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if os.Getuid() == 0 {
		if _, err := c.Open("/etc/shadow"); !errors.Is(err, os.ErrPermission) {
			t.Errorf("/etc/shadow: %v", err)
		}
		if err := c.Chown(at("second"), 0, 0); err == nil {
			t.Error("a file was given to root")
		}
	}
	entries, err := c.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"link", "renamed", "second"}) {
		t.Errorf("%v %v", names, err)
	}

	// Read out of order by several requests at once, as this client does: the bytes are
	// right.
	data := bytes.Repeat([]byte("0123456789abcdef"), 40000)
	if err := os.WriteFile(at("big"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := c.Open(at("big"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	b.Close()
	w, err := c.Create(at("put"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ReadFrom(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	c.Close()
	cl.Close()
	sum := sha256.Sum256(data)
	var put, refused bool
	for _, f := range r.recordings(1)[0].files(t) {
		if f.Op == "put" && f.Path == at("put") {
			put = f.Bytes == int64(len(data)) && (f.SHA256 == hex.EncodeToString(sum[:]) || f.SHA256 == "")
		}
		if f.Op == "put" && f.Path == at("renamed") && f.Error == "" && f.SHA256 != "" {
			t.Errorf("an append has a sum: %+v", f)
		}
		if f.Path == "/etc/shadow" && f.Error == "Permission denied" {
			refused = true
		}
	}
	if !put || !refused && os.Getuid() == 0 {
		t.Errorf("put recorded %v, refusal recorded %v", put, refused)
	}
}

// TestSFTPGarbage sends what no client does; the channel ends, the connection does not.
func TestSFTPGarbage(t *testing.T) {
	r := newRig(t, usual())
	cl := r.client(account(t).Username)
	for _, words := range []string{"\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05\x03\x00\x00\x00\x01", "\x00\x00\x00\x05\x01\x00\x00\x00\x03\x00\x00\x00\x05\x01\x00\x00\x00\x03", "\x00\x00\x00\x05\x01\x00\x00\x00\x03\x00\x00\x00\x01\x03"} {
		ch, _ := open(t, cl)
		if !request(t, ch, "subsystem", str("sftp")) {
			t.Fatal("no sftp")
		}
		if _, err := io.WriteString(ch, words); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(ch); err != nil {
			t.Errorf("%q: %v", words, err)
		}
	}
	// Well formed, and wrong: a status for each.
	ch, _ := open(t, cl)
	request(t, ch, "subsystem", str("sftp"))
	_, _ = io.WriteString(ch, "\x00\x00\x00\x05\x01\x00\x00\x00\x03")
	n := 0
	for _, body := range []string{"\x05\x00\x00\x00\x01\x00\x00\x00\x01x", "\x04\x00\x00\x00\x02\x00\x00\x00\x019", "\x99\x00\x00\x00\x03", "\xc8\x00\x00\x00\x04\x00\x00\x00\x04none", "\x03\x00\x00\x00\x05\xff\xff\xff\xff"} {
		_, _ = ch.Write(append(str("")[:0], append([]byte{0, 0, 0, byte(len(body))}, body...)...))
		n++
	}
	_ = ch.CloseWrite()
	out, err := io.ReadAll(ch)
	if got := bytes.Count(out, []byte{0, 0, 0, 2, 'e', 'n'}); err != nil || got != n {
		t.Errorf("%d statuses for %d requests (%v): %q", got, n, err, out)
	}
	cl.Close()
	if k := r.recordings(1)[0]; strings.Contains(k.bytes(0, recording.KindNote), "panic") || k.end.Cause != "closed" {
		t.Errorf("end %+v", k.end)
	}
}
