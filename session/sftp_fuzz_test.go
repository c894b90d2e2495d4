package session

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tssh/recording"
)

// sftpWorld is a folder that a server is bound to, and one beside it that must stay as it is.
type sftpWorld struct{ inside, outside string }

const outsideSecret = "nobody inside may read this"

func newSFTPWorld(t testing.TB) sftpWorld {
	dir := t.TempDir()
	w := sftpWorld{filepath.Join(dir, "inside"), filepath.Join(dir, "outside")}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(w.inside, "d", "deep"), 0o755), os.Mkdir(w.outside, 0o755),
		os.WriteFile(filepath.Join(w.outside, "secret"), []byte(outsideSecret), 0o644),
		os.WriteFile(filepath.Join(w.inside, "f"), []byte("a file"), 0o644),
		os.WriteFile(filepath.Join(w.inside, "d", "g"), bytes.Repeat([]byte("g"), 5000), 0o644),
		os.Symlink("../outside", filepath.Join(w.inside, "up")),
		os.Symlink(w.outside+"/secret", filepath.Join(w.inside, "abs")),
		os.Symlink("loop", filepath.Join(w.inside, "loop")),
		os.Symlink("/d/g", filepath.Join(w.inside, "ok")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// looks is all there is to see of a folder.
func looks(t testing.TB, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&b, "%s %v\n", name, err) // a mode of 0
			return nil
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		data, _ := os.ReadFile(name) // empty for what is no file
		fmt.Fprintf(&b, "%s %o %d %d %d %d.%d %x\n", name, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim.Sec, st.Mtim.Nsec, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// names that a client may say; two bytes of a program choose one.
func (w sftpWorld) names() []string {
	return []string{"f", "d", "d/g", "d/deep", "new", "d/new", "up", "up/secret", "abs", "ok", "loop", "loop/x", "", ".", "/", "..", "../outside/secret", "/../../outside",
		"d/../../outside/secret", w.outside + "/secret", w.outside, "/proc/self/root", "/proc/self/fd/3", "f/", "f/x", "d/", "//d//g//", "~", "~/f", "nul\x00l", "\xff\xfe",
		strings.Repeat("n", 300), strings.Repeat("a/", 5000), "up/../f", "new/../up/secret"}
}

// program turns bytes into requests: each has an id of its own. It returns the types that were
// asked, in order; a packet that is not made to be understood is the last one.
func (w sftpWorld) program(data []byte) (stream []byte, asked []byte) {
	b := bytes.NewReader(data)
	next := func() byte { c, _ := b.ReadByte(); return c }
	names := w.names()
	name := func() string { return names[int(next())%len(names)] }
	handle := func() string {
		if n := next(); n%8 < 7 {
			return fmt.Sprint(n%8 + 1)
		}
		return "no such"
	}
	u32 := func(p []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(p, n) }
	u64 := func(p []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(p, n) }
	number := func() uint64 {
		return []uint64{0, 1, 3, 6, 4096, 5000, 1 << 20, 1 << 31, 1<<32 - 1, 1 << 40, 1 << 62, 1<<64 - 1}[next()%12]
	}
	attributes := func(p []byte) []byte {
		flags := uint32(next() & 15)
		p = u32(p, flags)
		if flags&attrSize != 0 {
			p = u64(p, min(number(), 1<<20))
		}
		if flags&attrIDs != 0 {
			p = u32(u32(p, uint32(os.Getuid())), uint32(os.Getgid()))
		}
		if flags&attrMode != 0 {
			p = u32(p, uint32(next())<<8|uint32(next()))
		}
		if flags&attrTimes != 0 {
			p = u32(u32(p, uint32(number())), uint32(number()))
		}
		return p
	}
	frame := func(p []byte) { stream = append(u32(stream, uint32(len(p))), p...) }
	frame([]byte{fxInit, 0, 0, 0, 3})
	kinds := []byte{fxOpen, fxClose, fxRead, fxWrite, fxLstat, fxFstat, fxSetstat, fxFsetstat, fxOpendir, fxReaddir, fxRemove, fxMkdir, fxRmdir, fxRealpath, fxStat, fxRename,
		fxReadlink, fxSymlink, fxExtended, fxExtended, fxOpen, fxOpen, fxRead, fxWrite, 99, 255}
	extended := []string{"posix-rename@openssh.com", "statvfs@openssh.com", "fstatvfs@openssh.com", "hardlink@openssh.com", "fsync@openssh.com", "lsetstat@openssh.com",
		"limits@openssh.com", "expand-path@openssh.com", "copy-data", "users-groups-by-id@openssh.com", "nonsense@example.com"}
	for n := 0; b.Len() > 0 && n < 200; n++ {
		k := next()
		typ := kinds[int(k&0x3f)%len(kinds)]
		p := u32([]byte{typ}, uint32(len(asked)))
		switch typ {
		case fxOpen:
			p = attributes(u32(appendString(p, name()), uint32(next())))
		case fxClose, fxFstat, fxReaddir:
			p = appendString(p, handle())
		case fxRead:
			p = u32(u64(appendString(p, handle()), number()), uint32(number()))
		case fxWrite:
			p = appendString(u64(appendString(p, handle()), min(number(), 1<<20)), strings.Repeat("w", int(next())*8)) // no disk full of holes
		case fxSetstat, fxMkdir:
			p = attributes(appendString(p, name()))
		case fxFsetstat:
			p = attributes(appendString(p, handle()))
		case fxRename, fxSymlink:
			p = appendString(appendString(p, name()), name())
		case fxExtended:
			e := extended[int(next())%len(extended)]
			p = appendString(p, e)
			switch e {
			case "copy-data":
				p = u64(u64(appendString(p, handle()), number()), number())
				p = u64(appendString(p, handle()), min(number(), 1<<20))
			case "fstatvfs@openssh.com", "fsync@openssh.com":
				p = appendString(p, handle())
			case "users-groups-by-id@openssh.com":
				p = appendString(appendString(p, string(make([]byte, 4*int(next())))), string(make([]byte, int(next()))))
			case "lsetstat@openssh.com":
				p = attributes(appendString(p, name()))
			default:
				p = appendString(appendString(p, name()), name())
			}
		default:
			p = appendString(p, name())
		}
		if k&0x40 != 0 { // cut off somewhere
			p = p[:5+int(next())%(len(p)-4)]
		}
		asked = append(asked, typ)
		frame(p)
		if k == 0xbf { // bytes that are no packet, to the end
			rest, _ := io.ReadAll(b)
			stream = append(stream, rest...)
		}
	}
	return stream, asked
}

// answers are those that a request of a type may have, beside a status.
var answersOf = map[byte]byte{fxOpen: fxHandle, fxOpendir: fxHandle, fxRead: fxData, fxLstat: fxAttrs, fxStat: fxAttrs, fxFstat: fxAttrs, fxReaddir: fxName, fxRealpath: fxName, fxReadlink: fxName, fxExtended: fxExtendedReply}

// statusOnly are done or not; what they answer with is a status and nothing else.
func mayAnswer(asked, answer byte) bool {
	return answer == fxStatus || answersOf[asked] == answer || asked == fxExtended && answer == fxName // expand-path
}

// FuzzSFTPServer has a whole server do what a hostile client asks of it, bound to a folder:
// nothing outside is changed or read, every request has one answer of a kind that fits, nothing
// stays open, no answer is longer than a packet, and a session for reading alone changes nothing.
func FuzzSFTPServer(f *testing.F) {
	f.Add([]byte("\x00\x00\x03\x00\x02\x00\x03\x05"), true)                                     // open, read
	f.Add([]byte("\x00\x04\x1b\x00\x03\x00\x00\x20\x01\x00\x00\x07\x1b\x00\x11\x07\x04"), true) // put, an escape, links
	f.Add([]byte("\x00\x01\x1b\x0f\x01\x02\x03\x08\x0c\x09\x00\x09\x01\x0a\x00\x0c\x01"), false)
	f.Add([]byte("\x11\x14\x04\x00\x04\x01\x00\x02\x00\x00\x05\x0d\x20\x10\x06\x12\x03\x07\x04\xbf\xff\xff\xff\xff"), true)
	f.Fuzz(hostileSFTP)
}

// TestSoakSFTPServer is the same with programs by chance: 150, or 20,000 with TSSH_SOAK.
func TestSoakSFTPServer(t *testing.T) {
	n := 150
	if os.Getenv("TSSH_SOAK") != "" {
		n = 20_000
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		data := make([]byte, r.IntN(800))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		if !t.Run(fmt.Sprint(i), func(t *testing.T) { hostileSFTP(t, data, r.IntN(4) > 0) }) {
			t.Fatalf("seed %d: %x", seed, data)
		}
	}
}

func hostileSFTP(t *testing.T, data []byte, writable bool) {
	if len(data) > 4<<10 {
		return
	}
	w := newSFTPWorld(t)
	t.Cleanup(func() { // modes that it gave itself keep nobody from tidying up
		filepath.WalkDir(w.inside, func(name string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(name, 0o700)
			}
			return nil
		})
	})
	outside, inside := looks(t, w.outside), looks(t, w.inside)
	stream, asked := w.program(data)

	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	c := &conn{ctx: ctx, end: end, journal: recording.NewJournal(io.Discard, time.Now())}
	s := &channel{c: c, id: 1, gone: make(chan struct{})}
	files, err := openTree(w.inside, "/nonexistent")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	v := &sftpServer{s: s, files: files, home: "/", handles: map[string]*sftpHandle{}, names: newIDNames(), changes: &writable,
		r: bufio.NewReader(bytes.NewReader(stream)), w: bufio.NewWriter(&out)}
	_ = v.serve() // an error ends the channel
	_ = v.w.Flush()
	files.close()

	if len(v.handles) != 0 || len(c.pieces.files) != 0 {
		t.Errorf("%d handles and %d pieces are left", len(v.handles), len(c.pieces.files))
	}
	if cap(v.out) > 2*maxSFTPPacket || cap(v.data) > maxSFTPRead {
		t.Errorf("it holds %d and %d bytes", cap(v.out), cap(v.data))
	}
	if is := looks(t, w.outside); is != outside {
		t.Errorf("outside changed\n%s\n%s", outside, is)
	}
	if is := looks(t, w.inside); !writable && is != inside {
		t.Errorf("a session for reading changed\n%s\n%s", inside, is)
	}
	if bytes.Contains(out.Bytes(), []byte(outsideSecret)) {
		t.Error("it gave away what is outside")
	}
	r := bytes.NewReader(out.Bytes())
	var buf []byte
	for n := -1; r.Len() > 0; n++ {
		typ, p, b, err := readPacket(r, buf)
		buf = b
		if err != nil {
			t.Fatalf("answer %d: %v", n, err)
		}
		if n < 0 {
			if typ != fxVersion {
				t.Fatalf("the first answer is of type %d", typ)
			}
			continue
		}
		id, _ := p.u32()
		if n >= len(asked) || int(id) != n || !mayAnswer(asked[n], typ) {
			if n >= len(asked) { // made of what was no packet
				continue
			}
			t.Fatalf("answer %d to a request of type %d is of type %d, for %d", n, asked[n], typ, id)
		}
		if typ == fxStatus {
			code, _ := p.u32()
			_, ok := p.str()
			_, ok2 := p.str()
			if code > fxUnsupported || code == 6 || code == 7 || !ok || !ok2 || len(p) != 0 {
				t.Fatalf("status %d to a request of type %d", code, asked[n])
			}
			if code == fxOK && (answersOf[asked[n]] != 0 && asked[n] != fxExtended || asked[n] >= 99 && asked[n] != fxExtended) {
				t.Fatalf("nothing but good came of a request of type %d", asked[n])
			}
			if changesSomething := asked[n] == fxWrite || asked[n] == fxRemove || asked[n] == fxRename || asked[n] == fxMkdir || asked[n] == fxSymlink; changesSomething && code == fxOK && !writable {
				t.Fatalf("a session for reading did a request of type %d", asked[n])
			}
		}
	}
}
