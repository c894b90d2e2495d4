package recording_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
	"tssh/recording/term"
)

// rawJournal is the journal as somebody has it who does not use Journal.
func rawJournal(t testing.TB, x *recording.Session) *os.File {
	t.Helper()
	f, err := x.JournalFile()
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func failure(x *recording.Session) error {
	select {
	case err := <-x.Failed():
		return err
	default:
		return nil
	}
}

func TestHostileJournals(t *testing.T) {
	good := recording.AppendRecord(nil, 1000, 1, recording.KindOutput, []byte("good"))
	for name, c := range map[string]struct {
		write []byte
		then  func(f *os.File) error
		fails bool
	}{
		"garbage":        {write: []byte("\xff\xff\xff\xff this is no journal at all, it is not"), fails: true},
		"zeros":          {write: make([]byte, 100), fails: true},
		"huge length":    {write: []byte{0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0}, fails: true},
		"unknown kind":   {write: recording.AppendRecord(nil, 2000, 1, 99, nil), fails: true},
		"the monitor":    {write: recording.AppendRecord(nil, 2000, recording.ChannelMonitor, recording.KindNote, []byte("{}")), fails: true},
		"far future":     {write: recording.AppendRecord(nil, math.MaxInt64, 1, recording.KindOutput, nil), fails: true},
		"after the end":  {write: append(recording.AppendRecord(nil, 2000, 0, recording.KindEnd, []byte(`{"cause":"closed"}`)), good...), fails: true},
		"sparse":         {then: func(f *os.File) error { return f.Truncate(1 << 40) }, fails: true},
		"truncated":      {then: func(f *os.File) error { return f.Truncate(0) }, fails: true},
		"back in time":   {write: append(recording.AppendRecord(nil, 5e6, 1, recording.KindOutput, nil), recording.AppendRecord(nil, 0, 1, recording.KindOutput, nil)...)},
		"years ahead":    {write: recording.AppendRecord(nil, 1e14, 1, recording.KindOutput, nil)},
		"bad JSON":       {write: recording.AppendRecord(nil, 2000, 1, recording.KindOpen, []byte(`{"pty":tru`))},
		"huge terminal":  {write: recording.AppendRecord(nil, 2000, 1, recording.KindOpen, []byte(`{"pty":true,"cols":4294967295,"rows":4294967295}`))},
		"a torn end":     {write: good[:len(good)-1]},
		"huge resize":    {write: append(recording.AppendRecord(nil, 2000, 1, recording.KindOpen, []byte(`{"pty":true}`)), recording.AppendRecord(nil, 2000, 1, recording.KindResize, []byte(`{"cols":4294967295,"rows":-7}`))...)},
		"many terminals": {write: manyTerminals()},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openSpool(t, recording.SpoolConfig{Dir: dir})
			x, err := s.Begin(testMeta())
			must(t, err)
			f := rawJournal(t, x)
			_, err = f.Write(good)
			must(t, err)
			must(t, x.Flush())
			_, err = f.Write(c.write)
			must(t, err)
			if c.then != nil {
				must(t, c.then(f))
			}
			must(t, x.Flush())
			if err := failure(x); (err != nil) != c.fails {
				t.Errorf("failed: %v", err)
			}
			must(t, x.Finish("killed", "its recording failed"))
			_, evs := verified(t, filepath.Join(dir, x.ID(), "recording.tsr"))
			if !strings.HasPrefix(output(evs, 1), "good") {
				t.Errorf("output %q", output(evs, 1))
			}
			if last := evs[len(evs)-1]; last.At > 2*time.Minute {
				t.Errorf("ends at %v", last.At)
			}
			told := false
			for _, ev := range evs {
				told = told || ev.Kind == recording.KindGap || ev.Kind == recording.KindNote
			}
			silent := name == "bad JSON" || strings.HasPrefix(name, "huge ") && !c.fails || name == "many terminals"
			if told == silent {
				t.Errorf("told %v: %s", told, evs[len(evs)-2].Data)
			}
		})
	}
}

