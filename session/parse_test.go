package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func ptyPayload(term string, cols, rows uint32, modes []byte) []byte {
	b := appendString(nil, term)
	for _, n := range []uint32{cols, rows, 0, 0} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return appendString(b, string(modes))
}

func TestParsePTY(t *testing.T) {
	good := ptyPayload("xterm", 80, 24, []byte{53, 0, 0, 0, 1, 128, 0, 0, 0x96, 0, 0, 1, 2})
	r, ok := parsePTY(good)
	if !ok || r.term != "xterm" || r.cols != 80 || r.rows != 24 || !slices.Equal(r.modes, []mode{{53, 1}, {128, 0x9600}}) {
		t.Errorf("%+v %v", r, ok)
	}
	for n := range good[:len(good)-1] {
		if _, ok := parsePTY(good[:n]); ok {
			t.Errorf("cut to %d bytes it was read", n)
		}
	}
	if _, ok := parsePTY(ptyPayload("x", 1, 1, []byte{53, 0, 0})); ok {
		t.Error("a mode that is cut was read")
	}
	if r, ok := parsePTY(ptyPayload("../../etc\x1b[2J", 1<<31, 1<<31, nil)); !ok || r.term != "dumb" || r.cols != 0xffff {
		t.Errorf("%+v %v", r, ok)
	}
}

func TestModes(t *testing.T) {
	tio := unix.Termios{Lflag: unix.ECHO, Oflag: unix.OPOST}
	for _, m := range []mode{{1, 7}, {2, noChar}, {53, 0}, {72, 1}, {42, 1}, {91, 1}, {129, 9600}, {129, 12345}, {159, 1}} {
		apply(&tio, m)
	}
	if tio.Cc[unix.VINTR] != 7 || tio.Cc[unix.VQUIT] != 0 || tio.Lflag != 0 || tio.Oflag != unix.OPOST|unix.ONLCR || tio.Iflag != unix.IUTF8 || tio.Cflag != unix.CS8|unix.B9600 {
		t.Errorf("%+v", tio)
	}
}

// kexPacket makes a client's KEXINIT with these ciphers both ways.
func kexPacket(up, down string) []byte {
	p := append([]byte{msgKexInit}, make([]byte, 16)...)
	for _, l := range []string{"curve25519-sha256", "ssh-ed25519", up, down, "", "", "", "", "", ""} {
		p = appendString(p, l)
	}
	p = append(p, 0, 0, 0, 0, 0)
	pad := 8
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(p)+pad))
	b = append(b, byte(pad))
	return append(append(b, p...), make([]byte, pad)...)
}

// TestGreet checks the choice of ciphers, and that every byte the client sent is played
// again while our version line goes out once.
func TestGreet(t *testing.T) {
	for _, c := range []struct {
		name, up, down string
		want           []string
	}{
		{"gcm", "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com", "aes128-gcm@openssh.com", cipherList[:2]},
		{"one way", "aes128-gcm@openssh.com", "aes128-ctr", cipherList},
		{"none", "aes128-ctr", "aes128-ctr", cipherList},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			defer theirs.Close()
			sent := append([]byte("SSH-2.0-test\r\n"), kexPacket(c.up, c.down)...)
			got := make(chan string, 1)
			go func() {
				b := make([]byte, len(serverVersion)+2)
				_, _ = io.ReadFull(theirs, b)
				_, _ = theirs.Write(sent)
				rest, _ := io.ReadAll(theirs)
				got <- string(b) + string(rest)
			}()
			g, o, err := greet(ours)
			if err != nil || !slices.Equal(o.ciphers, c.want) {
				t.Fatalf("%v %v", o, err)
			}
			again := make([]byte, len(sent))
			if _, err := io.ReadFull(g, again); err != nil || !bytes.Equal(again, sent) {
				t.Errorf("played again: %q %v", again, err)
			}
			for _, w := range []string{serverVersion[:3], serverVersion[3:] + "\r\n", "rest"} {
				if n, err := g.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatal(n, err)
				}
			}
			g.Close()
			if s := <-got; s != serverVersion+"\r\nrest" {
				t.Errorf("sent %q", s)
			}
		})
	}
}

func TestGreetRefuses(t *testing.T) {
	for _, words := range []string{"\r\n", "HELO\n", "SSH-1.5-old\r\n", strings.Repeat("x", 300), "SSH-2.0-x\r\n\x00\x00\x00\x00", "SSH-2.0-x\r\n\xff\xff\xff\xff", "SSH-2.0-x\r\n\x00\x00\x00\x04\x09\x14\x00\x00", "SSH-2.0-x\r\n\x00\x00\x00\x03\x00\x14\x00"} {
		ours, theirs := net.Pipe()
		go func() {
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			_, _ = io.WriteString(theirs, words)
			time.Sleep(50 * time.Millisecond)
			theirs.Close()
		}()
		if _, _, err := greet(ours); err == nil {
			t.Errorf("%.20q was let through", words)
		}
		ours.Close()
	}
}

// TestGreetLate: a client that waits for our KEXINIT before it sends its own.
func TestGreetLate(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go func() {
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_, _ = io.WriteString(theirs, "SSH-2.0-x\r\n\x00\x00")
	}()
	_, o, err := greet(ours)
	if err != nil || !reflect.DeepEqual(o, wholeOffer) {
		t.Errorf("%v %v", o, err)
	}
}

func TestPlain(t *testing.T) {
	if got := plain("a\x1b[2J\r\nb\u202e\u200f\u009bc é"); strings.ContainsAny(got, "\x1b\r\n\u202e\u200f\u009b") || !strings.HasSuffix(got, "c é") {
		t.Errorf("%q", got)
	}
}

func TestModeWord(t *testing.T) {
	for m, want := range map[uint32]string{0o100644: "-rw-r--r--", 0o41777: "drwxrwxrwt", 0o120777: "lrwxrwxrwx", 0o104755: "-rwsr-xr-x", 0o102644: "-rw-r-Sr--"} {
		if got := modeWord(m); got != want {
			t.Errorf("%o: %s, not %s", m, got, want)
		}
	}
}

// FuzzPayloads feeds every parser of a client's bytes.
func FuzzPayloads(f *testing.F) {
	f.Add(ptyPayload("xterm", 80, 24, []byte{53, 0, 0, 0, 1, 0}))
	f.Add(kexPacket("aes128-gcm@openssh.com", "x")[4:])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 9, fxInit, 0, 0, 0, 3, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := parsePTY(b); ok && (r.cols > 0xffff || len(r.modes) > maxModes || len(r.term) > maxTerm) {
			t.Errorf("%+v", r)
		}
		_, _ = parseKexInit(b)
		p := payload(b)
		for {
			before := len(p)
			if _, ok := p.str(); !ok {
				break
			}
			if len(p) >= before {
				t.Fatal("no way forward")
			}
		}
		p = payload(b)
		p.attrs()
		_, rest, _, err := readPacket(bytes.NewReader(b), nil)
		if err == nil && len(rest) > maxSFTPPacket {
			t.Error("a packet too long")
		}
		if errors.Is(err, io.EOF) && len(b) > 4 && binary.BigEndian.Uint32(b) == uint32(len(b)-4) {
			t.Error("a whole packet was not read")
		}
	})
}
