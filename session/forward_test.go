package session

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func directPayload(host string, port uint32) []byte {
	b := binary.BigEndian.AppendUint32(appendString(nil, host), port)
	return binary.BigEndian.AppendUint32(appendString(b, "127.0.0.1"), 4000)
}

func x11Payload(proto, cookie string) []byte {
	return append(appendString(appendString([]byte{1}, proto), cookie), 0, 0, 0, 7)
}

func TestParseForwards(t *testing.T) {
	good := directPayload("db.internal", 5432)
	if d, ok := parseDirect(good); !ok || d != (direct{"db.internal", 5432, "127.0.0.1", 4000}) {
		t.Errorf("%+v %v", d, ok)
	}
	for n := range good {
		if _, ok := parseDirect(good[:n]); ok {
			t.Errorf("cut to %d bytes it was read", n)
		}
	}
	for _, host := range []string{"", "a b", "a\nb", "a/b", "[::1]", "@x", strings.Repeat("a", maxHost+1), "a\x00", "*"} {
		if _, ok := parseDirect(directPayload(host, 1)); ok {
			t.Errorf("host %q was taken", host)
		}
	}
	for _, port := range []uint32{0, 65536, 1 << 31} {
		if _, ok := parseDirect(directPayload("a", port)); ok {
			t.Errorf("port %d was taken", port)
		}
	}
	for host, want := range map[string]string{"": "*:80", "*": "*:80", "0.0.0.0": "*:80", "::": "*:80", "LocalHost": "localhost:80", "::1": "[::1]:80"} {
		b, ok := parseBind(binary.BigEndian.AppendUint32(appendString(nil, host), 80))
		if !ok || b.target() != want {
			t.Errorf("bind %q: %q %v", host, b.target(), ok)
		}
	}
	for path, want := range map[string]bool{"/run/x.sock": true, "run/x.sock": false, "@x": false, "": false, "/a/../b": false, "/a//b": false, "/a/": false, "/" + strings.Repeat("a", maxPath): false, "/a\x00b": false} {
		if goodPath(path) != want {
			t.Errorf("path %q: %v", path, !want)
		}
	}
	if r, ok := parseX11(x11Payload("MIT-MAGIC-COOKIE-1", "0123abcd")); !ok || !r.single || r.screen != 7 {
		t.Errorf("%+v %v", r, ok)
	}
	for _, bad := range [][2]string{{"", "00"}, {"A", ""}, {"A", "0"}, {"A b", "00"}, {"A", "00\nquit"}, {"A\nadd x", "00"}, {"A", strings.Repeat("00", 300)}} {
		if _, ok := parseX11(x11Payload(bad[0], bad[1])); ok {
			t.Errorf("x11 %q was taken", bad)
		}
	}
}

// FuzzForwards feeds the parsers of what asks for forwards.
func FuzzForwards(f *testing.F) {
	f.Add(directPayload("localhost", 80))
	f.Add(x11Payload("MIT-MAGIC-COOKIE-1", "00ff"))
	f.Add(appendString(appendString(nil, "key"), "key"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, ok := parseDirect(b); ok {
			if host, _, err := net.SplitHostPort(hostAndPort(d.host, d.port)); err != nil || host != d.host || d.port == 0 || d.port > 65535 {
				t.Errorf("%+v", d)
			}
		}
		if d, ok := parseBind(b); ok && strings.ContainsAny(d.target(), " \n\x00\x1b") {
			t.Errorf("%+v", d)
		}
		if r, ok := parseX11(b); ok && strings.ContainsAny(r.proto+r.cookie, " \n\r\x00\"'") {
			t.Errorf("%+v", r)
		}
		if keys, ok := parseProve(b); ok && (len(keys) == 0 || len(keys) > maxProofs) {
			t.Errorf("%d keys", len(keys))
		}
		p := payload(b)
		if s, ok := p.str(); ok && goodPath(string(s)) && string(s) != filepath.Clean("/"+string(s)) {
			t.Errorf("path %q", s)
		}
	})
}

// TestListenUnix: only the user may connect, what is there stays, but for the user's own
// socket that nobody listens on, and only what was made is taken away.
func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	ln, remove, err := listenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if _, _, err := listenUnix(t.Context(), path); err == nil {
		t.Error("a socket that is listened on was replaced")
	}
	ln.Close()
	again, removeAgain, err := listenUnix(t.Context(), path)
	if err != nil {
		t.Fatalf("a socket that nobody listens on was not replaced: %v", err)
	}
	again.Close()
	removeAgain()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := listenUnix(t.Context(), path); err == nil {
		t.Error("a file was replaced")
	}
	remove()
	if b, err := os.ReadFile(path); err != nil || string(b) != "kept" {
		t.Error("a file that was not made here was removed")
	}
}
