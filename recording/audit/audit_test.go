package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func mustOpen(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func fill(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(Entry{Kind: "login", Who: "alice@example.com", Text: fmt.Sprintf("number %d <b>\n", i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func verifyDir(t *testing.T, dir string) Report {
	t.Helper()
	r, err := VerifyDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestChainOverManySegments(t *testing.T) {
	dir := t.TempDir()
	for range 3 { // reopened twice
		l, err := open(dir, 2000, 0)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, l, 20)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	names, _ := segments(dir)
	if len(names) < 5 {
		t.Fatalf("%d segments, want several", len(names))
	}
	r := verifyDir(t, dir)
	if r.Lines != 60 || r.First != 1 || r.Last != 60 {
		t.Fatalf("got %+v", r)
	}
	var all bytes.Buffer
	for _, n := range names {
		b, _ := os.ReadFile(filepath.Join(dir, n))
		all.Write(b)
	}
	if s, err := Verify(&all); err != nil || s != r {
		t.Fatalf("one stream: %+v %v, want %+v", s, err, r)
	}
	// One segment alone verifies as well, from its own first line.
	b, _ := os.ReadFile(filepath.Join(dir, names[2]))
	if s, err := Verify(bytes.NewReader(b)); err != nil || s.First <= 1 {
		t.Fatalf("one segment: %+v %v", s, err)
	}
	// A missing segment is named.
	if err := os.Remove(filepath.Join(dir, names[2])); err != nil {
		t.Fatal(err)
	}
	var broken *Broken
	if _, err := VerifyDir(dir); !errors.As(err, &broken) || broken.File != names[3] {
		t.Fatalf("missing segment: %v", err)
	}
}

// Every byte of the log is under the chain: change any one and the right line is named.
func TestAnyChangedByteIsNamed(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, 4)
	l.Close()
	good, err := os.ReadFile(filepath.Join(dir, segmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x01
		_, err := Verify(bytes.NewReader(bad))
		var broken *Broken
		if !errors.As(err, &broken) {
			t.Fatalf("byte %d changed from %q to %q and nobody noticed: %v", i, good[i], bad[i], err)
		}
		if want := bytes.Count(good[:i], []byte("\n")) + 1; broken.Line != want {
			t.Fatalf("byte %d of line %d changed, line %d named", i, want, broken.Line)
		}
	}
}

func TestEditedLogsAreRefused(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, 5)
	l.Close()
	good, _ := os.ReadFile(filepath.Join(dir, segmentName(1)))
	lines := bytes.SplitAfter(good, []byte("\n"))[:5]
	forged, err := newLine(Hash{}, 3, Entry{Kind: "login", Who: "mallory@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	join := func(n ...int) []byte {
		var b []byte
		for _, i := range n {
			b = append(b, lines[i]...)
		}
		return b
	}
	for _, c := range []struct {
		name string
		log  []byte
		line int
		word string
	}{
		{"removed", join(0, 1, 3, 4), 3, "missing"},
		{"swapped", join(0, 2, 1, 3, 4), 2, "swapped"},
		{"repeated", join(0, 1, 1, 2), 3, "repeated"},
		{"replaced", append(append(join(0, 1), forged.text()...), join(3, 4)...), 3, "does not follow"},
		{"cut in a line", good[:len(good)-10], 5, "not a whole line"},
		{"spaced", bytes.Replace(good, []byte(`{"seq":2,`), []byte(`{"seq": 2,`), 1), 2, "form"},
		{"endless", bytes.Repeat([]byte("x"), maxLine+1), 1, "longer"},
	} {
		var broken *Broken
		_, err := Verify(bytes.NewReader(c.log))
		if !errors.As(err, &broken) || broken.Line != c.line || !strings.Contains(broken.Why, c.word) {
			t.Errorf("%s: got %v, want line %d and %q", c.name, err, c.line, c.word)
		}
	}
}

func TestTornEndIsSetAsideAndNoted(t *testing.T) {
	for name, torn := range map[string]string{
		"half a line":                            `{"seq":4,"prev":"00`,
		"zero pages":                             strings.Repeat("\x00", 5000),
		"whole line that is no entry, then half": "garbage\n{\"seq\"",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := mustOpen(t, dir)
			fill(t, l, 3)
			l.Close()
			f, err := os.OpenFile(filepath.Join(dir, segmentName(1)), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString(torn)
			f.Close()

			l = mustOpen(t, dir)
			fill(t, l, 1)
			if r := verifyDir(t, dir); r.Lines != 5 {
				t.Fatalf("%d lines, want 3 old, 1 note, 1 new", r.Lines)
			}
			var notes []Record
			if err := l.Read(Filter{Kind: "audit"}, func(r Record) error { notes = append(notes, r); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(notes) != 1 || notes[0].Entry.Extra["bytes"] != fmt.Sprint(len(torn)) {
				t.Fatalf("notes: %+v", notes)
			}
			kept, err := os.ReadFile(filepath.Join(dir, notes[0].Entry.Extra["file"]))
			if err != nil || string(kept) != torn {
				t.Fatalf("set aside: %q %v", kept, err)
			}
		})
	}
}

// An edited line in the middle is evidence: Open must neither mend nor move it.
func TestOpenLeavesEditedLinesAlone(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, 3)
	l.Close()
	path := filepath.Join(dir, segmentName(1))
	b, _ := os.ReadFile(path)
	b = bytes.Replace(b, []byte("number 1"), []byte("number 7"), 1)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir)
	fill(t, l, 1)
	after, _ := os.ReadFile(path)
	if !bytes.HasPrefix(after, b) {
		t.Fatal("Open changed lines that were there")
	}
	var broken *Broken
	if _, err := VerifyDir(dir); !errors.As(err, &broken) || broken.Line != 2 {
		t.Fatalf("got %v, want line 2 named", err)
	}
}

func TestKilledWriterLosesNothingAcknowledged(t *testing.T) {
	if os.Getenv("AUDIT_TEST_WRITER") != "" {
		l, err := open(os.Getenv("AUDIT_TEST_WRITER"), 20000, 0)
		if err != nil {
			fmt.Println("open:", err)
			os.Exit(1)
		}
		for i := 0; ; i++ {
			if err := l.Append(Entry{Kind: "login", Text: strings.Repeat("x", i%500)}); err != nil {
				fmt.Println("append:", err)
				os.Exit(1)
			}
			seq, hash := l.Head()
			fmt.Println(seq, hash)
		}
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		cmd := exec.Command(self, "-test.run=^TestKilledWriterLosesNothingAcknowledged$")
		cmd.Env = append(os.Environ(), "AUDIT_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed somewhere after so many lines; what it managed to say counts.
		var acked uint64
		said := bufio.NewScanner(out)
		for n := 1; said.Scan(); n++ {
			var seq uint64
			var hash string
			if c, _ := fmt.Sscan(said.Text(), &seq, &hash); c == 2 && len(hash) == 64 {
				acked = seq
			}
			if n == 40+33*round {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if acked == 0 {
			t.Fatal("the writer wrote nothing")
		}
		l, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if seq, _ := l.Head(); seq < acked {
			t.Fatalf("round %d: line %d was acknowledged, the log ends at %d", round, acked, seq)
		}
		l.Close()
		verifyDir(t, dir)
	}
}

func TestConcurrentAppendsMakeOneChain(t *testing.T) {
	dir := t.TempDir()
	l, err := open(dir, 5000, 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 10 {
				if err := l.Append(Entry{Kind: "login"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l.Close()
	if r := verifyDir(t, dir); r.Lines != 160 {
		t.Fatalf("%d lines, want 160", r.Lines)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("second open: %v", err)
	}
	l.Close()
	mustOpen(t, dir)
}

func TestLongEntriesAreCut(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	e := Entry{Kind: "login", Text: strings.Repeat("é\x00", maxField), Extra: map[string]string{}}
	for i := range 100 {
		e.Extra[fmt.Sprint(i, strings.Repeat("\x01", 100))] = strings.Repeat("\xff\x00", 1e5)
	}
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	st, _ := os.Stat(filepath.Join(dir, segmentName(1)))
	if st.Size() >= maxLine {
		t.Fatalf("the line has %d bytes, readers accept %d", st.Size(), maxLine)
	}
	verifyDir(t, dir)
	l.Read(Filter{}, func(r Record) error {
		if !strings.Contains(r.Entry.Text, "cut, 6144 bytes") || len(r.Entry.Extra) != maxExtra+1 {
			t.Errorf("text %d bytes, %d extra keys", len(r.Entry.Text), len(r.Entry.Extra))
		}
		return nil
	})
	if err := l.Append(Entry{}); err == nil {
		t.Error("an entry without a kind was accepted")
	}
}

func TestFilter(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for i, k := range []string{"login", "policy", "policy.set", "policyx", "login"} {
		if err := l.Append(Entry{Kind: k, Time: noon.Add(time.Duration(i) * time.Minute), Who: fmt.Sprint("p", i%2)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "1 2 3 4 5"},
		{Filter{Kind: "policy"}, "2 3"},
		{Filter{Since: noon.Add(3 * time.Minute)}, "4 5"},
		{Filter{Until: noon.Add(2 * time.Minute)}, "1 2"},
		{Filter{Kind: "login", Who: "p0"}, "1 5"},
	} {
		var got []string
		if err := l.Read(c.f, func(r Record) error { got = append(got, fmt.Sprint(r.Seq)); return nil }); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v, want %s", c.f, got, c.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	a, _ := newLine(Hash{}, 1, Entry{Kind: "login"})
	b, _ := newLine(a.hash, 2, Entry{Kind: "policy.set", Text: "é"})
	f.Add(append(a.text(), b.text()...))
	f.Add([]byte("{\"seq\":1}\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		r, err := Verify(bytes.NewReader(log))
		if err != nil {
			return
		}
		// What verifies is a chain: each line can be taken apart and put together again.
		var again []byte
		for _, s := range bytes.SplitAfter(log, []byte("\n")) {
			if len(s) == 0 {
				continue
			}
			l, err := parseLine(s)
			if err != nil {
				t.Fatalf("verified, but line %q: %v", s, err)
			}
			again = append(again, l.text()...)
		}
		if !bytes.Equal(again, log) {
			t.Fatalf("%d lines verified that are not those written", r.Lines)
		}
	})
}
