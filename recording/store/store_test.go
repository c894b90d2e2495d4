package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func meta(host, command string, start time.Time) recording.Meta {
	return recording.Meta{Version: 1, Start: start, Host: host, HostID: "n-" + host, Src: "laptop", SrcID: "n-laptop",
		Login: "alice@example.com", LocalUser: command, UID: 1000}
}

// made is a finished recording of some seconds, with several frames and signatures.
func made(t *testing.T, m recording.Meta) (id string, b []byte) {
	t.Helper()
	return madeTo(t, m, nil)
}

func madeTo(t *testing.T, m recording.Meta, to func() (*recording.Recipients, error)) (id string, b []byte) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		sp, err := recording.OpenSpool(recording.SpoolConfig{Dir: dir, MinFree: 1, SealTo: to, Clock: func() time.Time { return m.Start.Add(time.Since(began)) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sp.Run(ctx) }()
		x, err := sp.Begin(m)
		if err != nil {
			t.Fatal(err)
		}
		f, err := x.JournalFile()
		if err != nil {
			t.Fatal(err)
		}
		j := recording.NewJournal(f, began)
		j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: "run " + m.LocalUser})
		for i := range 10 {
			time.Sleep(4 * time.Second)
			j.Append(1, recording.KindOutput, fmt.Appendf(nil, "line %d\n", i))
		}
		j.AppendJSON(1, recording.KindExit, recording.Exit{Status: 3})
		f.Close()
		if err := x.Finish("closed", ""); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
		id = x.ID()
	})
	b, err := os.ReadFile(filepath.Join(dir, id, "recording.tsr"))
	if err != nil {
		t.Fatal(err)
	}
	return id, b
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// blocks are the offsets at which b's blocks begin, and where the last ends.
func blocks(t *testing.T, b []byte) []int {
	t.Helper()
	at := []int{16}
	for off := 16; off+96 <= len(b) && string(b[off:off+4]) == "tsrb"; {
		off += 96 + int(binary.LittleEndian.Uint32(b[off+16:]))
		at = append(at, off)
	}
	if len(at) < 10 {
		t.Fatalf("only %d blocks", len(at))
	}
	return at
}

func all(*Summary) bool { return true }

func TestAppendInAnyPortions(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	for _, step := range []int{len(b), 1000, 333, 97} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Config{Dir: dir})
			// A sender offers from where the recorder is; where nothing was kept it offers more.
			var size int64
			complete := false
			for n := step; !complete; {
				got, done, err := s.Append("n-web", id, size, b[size:min(size+int64(n), int64(len(b)))])
				if err != nil {
					t.Fatal(err)
				}
				if n = step; got == size {
					n = len(b)
				}
				size, complete = got, done
			}
			kept, err := os.ReadFile(filepath.Join(dir, "2026", "11", id+".tsr"))
			if err != nil || !bytes.Equal(kept, b) {
				t.Fatalf("the file differs from what was sent (%v)", err)
			}
			sum, err := s.Lookup(id)
			if err != nil {
				t.Fatal(err)
			}
			c := sum.Main()
			if !sum.Complete || sum.Live || sum.Size != int64(len(b)) || sum.Duration < 40*time.Second || c.Command != "run deploy" ||
				c.Exit == nil || c.Exit.Status != 3 || sum.End == nil || sum.End.Cause != "closed" {
				t.Errorf("summary %+v", sum)
			}
		})
	}
}

func TestTheListIsMadeFromTheFilesAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	var ids []string
	for i, host := range []string{"web", "db", "web"} {
		id, b := made(t, meta(host, fmt.Sprint("u", i), noon.AddDate(0, -i, 0)))
		if i == 1 {
			b = b[:blocks(t, b)[6]+40] // one that is still running, and half a block
		}
		if _, _, err := s.Append("n-"+host, id, 0, b); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	before, _ := s.List(Query{May: all})
	if len(before) != 3 || before[0].Meta.ID != ids[0] || before[2].Meta.ID != ids[2] || !before[1].Live {
		t.Fatalf("list %+v", before)
	}
	if _, err := os.Stat(sidecarPath(filepath.Join(dir, "2026", "11", ids[0]+".tsr"))); err != nil {
		t.Errorf("no summary beside a complete recording: %v", err)
	}
	check := func(name string) {
		t.Helper()
		after, _ := open(t, Config{Dir: dir}).List(Query{May: all})
		for i := range after {
			before[i].Live = false // nobody has reported since the start
			if fmt.Sprintf("%+v", short(after[i])) != fmt.Sprintf("%+v", short(before[i])) {
				t.Errorf("%s:\n%+v\n%+v", name, after[i], before[i])
			}
		}
		if len(after) != len(before) {
			t.Errorf("%s: %d recordings, want %d", name, len(after), len(before))
		}
	}
	check("with summaries")
	paths, _ := filepath.Glob(filepath.Join(dir, "*", "*", "*.json"))
	if len(paths) != 2 {
		t.Fatalf("summaries: %v", paths)
	}
	for _, p := range paths {
		os.Remove(p)
	}
	check("without")
	for _, p := range paths {
		os.WriteFile(p, []byte(`{"version":1,"summary":{"complete":true,"size":1}}`), 0o600)
	}
	check("with wrong ones")
}

// short is what must be equal before and after a restart, with pointers followed.
func short(s Summary) string {
	x := s.Main()
	status := -1
	if x.Exit != nil {
		status = x.Exit.Status
	}
	return fmt.Sprint(s.Meta.ID, s.Size, s.Duration, s.Opened, x.Command, status, s.Complete, s.End != nil, s.Problem, s.Live)
}

