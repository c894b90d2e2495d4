package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	xterm "golang.org/x/term"

	"tssh/recording"
	"tssh/recording/term"
)

// makeRecording records a connection with one terminal or one program and returns the
// file. The output holds what must never reach the terminal of the one who watches.
func makeRecording(t *testing.T, terminal bool) string {
	t.Helper()
	return makeSealed(t, terminal, nil)
}

func makeSealed(t *testing.T, terminal bool, to func() (*recording.Recipients, error)) (path string) {
	t.Helper()
	dir := t.TempDir()
	// In a bubble no time passes by itself: an event is at its second, however busy the machine is.
	synctest.Test(t, func(t *testing.T) { path = makeIn(t, dir, terminal, to) })
	return path
}

func makeIn(t *testing.T, dir string, terminal bool, to func() (*recording.Recipients, error)) string {
	t.Helper()
	s, err := recording.OpenSpool(recording.SpoolConfig{Dir: dir, SealTo: to, Keyframer: func(c, r int) recording.Keyframer { return term.New(c, r) }})
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Begin(recording.Meta{Host: "web", Login: "alice@example.com\x1b]0;owned\x07", LocalUser: "deploy", SrcID: "n"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := x.JournalFile()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A recording that began a while ago, so that events can be apart without waiting.
	at := func(ago time.Duration) *recording.Journal {
		return recording.NewJournal(f, x.Meta().Start.Add(-ago))
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if terminal {
		check(at(0).AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 40, Rows: 6}))
		for i := range 10 {
			check(at(time.Duration(i)*time.Second).Append(1, recording.KindOutput, fmt.Appendf(nil, "\x1b[3%dmline %d\x1b[0m\r\n", i%8, i)))
			if i == 4 {
				check(at(4*time.Second).AppendJSON(1, recording.KindResize, recording.Resize{Cols: 50, Rows: 6}))
				check(x.Note("mark", ""))
			}
		}
		check(at(10*time.Second).Append(1, recording.KindOutput, []byte("\x1b]52;c;aGFjaw==\x07\x1b]0;title\x1b\\\x1bP+q544e\x1b\\\x1b[6n\x1b[21tdone \xe6\xbc\xa2")))
	} else {
		check(at(0).AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: "ls"}))
		check(at(0).Append(1, recording.KindOutput, []byte("one\ntwo\n")))
		check(at(time.Second).Append(1, recording.KindStderr, []byte("three\x07\n")))
	}
	check(x.Finish("closed", ""))
	return filepath.Join(dir, x.ID(), "recording.tsr")
}

// output runs f with a pipe as standard output.
func outputOf(t *testing.T, f func(stdout *os.File) int) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	var wg sync.WaitGroup
	wg.Go(func() { text, _ = io.ReadAll(r) })
	status := f(w)
	w.Close()
	wg.Wait()
	r.Close()
	return string(text), status
}