func manyTerminals() []byte {
	var b []byte
	for ch := range uint32(5000) {
		b = recording.AppendRecord(b, 2000, ch+2, recording.KindOpen, []byte(`{"pty":true,"cols":500,"rows":200}`))
	}
	return recording.AppendRecord(b, 2000, 2, recording.KindResize, []byte(`{"cols":90,"rows":20}`))
}

func FuzzJournal(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 9))
	var b []byte
	for i := range int64(20) {
		data := make([]byte, r.IntN(40))
		b = recording.AppendRecord(b, i*1000, uint32(r.IntN(3)), recording.Kind(1+r.IntN(13)), data)
	}
	f.Add(b)
	f.Add(recording.AppendRecord(nil, 0, 1, recording.KindOpen, []byte(`{"pty":true,"cols":80,"rows":24}`)))
	f.Add(manyTerminals()[:2000])
	f.Add([]byte("no journal"))
	dir := f.TempDir()
	s := openSpool(f, recording.SpoolConfig{Dir: dir, MinFree: 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := s.Begin(testMeta())
		must(t, err)
		_, err = rawJournal(t, x).Write(b)
		must(t, err)
		must(t, x.Finish("closed", ""))
		path := filepath.Join(dir, x.ID(), "recording.tsr")
		_, evs := verified(t, path)
		if want := recording.ReadRecords(b); len(evs) < min(len(want), 1) {
			t.Fatalf("%d events, journal has %d", len(evs), len(want))
		}
		for _, p := range s.Recordings() {
			must(t, s.Acked(p.ID, p.Durable, true))
		}
	})
}

func FuzzReader(f *testing.F) {
	dir := f.TempDir()
	s := openSpool(f, recording.SpoolConfig{Dir: dir})
	x, err := s.Begin(testMeta())
	must(f, err)
	j := journalOf(f, x)
	must(f, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 8, Rows: 3}))
	must(f, j.Append(1, recording.KindOutput, []byte("hello")))
	must(f, j.AppendJSON(1, recording.KindResize, recording.Resize{Cols: 9, Rows: 3}))
	must(f, x.Flush())
	must(f, j.Append(1, recording.KindOutput, []byte("there")))
	must(f, x.Finish("closed", ""))
	b, err := os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
	must(f, err)
	f.Add(b)
	f.Add(b[:len(b)-30])
	f.Add(b[:200])
	f.Add([]byte("tsshrecording1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := recording.Verify(bytes.NewReader(b))
		if err == nil && rep.ProvenUntil > rep.Ends {
			t.Fatalf("proven until %v of %v", rep.ProvenUntil, rep.Ends)
		}
		v := recording.NewVerifier()
		if _, err := v.Write(b); v.Offset() > int64(len(b)) || err == nil && v.Complete() != rep.Complete {
			t.Fatalf("offset %d of %d, %v", v.Offset(), len(b), err)
		}
		r, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		defer r.Close()
		for i := range r.Index() {
			_, _, _ = r.Frame(i) // must only not crash
		}
		var out bytes.Buffer
		for _, version := range []int{2, 3} {
			if err := recording.WriteCast(&out, r, recording.CastOptions{Version: version}); err == nil {
				if _, err := recording.ReadCast(&out); err != nil {
					t.Fatalf("our cast: %v", err)
				}
			}
		}
	})
}

