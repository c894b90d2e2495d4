package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	xterm "golang.org/x/term"

	"tssh/recording"
	"tssh/recording/term"
	"tssh/recording/transcript"
)

// playOptions are the flags of tssh play.
type playOptions struct {
	Speed float64       // 0 is 1
	Idle  time.Duration // pauses are no longer than this; 0: as they were
	Raw   bool          // the recorded bytes themselves, control sequences and all
	Keys  *recording.Keys
}

const defaultIdle = 2 * time.Second

// playCommand is `tssh play FILE [--speed N] [--idle SECONDS] [--raw] [--identity FILE] [--export cast|cast2|text]`.
func playCommand(args []string, stdin, stdout *os.File, stderr io.Writer) int {
	fs := flag.NewFlagSet("tssh play", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var opt playOptions
	idle := fs.Float64("idle", defaultIdle.Seconds(), "longest pause in `seconds`, 0 for as recorded")
	fs.Float64Var(&opt.Speed, "speed", 1, "times as fast")
	fs.BoolVar(&opt.Raw, "raw", false, "write the recorded bytes as they are: they may act on your terminal")
	key := identityFlag(fs)
	export := fs.String("export", "", "write it as `cast`, cast2 (of version 2) or text to standard output, and do not play")
	file, ok := oneFile(fs, args, stderr)
	if !ok {
		return 2
	}
	if opt.Keys, ok = loadKeys(*key, stderr); !ok {
		return 2
	}
	if !(opt.Speed > 0 && opt.Speed <= 1000) || !(*idle >= 0 && *idle <= 1e6) {
		fmt.Fprintf(stderr, "tssh: error: a speed is more than 0 and at most 1000, a pause is not negative\n")
		return 2
	}
	opt.Idle = time.Duration(*idle * float64(time.Second))
	if *export != "" {
		return exportFile(file, *export, opt, stdout, stderr)
	}
	return playFile(file, opt, stdin, stdout, stderr)
}

// oneFile parses flags before and after one file name.
func oneFile(fs *flag.FlagSet, args []string, stderr io.Writer) (string, bool) {
	var files []string
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return "", false
		}
		if args = fs.Args(); len(args) > 0 {
			files, args = append(files, args[0]), args[1:]
		}
	}
	if len(files) != 1 {
		fmt.Fprintf(stderr, "tssh: error: %s takes one file\n", fs.Name())
		return "", false
	}
	return files[0], true
}

