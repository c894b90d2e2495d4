package transcript

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// tape plays events into a Builder under a clock of its own.
type tape struct {
	b  *Builder
	at time.Duration
}

func newTape() *tape { return &tape{b: NewBuilder(Limits{})} }

func (p *tape) ev(ch uint32, k recording.Kind, data string) *tape {
	p.b.Event(recording.Event{At: p.at, Channel: ch, Kind: k, Data: []byte(data)})
	return p
}

func (p *tape) json(ch uint32, k recording.Kind, v any) *tape {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return p.ev(ch, k, string(b))
}

func (p *tape) out(text string) *tape { return p.ev(1, recording.KindOutput, text) }

func (p *tape) wait(d time.Duration) *tape {
	p.at += d
	return p
}

func (p *tape) typed(text string) *tape {
	for _, r := range text {
		p.wait(90 * time.Millisecond).out(string(r))
	}
	return p.wait(300 * time.Millisecond).out("\r\n")
}

func (p *tape) done() *Transcript {
	return p.b.Done(p.at)
}

func texts(t *Transcript) string {
	var s []string
	for _, l := range t.Lines {
		s = append(s, l.Text)
	}
	return strings.Join(s, "\n")
}

func commands(t *Transcript) string {
	var s []string
	for _, c := range t.Commands {
		exit := "?"
		if c.Exit != nil {
			exit = fmt.Sprint(*c.Exit)
		}
		s = append(s, fmt.Sprintf("%s %q %s %v-%v", c.Source, c.Text, exit, c.At, c.End))
	}
	return strings.Join(s, "\n")
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func TestGuessedCommands(t *testing.T) {
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 40, Rows: 6})
	p.out("\x1b[1mme@web\x1b[0m:~$ ").wait(time.Second).typed("ls /etc")
	p.wait(10 * time.Millisecond).out("hosts\r\npasswd\r\nme@web:~$ ").wait(3 * time.Second).typed("seq 9")
	p.out("1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9\r\nme@web:~$ ").wait(time.Second).out("\r\nme@web:~$ ").wait(time.Second)
	tr := p.done()
	same(t, "commands", commands(tr), `guess "ls /etc" ? 1.93s-1.94s`+"\n"+`guess "seq 9" ? 5.69s-5.69s`)
	same(t, "lines", texts(tr), "me@web:~$ ls /etc\nhosts\npasswd\nme@web:~$ seq 9\n1\n2\n3\n4\n5\n6\n7\n8\n9\nme@web:~$")
	if l := tr.Lines[2]; l.Text != "passwd" || tr.Commands[l.Command].Text != "ls /etc" {
		t.Errorf("%+v is not the output of ls", l)
	}
}

func TestMarksOfTheShell(t *testing.T) {
	const st = "\x1b\\"
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 40, Rows: 10})
	p.out("\x1b]133;A\x07% \x1b]133;B\x07").wait(time.Second).typed("false | grep x").out("\x1b]133;C" + st + "nothing\r\n\x1b]133;D;1" + st)
	p.out("\x1b]633;A\x07% \x1b]633;B\x07").wait(time.Second).typed("echo a").out("\x1b]633;E;echo \\x3b \\\\;nonce\x07\x1b]633;C\x07;\r\n\x1b]633;D;0\x07% ")
	tr := p.done()
	same(t, "commands", commands(tr), `mark "false | grep x" 1 2.56s-2.56s`+"\n"+`mark "echo ; \\" 0 4.4s-4.4s`)
	same(t, "lines", texts(tr), "% false | grep x\nnothing\n% echo a\n;\n%")
}

func TestChannelsWithoutTerminal(t *testing.T) {
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "exec", Command: "make"})
	p.out("one\ntw").wait(time.Second).ev(1, recording.KindStderr, "bad\x1b[31m\n").out("o\nthr\u202eee")
	p.json(2, recording.KindForward, recording.Forward{State: "open", Type: "local", Target: "db:5432"})
	p.json(1, recording.KindBulk, recording.Bulk{Stream: "output", Head: 10, Bytes: 99, SHA256: "ab", Ends: true})
	p.json(1, recording.KindExit, recording.Exit{Status: 2}).ev(1, recording.KindClose, "")
	tr := p.done()
	same(t, "commands", commands(tr), `exec "make" 2 0s-1s`)
	same(t, "lines", texts(tr), "one\nbad[31m\ntwo\nthr\ufffdee")
	if !tr.Lines[1].Stderr || tr.Lines[0].Stderr {
		t.Error("the two outputs are mixed up")
	}
	same(t, "marks", marks(tr), "2 1s forward open local db:5432\n1 1s bulk output: 99 bytes were not kept, sha256 ab\n")
}