func TestLimits(t *testing.T) {
	bob := testMeta()
	bob.Login = "bob@example.com"
	tagged := testMeta()
	tagged.Login, tagged.SrcTags = "", []string{"tag:ci"}

	dir := t.TempDir()
	s := openSpool(t, recording.SpoolConfig{Dir: dir, MaxBytes: 800 << 10, MaxBytesPerPerson: 400 << 10, MinFree: 1})
	noise := make([]byte, 64<<10)
	fill := func(x *recording.Session, j *recording.Journal, n int) {
		r := rand.NewChaCha8([32]byte{byte(n)})
		for range n {
			r.Read(noise)
			must(t, j.Append(1, recording.KindStderr, noise))
		}
		_ = x.Note("mark", "") // over a limit it says so; Failed is what is looked at
	}
	x, j := begin(t, s, testMeta())
	fill(x, j, 2)
	if err := failure(x); err != nil {
		t.Fatalf("below the quota: %v", err)
	}
	fill(x, j, 2)
	if err := failure(x); !errors.Is(err, recording.ErrQuota) {
		t.Fatalf("over the quota: %v", err)
	}
	if _, err := s.Begin(testMeta()); !errors.Is(err, recording.ErrQuota) {
		t.Fatalf("one more: %v", err)
	}
	must(t, x.Finish("limit", "")) // what there is is kept
	verified(t, filepath.Join(dir, x.ID(), "recording.tsr"))

	y, jy := begin(t, s, bob) // others are not locked out
	fill(y, jy, 2)
	z, jz := begin(t, s, tagged)
	fill(z, jz, 3)
	if err := failure(z); !errors.Is(err, recording.ErrSpoolFull) {
		t.Fatalf("over all: %v", err)
	}
	if _, err := s.Begin(bob); !errors.Is(err, recording.ErrSpoolFull) {
		t.Fatalf("full: %v", err)
	}
	// The same is known after a restart.
	again := openSpool(t, recording.SpoolConfig{Dir: dir, MaxBytes: 800 << 10, MaxBytesPerPerson: 400 << 10, MinFree: 1})
	if _, err := again.Begin(testMeta()); !errors.Is(err, recording.ErrSpoolFull) {
		t.Fatalf("full after a restart: %v", err)
	}
	must(t, y.Finish("closed", ""))
	must(t, z.Finish("limit", ""))
	for _, p := range s.Recordings() {
		must(t, s.Acked(p.ID, p.Durable, true))
	}
	x, _ = begin(t, s, testMeta())
	must(t, x.Finish("closed", ""))

	none := openSpool(t, recording.SpoolConfig{Dir: t.TempDir(), MinFree: math.MaxInt64})
	if _, err := none.Begin(testMeta()); !errors.Is(err, recording.ErrSpoolFull) {
		t.Fatalf("no room on disk: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v %v", left, err)
	}
}

// TestDiskFull puts /dev/full in the place of the recording's file.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openSpool(t, recording.SpoolConfig{Dir: dir})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		x, j := begin(t, s, testMeta())
		must(t, j.Append(1, recording.KindOutput, []byte("before")))
		time.Sleep(5 * time.Second)
		restore := x.FillDisk(t)
		must(t, j.Append(1, recording.KindOutput, []byte(" and after")))
		time.Sleep(5 * time.Second)
		if err := failure(x); err == nil || !strings.Contains(err.Error(), "no space") {
			t.Fatalf("failed: %v", err)
		}
		if err := x.Note("x", ""); err == nil {
			t.Error("a note went in")
		}
		if err := x.Finish("recorder", "the disk is full"); err == nil {
			t.Error("it finished without room")
		}
		if ids, _ := s.Finished(); len(ids) != 0 {
			t.Errorf("finished %v", ids)
		}
		restore()
		time.Sleep(30 * time.Second) // Run tries again
		if ids, _ := s.Finished(); len(ids) != 1 {
			t.Fatalf("finished %v", ids)
		}
		_, evs := verified(t, filepath.Join(dir, x.ID(), "recording.tsr"))
		if output(evs, 1) != "before and after" {
			t.Errorf("output %q", output(evs, 1))
		}
		cancel()
		must(t, <-done)
	})
}

type brokenTerm struct{ *term.Term }

func (b brokenTerm) Write(p []byte) {
	if bytes.Contains(p, []byte("boom")) {
		panic("a bug in the emulator")
	}
	b.Term.Write(p)
}

type slowTerm struct{ *term.Term }

func (slowTerm) Write([]byte) { time.Sleep(300 * time.Millisecond) }

