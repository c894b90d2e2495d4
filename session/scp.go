package session

import (
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"tssh/recording"
)

// Bounds of what scp's old protocol may say.
const (
	maxSCPLine    = 8 << 10
	maxSCPDepth   = 256
	maxSCPPending = 256
	maxSCPWords   = 512 // kept of an error
)

// scpWatch reads along with scp's old protocol (scp -O, and clients from before OpenSSH 9)
// between the client and an scp of the host, and makes an event of each file. It changes
// nothing: what it does not understand ends the watching and nothing else.
//
// One side sends lines and files, the other answers each with a byte:
//
//	source:  [T times] C mode size name  bytes...  0     D mode 0 name ... E     1 words
//	sink:    0                0                    0     0                0
//
// A 1 or 2 with a line in place of the 0 is an error. There is no RFC; this is what scp(1) does.
type scpWatch struct {
	record func(recording.File)
	put    bool // the client is the source

	mu      sync.Mutex
	words   []string // the paths of the command; one where put
	into    bool     // the one path is a folder, entries go into it
	dirs    []string // open folders, outermost first
	line    []byte   // of the source, not whole yet
	answer  []byte   // of the sink, not whole yet
	pending []scpAnswer
	file    *scpFile // whose bytes come, nil between files
	state   scpState
	times   bool // the next entry comes with its times
}

type scpState uint8

const (
	scpLines  scpState = iota
	scpBytes           // of file
	scpStatus          // the byte, or error, after the last byte of a file
	scpLost            // not understood: over
)

// scpAnswer is what the sink's next answer is about.
type scpAnswer struct {
	file *scpFile // the line (last false) or all of a file
	last bool
	dir  string // a folder
}

type scpFile struct {
	f    recording.File
	left int64
	sum  *recording.Digest
	hash string // once it is whole
	told bool
	set  bool // its times are set too
}

// watchSCP is for a command that is scp in its old protocol, with paths relative to home; nil
// for others.
func watchSCP(command, home string, record func(recording.File)) *scpWatch {
	words := shellWords(command)
	if len(words) == 0 || path.Base(words[0]) != "scp" {
		return nil
	}
	w := &scpWatch{record: record}
	sink, source, options := false, false, true
	for _, word := range words[1:] {
		switch {
		case options && word == "--":
			options = false
		case options && len(word) > 1 && word[0] == '-':
			sink = sink || strings.Contains(word, "t")
			source = source || strings.Contains(word, "f")
			w.into = w.into || strings.Contains(word, "d")
		default:
			if rest, ok := strings.CutPrefix(word, "~"); ok && (rest == "" || rest[0] == '/') {
				word = home + rest
			} else if !strings.HasPrefix(word, "/") {
				word = path.Join(home, word)
			}
			w.words = append(w.words, word)
		}
	}
	if sink == source || len(w.words) == 0 || sink && len(w.words) > 1 {
		return nil
	}
	w.pending = append(w.pending, scpAnswer{}) // the sink speaks first
	if w.put = sink; w.put && !w.into {
		var st syscall.Stat_t
		w.into = syscall.Stat(w.words[0], &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	}
	return w
}

// shellWords splits a command as the shell does, where it is one simple command; nil where it
// is more than that. Variables and patterns stay as they are written.
func shellWords(s string) (words []string) {
	var word []byte
	in := false
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == '\'':
			if c == quote {
				quote = 0
			} else {
				word = append(word, c)
			}
		case c == '\\':
			if i++; i == len(s) {
				return nil
			}
			if quote == '"' && !strings.ContainsRune("\\\"$`", rune(s[i])) {
				word = append(word, c)
			}
			word, in = append(word, s[i]), true
		case quote == '"':
			switch c {
			case quote:
				quote = 0
			case '`':
				return nil
			default:
				word = append(word, c)
			}
		case c == '\'' || c == '"':
			quote, in = c, true
		case c == ' ' || c == '\t':
			if in {
				words = append(words, string(word))
			}
			word, in = word[:0], false
		case strings.IndexByte("\n;|&<>()`#{}", c) >= 0:
			return nil
		default:
			word, in = append(word, c), true
		}
	}
	if quote != 0 {
		return nil
	}
	if in {
		words = append(words, string(word))
	}
	return words
}

// fromClient and fromHost are called with all that passes, before it does. What they are
// given is read until the next call for the same side has returned.
func (w *scpWatch) fromClient(b []byte) { w.pass(b, w.put) }
func (w *scpWatch) fromHost(b []byte)   { w.pass(b, !w.put) }

func (w *scpWatch) pass(b []byte, source bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if source {
		w.sent(b)
		return
	}
	for _, c := range b {
		if w.state == scpLost {
			return
		}
		w.answered(c)
	}
}

// end makes events of what was not finished.
func (w *scpWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.pending {
		if a.last {
			w.tell(a.file, "the end of it was not confirmed")
		}
	}
	if w.file != nil {
		w.tell(w.file, "broken off")
	}
	w.lost()
}

func (w *scpWatch) lost() {
	if w.file != nil {
		w.file.sum.Hex() // nothing is read of the caller's any more
	}
	w.state, w.file, w.pending, w.line, w.answer = scpLost, nil, nil, nil, nil
}

