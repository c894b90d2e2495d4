package recording_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
	"tssh/recording/term"
)

// made is a finished recording of half a minute with a terminal and a program, in a
// bubble of fake time: the same every time but for keys and id.
func made(t *testing.T, seed uint64) []byte { return madeOf(t, seed, 12) }

func madeOf(t *testing.T, seed uint64, lines int) []byte {
	t.Helper()
	return madeWith(t, seed, lines, nil)
}

func madeWith(t *testing.T, seed uint64, lines int, to func() (*recording.Recipients, error)) []byte {
	t.Helper()
	dir := t.TempDir()
	var out []byte
	synctest.Test(t, func(t *testing.T) {
		s := openSpool(t, recording.SpoolConfig{Dir: dir, SealTo: to})
		x, j := begin(t, s, testMeta())
		r := rand.New(rand.NewPCG(seed, 1))
		must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm-256color", Cols: 40, Rows: 10}))
		must(t, j.AppendJSON(2, recording.KindOpen, recording.Open{Type: "exec", Command: "make <all>"}))
		for i := range lines {
			time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
			must(t, j.Append(1, recording.KindOutput, fmt.Appendf(nil, "\x1b[3%dmline %d\x1b[m é 漢\r\n", i%8, i)))
			must(t, j.Append(2, recording.KindOutput, fmt.Appendf(nil, "built %d\n", r.IntN(1000))))
			if i == lines/2 {
				must(t, j.AppendJSON(1, recording.KindResize, recording.Resize{Cols: 60, Rows: 12}))
			}
			must(t, x.Note("mark", "frame")) // closes a frame
		}
		must(t, j.AppendJSON(1, recording.KindExit, recording.Exit{Status: 0}))
		must(t, j.AppendJSON(0, recording.KindEnd, recording.End{Cause: "closed"}))
		must(t, x.Finish("closed", ""))
		var err error
		out, err = os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
		must(t, err)
	})
	return out
}

func verify(t *testing.T, b []byte) recording.Report {
	t.Helper()
	rep, err := recording.Verify(bytes.NewReader(b))
	if err != nil {
		return recording.Report{Problems: []string{err.Error()}}
	}
	return rep
}

func TestVerifyNoticesEveryChangedByte(t *testing.T) {
	t.Parallel()
	everyByte(t, madeOf(t, 1, 3))
}

func everyByte(t *testing.T, b []byte) {
	if rep := verify(t, b); len(rep.Problems) != 0 || !rep.Complete || rep.ProvenUntil != rep.Ends || rep.Frames < 3 {
		t.Fatalf("unchanged: %+v", rep)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if rep := verify(t, bad); len(rep.Problems) == 0 {
			t.Fatalf("byte %d of %d changed: nothing noticed", i, len(b))
		}
	}
}

func TestVerifyNoticesEveryCut(t *testing.T) {
	t.Parallel()
	everyCut(t, madeOf(t, 2, 3))
}

func everyCut(t *testing.T, b []byte) {
	for n := range b {
		rep := verify(t, b[:n])
		if len(rep.Problems) == 0 {
			t.Fatalf("cut to %d of %d: nothing noticed", n, len(b))
		}
		if rep.ProvenUntil > rep.Ends {
			t.Fatalf("cut to %d: proven until %v of %v", n, rep.ProvenUntil, rep.Ends)
		}
	}
	if rep := verify(t, append(bytes.Clone(b), 'x')); len(rep.Problems) == 0 {
		t.Error("a byte after the end: nothing noticed")
	}
}

// frames are the offsets and sizes of a file's frames.
func frames(t *testing.T, b []byte) []recording.FrameInfo {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	defer r.Close()
	return r.Index()
}

func block(b []byte, f recording.FrameInfo) []byte { return b[f.Offset : f.Offset+f.Size] }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestVerifyNamesTheSecond(t *testing.T) { namesTheSecond(t, made(t, 3), made(t, 4)) }

func namesTheSecond(t *testing.T, b, other []byte) {
	fs, ofs := frames(t, b), frames(t, other)
	a, c, o := fs[4], fs[6], ofs[5]
	end := func(f recording.FrameInfo) int64 { return f.Offset + f.Size }
	byteIn := bytes.Clone(b)
	byteIn[a.Offset+a.Size-20] ^= 1
	for name, c := range map[string]struct {
		bad  []byte
		says []string // among the problems, in this order; N is the number of frame a
	}{
		"one byte":               {byteIn, []string{"block N (up to"}},
		"a frame taken out":      {join(b[:a.Offset], b[end(a):]), []string{"blocks N to N are missing"}},
		"two frames swapped":     {join(b[:a.Offset], block(b, c), b[end(a):c.Offset], block(b, a), b[end(c):]), []string{"are missing: cut out, moved", "moved, or swapped"}},
		"a frame twice":          {join(b[:end(a)], block(b, a), b[end(a):]), []string{"block N stands here again", "repeated"}},
		"a frame once more late": {join(b[:end(c)], block(b, a), b[end(c):]), []string{"block N stands here again", "repeated"}},
		"a frame of another":     {join(b[:a.Offset], block(other, o), b[end(a):]), []string{"what follows is from another recording"}},
		"one with its number":    {join(b[:a.Offset], block(other, ofs[4]), b[end(a):]), []string{"does not follow from what is before it: changed, or from another recording"}},
		"the rest of another":    {join(b[:a.Offset], other[o.Offset:]), []string{"what follows is from another recording", "the signature of what is between"}},
	} {
		rep := verify(t, c.bad)
		rest := strings.Join(rep.Problems, "\n")
		for _, w := range c.says {
			var ok bool
			if _, rest, ok = strings.Cut(rest, strings.ReplaceAll(w, "N", strconv.FormatUint(a.Seq, 10))); !ok {
				t.Errorf("%s: nobody says %q: %q", name, w, rep.Problems)
			}
		}
		if len(rep.Problems) == 0 {
			t.Errorf("%s: nothing noticed", name)
			continue
		}
		// The problem is told with the time of what came before it.
		if want := recording.Clock(fs[3].Last) + ":"; !strings.Contains(name, "twice") && !strings.Contains(name, "late") && !strings.HasPrefix(rep.Problems[0], want) {
			t.Errorf("%s: %q, want it at %s", name, rep.Problems[0], want)
		}
		if rep.ProvenUntil > a.Last && !strings.Contains(name, "late") {
			t.Errorf("%s: proven until %v, the change is before %v", name, rep.ProvenUntil, a.Last)
		}
	}
	if rep := verify(t, byteIn); len(rep.Problems) != 1 {
		t.Errorf("one byte: %q", rep.Problems)
	}
}

