package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// owner is a hub: its own log and the copies it keeps.
type owner struct {
	*Copies
	t   *testing.T
	dir string
	log *Log
	now time.Time
}

func newOwner(t *testing.T) *owner {
	t.Helper()
	o := &owner{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	o.log = mustOpen(t, filepath.Join(o.dir, "own"))
	o.reopen(0)
	return o
}

// reopen forgets everything but the files.
func (o *owner) reopen(most int64) {
	o.t.Helper()
	var err error
	o.Copies, err = OpenCopies(CopiesConfig{Dir: filepath.Join(o.dir, "copies"), MaxBytes: most, Noted: o.log.Append, Clock: func() time.Time { return o.now }})
	if err != nil {
		o.t.Fatal(err)
	}
	o.seg = 3000
}

func (o *owner) all(f Filter) []Record {
	o.t.Helper()
	var out []Record
	if err := ReadAll(o.log.Dir(), o.Copies, f, func(r Record) error { out = append(out, r); return nil }); err != nil {
		o.t.Fatal(err)
	}
	return out
}

func (o *owner) noted(kind string) (n int) {
	for _, r := range o.all(Filter{Kind: kind}) {
		if r.FromID == "" {
			n++
		}
	}
	return n
}

// bring gives the owner what it does not have of l, as a sender does.
func (o *owner) bring(id string, l *Log) (gaps int) {
	o.t.Helper()
	seq, hash, err := o.Head(id)
	if err != nil {
		o.t.Fatal(err)
	}
	tail, err := l.Tail(seq, hash)
	if err != nil {
		o.t.Fatal(err)
	}
	for {
		lines, follows, err := tail.Next(700)
		if err != nil {
			o.t.Fatal(err)
		}
		if lines == nil {
			return gaps
		}
		if !follows {
			gaps++
		}
		got, _, err := o.Append(id, "web", seq, !follows, lines)
		if err != nil {
			o.t.Fatal(err)
		}
		if seq, _ = tail.Last(); seq != got {
			o.t.Fatalf("the copy ends at %d, the lines at %d", got, seq)
		}
	}
}

func lineText(t *testing.T, l *Log) []string {
	t.Helper()
	var b []byte
	names, _ := segments(l.Dir())
	for _, n := range names {
		s, err := os.ReadFile(filepath.Join(l.Dir(), n))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, s...)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestACopyIsWhatTheHostWrote(t *testing.T) {
	o := newOwner(t)
	host, err := open(t.TempDir(), 2000, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for range 3 {
		fill(t, host, 10)
		if gaps := o.bring("n-web", host); gaps != 0 {
			t.Fatalf("%d gaps", gaps)
		}
		o.reopen(0)
	}
	got := o.all(Filter{})
	if len(got) != 30 {
		t.Fatalf("%d entries of 30", len(got))
	}
	for i, r := range got {
		if r.Seq != uint64(i+1) || r.From != "web" || r.FromID != "n-web" || !r.Received.Equal(o.now) || r.Entry.Who != "alice@example.com" {
			t.Fatalf("entry %d: %+v", i, r)
		}
	}
	// Without the times before them the lines are those of the host.
	var copied []string
	names, _ := segments(filepath.Join(o.dir, "copies", "n-web"))
	if len(names) < 3 {
		t.Fatalf("%d segments, want several", len(names))
	}
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(o.dir, "copies", "n-web", n))
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			copied = append(copied, l[len(stampForm)+1:])
		}
	}
	want := strings.Join(lineText(t, host), "") + "\n"
	if got := strings.Join(copied, ""); got != want {
		t.Error("the copy is not what the host wrote")
	}
}