func TestForwardsAndFilesAreMarks(t *testing.T) {
	p := newTape().json(2, recording.KindForward, recording.Forward{State: "open", Type: "local", Target: "db:5432", Origin: "127.0.0.1:4000"})
	p.wait(time.Second).json(3, recording.KindForward, recording.Forward{State: "refused", Type: "local", Target: "web:80", Error: "not allowed"})
	p.json(4, recording.KindFile, recording.File{Op: "get", Path: "/etc/shadow", Error: "permission denied"})
	p.json(4, recording.KindFile, recording.File{Op: "put", Path: "/srv/a\x1b]0;x", Bytes: 12})
	p.wait(time.Second).json(2, recording.KindForward, recording.Forward{State: "closed", Type: "local", Target: "db:5432", Sent: 5, Received: 7})
	p.json(9, recording.KindForward, recording.Forward{State: "closed", Type: "agent"}) // that had no beginning
	tr := p.done()
	same(t, "marks", marks(tr), "2 0s forward open local db:5432 from 127.0.0.1:4000, until 2s\n3 1s forward refused local web:80: not allowed, failed\n"+
		"4 1s file get /etc/shadow: permission denied, failed\n4 1s file put /srv/a]0;x, 12 bytes\n"+
		"2 2s forward closed local db:5432, 5 bytes sent, 7 received, 0.0 s\n9 2s forward closed agent, 0 bytes sent, 0 received, 0.0 s\n")
	if got := fmt.Sprint(tr.Marks[3].Paths); got != "[/srv/a]0;x]" {
		t.Errorf("paths %s", got)
	}
}

func marks(tr *Transcript) string {
	var b strings.Builder
	for _, m := range tr.Marks {
		fmt.Fprintf(&b, "%d %v %s %s", m.Channel, m.At, m.Kind, m.Text)
		if m.End > 0 {
			fmt.Fprintf(&b, ", until %v", m.End)
		}
		if m.Failed {
			b.WriteString(", failed")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestWhatWasNotSeenIsNotThere(t *testing.T) {
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 40, Rows: 6})
	p.out("secret\r\x1b[2Kshown\r\n").wait(time.Second)
	p.out("\x1b[?1049h\x1b[2J\x1b[Heditor text\r\nsecond").wait(time.Second).out("\x1b[H\x1b[2Jeditor text\r\nother").wait(time.Second).out("\x1b[?1049l")
	same(t, "lines", texts(p.done()), "shown\neditor text\nsecond\nother")
}

// TestALineIsInViewAtItsTime: also one that was taken when it scrolled away.
func TestALineIsInViewAtItsTime(t *testing.T) {
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 40, Rows: 5})
	for i := range 30 {
		p.wait(100 * time.Millisecond).out(fmt.Sprintf("line %d\r\n", i))
	}
	for i, l := range p.done().Lines {
		if want := time.Duration(i+1) * 100 * time.Millisecond; l.At < want || l.At > want+400*time.Millisecond || l.At > 3*time.Second {
			t.Errorf("%s at %v, written at %v", l.Text, l.At, want)
		}
	}
}

// TestAnyChunking: it does not matter how the bytes were divided.
func TestAnyChunking(t *testing.T) {
	text := "\x1b]133;A\x07$ \x1b]133;B\x07ls \xc3\xa9\r\n\x1b]133;C\x07größe 🚀\r\n\x1b[31mred\x1b[0m\r\n\x1b]133;D;3\x1b\\\x1b]133;A\x07$ "
	var want *Transcript
	for i := range 200 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 20, Rows: 4})
		for rest := text; rest != ""; {
			n := len(rest)
			if i > 0 {
				n = 1 + r.IntN(min(len(rest), 9))
			}
			p.out(rest[:n])
			rest = rest[n:]
		}
		got := p.done()
		if want == nil {
			want = got
			same(t, "commands", commands(want), `mark "ls é" 3 0s-0s`)
		} else if !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d:\n%+v\nwant\n%+v", i, got, want)
		}
	}
}

func TestBounds(t *testing.T) {
	p := &tape{b: NewBuilder(Limits{Lines: 5, Commands: 2, Marks: 3})}
	p.json(1, recording.KindOpen, recording.Open{Type: "exec", Command: strings.Repeat("x", 5000)})
	for i := range 20 {
		p.wait(time.Second).out(fmt.Sprintf("%d%s\n", i, strings.Repeat("y", 5000))).json(1, recording.KindNote, recording.Note{What: "n"}).json(9, recording.KindOpen, recording.Open{Type: "exec", Command: "c"})
	}
	tr := p.done()
	if len(tr.Lines) != 5 || len(tr.Commands) != 2 || len(tr.Marks) != 3 || len(tr.Lines[0].Text) != maxText || len(tr.Commands[0].Text) != maxText {
		t.Errorf("%d lines, %d commands, %d marks", len(tr.Lines), len(tr.Commands), len(tr.Marks))
	}
}