func TestNobodyWritesAnothersRecording(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	cut := int64(blocks(t, b)[5])
	s := open(t, Config{Dir: t.TempDir()})
	if _, _, err := s.Append("n-db", id, 0, b); !errors.Is(err, ErrForeign) {
		t.Errorf("another host's recording begun: %v", err)
	}
	if list, _ := s.List(Query{May: all}); len(list) != 0 {
		t.Errorf("it is in the list")
	}
	if _, _, err := s.Append("n-web", id, 0, b[:cut]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Append("n-db", id, cut, b[cut:]); !errors.Is(err, ErrForeign) {
		t.Errorf("another host's recording continued: %v", err)
	}
	if size, _, err := s.Size("n-db", id); !errors.Is(err, ErrForeign) || size != 0 {
		t.Errorf("another host's recording measured: %d %v", size, err)
	}
	// Under another name than it gives itself, which would be a second copy with a life of its own.
	other := id[:len(id)-1] + "x"
	if other == id {
		other = id[:len(id)-1] + "y"
	}
	if _, _, err := s.Append("n-web", other, 0, b); !errors.Is(err, ErrTampered) {
		t.Errorf("under another id: %v", err)
	}
	for _, bad := range []string{"", "../../etc/passwd", "a/b", "..", ".", "-rf", "a.tsr", "A", strings.Repeat("a", 65), "a\x00b", "ä"} {
		if _, _, err := s.Append("n-web", bad, 0, b); !errors.Is(err, ErrID) {
			t.Errorf("id %q: %v", bad, err)
		}
	}
}

func TestChangedBytesAreRefusedAndLeaveNoTrace(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	at := blocks(t, b)
	from := int64(at[4])
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	if _, _, err := s.Append("n-web", id, 0, b[:from]); err != nil {
		t.Fatal(err)
	}
	_, other := made(t, meta("web", "deploy", noon))
	try := func(name string, data []byte) {
		t.Helper()
		size, _, err := s.Append("n-web", id, from, data)
		if !errors.Is(err, ErrTampered) || size != from {
			t.Errorf("%s: size %d, %v", name, size, err)
		}
	}
	for i := at[4]; i < at[6]; i += 7 {
		bad := bytes.Clone(b[from:])
		bad[i-at[4]] ^= 0x10
		// A changed length can make the block look unfinished: then nothing of it is kept.
		size, _, err := s.Append("n-web", id, from, bad)
		if size != from || err != nil && !errors.Is(err, ErrTampered) {
			t.Fatalf("byte %d changed: size %d, %v", i, size, err)
		}
	}
	try("a block left out", b[at[5]:])
	try("a block twice", append(bytes.Clone(b[at[4]:at[5]]), b[at[4]:]...))
	try("of another recording", other[blocks(t, other)[4]:])
	try("good, then bad", append(bytes.Clone(b[at[4]:at[7]]), other[blocks(t, other)[7]:]...))
	for _, offset := range []int64{0, from - 1, from + 1, int64(len(b)), 1 << 60} {
		if size, _, err := s.Append("n-web", id, offset, b[from:]); !errors.Is(err, ErrOffset) || size != from {
			t.Errorf("offset %d: size %d, %v", offset, size, err)
		}
	}
	// And after all that the true bytes are still taken.
	if size, complete, err := s.Append("n-web", id, from, b[from:]); err != nil || !complete || size != int64(len(b)) {
		t.Fatalf("the true rest: %d %v %v", size, complete, err)
	}
	if size, complete, err := s.Append("n-web", id, int64(len(b)), []byte("more")); err != nil || !complete || size != int64(len(b)) {
		t.Errorf("after the end: %d %v %v", size, complete, err)
	}
	kept, _ := os.ReadFile(filepath.Join(dir, "2026", "11", id+".tsr"))
	if !bytes.Equal(kept, b) {
		t.Error("the file is not what was sent")
	}
}

func TestARestartGoesOnWhereItWas(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	at := blocks(t, b)
	for name, torn := range map[string][]byte{
		"whole":          nil,
		"half a header":  b[at[6] : at[6]+50],
		"half a payload": b[at[6] : at[7]-1],
		"zeros":          make([]byte, 20),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Config{Dir: dir})
			if _, _, err := s.Append("n-web", id, 0, b[:at[6]]); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "2026", "11", id+".tsr")
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Write(torn)
			f.Close()
			s = open(t, Config{Dir: dir})
			size, _, err := s.Size("n-web", id)
			if err != nil || size != int64(at[6]) {
				t.Fatalf("after the restart %d bytes (%v), want %d", size, err, at[6])
			}
			if st, _ := os.Stat(path); st.Size() != size {
				t.Errorf("%d bytes are in the file", st.Size())
			}
			if _, complete, err := s.Append("n-web", id, size, b[size:]); err != nil || !complete {
				t.Fatalf("going on: %v", err)
			}
			sum, _ := s.Lookup(id)
			if sum.Problem != "" || sum.Main().Exit == nil || sum.Duration < 40*time.Second {
				t.Errorf("summary %+v", sum)
			}
		})
	}
}

// Disks change bytes, and people do: what was good is shown, nothing is added, nothing removed.
func TestAFileThatDoesNotVerifyIsSealed(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	at := blocks(t, b)
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	if _, _, err := s.Append("n-web", id, 0, b[:at[8]]); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "2026", "11", id+".tsr")
	bad := bytes.Clone(b[:at[8]])
	bad[at[5]+100] ^= 1
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	sum, err := s.Lookup(id)
	if err != nil || sum.Size != int64(at[5]) || !strings.Contains(sum.Problem, "not shown") || sum.Live {
		t.Fatalf("%v %+v", err, sum)
	}
	if _, _, err := s.Append("n-web", id, int64(at[5]), b[at[5]:]); !errors.Is(err, ErrTampered) {
		t.Errorf("going on: %v", err)
	}
	if kept, _ := os.ReadFile(path); !bytes.Equal(kept, bad) {
		t.Error("the file was changed")
	}
	r, err := s.Read(id)
	if err != nil || r.Size() != int64(at[5]) {
		t.Fatalf("%v: %d bytes can be read", err, r.Size())
	}
	r.Close()
}