func TestACopyTakesNothingThatDoesNotFollow(t *testing.T) {
	o := newOwner(t)
	host := mustOpen(t, t.TempDir())
	fill(t, host, 5)
	l := lineText(t, host)
	l[4] += "\n"
	other := mustOpen(t, t.TempDir())
	if err := other.Append(Entry{Kind: "login", Who: "mallory"}); err != nil {
		t.Fatal(err)
	}
	foreign := lineText(t, other)[0] + "\n"
	if _, _, err := o.Append("n-web", "web", 0, false, []byte(l[0]+l[1])); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		id    string
		after uint64
		gap   bool
		lines string
		want  error
	}{
		{"not the last", "n-web", 1, false, l[1], ErrElsewhere},
		{"not here yet", "n-web", 3, true, l[3], ErrElsewhere},
		{"one left out", "n-web", 2, false, l[3], ErrNotFollows},
		{"one left out, later", "n-web", 2, true, l[2] + l[4], ErrNotFollows},
		{"swapped", "n-web", 2, false, l[3] + l[2], ErrNotFollows},
		{"of another log", "n-web", 2, false, foreign, ErrNotFollows},
		{"the beginning of another host's", "n-db", 0, false, l[1], ErrNotFollows},
		{"half a line", "n-web", 2, false, l[2][:50], ErrNotALine},
		{"half a line after a whole one", "n-web", 2, false, l[2] + l[3][:50], ErrNotALine},
		{"changed", "n-web", 2, false, strings.Replace(l[2], "alice", "malys", 1), ErrNotALine},
		{"another form", "n-web", 2, false, strings.Replace(l[2], `{"seq"`, `{ "seq"`, 1), ErrNotALine},
		{"the mark of a gap", "n-web", 2, false, gapLine, ErrNotALine},
		{"rubbish", "n-web", 2, true, "x\n", ErrNotALine},
		{"no kind", "n-web", 2, true, string(line{seq: 3, hash: sum(Hash{}, 3, []byte(`{}`)), raw: []byte(`{}`)}.text()), ErrNotALine},
		{"an entry that is none", "n-web", 2, true, string(line{seq: 3, hash: sum(Hash{}, 3, []byte(`[]`)), raw: []byte(`[]`)}.text()), ErrNotALine},
		{"path as a host", "../own", 0, false, l[0], ErrNoHost},
		{"no host", "", 0, false, l[0], ErrNoHost},
		{"hidden host", ".x", 0, false, l[0], ErrNoHost},
	} {
		if _, _, err := o.Append(c.id, "web", c.after, c.gap, []byte(c.lines)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if seq, _, err := o.Head("n-web"); err != nil || seq != 2 {
			t.Fatalf("%s: the copy ends at %d, %v", c.name, seq, err)
		}
	}
	if n := len(o.all(Filter{})); n != 2 {
		t.Errorf("%d entries, not 2", n)
	}
}

// TestALongLineEndsNoReading: a host that is taken over sends the longest line that is taken
// and one that is longer; what all others did is read all the same.
func TestALongLineEndsNoReading(t *testing.T) {
	o := newOwner(t)
	web := mustOpen(t, t.TempDir())
	fill(t, web, 3)
	o.bring("n-web", web)
	long := func(size int) []byte {
		raw := []byte(`{"kind":"x","text":""}`)
		pad := size - len(line{seq: 1, raw: raw}.text())
		raw = []byte(`{"kind":"x","text":"` + strings.Repeat("<", pad) + `"}`)
		return line{seq: 1, hash: sum(Hash{}, 1, raw), raw: raw}.text()
	}
	for _, size := range []int{maxCopied + 1, maxLine, maxLine + maxLine/2} {
		if _, _, err := o.Append("n-evil", "evil", 0, false, long(size)); !errors.Is(err, ErrNotALine) {
			t.Errorf("a line of %d bytes: %v", size, err)
		}
	}
	if _, _, err := o.Append("n-evil", "evil", 0, false, long(maxCopied)); err != nil {
		t.Error(err)
	}
	if n := len(o.all(Filter{})); n != 4 {
		t.Errorf("%d entries, not 4", n)
	}
}