// sent takes what the source sent.
func (w *scpWatch) sent(b []byte) {
	for len(b) > 0 {
		switch w.state {
		case scpLost:
			return
		case scpBytes:
			f := w.file
			n := int(min(f.left, int64(len(b))))
			if n > 0 {
				f.sum.Add(b[:n])
				f.f.Bytes += int64(n)
				f.left -= int64(n)
				b = b[n:]
			}
			if f.left == 0 {
				w.state = scpStatus
			}
		default:
			c := b[0]
			b = b[1:]
			if w.state == scpStatus && len(w.line) == 0 && c == 0 {
				w.finished("")
				continue
			}
			if len(w.line) == 0 && c == 0 && w.state == scpLines { // nothing to say
				continue
			}
			if w.line = append(w.line, c); len(w.line) > maxSCPLine {
				w.lost()
				return
			}
			if c == '\n' {
				line := string(w.line[:len(w.line)-1])
				w.line = w.line[:0]
				w.said(line)
			}
		}
	}
}

// finished ends the bytes of a file; words are the source's error.
func (w *scpWatch) finished(words string) {
	f := w.file
	w.file, w.state = nil, scpLines
	f.f.Error = words
	f.hash = f.sum.Hex()
	w.expect(scpAnswer{file: f, last: true})
}

func (w *scpWatch) expect(a scpAnswer) {
	if len(w.pending) >= maxSCPPending {
		w.lost()
		return
	}
	w.pending = append(w.pending, a)
}

// said acts on a line of the source's.
func (w *scpWatch) said(line string) {
	if line == "" {
		w.lost()
		return
	}
	kind, rest := line[0], line[1:]
	switch {
	case kind == 1 || kind == 2:
		words := scpWords(rest)
		if w.state == scpStatus {
			w.finished(words)
			return
		}
		if name, why, ok := cutLast(strings.TrimPrefix(words, "scp: "), ": "); ok {
			w.record(recording.File{Op: w.op(), Path: name, Error: why})
		} else {
			w.record(recording.File{Op: w.op(), Error: words})
		}
	case w.state == scpStatus:
		w.lost()
	case kind == 'T':
		w.times = true
		w.expect(scpAnswer{})
	case kind == 'E' && rest == "" && len(w.dirs) > 0:
		w.dirs = w.dirs[:len(w.dirs)-1]
		w.expect(scpAnswer{})
	case kind == 'C' || kind == 'D':
		mode, rest, ok1 := strings.Cut(rest, " ")
		size, name, ok2 := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if _, merr := strconv.ParseUint(mode, 8, 32); !ok1 || !ok2 || err != nil || merr != nil || n < 0 || name == "" || len(w.dirs) >= maxSCPDepth {
			w.lost()
			return
		}
		at := clip(w.path(name), 4096)
		if kind == 'D' {
			w.dirs = append(w.dirs, at)
			w.times = false
			w.expect(scpAnswer{dir: at})
			return
		}
		w.file = &scpFile{f: recording.File{Op: w.op(), Path: at}, left: n, sum: recording.NewDigest(), set: w.times && w.put}
		w.times, w.state = false, scpBytes
		if n == 0 {
			w.state = scpStatus
		}
		w.expect(scpAnswer{file: w.file})
	default:
		w.lost()
	}
}

func (w *scpWatch) op() string {
	if w.put {
		return "put"
	}
	return "get"
}

// path is where an entry of this name is on the host.
func (w *scpWatch) path(name string) string {
	switch {
	case len(w.dirs) > 0:
		return w.dirs[len(w.dirs)-1] + "/" + name
	case w.put && w.into:
		return path.Join(w.words[0], name)
	case w.put:
		return w.words[0]
	}
	for _, word := range w.words {
		if path.Base(word) == name {
			return word
		}
	}
	for _, word := range w.words {
		if strings.ContainsAny(word, "*?[") {
			return path.Join(path.Dir(word), name)
		}
	}
	return path.Join(w.words[0], name) // as with "."
}

// answered takes one byte of the sink's.
func (w *scpWatch) answered(c byte) {
	if len(w.answer) == 0 && c == 0 {
		w.done("")
		return
	}
	if len(w.answer) == 0 && c != 1 && c != 2 || len(w.answer) > maxSCPLine {
		w.lost()
		return
	}
	if c != '\n' {
		w.answer = append(w.answer, c)
		return
	}
	words := scpWords(string(w.answer[1:]))
	if words == "" {
		words = "refused"
	}
	w.answer = w.answer[:0]
	w.done(words)
}

// done acts on an answer; words are an error.
func (w *scpWatch) done(words string) {
	if len(w.pending) == 0 {
		return // a second error about the same file, or words about nothing
	}
	a := w.pending[0]
	w.pending = w.pending[1:]
	switch {
	case a.last:
		w.tell(a.file, words)
	case words == "":
	case a.file != nil:
		w.tell(a.file, words)
		if w.file == a.file && a.file.f.Bytes == 0 { // the source does not send it then
			w.file, w.state = nil, scpLines
		}
	case a.dir != "":
		w.record(recording.File{Op: "mkdir", Path: a.dir, Error: words})
		if n := len(w.dirs); n > 0 && w.dirs[n-1] == a.dir {
			w.dirs = w.dirs[:n-1]
		}
	}
}

// tell makes the event of a file, once.
func (w *scpWatch) tell(f *scpFile, words string) {
	if f.told {
		return
	}
	f.told = true
	if f.f.Error == "" {
		f.f.Error = words
	}
	if f.f.Error == "" {
		f.f.SHA256 = f.hash
	}
	w.record(f.f)
	if f.set && f.f.Error == "" {
		w.record(recording.File{Op: "setstat", Path: f.f.Path})
	}
}

// scpWords are an error as it is kept.
func scpWords(s string) string { return plain(clip(strings.TrimSpace(s), maxSCPWords)) }

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