func TestEmulatorFailureOnlyCostsKeyframes(t *testing.T) {
	for name, k := range map[string]func(cols, rows int) recording.Keyframer{
		"panics":   func(c, r int) recording.Keyframer { return brokenTerm{term.New(c, r)} },
		"too slow": func(c, r int) recording.Keyframer { return slowTerm{term.New(c, r)} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := openSpool(t, recording.SpoolConfig{Dir: dir, Keyframer: k})
				x, j := begin(t, s, testMeta())
				must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24}))
				began := time.Now()
				for range 200 {
					must(t, j.Append(1, recording.KindOutput, []byte("boom "+strings.Repeat("x", 1000))))
				}
				must(t, x.Finish("closed", ""))
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("took %v", took)
				}
				b, err := os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
				must(t, err)
				for _, f := range frames(t, b) {
					if f.Keyframe {
						t.Error("a keyframe")
					}
				}
				_, evs := verified(t, filepath.Join(dir, x.ID(), "recording.tsr"))
				if n := len(output(evs, 1)); n != 200*1005 {
					t.Errorf("%d bytes of output", n)
				}
			})
		})
	}
}

func TestHubCountersigns(t *testing.T) {
	_, priv, err := ed25519.GenerateKey(nil)
	must(t, err)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := openSpool(t, recording.SpoolConfig{Dir: dir, Countersign: func(ctx context.Context, st recording.Start) (recording.Countersignature, error) {
			if asked++; asked < 3 {
				return recording.Countersignature{}, errors.New("the hub is away")
			}
			if asked == 3 { // a hub that signs something else
				other := testMeta()
				other.ID, other.PublicKey = "other", priv.Public().(ed25519.PublicKey)
				text, err := json.Marshal(other)
				must(t, err)
				return recording.Countersign(priv, recording.NewStart("other", text), time.Now())
			}
			return recording.Countersign(priv, st, time.Now())
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		x, j := begin(t, s, testMeta())
		must(t, j.Append(1, recording.KindOutput, []byte("hello")))
		time.Sleep(time.Minute)
		must(t, x.Finish("closed", ""))
		rep, _ := verified(t, filepath.Join(dir, x.ID(), "recording.tsr"))
		if _, ok := rep.CountersignedBy(priv.Public().(ed25519.PublicKey)); !ok || asked != 4 {
			t.Errorf("countersigned by the hub: %v, after asking %d times", ok, asked)
		}
		if _, ok := rep.CountersignedBy(make([]byte, ed25519.PublicKeySize)); ok {
			t.Error("countersigned by somebody else")
		}
		cancel()
		must(t, <-done)
	})
}

func TestOpenSpoolSweeps(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, ".new-20260101-000000-abc"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "empty"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "README"), nil, 0o600))
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	if ids, err := s.Orphans(); err != nil || len(ids) != 0 {
		t.Errorf("%v %v", ids, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".new-20260101-000000-abc")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a beginning is left: %v", err)
	}
	for _, bad := range []string{"", "..", "a/b", "A", "-x", strings.Repeat("a", 65), "a.b"} {
		m := testMeta()
		m.ID = bad
		if recording.ValidID(bad) {
			t.Errorf("%q is an id", bad)
		}
		if bad != "" {
			if _, err := s.Begin(m); err == nil {
				t.Errorf("began %q", bad)
			}
		}
	}
	x, err := s.Begin(testMeta())
	must(t, err)
	m := testMeta()
	m.ID = x.ID()
	if _, err := s.Begin(m); !errors.Is(err, os.ErrExist) {
		t.Errorf("began twice: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, x.ID())); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st, err)
	}
}

