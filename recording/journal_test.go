package recording

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writeCounter remembers every write by itself.
type writeCounter struct{ writes [][]byte }

func (w *writeCounter) Write(p []byte) (int, error) {
	w.writes = append(w.writes, bytes.Clone(p))
	return len(p), nil
}

func readAllRecords(t *testing.T, b []byte) []Event {
	t.Helper()
	var out []Event
	for len(b) > 0 {
		ev, n, err := readJournalRecord(b)
		if err != nil {
			t.Fatalf("after %d events: %v", len(out), err)
		}
		out = append(out, ev)
		b = b[n:]
	}
	return out
}

func TestJournalOneWritePerEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(writeCounter)
		start := time.Now()
		time.Sleep(250 * time.Millisecond)
		j := NewJournal(w, start)
		if err := j.AppendJSON(1, KindOpen, Open{Type: "exec", Command: "true"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Microsecond)
		big := bytes.Repeat([]byte("x"), 2*MaxEventData+1)
		if err := j.Append(1, KindOutput, big); err != nil {
			t.Fatal(err)
		}
		if err := j.Append(1, KindClose, nil); err != nil {
			t.Fatal(err)
		}
		if len(w.writes) != 5 {
			t.Fatalf("%d writes, want 5", len(w.writes))
		}
		evs := readAllRecords(t, bytes.Join(w.writes, nil))
		wantAt := []time.Duration{250 * time.Millisecond, 251500 * time.Microsecond, 251500 * time.Microsecond, 251500 * time.Microsecond, 251500 * time.Microsecond}
		wantLen := []int{len(evs[0].Data), MaxEventData, MaxEventData, 1, 0}
		for i, ev := range evs {
			if ev.At != wantAt[i] || len(ev.Data) != wantLen[i] || ev.Channel != 1 {
				t.Errorf("event %d: at %v, %d bytes, channel %d", i, ev.At, len(ev.Data), ev.Channel)
			}
		}
	})
}