// A host that threw its log away begins another one. Nobody can take that for the first.
func TestALogThatWasReplacedShows(t *testing.T) {
	o := newOwner(t)
	first := mustOpen(t, t.TempDir())
	fill(t, first, 5)
	o.bring("n-web", first)
	second := mustOpen(t, t.TempDir())
	fill(t, second, 8)
	if gaps := o.bring("n-web", second); gaps != 1 {
		t.Errorf("%d gaps, want 1", gaps)
	}
	if n := o.noted("audit.gap"); n != 1 {
		t.Errorf("%d gaps in the owner's log", n)
	}
	o.reopen(0)
	if n := len(o.all(Filter{Host: "web"})); n != 5+8+1 {
		t.Errorf("%d entries", n)
	}
	// Claims of gaps do not fill the owner's log.
	third := mustOpen(t, t.TempDir())
	fill(t, third, 1)
	seq, _, _ := o.Head("n-web")
	text := []byte(lineText(t, third)[0] + "\n")
	if _, _, err := o.Append("n-web", "web", seq, true, text); err != nil {
		t.Fatal(err) // the process is another since the last one
	}
	if _, _, err := o.Append("n-web", "web", 1, true, []byte(lineText(t, second)[0])); !errors.Is(err, ErrTooSoon) {
		t.Errorf("a gap right after the last: %v", err)
	}
	o.now = o.now.Add(2 * gapEvery)
	if gaps := o.bring("n-web", second); gaps != 1 {
		t.Errorf("%d gaps, want 1", gaps)
	}
}