func FuzzTranscript(f *testing.F) {
	f.Add([]byte("\x1b]133;A\x07$ \x1b]133;B\x07ls\r\n\x1b]133;C\x07a\r\n\x1b]133;D;1\x07"), uint8(3))
	f.Add([]byte("me$ ls\r\nx\r\nme$ "), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 10, Rows: 3})
		for len(data) > 0 {
			k := min(len(data), int(n)+1)
			p.wait(150 * time.Millisecond * time.Duration(data[0]%3)).out(string(data[:k]))
			if data[0] == 'r' {
				p.json(1, recording.KindResize, recording.Resize{Cols: 3 + k, Rows: 1 + k})
			}
			data = data[k:]
		}
		for _, l := range p.done().Lines {
			if l.Text == "" || strings.ContainsFunc(l.Text, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
				t.Fatalf("%q", l.Text)
			}
		}
	})
}

// TestOutputThatIsDearIsCutOff: a few bytes that clear, move or read a whole screen do not keep the recorder busy
// for hours, whoever made the recording; what ordinary programs write is not cut off.
func TestOutputThatIsDearIsCutOff(t *testing.T) {
	for name, unit := range map[string]string{
		"reset": "\x1bc", "clear": "\x1b[2J", "scroll": "\x1b[9S", "insert": "\x1b[H\x1b[L", "alternate": "\x1b[?1049;1049;1049;1049h\x1b[?1049l", "pattern": "\x1b#8",
		"marks": "\x1b]133;A\a", "input": "\x1b[4hx", "size": "",
	} {
		p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 500, Rows: 200})
		began := time.Now()
		if unit == "" {
			for i := range 20_000 {
				p.json(1, recording.KindResize, recording.Resize{Cols: 500 - i%2, Rows: 200})
			}
		} else {
			p.out(strings.Repeat(unit, 1<<20/len(unit)))
		}
		if name != "input" && !p.b.full {
			t.Errorf("%s: all of it was drawn, in %v", name, time.Since(began))
		}
		t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
	}
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 250, Rows: 70})
	for range 3000 { // an hour of a shell with marks, one of top(1), and a long build
		p.out("\x1b]133;D;0\a\x1b]133;A\a" + "alice@web:~/src/project$ \x1b]133;B\a").typed("ls").out("\x1b]133;C\a" + "file\r\n")
	}
	screen := "\x1b[H\x1b[J" + strings.Repeat("  1234 alice     20   0  123456  12345   1234 S   0.3   0.1   0:01.23 program\r\n", 60)
	for range 3600 {
		p.wait(time.Second).out(screen)
	}
	for i := range 100_000 {
		p.out(fmt.Sprintf("[%6d/100000] CC object%d.o\r\n", i, i%7))
	}
	if p.b.spent > 1e9 || p.b.full && len(p.b.t.Lines) < p.b.lim.Lines {
		t.Errorf("ordinary output: %d, %d lines, cut off: %v", p.b.spent, len(p.b.t.Lines), p.b.full)
	}
}

// TestWhatHappenedIsMarked goes through what is neither a line nor a file: it is all in the
// transcript, and in the markers of a cast.
func TestWhatHappenedIsMarked(t *testing.T) {
	p := newTape().json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24})
	p.json(0, recording.KindNote, recording.Note{What: "limit", Text: "too many sessions on one connection"})
	p.json(recording.ChannelMonitor, recording.KindNote, recording.Note{What: "policy", Text: "the policy is another one"})
	p.json(1, recording.KindHidden, recording.Hidden{Keys: 9}).ev(1, recording.KindSignal, "INT")
	p.json(2, recording.KindForward, recording.Forward{State: "open", Type: "agent"})
	p.json(1, recording.KindGap, recording.Gap{Bytes: 7, Why: "the recorder was away"})
	p.json(0, recording.KindNote, recording.Note{What: "revoked", Text: "your access ended"})
	p.json(1, recording.KindInputSummary, recording.InputSummary{Bytes: 12, SHA256: "ab"})
	p.json(1, recording.KindExit, recording.Exit{Status: 129, Signal: "HUP"}).ev(1, recording.KindClose, "")
	p.json(0, recording.KindEnd, recording.End{Cause: "revoked", Text: "your access ended"})
	same(t, "marks", marks(p.done()), "0 0s note limit too many sessions on one connection\n4294967295 0s note policy the policy is another one\n"+
		"1 0s hidden 9 keys typed while the terminal showed none\n1 0s signal SIGINT\n2 0s forward open agent\n1 0s gap 7 bytes not kept: the recorder was away\n"+
		"0 0s note revoked your access ended\n1 0s input 12 bytes from the client in all, sha256 ab\n1 0s exit killed by SIGHUP\n0 0s end revoked your access ended\n")
}

func TestMarkersOfACast(t *testing.T) {
	tr := &Transcript{Commands: []Command{{Channel: 1, At: 2 * time.Second, Text: "ls", Source: SourceGuess}, {Channel: 1, At: time.Second, Text: "cd /", Source: SourceMark}, {Channel: 2, Text: "make", Source: SourceExec}}}
	got := tr.Markers()
	if len(got) != 2 || got[0] != (recording.CastMarker{Channel: 1, At: time.Second, Text: "$ cd /"}) || got[1].Text != "$ ls (read from the screen)" {
		t.Errorf("%+v", got)
	}
}