func TestPlayToAPipeIsText(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	want := "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\ndone 漢\n"
	var stderr bytes.Buffer
	file := makeRecording(t, true)
	got, status := outputOf(t, func(out *os.File) int { return playCommand([]string{file, "--speed", "4"}, null, out, &stderr) })
	if got != want || status != 0 || stderr.Len() > 0 {
		t.Errorf("status %d, %q, %q", status, got, stderr.String())
	}
	got, status = outputOf(t, func(out *os.File) int { return playCommand([]string{"--raw", file}, null, out, &stderr) })
	if !strings.Contains(got, "\x1b]52;c;aGFjaw==\x07") || !strings.HasPrefix(got, "\x1b[30mline 0") || status != 0 {
		t.Errorf("raw: status %d %q", status, got)
	}
	got, status = outputOf(t, func(out *os.File) int {
		return playFile(makeRecording(t, false), playOptions{}, null, out, &stderr)
	})
	if got != "one\ntwo\nthree\n" || status != 0 {
		t.Errorf("program: status %d %q", status, got)
	}

	castFile := filepath.Join(t.TempDir(), "x.cast")
	text := `{"version":2,"width":20,"height":3}` + "\n" + `[0.1,"o","a\u001b[31mb\r\n"]` + "\n" + `[0.2,"r","30x4"]` + "\n" + `[0.3,"o","c"]`
	if err := os.WriteFile(castFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, status = outputOf(t, func(out *os.File) int { return playFile(castFile, playOptions{}, null, out, &stderr) })
	if got != "ab\nc\n" || status != 0 {
		t.Errorf("cast: status %d %q", status, got)
	}
}

func TestPlayExports(t *testing.T) {
	file := makeRecording(t, true)
	play := func(args ...string) (string, string, int) {
		var stderr bytes.Buffer
		out, status := outputOf(t, func(stdout *os.File) int { return playCommand(args, nil, stdout, &stderr) })
		return out, stderr.String(), status
	}
	for format, begins := range map[string]string{"cast": `{"version":3,`, "cast2": `{"version":2,`, "text": "line 0\n"} {
		out, words, status := play("--export", format, file)
		if status != 0 || words != "" || !strings.HasPrefix(out, begins) || !strings.Contains(out, "line 9") || strings.Contains(out, "\x1b") {
			t.Errorf("%s: status %d, %q, %.300q", format, status, words, out)
		}
		if format == "text" {
			continue
		}
		again := filepath.Join(t.TempDir(), "again.cast")
		if err := os.WriteFile(again, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		if text, _, status := play(again); status != 0 || !strings.Contains(text, "line 9\n") {
			t.Errorf("%s cannot be played: %d %q", format, status, text)
		}
		if _, words, status := play("--export", format, again); status != 1 || !strings.Contains(words, "not a recording") {
			t.Errorf("%s of a cast: %d %q", format, status, words)
		}
	}
	if _, words, status := play("--export", "gif", file); status != 2 || !strings.Contains(words, "there are cast, cast2 and text") {
		t.Errorf("%d %q", status, words)
	}
}

func TestPlayRefuses(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("nothing of ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"a", "b"}, {junk}, {empty}, {dir}, {filepath.Join(dir, "none")}, {junk, "--speed", "0"}, {junk, "--speed", "x"}, {junk, "--idle", "-1"}} {
		var stderr bytes.Buffer
		got, status := outputOf(t, func(out *os.File) int { return playCommand(args, os.Stdin, out, &stderr) })
		if status == 0 || got != "" || stderr.Len() == 0 {
			t.Errorf("%q: status %d, %q, %q", args, status, got, stderr.String())
		}
	}
}

// TestPlayOnATerminal plays on a pseudo-terminal with keys, and looks at what came out
// with an emulator of its own.
func TestPlayOnATerminal(t *testing.T) {
	file := makeRecording(t, true)
	for name, c := range map[string]struct {
		speed float64
		keys  []string // typed one by one, each after a picture
		shows string
		atEnd bool
	}{
		"to the end":         {speed: 1000, atEnd: true, shows: "played to"},
		"quit":               {speed: 1, keys: []string{"q"}},
		"pause and seek":     {speed: 1, keys: []string{" ", "\x1b[C", "q"}, shows: "line 4"},
		"seek back":          {speed: 1, keys: []string{" ", "\x1b[F", "\x1b[H", "q"}, shows: "paused 1x  0:00:00.0"},
		"other terminals":    {speed: 1, keys: []string{" ", "\x1b[4~", "\x1b[1~", "\x1b[8~", ",", "q"}, shows: "paused 1x  0:00:09.0"},
		"pages":              {speed: 1, keys: []string{" ", "\x1b[6~", "\x1b[5~", ".", ".", "q"}, shows: "paused 1x  0:00:02.0"},
		"to the end by key":  {speed: 1, keys: []string{"\x1b[F", "q"}, shows: "done 漢"},
		"faster, slower":     {speed: 1, keys: []string{" ", "+", "+", "-", "q"}, shows: "2x"},
		"find":               {speed: 1, keys: []string{"/line [67]\r", "n", "q"}, shows: "2 found  paused 1x  0:00:07"},
		"find nothing":       {speed: 1, keys: []string{"/zzz(\r", "q"}, shows: "nothing found  paused"},
		"step back":          {speed: 1, keys: []string{" ", "\x1b[F", ",", ",", "q"}, shows: "paused 1x  0:00:08.0"},
		"tenths":             {speed: 1, keys: []string{" ", "7", "q"}, shows: "paused 1x  0:00:07.0"},
		"help":               {speed: 1, keys: []string{"?", "x", "?", "q"}, shows: "next, previous command"},
		"help and back":      {speed: 1, keys: []string{" ", "7", "?", "x", "q"}, shows: "line 6"},
		"a bar":              {speed: 1, keys: []string{" ", "5", "q"}, shows: "[============>------------]"},
		"step":               {speed: 1, keys: []string{" ", "\x1b[H", ".", ".", "q"}, shows: "line 1"},
		"unknown keys, ^C":   {speed: 1, keys: []string{"\x1b[15~", "é", "\x03"}},
		"a minute on, again": {speed: 1, keys: []string{" ", "\x1bOA", "\x1bOB", "i", "q"}, shows: "paused 1x  0:00:00.0"},
	} {
		t.Run(name, func(t *testing.T) {
			master, tty, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer master.Close()
			if err := pty.Setsize(tty, &pty.Winsize{Cols: 100, Rows: 12}); err != nil {
				t.Fatal(err)
			}
			before, err := xterm.GetState(int(tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			status := make(chan int, 1)
			go func() { status <- playFile(file, playOptions{Speed: c.speed}, tty, tty, &stderr) }()

			var all []byte
			watcher := term.New(100, 12)
			seen := func() string { return strings.Join(watcher.Text(), "\n") }
			pictures := make(chan []byte, 1024)
			go func() { // ends when master is closed
				for {
					buf := make([]byte, 64<<10)
					n, err := master.Read(buf)
					if err != nil {
						return
					}
					pictures <- buf[:n]
				}
			}()
			read := func(until func() bool) {
				t.Helper()
				late := time.After(20 * time.Second)
				for !until() {
					select {
					case b := <-pictures:
						all = append(all, b...)
						watcher.Write(b)
					case <-late:
						t.Fatalf("it does not come; seen so far:\n%s", seen())
					}
				}
			}
			for i, k := range c.keys {
				read(func() bool { return strings.Contains(seen(), "q quit") })
				if i == len(c.keys)-1 && c.shows != "" {
					read(func() bool { return strings.Contains(seen(), c.shows) })
				}
				if _, err := io.WriteString(master, k); err != nil {
					t.Fatal(err)
				}
				if k == " " {
					read(func() bool { return strings.Contains(seen(), "paused") })
				}
			}
			read(func() bool { return strings.Contains(string(all), "played to") })
			if got := <-status; got != 0 || stderr.Len() > 0 {
				t.Errorf("status %d, %q", got, stderr.String())
			}
			after, err := xterm.GetState(int(tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(*before) != fmt.Sprint(*after) {
				t.Error("the terminal is not as it was")
			}
			onlyOurs(t, all)
			if c.atEnd && !strings.Contains(string(all), "done") {
				t.Errorf("the end was not shown:\n%s", all)
			}
			tty.Close()
		})
	}
}

// onlyOurs fails if a sequence reached the terminal that the player does not make.
func onlyOurs(t *testing.T, b []byte) {
	t.Helper()
	for _, part := range bytes.Split(b, []byte("\x1b"))[1:] {
		i := bytes.IndexFunc(part, func(r rune) bool { return r >= 0x40 && r != '[' })
		if part[0] != '[' || i < 0 {
			t.Fatalf("sequence %q", part)
		}
		seq := string(part[:i+1])
		switch {
		case part[i] == 'H' || part[i] == 'm':
		case strings.HasPrefix(seq, "[?25"), strings.HasPrefix(seq, "[?1049"), strings.HasPrefix(seq, "[?7"), seq == "[2J":
		default:
			t.Fatalf("sequence %q", seq)
		}
	}
	for _, r := range string(b) {
		if r < 0x20 && !strings.ContainsRune("\r\n\x1b", r) || r == 0x7f || r >= 0x80 && r < 0xa0 {
			t.Fatalf("character %q", r)
		}
	}
}

func TestVerifyCommand(t *testing.T) {
	file := makeRecording(t, true)
	var out, stderr bytes.Buffer
	if status := verifyCommand([]string{file}, nil, "", &out, &stderr); status != 0 || !strings.Contains(out.String(), "ok: whole") || stderr.Len() > 0 {
		t.Errorf("status %d %q %q", status, out.String(), stderr.String())
	}
	if strings.ContainsAny(out.String(), "\x1b\x07") {
		t.Errorf("a name acts on the terminal: %q", out.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	bad := filepath.Join(t.TempDir(), "bad.tsr")
	if err := os.WriteFile(bad, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if status := verifyCommand([]string{"--json", bad}, nil, "", &out, &stderr); status != 1 {
		t.Errorf("status %d", status)
	}
	var v verifyResult
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.OK || len(v.Problems) == 0 || v.ProvenUntil > v.Seconds {
		t.Errorf("%v %+v", err, v)
	}
	out.Reset()
	if status := verifyCommand([]string{bad}, nil, "", &out, &stderr); status != 1 || !strings.Contains(out.String(), "problem at 0:00:0") || !strings.Contains(out.String(), "not ok: proven until") {
		t.Errorf("status %d %q", status, out.String())
	}
	for _, args := range [][]string{{}, {filepath.Join(t.TempDir(), "none")}, {os.DevNull}} {
		stderr.Reset()
		if status := verifyCommand(args, nil, "", &out, &stderr); status == 0 || !strings.Contains(stderr.String(), "tssh: error: ") {
			t.Errorf("%q: status %d, %q", args, status, stderr.String())
		}
	}
}

// TestVerifyWitness is about whose key countersigned the beginning.
func TestVerifyWitness(t *testing.T) {
	hub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	late := time.Duration(0)
	s, err := recording.OpenSpool(recording.SpoolConfig{Dir: dir, Countersign: func(_ context.Context, st recording.Start) (recording.Countersignature, error) {
		return recording.Countersign(key, st, time.Now().Add(late))
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	signed := func() string {
		x, err := s.Begin(recording.Meta{Host: "web", Login: "alice@example.com", LocalUser: "deploy", SrcID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, x.ID(), "recording.tsr")
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			rep, err := recording.Verify(f)
			f.Close()
			if err == nil && len(rep.Countersignatures) == 1 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("not countersigned: %+v %v", rep, err)
			}
		}
		if err := x.Finish("closed", ""); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := signed()
	late = time.Hour
	lateFile := signed()
	for _, c := range []signedCase{
		{[]string{file}, []ed25519.PublicKey{hub}, 0, "its start was countersigned by the hub at "},
		{[]string{file}, []ed25519.PublicKey{other, hub}, 0, "its start was countersigned by the hub at "},
		{[]string{file}, nil, 0, "no hub's key is known here to compare with"},
		{[]string{file}, []ed25519.PublicKey{other}, 1, "which is not the key of this mesh's hub"},
		{[]string{file}, []ed25519.PublicKey{make([]byte, 32)}, 1, "not ok: nothing is proven about where it comes from"},
		{[]string{file, "--hub-key", base64.RawURLEncoding.EncodeToString(hub)}, []ed25519.PublicKey{other}, 0, "by the hub at "},
		{[]string{file, "--hub-key", hex.EncodeToString(other)}, []ed25519.PublicKey{hub}, 1, "which is not the key"},
		{[]string{lateFile}, []ed25519.PublicKey{hub}, 0, "note: that was 1h0m0s after it began"},
	} {
		var out, errs bytes.Buffer
		if status := verifyCommand(c.args, c.signers(), "", &out, &errs); status != c.status || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: status %d, want %d and %q:\n%s%s", c.args[1:], status, c.status, c.want, &out, &errs)
		}
	}
	var out, errs bytes.Buffer
	if status := verifyCommand([]string{file, "--hub-key", "x"}, nil, "", &out, &errs); status != 2 || !strings.Contains(errs.String(), `"x" is not a hub's key`) {
		t.Errorf("status %d: %s", status, &errs)
	}
}

// signedCase is a recording, whose keys count, and what verify makes of it.
type signedCase struct {
	args   []string
	keys   []ed25519.PublicKey
	status int
	want   string
}

func (c signedCase) signers() (out []signer) {
	for _, k := range c.keys {
		out = append(out, signer{key: k})
	}
	return out
}

// TestVerifyJSONSaysWhatAHubSaw has the hub's word about how much it had, by its key alone.
func TestVerifyJSONSaysWhatAHubSaw(t *testing.T) {
	hub, other := bytes.Repeat([]byte{1}, ed25519.PublicKeySize), bytes.Repeat([]byte{2}, ed25519.PublicKeySize)
	now := time.Unix(1e9, 0).UTC()
	rep := recording.Report{
		Countersignatures: []recording.Countersignature{{Key: hub, Time: now}},
		Seen:              []recording.Countersignature{{Key: hub, Time: now, Seq: 7, At: 61_500_000}, {Key: other, Time: now, Seq: 9, At: 90_000_000}},
	}
	v := verifyJSON(rep, witnessOf(rep, []signer{{key: hub}}), true)
	b, err := json.Marshal(v)
	if err != nil || v.SeenUntil != 61.5 || len(v.Seen) != 2 || v.Seen[0].Until != 61.5 || v.Seen[0].Seq != 7 || !strings.Contains(string(b), `"seen_until":61.5`) {
		t.Errorf("%s, %v", b, err)
	}
	if b, _ := json.Marshal(verifyJSON(recording.Report{}, witnessOf(recording.Report{}, nil), false)); !strings.Contains(string(b), `"seen_until":0,"seen":[]`) {
		t.Errorf("%s", b)
	}
}