// playFile plays a recording (.tsr) or a cast: on a terminal with keys, else as text.
// Nothing of the recorded bytes reaches the terminal but the text they show, unless
// opt.Raw says so. It returns an exit status.
func playFile(path string, opt playOptions, stdin, stdout *os.File, stderr io.Writer) int {
	tr, err := openTrack(path, opt.Keys)
	if err != nil {
		sayUnopened(err, opt.Keys, stderr)
		return 1
	}
	defer tr.close()
	if opt.Speed <= 0 {
		opt.Speed = 1
	}
	onTerminal := xterm.IsTerminal(int(stdout.Fd()))
	switch {
	case opt.Raw:
		err = playRaw(tr, opt, stdout, onTerminal)
	case onTerminal:
		err = newPlayer(tr, opt, stdin, stdout).run()
	default:
		err = writeTranscript(tr, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: play %s: %v\n", path, err)
		return 1
	}
	return 0
}

// writeTranscript writes what the terminal showed, line by line, as text.
func writeTranscript(tr track, w io.Writer) error {
	screen, err := tr.start(0)
	if err != nil {
		return err
	}
	out := &lineWriter{w: w}
	screen.Scrolled = out.line
	for out.err == nil {
		ev, err := tr.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		ev.apply(screen)
	}
	lines := screen.Text()
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for _, line := range lines {
		out.line(line)
	}
	out.flush()
	return out.err
}

// lineWriter gathers lines and keeps the first error.
type lineWriter struct {
	w   io.Writer
	buf []byte
	err error
}

func (l *lineWriter) line(s string) {
	l.buf = append(append(l.buf, s...), '\n')
	if len(l.buf) > 32<<10 {
		l.flush()
	}
}

func (l *lineWriter) flush() {
	if l.err == nil {
		_, l.err = l.w.Write(l.buf)
	}
	l.buf = l.buf[:0]
}

// playRaw writes the recorded output itself, in its time on a terminal.
func playRaw(tr track, opt playOptions, w io.Writer, timed bool) error {
	if _, err := tr.start(0); err != nil {
		return err
	}
	var last time.Duration
	for first := true; ; first = false {
		ev, err := tr.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if timed && !first {
			pause := max(0, ev.at-last)
			if opt.Idle > 0 {
				pause = min(pause, opt.Idle)
			}
			time.Sleep(time.Duration(float64(pause) / opt.Speed))
		}
		last = ev.at
		if _, err := w.Write(ev.data); err != nil {
			return err
		}
	}
}

// verifyCommand is `tssh verify FILE [--json] [--hub-key KEY] [--identity FILE]`. The signers are the
// mesh's hub and recorders, when a node here knows them; --hub-key takes their place.
func verifyCommand(args []string, known []signer, unsealed string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("tssh verify", flag.ContinueOnError)
	fs.SetOutput(stderr)
	asJSON := fs.Bool("json", false, "print JSON")
	given := fs.String("hub-key", "", "the key of the hub or recorder that must have countersigned the beginning")
	id := identityFlag(fs)
	file, ok := oneFile(fs, args, stderr)
	if !ok {
		return 2
	}
	opens, ok := loadKeys(*id, stderr)
	if !ok {
		return 2
	}
	if *given != "" {
		key, err := parseHubKey(*given)
		if err != nil {
			fmt.Fprintf(stderr, "tssh: error: %v\n", err)
			return 2
		}
		known = []signer{{key: key}}
	}
	return verifyFile(file, known, opens, unsealed, *asJSON, stdout, stderr)
}

// parseHubKey reads a key as `tsshub status` and join tokens have it, or in hex.
func parseHubKey(s string) (ed25519.PublicKey, error) {
	for _, decode := range []func(string) ([]byte, error){base64.StdEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString} {
		if b, err := decode(s); err == nil && len(b) == ed25519.PublicKeySize {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%q is not a hub's key", printable(s))
}

// who is the person recorded, or the machine.
func who(m recording.Meta) string {
	if m.Login != "" {
		return m.Login
	}
	return m.Src
}

// printable is s without what could act on a terminal: it comes from a file.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// track is something that can be played from any time on.
type track interface {
	// start returns a screen as it was at some time at or before at; next goes on
	// from there.
	start(at time.Duration) (*term.Term, error)
	next() (playEvent, error) // io.EOF at the end
	duration() time.Duration
	title() string
	text() (*transcript.Transcript, error) // moves the track; start again afterwards
	close()
}

// playEvent is output, or a new size.
type playEvent struct {
	at         time.Duration
	data       []byte
	cols, rows int
}

func (ev playEvent) apply(t *term.Term) {
	if ev.cols > 0 {
		t.Resize(ev.cols, ev.rows)
		return
	}
	t.Write(ev.data)
}

// openTrack opens a recording or a cast, by its content.
func openTrack(path string, keys *recording.Keys) (track, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s: not a file", path)
	}
	first := make([]byte, 1)
	if _, err := f.ReadAt(first, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	var tr track
	if first[0] == '{' {
		tr, err = openCast(f)
	} else {
		tr, err = openRecording(f, st.Size(), keys)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return tr, nil
}

// castTrack is a cast in memory; it starts at its beginning whatever is asked.
type castTrack struct {
	f *os.File
	c *recording.Cast
	i int
}

func openCast(f *os.File) (track, error) {
	c, err := recording.ReadCast(f)
	if err != nil {
		return nil, err
	}
	return &castTrack{f: f, c: c}, nil
}

func (c *castTrack) start(time.Duration) (*term.Term, error) {
	c.i = 0
	return term.New(c.c.Cols, c.c.Rows), nil
}

func (c *castTrack) next() (playEvent, error) {
	for c.i < len(c.c.Events) {
		ev := c.c.Events[c.i]
		c.i++
		switch ev.Code {
		case 'o':
			return playEvent{at: ev.At, data: []byte(ev.Data)}, nil
		case 'r':
			var p playEvent
			if n, err := fmt.Sscanf(ev.Data, "%dx%d", &p.cols, &p.rows); n == 2 && err == nil && p.cols > 0 && p.rows > 0 {
				p.at = ev.At
				return p, nil
			}
		}
	}
	return playEvent{}, io.EOF
}

func (c *castTrack) duration() time.Duration { return c.c.Duration() }
func (c *castTrack) title() string           { return c.c.Title }
func (c *castTrack) close()                  { c.f.Close() }

// recordingTrack is one channel of a recording.
type recordingTrack struct {
	f       *os.File
	r       *recording.Reader
	ch      uint32
	open    recording.Open
	began   time.Duration
	ends    time.Duration
	frame   int // the next to read
	pending []recording.Event
}

func openRecording(f *os.File, size int64, keys *recording.Keys) (track, error) {
	r, err := keys.NewReader(f, size)
	if err != nil {
		return nil, err
	}
	t := &recordingTrack{f: f, r: r}
	t.ch, t.open, t.began, err = r.FirstChannel()
	if err != nil {
		r.Close()
		if errors.Is(err, recording.ErrNoChannel) {
			return nil, errors.New("nothing to play: no terminal and no program ran in this connection")
		}
		return nil, err
	}
	t.ends = r.Duration()
	return t, nil
}

// blankScreen is what a channel begins with.
func blankScreen(o recording.Open) *term.Term {
	if o.PTY {
		return term.New(o.Cols, o.Rows)
	}
	screen := term.New(0, 0)
	screen.Write([]byte("\x1b[20h")) // no terminal was there to add carriage returns
	return screen
}

func (t *recordingTrack) start(at time.Duration) (*term.Term, error) {
	t.pending, t.frame = nil, 0
	screen := blankScreen(t.open)
	i := t.r.KeyframeBefore(at + t.began)
	if i == 0 {
		return screen, nil
	}
	_, key, err := t.r.Frame(i)
	if err != nil {
		return nil, err
	}
	for _, s := range key.Screens {
		if s.Channel == t.ch {
			screen = term.New(s.Cols, s.Rows)
			screen.Write(s.ANSI)
			t.frame = i
		}
	}
	return screen, nil
}

func (t *recordingTrack) next() (playEvent, error) {
	for {
		for len(t.pending) > 0 {
			ev := t.pending[0]
			t.pending = t.pending[1:]
			if ev.Channel != t.ch {
				continue
			}
			at := max(0, ev.At-t.began)
			switch ev.Kind {
			case recording.KindOutput, recording.KindStderr:
				return playEvent{at: at, data: ev.Data}, nil
			case recording.KindResize:
				var r recording.Resize
				if json.Unmarshal(ev.Data, &r) == nil && r.Cols > 0 && r.Rows > 0 {
					return playEvent{at: at, cols: r.Cols, rows: r.Rows}, nil
				}
			}
		}
		if t.frame >= len(t.r.Index()) {
			return playEvent{}, io.EOF
		}
		var err error
		if t.pending, _, err = t.r.Frame(t.frame); err != nil {
			return playEvent{}, err
		}
		t.frame++
	}
}

func (t *recordingTrack) duration() time.Duration { return max(0, t.ends-t.began) }

func (t *recordingTrack) title() string {
	m := t.r.Meta()
	return who(m) + " as " + m.LocalUser + " on " + m.Host
}

func (t *recordingTrack) close() {
	t.r.Close()
	t.f.Close()
}