func TestStrangeFilesDoNotStopTheStore(t *testing.T) {
	dir := t.TempDir()
	month := filepath.Join(dir, "2026", "11")
	os.MkdirAll(month, 0o700)
	id, b := made(t, meta("web", "deploy", noon))
	for name, text := range map[string]string{
		"20261120-000000-aaaaaaaaaaaaaaaa.tsr": "",
		"20261120-000000-bbbbbbbbbbbbbbbb.tsr": "tsshrecording1\r\n",
		"20261120-000000-cccccccccccccccc.tsr": "something else entirely",
		"20261120-000000-dddddddddddddddd.tsr": string(b), // under another name
		"UPPER.tsr":                            string(b),
		"notes.txt":                            "x",
		id + ".tsr":                            string(b),
	} {
		if err := os.WriteFile(filepath.Join(month, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("/etc/passwd", filepath.Join(month, "20261120-000000-eeeeeeeeeeeeeeee.tsr"))
	list, _ := open(t, Config{Dir: dir}).List(Query{May: all})
	if len(list) != 1 || list[0].Meta.ID != id {
		t.Errorf("%d recordings: %+v", len(list), list)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	idA, a := made(t, meta("web", "a", noon))
	idB, b := made(t, meta("web", "b", noon))
	idC, c := made(t, meta("db", "c", noon))
	s := open(t, Config{Dir: t.TempDir(), MaxBytesPerHost: int64(len(a)) + 100, MaxBytes: int64(len(a)+len(c)) - 100})
	if _, _, err := s.Append("n-web", idA, 0, a); err != nil {
		t.Fatal(err)
	}
	var r *Refusal
	if _, _, err := s.Append("n-web", idB, 0, b); !errors.Is(err, ErrQuota) || !errors.As(err, &r) || r.HTTPStatus() != 507 {
		t.Errorf("over the host's quota: %v", err)
	}
	if _, _, err := s.Append("n-db", idC, 0, c[:blocks(t, c)[4]]); err != nil {
		t.Errorf("another host within the limits: %v", err)
	}
	size, _, err := s.Append("n-db", idC, int64(blocks(t, c)[4]), c[blocks(t, c)[4]:])
	if !errors.Is(err, ErrQuota) || size != int64(blocks(t, c)[4]) {
		t.Errorf("over all limits: %d %v", size, err)
	}
	s = open(t, Config{Dir: t.TempDir(), MinFree: 1 << 60})
	if _, _, err := s.Append("n-web", idA, 0, a); !errors.Is(err, ErrQuota) {
		t.Errorf("disk too full: %v", err)
	}
	if list, _ := s.List(Query{May: all}); len(list) != 0 {
		t.Error("a refused recording is listed")
	}
}

func TestLiveEndsWithTheHostsLastWord(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	now := noon
	s := open(t, Config{Dir: t.TempDir(), Clock: func() time.Time { return now }})
	cut := int64(blocks(t, b)[5])
	if _, _, err := s.Append("n-web", id, 0, b[:cut]); err != nil {
		t.Fatal(err)
	}
	live := func() bool { sum, _ := s.Lookup(id); return sum.Live }
	if !live() {
		t.Error("just appended to, and not live")
	}
	now = now.Add(liveFor - time.Second)
	if _, _, err := s.Append("n-web", id, cut, nil); err != nil {
		t.Fatal(err)
	}
	now = now.Add(liveFor - time.Second)
	if !live() {
		t.Error("reported a moment ago, and not live")
	}
	now = now.Add(2 * time.Second)
	if live() {
		t.Error("live without a word of the host")
	}
	// Long after, the verification is made again from the file.
	now = now.Add(verifierIdle + time.Hour)
	s.sweep()
	if s.recs[id].verifier != nil || s.recs[id].reader != nil {
		t.Error("an idle recording keeps its verifier or its file")
	}
	if _, complete, err := s.Append("n-web", id, cut, b[cut:]); err != nil || !complete {
		t.Errorf("going on: %v %v", complete, err)
	}
}

func TestListAsksWhoMaySee(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	for i := range 5 {
		id, b := made(t, meta("web", fmt.Sprint("user", i), noon.Add(time.Duration(i)*time.Minute)))
		if _, _, err := s.Append("n-web", id, 0, b); err != nil {
			t.Fatal(err)
		}
	}
	if list, _ := s.List(Query{}); len(list) != 0 {
		t.Error("without the question who may see, something is shown")
	}
	odd := func(m *Summary) bool { return m.Meta.LocalUser[4]%2 == 1 }
	list, next := s.List(Query{May: odd, Limit: 1})
	if len(list) != 1 || list[0].Meta.LocalUser != "user3" || next == "" {
		t.Fatalf("first page %+v, next %q", list, next)
	}
	list, next = s.List(Query{May: odd, Limit: 1, Before: next})
	if len(list) != 1 || list[0].Meta.LocalUser != "user1" || next != "" {
		t.Fatalf("second page %+v, next %q", list, next)
	}
	if list, _ := s.List(Query{May: all, Words: "USER2 alice run"}); len(list) != 1 {
		t.Errorf("%d match", len(list))
	}
	if list, _ := s.List(Query{May: all, Before: "20200101-000000-aaaaaaaaaaaaaaaa"}); len(list) != 0 {
		t.Error("a cursor that is none shows something")
	}
}

// A recorder that is killed while it appends: what it acknowledged is there, and it goes on.
func TestKilledWhileAppending(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_DIR"); dir != "" {
		appendForever(dir)
	}
	id, b := made(t, meta("web", "deploy", noon))
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), id)
	if err := os.WriteFile(source, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []int64{1, 4, 7} {
		cmd := exec.Command(self, "-test.run=^TestKilledWhileAppending$")
		cmd.Env = append(os.Environ(), "STORE_TEST_DIR="+dir, "STORE_TEST_SOURCE="+source)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acked, n int64
		for {
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break
			}
			acked = n
			if stop--; stop == 0 {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		s := open(t, Config{Dir: dir})
		size, _, err := s.Size("n-web", id)
		if err != nil || size < acked || acked == 0 {
			t.Fatalf("%d bytes were acknowledged, %d are there (%v)", acked, size, err)
		}
		if kept, _ := os.ReadFile(filepath.Join(dir, "2026", "11", id+".tsr")); !bytes.HasPrefix(b, kept) {
			t.Fatal("the file is not a beginning of what was sent")
		}
	}
	s := open(t, Config{Dir: dir})
	size, _, _ := s.Size("n-web", id)
	if _, complete, err := s.Append("n-web", id, size, b[size:]); err != nil || !complete {
		t.Fatalf("going on: %v %v", complete, err)
	}
}

// appendForever sends a recording a few bytes at a time and says what was acknowledged.
func appendForever(dir string) {
	source := os.Getenv("STORE_TEST_SOURCE")
	id := filepath.Base(source)
	b, err := os.ReadFile(source)
	if err != nil {
		os.Exit(1)
	}
	s, err := Open(Config{Dir: dir})
	if err != nil {
		os.Exit(1)
	}
	size, _, _ := s.Size("n-web", id)
	for n := int64(40); size < int64(len(b)); n += 40 {
		got, _, err := s.Append("n-web", id, size, b[size:min(size+n, int64(len(b)))])
		if err != nil {
			os.Exit(1)
		}
		if got > size {
			size, n = got, 0
			fmt.Println(size)
		}
	}
	os.Exit(0)
}
