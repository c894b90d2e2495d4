package sshd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	gossh "golang.org/x/crypto/ssh"
)

// rawSFTP speaks sftp packet by packet.
type rawSFTP struct {
	t  *testing.T
	ch gossh.Channel
	id uint32
}

func newRawSFTP(t *testing.T, cl *gossh.Client) *rawSFTP {
	t.Helper()
	ch, _ := open(t, cl)
	if !request(t, ch, "subsystem", str("sftp")) {
		t.Fatal("no sftp")
	}
	s := &rawSFTP{t: t, ch: ch}
	_, _ = io.WriteString(ch, "\x00\x00\x00\x05\x01\x00\x00\x00\x03")
	s.read()
	return s
}

func (s *rawSFTP) read() []byte {
	s.t.Helper()
	head := make([]byte, 4)
	if _, err := io.ReadFull(s.ch, head); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(s.ch, b); err != nil {
		s.t.Fatal(err)
	}
	return b
}

// ask sends a request of a type with a body, and returns the answer's type and body.
func (s *rawSFTP) ask(typ byte, body ...[]byte) (byte, []byte) {
	s.t.Helper()
	s.id++
	p := append([]byte{typ}, u32(s.id)...)
	p = append(p, bytes.Join(body, nil)...)
	_, _ = s.ch.Write(append(u32(uint32(len(p))), p...))
	b := s.read()
	if got := binary.BigEndian.Uint32(b[1:]); got != s.id {
		s.t.Fatalf("answer to %d, not %d", got, s.id)
	}
	return b[0], b[5:]
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (s *rawSFTP) open(name string, flags uint32) []byte {
	s.t.Helper()
	typ, b := s.ask(3, str(name), u32(flags), u32(0))
	if typ != 102 {
		s.t.Fatalf("open %s: %d %q", name, typ, b)
	}
	return b // a string: the handle
}

// code is the status of an answer, -1 when it is none.
func code(typ byte, b []byte) int {
	if typ != 101 {
		return -1
	}
	return int(binary.BigEndian.Uint32(b))
}

func TestSFTPCopyData(t *testing.T) {
	u := account(t)
	r := newRig(t, usual())
	s := newRawSFTP(t, r.client(u.Username))
	dir := filepath.Join(u.HomeDir, "tssh-test-copydata")
	if typ, b := s.ask(14, str(dir), u32(0)); code(typ, b) != 0 {
		t.Fatalf("mkdir: %q", b)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data := bytes.Repeat([]byte("0123456789"), 100000)
	if err := os.WriteFile(filepath.Join(dir, "a"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	from, to := s.open(filepath.Join(dir, "a"), 1), s.open(filepath.Join(dir, "b"), 2|8|16)
	for _, c := range []struct {
		what        string
		from        []byte
		off, length uint64
		to          []byte
		at          uint64
		want        int
		wrote       string
	}{
		{"all", from, 0, 0, to, 0, 0, string(data)},
		{"a piece, elsewhere", from, 5, 3, to, 0, 0, "567" + string(data[3:])},
		{"more than there is", from, uint64(len(data) - 2), 10, to, 0, 1, "897" + string(data[3:])},
		{"into itself", from, 0, 0, from, 0, 5, ""},
		{"from one not open to read", to, 0, 0, from, 0, 5, ""},
		{"an offset out of this world", from, 1 << 63, 0, to, 0, 5, ""},
	} {
		typ, b := s.ask(200, str("copy-data"), c.from, u64(c.off), u64(c.length), c.to, u64(c.at))
		if got := code(typ, b); got != c.want {
			t.Errorf("%s: status %d, not %d", c.what, got, c.want)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "b")); c.wrote != "" && (err != nil || string(b) != c.wrote) {
			t.Errorf("%s: %d bytes with %.10q (%v)", c.what, len(b), b, err)
		}
	}
	if typ, b := s.ask(200, str("copy-data"), from, u64(0)); code(typ, b) != 5 {
		t.Errorf("cut short: %d %q", typ, b)
	}
}

func TestSFTPUsersGroups(t *testing.T) {
	r := newRig(t, usual())
	s := newRawSFTP(t, r.client(account(t).Username))
	typ, b := s.ask(200, str("users-groups-by-id@openssh.com"), str(string(u32(0))+string(u32(3999999999))), str(string(u32(0))))
	want := append(str(string(str("root"))+string(str(""))), str(string(str("root")))...)
	if typ != 201 || !bytes.Equal(b, want) {
		t.Errorf("%d %q, not %q", typ, b, want)
	}
	if typ, b := s.ask(200, str("users-groups-by-id@openssh.com"), str("abc"), str("")); code(typ, b) != 5 {
		t.Errorf("three bytes of ids: %d %q", typ, b)
	}
}