func BenchmarkFollow(b *testing.B) {
	for _, pty := range []bool{false, true} {
		b.Run(map[bool]string{false: "exec", true: "terminal"}[pty], func(b *testing.B) {
			s := openSpool(b, recording.SpoolConfig{Dir: b.TempDir(), MaxBytes: 1 << 40, MaxBytesPerPerson: 1 << 40})
			x, j := begin(b, s, testMeta())
			must(b, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: pty, Cols: 120, Rows: 40}))
			var listing bytes.Buffer
			for i := 0; listing.Len() < 32<<10; i++ {
				fmt.Fprintf(&listing, "-rw-r--r-- 1 root root %d Nov 23 \x1b[01;34mfile%d\x1b[0m\r\n", i*377, i)
			}
			data := listing.Bytes()[:32<<10]
			b.SetBytes(int64(8 * len(data)))
			for b.Loop() {
				for range 8 {
					must(b, j.Append(1, recording.KindOutput, data))
				}
				must(b, x.Flush())
			}
			must(b, x.Finish("closed", ""))
		})
	}
}

func BenchmarkBegin(b *testing.B) {
	s := openSpool(b, recording.SpoolConfig{Dir: b.TempDir(), MaxBytes: 1 << 40, MaxBytesPerPerson: 1 << 40})
	for b.Loop() {
		x, err := s.Begin(testMeta())
		must(b, err)
		b.StopTimer()
		must(b, x.Finish("closed", ""))
		b.StartTimer()
	}
}

// TestWeakKeysProveNothing makes signatures up for keys of small order, which the standard
// library accepts, and wants none of them taken for a proof.
func TestWeakKeysProveNothing(t *testing.T) {
	sig := make([]byte, ed25519.SignatureSize)
	sig[0] = 1 // R is the neutral element, S is 0
	for _, weak := range recording.WeakKeys {
		for _, sign := range []byte{0, 0x80} {
			key, err := hex.DecodeString(weak)
			must(t, err)
			key[31] |= sign
			m := testMeta()
			m.ID, m.PublicKey = "weak", key
			text, err := json.Marshal(m)
			must(t, err)
			start := recording.NewStart("weak", text)
			forged := false
			for i := range int64(200) {
				c := recording.Countersignature{Key: key, Time: time.UnixMicro(i), Signature: sig}
				forged = forged || ed25519.Verify(key, recording.StartMessage(start.MetaSHA256, c.Time), sig)
				if c.Valid(start) {
					t.Fatalf("%x at %d: a made-up signature counts", key, i)
				}
			}
			// The encodings that are not canonical are not even read by some libraries.
			if !forged && weak[:2] != "ed" && weak[:2] != "ee" && !(sign != 0 && (weak[:2] == "01" || weak[:2] == "ec")) {
				t.Errorf("%x: no signature could be made up, so the key is not weak", key)
			}
			_, priv, err := ed25519.GenerateKey(nil)
			must(t, err)
			if _, err := recording.Countersign(priv, start, time.Now()); err == nil {
				t.Errorf("%x: a hub countersigned a recording with a key that proves nothing", key)
			}
		}
	}
}

func TestSpoolLevels(t *testing.T) {
	s := openSpool(t, recording.SpoolConfig{Dir: t.TempDir(), MaxBytes: 1 << 20, MaxBytesPerPerson: 1 << 20, MinFree: 1})
	x, j := begin(t, s, testMeta())
	grow := func(n int) {
		must(t, j.Append(1, recording.KindOutput, randomBytes(n)))
		must(t, x.Note("mark", ""))
	}
	if l := s.Level(); l != recording.LevelRoom {
		t.Errorf("empty: %v", l)
	}
	for s.Level() == recording.LevelRoom {
		grow(20 << 10)
	}
	if used, most := s.Usage(); s.Level() != recording.LevelLow || used < most/5*4 || used > most/10*9 {
		t.Errorf("%v at %d of %d", s.Level(), used, most)
	}
	for s.Level() == recording.LevelLow {
		_ = j.Append(1, recording.KindOutput, randomBytes(20<<10))
		_ = x.Note("mark", "") // the last one fails
	}
	if used, most := s.Usage(); s.Level() != recording.LevelFull || used < most {
		t.Errorf("%v at %d of %d", s.Level(), used, most)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