func TestJournalStartInTheFuture(t *testing.T) {
	w := new(writeCounter)
	j := NewJournal(w, time.Now().Add(time.Hour)) // a clock set back since
	if err := j.Append(0, KindNote, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if ev := readAllRecords(t, w.writes[0])[0]; ev.At < 0 || ev.At > time.Minute {
		t.Errorf("at %v", ev.At)
	}
}

type failAfter struct{ n int }

var errFull = errors.New("no room")

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestJournalErrorIsSticky(t *testing.T) {
	w := &failAfter{n: 1}
	j := NewJournal(w, time.Now())
	if err := j.Append(1, KindOutput, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(1, KindOutput, []byte("b")); !errors.Is(err, errFull) {
		t.Fatalf("got %v", err)
	}
	w.n = 100 // room again: too late, an event is missing
	if err := j.Append(1, KindOutput, []byte("c")); !errors.Is(err, errFull) {
		t.Fatalf("after an error: got %v", err)
	}
	if !errors.Is(j.Err(), errFull) {
		t.Fatalf("Err: %v", j.Err())
	}
}

// halfFull takes a part of each write while it is full, as a disk does.
type halfFull struct {
	full int // writes that fail
	b    []byte
}

func (h *halfFull) Write(p []byte) (int, error) {
	if h.full > 0 {
		h.full--
		n := len(p) / 2
		h.b = append(h.b, p[:n]...)
		return n, errFull
	}
	h.b = append(h.b, p...)
	return len(p), nil
}

func TestJournalWaitsForRoom(t *testing.T) {
	w := &halfFull{}
	j := NewJournal(w, time.Now())
	var asked []error
	j.OnFull(func(err error) bool {
		asked = append(asked, err)
		return true
	})
	for i, data := range []string{"first", "second, in parts", "third"} {
		if w.full = 0; i == 1 {
			w.full = 3
		}
		if err := j.Append(1, KindOutput, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for b := w.b; len(b) > 0; {
		ev, n, err := readJournalRecord(b)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got, b = append(got, string(ev.Data)), b[n:]
	}
	if len(got) != 3 || got[1] != "second, in parts" {
		t.Errorf("%q", got)
	}
	if len(asked) != 4 || asked[3] != nil || !errors.Is(asked[0], errFull) {
		t.Errorf("asked %v", asked)
	}
	j.OnFull(func(error) bool { return false })
	w.full = 1
	if err := j.Append(1, KindOutput, []byte("x")); !errors.Is(err, errFull) {
		t.Errorf("given up: %v", err)
	}
	if err := j.Append(1, KindOutput, []byte("y")); !errors.Is(err, errFull) {
		t.Errorf("after that: %v", err)
	}
}

type shortWriter struct{}

func (shortWriter) Write(p []byte) (int, error) { return len(p) / 2, nil }

func TestJournalShortWriteIsAnError(t *testing.T) {
	if err := NewJournal(shortWriter{}, time.Now()).Append(1, KindOutput, []byte("abc")); err == nil {
		t.Fatal("a short write passed")
	}
}

func TestJournalRefusesLongJSON(t *testing.T) {
	w := new(writeCounter)
	j := NewJournal(w, time.Now())
	if err := j.AppendJSON(1, KindFile, File{Path: string(make([]byte, MaxEventData))}); err == nil || len(w.writes) != 0 {
		t.Fatalf("err %v, %d writes", err, len(w.writes))
	}
	if err := j.Append(1, KindOutput, []byte("still open")); err != nil {
		t.Fatal(err)
	}
}

func TestJournalConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	j := NewJournal(f, time.Now())
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				data := bytes.Repeat([]byte{byte(w)}, 1+i*37%5000)
				if err := j.Append(uint32(w+1), KindOutput, data); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	evs := readAllRecords(t, b)
	if len(evs) != writers*each {
		t.Fatalf("%d events", len(evs))
	}
	var last time.Duration
	seen := map[uint32]int{}
	for _, ev := range evs {
		if ev.At < last {
			t.Fatalf("time went back from %v to %v", last, ev.At)
		}
		last = ev.At
		i := seen[ev.Channel]
		seen[ev.Channel]++
		if want := bytes.Repeat([]byte{byte(ev.Channel - 1)}, 1+i*37%5000); !bytes.Equal(ev.Data, want) {
			t.Fatalf("channel %d event %d: wrong data", ev.Channel, i)
		}
	}
}

func TestJournalRecordRefuses(t *testing.T) {
	good := appendJournalRecord(nil, 5, 1, KindOutput, []byte("hello"))
	for n := range len(good) {
		if _, _, err := readJournalRecord(good[:n]); err != errJournalShort {
			t.Errorf("%d of %d bytes: %v", n, len(good), err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if ev, _, err := readJournalRecord(bad); err == nil {
			t.Errorf("byte %d changed: read as %+v", i, ev)
		}
	}
	for name, rec := range map[string][]byte{
		"no kind":         appendJournalRecord(nil, 5, 1, KindNone, nil),
		"unknown kind":    appendJournalRecord(nil, 5, 1, lastKind+1, nil),
		"monitor channel": appendJournalRecord(nil, 5, ChannelMonitor, KindNote, nil),
		"far future":      appendJournalRecord(nil, 1<<62, 1, KindOutput, nil),
		"negative time":   appendJournalRecord(nil, -1, 1, KindOutput, nil),
		"huge length":     binary.LittleEndian.AppendUint64(nil, 0xffffffffffffffff),
		"zeros":           make([]byte, 64),
	} {
		if _, _, err := readJournalRecord(rec); err != errJournalCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzJournalRecord(f *testing.F) {
	f.Add(appendJournalRecord(nil, 5, 1, KindOutput, []byte("hello")))
	f.Add(appendJournalRecord(appendJournalRecord(nil, 0, 0, KindNote, nil), 7, 2, KindEnd, []byte(`{"cause":"closed"}`)))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			ev, n, err := readJournalRecord(b)
			if err != nil {
				return
			}
			if n <= 0 || n > len(b) || len(ev.Data) > MaxEventData {
				t.Fatalf("n %d of %d, data %d", n, len(b), len(ev.Data))
			}
			again := appendJournalRecord(nil, ev.At.Microseconds(), ev.Channel, ev.Kind, ev.Data)
			if !bytes.Equal(again, b[:n]) {
				t.Fatalf("does not encode to what it was read from")
			}
			b = b[n:]
		}
	})
}

func BenchmarkJournalAppend(b *testing.B) {
	for _, size := range []int{1, 64, 4096, 32768} {
		b.Run(sizeName(size), func(b *testing.B) {
			f, err := os.OpenFile(filepath.Join(b.TempDir(), "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			j := NewJournal(f, time.Now())
			data := bytes.Repeat([]byte("x"), size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var written int
			for b.Loop() {
				if err := j.Append(1, KindOutput, data); err != nil {
					b.Fatal(err)
				}
				if written += size + 21; written > 256<<20 { // the benchmark is not about disk space
					if err := f.Truncate(0); err != nil {
						b.Fatal(err)
					}
					written = 0
				}
			}
		})
	}
}

func sizeName(n int) string {
	return map[int]string{1: "1B", 64: "64B", 4096: "4KiB", 32768: "32KiB"}[n]
}