// TestVerifyNeedsTheKey rewrites a frame as somebody would who knows the format and
// makes the whole chain anew: the signatures stay behind.
func TestVerifyNeedsTheKey(t *testing.T) {
	b := made(t, 5)
	fs := frames(t, b)
	bad := recording.Rechain(b, fs[4].Offset, func(payload []byte) []byte { return bytes.Clone(payload) })
	if rep := verify(t, bad); len(rep.Problems) != 0 {
		t.Fatalf("the same again: %q", rep.Problems)
	}
	wall := recording.Rechain(b, fs[4].Offset, nil) // nil: another wall clock time in that frame
	rep := verify(t, wall)
	if len(rep.Problems) == 0 || !strings.Contains(rep.Problems[0], "signature") {
		t.Fatalf("%q", rep.Problems)
	}
	if rep.ProvenUntil >= fs[4].Last {
		t.Errorf("proven until %v", rep.ProvenUntil)
	}
}

func TestVerifierTakesWholeBlocks(t *testing.T) {
	b := made(t, 6)
	fs := frames(t, b)
	v := recording.NewVerifier()
	r := rand.New(rand.NewPCG(6, 6))
	last := int64(0)
	for rest := b; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(300))
		if _, err := v.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
		fed := int64(len(b) - len(rest))
		if off := v.Offset(); off < last || off > fed {
			t.Fatalf("offset %d after %d bytes", off, fed)
		} else {
			last = off
		}
	}
	if m, ok := v.Meta(); !ok || m.Host != "web" || !v.Complete() || v.Offset() != int64(len(b)) {
		t.Errorf("meta %+v %v, complete %v, offset %d of %d", m, ok, v.Complete(), v.Offset(), len(b))
	}
	if off, until := v.Signed(); until != v.Ends() || off > int64(len(b)) || off < fs[len(fs)-1].Offset {
		t.Errorf("signed %d %v", off, until)
	}

	bad := bytes.Clone(b)
	bad[fs[5].Offset+100] ^= 1
	v = recording.NewVerifier()
	if _, err := v.Write(bad); err == nil {
		t.Fatal("a changed byte passed")
	}
	if v.Offset() > fs[5].Offset || v.Offset() < fs[4].Offset {
		t.Errorf("good up to %d, the bad frame is at %d", v.Offset(), fs[5].Offset)
	}
	if _, err := v.Write(b); err == nil {
		t.Error("it forgot")
	}
}

func TestKeyframesRepaint(t *testing.T) {
	b := made(t, 7)
	r, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	defer r.Close()
	whole := term.New(40, 10)
	var keyframes int
	for i := range r.Index() {
		evs, key, err := r.Frame(i)
		must(t, err)
		if key != nil {
			keyframes++
			for _, sc := range key.Screens {
				if sc.Channel != 1 {
					t.Errorf("frame %d: a screen of channel %d", i, sc.Channel)
				}
				painted := term.New(sc.Cols, sc.Rows)
				painted.Write(sc.ANSI)
				if a, b := strings.Join(whole.Text(), "|"), strings.Join(painted.Text(), "|"); a != b {
					t.Fatalf("frame %d: screen %q, keyframe %q", i, a, b)
				}
			}
		}
		for _, ev := range evs {
			if ev.Channel != 1 {
				continue
			}
			switch ev.Kind {
			case recording.KindOutput:
				whole.Write(ev.Data)
			case recording.KindResize:
				var size recording.Resize
				must(t, json.Unmarshal(ev.Data, &size))
				whole.Resize(size.Cols, size.Rows)
			}
		}
	}
	if keyframes == 0 {
		t.Error("no keyframe after a resize")
	}
}

func TestCountersignature(t *testing.T) {
	_, priv, err := ed25519.GenerateKey(nil)
	must(t, err)
	meta := testMeta()
	meta.ID, meta.PublicKey = "x", priv.Public().(ed25519.PublicKey)
	text, err := json.Marshal(meta)
	must(t, err)
	start := recording.NewStart("x", text)
	c, err := recording.Countersign(priv, start, time.Now())
	must(t, err)
	if !c.Valid(start) {
		t.Error("not valid")
	}
	if c.Valid(recording.NewStart("x", append(text, ' '))) {
		t.Error("valid for another start")
	}
	moved := c
	moved.Time = moved.Time.Add(time.Second)
	if moved.Valid(start) {
		t.Error("valid at another time")
	}
	for name, bad := range map[string]recording.Start{
		"another id":   recording.NewStart("y", text),
		"another sum":  {ID: "x", Meta: text, MetaSHA256: make([]byte, 32)},
		"not JSON":     recording.NewStart("x", []byte("{")),
		"nothing":      {},
		"missing meta": {ID: "x"},
	} {
		if _, err := recording.Countersign(priv, bad, time.Now()); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}