// A host that was away too long says what is missing, as does one whose disk lost a line.
func TestMissingLinesShow(t *testing.T) {
	o := newOwner(t)
	host, err := open(t.TempDir(), 1500, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	fill(t, host, 2)
	o.bring("n-web", host)
	fill(t, host, 60)
	names, _ := segments(host.Dir())
	if len(names) != 3 {
		t.Fatalf("%d segments are kept, want 3", len(names))
	}
	if gaps := o.bring("n-web", host); gaps != 1 {
		t.Fatalf("%d gaps", gaps)
	}
	if n := len(o.all(Filter{Kind: "audit.dropped"})); n == 0 {
		t.Error("the host did not say that it dropped lines")
	}
	gap := o.all(Filter{Kind: "audit.gap"})
	if len(gap) != 1 || !strings.HasPrefix(gap[0].Entry.Text, "lines 3 to ") || gap[0].Entry.Host != "web" {
		t.Fatalf("gap: %+v", gap)
	}
	// Now one line in the middle of what was not brought yet is spoilt.
	fill(t, host, 3)
	names, _ = segments(host.Dir())
	last := filepath.Join(host.Dir(), names[len(names)-1])
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndexByte(b[:len(b)-1], '\n') // of the last but one
	at = bytes.LastIndexByte(b[:at], '\n') + 20
	b[at] ^= 1
	if err := os.WriteFile(last, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o.now = o.now.Add(2 * gapEvery)
	if gaps := o.bring("n-web", host); gaps != 1 {
		t.Fatalf("%d gaps", gaps)
	}
	if seq, _ := host.Head(); seq == 0 || len(o.all(Filter{})) == 0 {
		t.Fatal("nothing arrived")
	}
}

func TestCopiesAreBounded(t *testing.T) {
	o := newOwner(t)
	o.reopen(5000)
	o.seg = 1000
	host := mustOpen(t, t.TempDir())
	fill(t, host, 60)
	seq := uint64(0)
	var err error
	for i := 0; err == nil && i < 60; i++ {
		seq, _, err = o.Append("n-web", "web", seq, false, []byte(strings.TrimSuffix(lineText(t, host)[i], "\n")+"\n"))
	}
	if !errors.Is(err, ErrFull) || seq == 0 {
		t.Fatalf("after %d lines: %v", seq, err)
	}
	for range 3 {
		o.Append("n-web", "web", seq, false, []byte(lineText(t, host)[seq]))
	}
	if n := o.noted("audit.full"); n != 1 {
		t.Errorf("%d notes of it", n)
	}
	if _, _, err := o.Append("n-db", "db", 0, false, []byte(lineText(t, host)[0])); err != nil {
		t.Errorf("another host: %v", err)
	}
	// Later the oldest may go, and it is said which; a new program finds its way too.
	o.now = o.now.Add(keptFor + time.Hour)
	lines := lineText(t, host)
	for i := int(seq); i < 60; i++ {
		if i == 50 {
			o.reopen(5000)
			o.seg = 1000
		}
		o.now = o.now.Add(keptFor / 4)
		if _, _, err := o.Append("n-web", "web", uint64(i), false, []byte(strings.TrimSuffix(lines[i], "\n")+"\n")); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
	}
	dir := filepath.Join(o.dir, "copies", "n-web")
	size := int64(0)
	names, _ := segments(dir)
	for _, n := range names {
		st, err := os.Stat(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	gone, _, err := dropped(dir)
	if size > 5000 || gone == 0 || o.noted("audit.dropped") == 0 {
		t.Errorf("%d bytes, gone up to %d, %d notes", size, gone, o.noted("audit.dropped"))
	}
	first := uint64(0)
	for _, r := range o.all(Filter{Host: "web"}) {
		if r.FromID == "n-web" && first == 0 {
			first = r.Seq
		}
	}
	if first != gone+1 {
		t.Errorf("the first line is %d, gone is %d, %v", first, gone, err)
	}
	// What goes without a word is seen.
	if err := os.Remove(filepath.Join(dir, names[0])); err != nil {
		t.Fatal(err)
	}
	var broken *Broken
	if err := ReadAll(o.log.Dir(), o.Copies, Filter{}, func(Record) error { return nil }); len(names) < 2 || !errors.As(err, &broken) {
		t.Errorf("%d segments, one removed: %v", len(names), err)
	}
}

// What a crash leaves at the end was acknowledged to nobody and comes again.
func TestACopyAfterACrash(t *testing.T) {
	for cut := range 5 {
		o := newOwner(t)
		host := mustOpen(t, t.TempDir())
		fill(t, host, 4)
		o.bring("n-web", host)
		names, _ := segments(filepath.Join(o.dir, "copies", "n-web"))
		f, err := os.OpenFile(filepath.Join(o.dir, "copies", "n-web", names[len(names)-1]), os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, host, 1)
		next := o.now.Format(stampForm) + " " + lineText(t, host)[4] + "\n"
		switch cut {
		case 0:
			_, err = f.WriteString(next[:60])
		case 1:
			_, err = f.WriteString(next[:10])
		case 2:
			_, err = f.WriteString(o.now.Format(stampForm) + " " + gapLine) // and nothing after it
		case 3:
			_, err = f.WriteString(string(make([]byte, 300)))
		case 4:
			st, _ := f.Stat()
			err = f.Truncate(st.Size() - 3) // a disk that lied
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		o.reopen(0)
		if gaps := o.bring("n-web", host); gaps != 0 {
			t.Errorf("case %d: %d gaps", cut, gaps)
		}
		if n := len(o.all(Filter{})); n != 5 {
			t.Errorf("case %d: %d entries", cut, n)
		}
	}
}

// A changed byte in a copy, or in the owner's log, ends the reading at that line.
func TestReadAllChecksTheChains(t *testing.T) {
	o := newOwner(t)
	host := mustOpen(t, t.TempDir())
	fill(t, host, 6)
	fill(t, o.log, 6)
	o.bring("n-web", host)
	for _, dir := range []string{o.log.Dir(), filepath.Join(o.dir, "copies", "n-web")} {
		name := filepath.Join(dir, segmentName(1))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(b, []byte("\n"))
		for what, bad := range map[string][]byte{
			"changed": bytes.Replace(b, []byte("number 2"), []byte("number 7"), 1),
			"removed": bytes.Join(append(append([][]byte{}, lines[:2]...), lines[3:]...), nil),
			"first":   bytes.Join(lines[1:], nil),
		} {
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			var broken *Broken
			if err := ReadAll(o.log.Dir(), o.Copies, Filter{}, func(Record) error { return nil }); !errors.As(err, &broken) {
				t.Errorf("%s, %s: %v", filepath.Base(dir), what, err)
			}
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(o.all(Filter{})); n != 12 {
		t.Errorf("%d entries", n)
	}
}

func TestReadAllByTimeAndHost(t *testing.T) {
	o := newOwner(t)
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	put := func(l *Log, hour int, e Entry) {
		e.Time = day.Add(time.Duration(hour) * time.Hour)
		if err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	var hosts []*Log
	for i := range 3 {
		l := mustOpen(t, t.TempDir())
		hosts = append(hosts, l)
		for hour := i; hour < 12; hour += 4 {
			put(l, hour, Entry{Kind: "session.open", Host: "db"}) // whatever it says it is
		}
	}
	for hour := 3; hour < 12; hour += 4 {
		put(o.log, hour, Entry{Kind: "node.join", Node: "h1"})
	}
	for i, l := range hosts {
		seq, hash, _ := o.Head(fmt.Sprint("n-", i))
		tail, err := l.Tail(seq, hash)
		if err != nil {
			t.Fatal(err)
		}
		lines, _, err := tail.Next(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.Append(fmt.Sprint("n-", i), fmt.Sprint("h", i), 0, false, lines); err != nil {
			t.Fatal(err)
		}
	}
	all := o.all(Filter{})
	if len(all) != 12 {
		t.Fatalf("%d entries", len(all))
	}
	for i, r := range all {
		if r.Entry.Time.Hour() != i {
			t.Errorf("entry %d is of %s", i, r.Entry.Time)
		}
	}
	for _, c := range []struct {
		f    Filter
		want int
	}{
		{Filter{Host: "h1"}, 6}, {Filter{Host: "n-1"}, 3}, {Filter{Host: "db"}, 0}, {Filter{Host: "h0"}, 3},
		{Filter{Since: day.Add(8 * time.Hour), Kind: "node"}, 1},
		{Filter{Since: o.now.Add(time.Hour)}, 0},
		{Filter{Since: o.now.Add(-time.Hour), Kind: "session"}, 9}, // their clocks are behind, but they came just now
	} {
		if n := len(o.all(c.f)); n != c.want {
			t.Errorf("%+v: %d entries, want %d", c.f, n, c.want)
		}
	}
}

func TestPruneKeepsWhatNobodyHas(t *testing.T) {
	l, err := open(t.TempDir(), 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fill(t, l, 30)
	before, _ := segments(l.Dir())
	if err := l.Prune(0); err != nil {
		t.Fatal(err)
	}
	if now, _ := segments(l.Dir()); len(now) != len(before) {
		t.Fatalf("%d of %d segments left, and nobody has any", len(now), len(before))
	}
	first, err := firstSeq(l.Dir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Prune(first); err != nil { // into the third
		t.Fatal(err)
	}
	if now, _ := segments(l.Dir()); len(now) != len(before)-2 || now[0] != segmentName(3) {
		t.Fatalf("left: %v", now)
	}
	head, hash := l.Head()
	if err := l.Prune(head); err != nil {
		t.Fatal(err)
	}
	if now, _ := segments(l.Dir()); len(now) != keptSegments {
		t.Fatalf("left: %v", now)
	}
	dir := l.Dir()
	l.Close()
	if l, err = open(dir, 1000, 4); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if seq, h := l.Head(); seq != head || h != hash {
		t.Errorf("opened again it ends at %d, not at %d", seq, head)
	}
	tail, err := l.Tail(head, hash)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 1)
	lines, follows, err := tail.Next(1 << 20)
	if err != nil || !follows || bytes.Count(lines, []byte("\n")) != 1 {
		t.Errorf("%q %v %v", lines, follows, err)
	}
}

// What is not on disk yet must not be elsewhere: a crash would take it from here alone.
func TestATailGivesWhatIsOnDisk(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	fill(t, l, 1)
	tail, err := l.Tail(0, Hash{})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := l.write(Entry{Kind: "login", Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if lines, _, err := tail.Next(1 << 20); err != nil || bytes.Count(lines, []byte("\n")) != 1 {
		t.Fatalf("%q %v", lines, err)
	}
	if lines, _, err := tail.Next(1 << 20); err != nil || lines != nil {
		t.Fatalf("a line that is not on disk: %q %v", lines, err)
	}
	if err := l.sync(seq); err != nil {
		t.Fatal(err)
	}
	if lines, follows, err := tail.Next(1 << 20); err != nil || !follows || bytes.Count(lines, []byte("\n")) != 1 {
		t.Fatalf("after the sync: %q %v %v", lines, follows, err)
	}
}
