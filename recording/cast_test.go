package recording_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"tssh/recording"
	"tssh/recording/term"
)

var update = flag.Bool("update", false, "rewrite golden files")

// step is one event of a recording made for a test.
type step struct {
	after time.Duration
	ch    uint32
	kind  recording.Kind
	data  []byte
}

func js(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// recorded makes a finished recording of steps under a fake clock.
func recorded(t *testing.T, steps []step) []byte {
	t.Helper()
	dir := t.TempDir()
	var out []byte
	synctest.Test(t, func(t *testing.T) {
		s := openSpool(t, recording.SpoolConfig{Dir: dir})
		m := testMeta()
		m.HostTags = []string{"tag:web"}
		x, j := begin(t, s, m)
		for _, st := range steps {
			time.Sleep(st.after)
			must(t, j.Append(st.ch, st.kind, st.data))
			if st.after > 2*time.Second {
				must(t, x.Flush())
			}
		}
		must(t, x.Finish("closed", ""))
		var err error
		out, err = os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
		must(t, err)
	})
	return out
}

func cast(t *testing.T, b []byte, opt recording.CastOptions) string {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	defer r.Close()
	var out bytes.Buffer
	must(t, recording.WriteCast(&out, r, opt))
	return out.String()
}

var chain = regexp.MustCompile(`"chain":"[0-9a-f]{64}"`)

func TestCastGolden(t *testing.T) {
	o := recording.KindOutput
	terminal := []step{
		{0, 1, recording.KindOpen, js(recording.Open{Type: "shell", PTY: true, Term: "xterm-256color", Cols: 80, Rows: 24})},
		{100*time.Millisecond + 400*time.Microsecond, 1, o, []byte("\x1b[1m<b>$\x1b[0m ")},
		{200*time.Millisecond + 400*time.Microsecond, 1, o, []byte("caf\xc3")},
		{400 * time.Microsecond, 1, o, []byte("\xa9\r\n")},
		{400 * time.Microsecond, 2, o, []byte("another channel")},
		{0, 1, recording.KindResize, js(recording.Resize{Cols: 132, Rows: 43})},
		{time.Second, 1, recording.KindInput, []byte("ls\r")},
		{12 * time.Second, 1, o, []byte("\xff\xe6\xbc")},
		{time.Millisecond, 1, o, []byte("\xa2 \xe2\x80\xa8 \x07\\ \"end")},
		{time.Millisecond, 1, o, []byte("\xe6")},
		{time.Millisecond, 1, recording.KindExit, js(recording.Exit{Status: 3})},
		{0, 1, recording.KindClose, nil},
	}
	program := []step{
		{0, 3, recording.KindOpen, js(recording.Open{Type: "sftp"})},
		{time.Second, 4, recording.KindOpen, js(recording.Open{Type: "exec", Command: "make && echo <ok>"})},
		{time.Second, 4, o, []byte("one\ntwo\r")},
		{0, 4, o, []byte("\nthree\r\n")},
		{time.Second, 4, recording.KindStderr, []byte("warning\n")},
		{0, 4, recording.KindExit, js(recording.Exit{Signal: "TERM"})},
	}
	events := []step{
		{0, 0, recording.KindNote, js(recording.Note{What: "too early"})},
		{time.Second, 1, recording.KindOpen, js(recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24})},
		{time.Second, 1, o, []byte("$ ")},
		{0, 0, recording.KindNote, js(recording.Note{What: "limit", Text: "too many sessions\x1b]0;x\x07"})},
		{0, 1, recording.KindFile, js(recording.File{Op: "put", Path: "/srv/a", Bytes: 5, SHA256: "ab"})},
		{time.Second, 2, recording.KindForward, js(recording.Forward{State: "open", Type: "agent"})},
		{0, 3, recording.KindFile, js(recording.File{Op: "get", Path: "of another channel"})},
		{0, 1, recording.KindSignal, []byte("INT")},
		{0, 1, recording.KindHidden, js(recording.Hidden{Keys: 9})},
		{0, 1, recording.KindGap, js(recording.Gap{Bytes: 7, Why: strings.Repeat("é", 200)})},
		{time.Second, 0, recording.KindNote, js(recording.Note{What: "revoked", Text: "your access ended"})},
		{0, 1, recording.KindExit, js(recording.Exit{Status: 129, Signal: "HUP"})},
		{time.Second, 0, recording.KindNote, js(recording.Note{What: "too late"})},
	}
	markers := []recording.CastMarker{{Channel: 1, At: 0, Text: "too early"}, {Channel: 1, At: 2500 * time.Millisecond, Text: "$ make"}, {Channel: 2, At: 2500 * time.Millisecond, Text: "another's"}, {Channel: 1, At: time.Hour, Text: "too late"}}
	for name, c := range map[string]struct {
		steps []step
		opt   recording.CastOptions
	}{
		"events-v3":   {events, recording.CastOptions{Markers: markers}},
		"events-v2":   {events, recording.CastOptions{Version: 2, Markers: markers}},
		"terminal-v3": {terminal, recording.CastOptions{Input: true}},
		"terminal-v2": {terminal, recording.CastOptions{Version: 2}},
		"program-v3":  {program, recording.CastOptions{Version: 3}},
		"channel-v2":  {terminal, recording.CastOptions{Version: 2, Channel: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got := chain.ReplaceAllString(cast(t, recorded(t, c.steps), c.opt), `"chain":"..."`)
			path := filepath.Join("testdata", name+".cast")
			if *update {
				must(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			must(t, err)
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
	b := recorded(t, program[:1])
	r, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	defer r.Close()
	if err := recording.WriteCast(&bytes.Buffer{}, r, recording.CastOptions{}); err != recording.ErrNoChannel {
		t.Errorf("nothing to show: %v", err)
	}
	if err := recording.WriteCast(&bytes.Buffer{}, r, recording.CastOptions{Version: 4}); err == nil {
		t.Error("version 4")
	}
}

var castPieces = []string{"plain text ", "é", "漢字", "🙂", "\x1b[31m", "\x1b[0m", "\r\n", "\x1b[3;4H", "\x1b]0;titre é\x07", "a\u0301", "\x1b[K", "\t"}

// TestChunkingReplaysTheSame cuts one output in all sorts of ways, inside runes too.
// The casts, the frames and the screens must say the same.
func TestChunkingReplaysTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 15 {
		var text []byte
		for range 60 {
			text = append(text, castPieces[r.IntN(len(castPieces))]...)
		}
		steps := []step{{0, 1, recording.KindOpen, js(recording.Open{Type: "shell", PTY: true, Cols: 40, Rows: 8})}}
		for rest := text; len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 7))
			steps = append(steps, step{time.Duration(r.IntN(3000)) * 777 * time.Microsecond, 1, recording.KindOutput, rest[:n]})
			rest = rest[n:]
		}
		b := recorded(t, steps)
		if got := output(eventsOf(t, b), 1); got != string(text) {
			t.Fatalf("frames have %q\nwant %q", got, text)
		}
		screen := term.New(40, 8)
		screen.Write(text)
		var length time.Duration
		for _, st := range steps {
			length += st.after
		}
		for _, version := range []int{2, 3} {
			c, err := recording.ReadCast(strings.NewReader(cast(t, b, recording.CastOptions{Version: version})))
			must(t, err)
			replay := term.New(c.Cols, c.Rows)
			var all strings.Builder
			for _, ev := range c.Events {
				if ev.Code == 'o' {
					all.WriteString(ev.Data)
					replay.Write([]byte(ev.Data))
				}
				if !utf8.ValidString(ev.Data) {
					t.Fatalf("not UTF-8: %q", ev.Data)
				}
			}
			if all.String() != string(text) {
				t.Fatalf("v%d has %q\nwant %q", version, all.String(), text)
			}
			if a, b := strings.Join(replay.Text(), "|"), strings.Join(screen.Text(), "|"); a != b {
				t.Fatalf("v%d shows %q, want %q", version, a, b)
			}
			// Hundreds of rounded intervals, and still no drift.
			if off := (c.Duration() - length).Abs(); off > time.Millisecond {
				t.Errorf("v%d is %v long, the recording %v", version, c.Duration(), length)
			}
		}
	}
}

func TestReadCast(t *testing.T) {
	v3 := `{"version":3,"term":{"cols":80,"rows":24,"type":"xterm"},"timestamp":1504467315,"title":"t","x":{}}` + "\n"
	v2 := `{"version":2,"width":80,"height":24}` + "\n"
	for name, c := range map[string]struct {
		in     string
		events []recording.CastEvent
		cut    bool
	}{
		"v3": {v3 + "# comment\n[0.5, \"o\", \"a\"]\n\n[0.25, \"r\", \"90x30\"]\n[1, \"x\", \"0\"]\n", []recording.CastEvent{
			{At: 500 * time.Millisecond, Code: 'o', Data: "a"}, {At: 750 * time.Millisecond, Code: 'r', Data: "90x30"}, {At: 1750 * time.Millisecond, Code: 'x', Data: "0"}}, false},
		"v2":                  {v2 + "[0.5, \"o\", \"a\"]\n[0.75, \"o\", \"\\u00e9\"]", []recording.CastEvent{{At: 500 * time.Millisecond, Code: 'o', Data: "a"}, {At: 750 * time.Millisecond, Code: 'o', Data: "é"}}, false},
		"cut":                 {v2 + "[0.5, \"o\", \"a\"]\n[0.75, \"o\", \"\\u00", []recording.CastEvent{{At: 500 * time.Millisecond, Code: 'o', Data: "a"}}, true},
		"unknown code":        {v3 + "[1, \"z\", {\"a\":1}]\n", []recording.CastEvent{{At: time.Second, Code: 'z', Data: `{"a":1}`}}, false},
		"header only":         {v3, nil, false},
		"going back (v2)":     {v2 + "[2, \"o\", \"a\"]\n[1, \"o\", \"b\"]\n", []recording.CastEvent{{At: 2 * time.Second, Code: 'o', Data: "a"}, {At: 2 * time.Second, Code: 'o', Data: "b"}}, false},
		"leading white space": {v3 + " [1, \"o\", \"a\"]\r\n", []recording.CastEvent{{At: time.Second, Code: 'o', Data: "a"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := recording.ReadCast(strings.NewReader(c.in))
			must(t, err)
			if len(got.Events) != len(c.events) || got.Truncated != c.cut || got.Cols != 80 || got.Rows != 24 {
				t.Fatalf("%+v", got)
			}
			for i := range c.events {
				if got.Events[i] != c.events[i] {
					t.Errorf("event %d: %+v, want %+v", i, got.Events[i], c.events[i])
				}
			}
		})
	}
	for name, in := range map[string]string{
		"empty":          "",
		"no JSON":        "hello\n",
		"version 1":      `{"version":1,"width":80,"height":24}` + "\n",
		"no size":        `{"version":3}` + "\n",
		"huge size":      `{"version":2,"width":99999999,"height":24}` + "\n",
		"comment in v2":  v2 + "# no\n[1,\"o\",\"a\"]\n",
		"bad line":       v3 + "[1,\"o\",\"a\"\n[1,\"o\",\"b\"]\n",
		"negative time":  v3 + "[-1,\"o\",\"a\"]\n",
		"endless time":   v3 + "[1e300,\"o\",\"a\"]\n",
		"two fields":     v3 + "[1,\"o\"]\n",
		"data no string": v3 + "[1,\"o\",{}]\n",
		"no code":        v3 + "[1,\"\",\"a\"]\n",
		"long line":      v3 + "[1,\"o\",\"" + strings.Repeat("a", 17<<20) + "\"]\n",
	} {
		if _, err := recording.ReadCast(strings.NewReader(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzReadCast(f *testing.F) {
	for _, name := range []string{"terminal-v3", "terminal-v2", "program-v3"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".cast"))
		must(f, err)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := recording.ReadCast(bytes.NewReader(b))
		if err != nil {
			return
		}
		if c.Cols <= 0 || c.Rows <= 0 || c.Version != 2 && c.Version != 3 {
			t.Fatalf("%+v", c)
		}
		var last time.Duration
		for _, ev := range c.Events {
			if ev.At < last || ev.Code == 0 && ev.Data == "" && ev.At == 0 {
				t.Fatalf("%+v after %v", ev, last)
			}
			last = ev.At
		}
	})
}
