package recording

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// CastOptions choose what WriteCast writes.
type CastOptions struct {
	Version int    // 2 or 3; 0 is 3
	Channel uint32 // 0: the first channel that ran something
	// Input adds what the client typed, where that was recorded.
	Input bool
	// Markers are added to those that the events make, by time: commands, as whoever reads
	// the screens knows them. Those of other channels are left out.
	Markers []CastMarker
}

// CastMarker is a place in a recording that has a name.
type CastMarker struct {
	Channel uint32
	At      time.Duration // since the recording's start
	Text    string
}

// castHeader is the first line, in the fields of both versions.
type castHeader struct {
	Version   int               `json:"version"`
	Width     int               `json:"width,omitempty"`  // v2
	Height    int               `json:"height,omitempty"` // v2
	Term      *castTerm         `json:"term,omitempty"`   // v3
	Timestamp int64             `json:"timestamp,omitempty"`
	Command   string            `json:"command,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Tags      []string          `json:"tags,omitempty"` // v3
}

type castTerm struct {
	Cols int    `json:"cols"`
	Rows int    `json:"rows"`
	Type string `json:"type,omitempty"`
}

// ErrNoChannel says that nothing in the recording can be shown as a cast.
var ErrNoChannel = errors.New("recording: cast: no terminal and no program in this recording")

// WriteCast writes one channel as asciicast. Times begin with the channel. It is a
// projection for other players: bytes that are no UTF-8 become U+FFFD, and output of a
// program without a terminal gets the carriage returns a terminal would have added.
func WriteCast(w io.Writer, r *Reader, opt CastOptions) error {
	switch opt.Version {
	case 0:
		opt.Version = 3
	case 2, 3:
	default:
		return fmt.Errorf("recording: cast: version %d", opt.Version)
	}
	ch, o, start, err := castChannel(r, opt.Channel)
	if err != nil {
		return err
	}
	c := &castWriter{w: w, v3: opt.Version == 3, last: start, start: start, pty: o.PTY}
	if err := c.header(r.Meta(), o, start); err != nil {
		return err
	}
	var chk []checkpointInfo
	if c.v3 {
		if chk, err = r.checkpoints(); err != nil {
			return err
		}
	}
	marks := opt.Markers
	err = r.Events(func(ev Event) error {
		for len(chk) > 0 && chk[0].at < ev.At {
			if chk[0].at >= start {
				if err := c.comment(chk[0]); err != nil {
					return err
				}
			}
			chk = chk[1:]
		}
		for len(marks) > 0 && marks[0].At <= ev.At {
			if m := marks[0]; m.Channel == ch && m.At >= start {
				if err := c.marker(m.At, m.Text); err != nil {
					return err
				}
			}
			marks = marks[1:]
		}
		// What happens to the connection is shown where the person is.
		if whole := ev.Channel == 0 || ev.Channel == ChannelMonitor || ev.Kind == KindForward; ev.Channel != ch && (!whole || ev.At < start) {
			return nil
		}
		return c.event(ev, opt.Input)
	})
	if err != nil {
		return err
	}
	for _, k := range chk {
		if err := c.comment(k); err != nil {
			return err
		}
	}
	return c.flush()
}

var errFound = errors.New("found")

// castChannel finds the channel to project and how it began.
func castChannel(r *Reader, want uint32) (ch uint32, o Open, at time.Duration, err error) {
	err = r.Events(func(ev Event) error {
		if ev.Kind != KindOpen || want != 0 && ev.Channel != want {
			return nil
		}
		var found Open
		if json.Unmarshal(ev.Data, &found) != nil || want == 0 && found.Type != "shell" && found.Type != "exec" {
			return nil
		}
		ch, o, at = ev.Channel, found, ev.At
		return errFound
	})
	switch {
	case err == errFound:
		return ch, o, at, nil
	case err != nil:
		return 0, Open{}, 0, err
	}
	return 0, Open{}, 0, ErrNoChannel
}

// castWriter writes whole lines, many at once, never part of one.
type castWriter struct {
	w     io.Writer
	v3    bool
	pty   bool
	start time.Duration
	last  time.Duration // of the event before
	err   time.Duration // what rounding has left over
	carry [3][]byte     // an unfinished rune: output, stderr, input
	over  bool          // the program ended: no markers after it
	cr    bool          // the last byte of output was a carriage return
	buf   bytes.Buffer
	data  []byte
}

const castFlush = 64 << 10

func (c *castWriter) header(m Meta, o Open, start time.Duration) error {
	h := castHeader{
		Version: 2, Timestamp: m.Start.Add(start).Unix(), Command: o.Command,
		Title: m.LocalUser + "@" + m.Host,
	}
	cols, rows := o.Cols, o.Rows
	if cols <= 0 || rows <= 0 {
		cols, rows = 80, 24
	}
	cols, rows = min(cols, 1000), min(rows, 1000)
	if c.v3 {
		h.Version, h.Term = 3, &castTerm{Cols: cols, Rows: rows, Type: o.Term}
		h.Tags = m.HostTags
	} else {
		h.Width, h.Height = cols, rows
		if o.Term != "" {
			h.Env = map[string]string{"TERM": o.Term}
		}
	}
	return c.json(h)
}

// json adds a value as one line; Encode ends it with a newline.
func (c *castWriter) json(v any) error {
	e := json.NewEncoder(&c.buf)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (c *castWriter) event(ev Event, input bool) error {
	switch ev.Kind {
	case KindOutput:
		return c.text(ev.At, 'o', 0, ev.Data)
	case KindStderr:
		return c.text(ev.At, 'o', 1, ev.Data)
	case KindInput:
		if input {
			return c.text(ev.At, 'i', 2, ev.Data)
		}
	case KindResize:
		var r Resize
		if json.Unmarshal(ev.Data, &r) == nil && r.Cols > 0 && r.Rows > 0 {
			return c.line(ev.At, 'r', []byte(fmt.Sprintf("%dx%d", min(r.Cols, 1000), min(r.Rows, 1000))))
		}
	case KindBulk:
		var b Bulk
		if json.Unmarshal(ev.Data, &b) == nil && b.Ends {
			return c.line(ev.At, 'm', []byte(b.String()))
		}
	case KindExit:
		var x Exit
		if json.Unmarshal(ev.Data, &x) == nil {
			for s := range c.carry {
				if err := c.rest(ev.At, s); err != nil {
					return err
				}
			}
			if x.Signal != "" && x.Status == 0 {
				x.Status = 255 // casts know only numbers
			}
			c.over = true
			return c.line(ev.At, 'x', strconv.AppendInt(nil, int64(x.Status), 10))
		}
	case KindFile, KindForward, KindGap, KindNote, KindSignal, KindHidden:
		if kind, words, ok := Mark(ev); ok {
			return c.marker(ev.At, kind+": "+words)
		}
	}
	return nil
}

// maxMarker bounds a marker: players show them in one line.
const maxMarker = 200

func (c *castWriter) marker(at time.Duration, text string) error {
	if c.over {
		return nil
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxMarker {
		text = strings.ToValidUTF8(text[:maxMarker], "") + "…"
	}
	return c.line(max(at, c.last), 'm', []byte(text))
}

// text adds output, keeping back a rune that is not whole yet.
func (c *castWriter) text(at time.Duration, code byte, stream int, data []byte) error {
	c.data = append(append(c.data[:0], c.carry[stream]...), data...)
	keep := unfinishedRune(c.data)
	c.carry[stream] = append(c.carry[stream][:0], c.data[len(c.data)-keep:]...)
	out := c.data[:len(c.data)-keep]
	if len(out) == 0 {
		return nil
	}
	if code == 'o' && !c.pty {
		out = c.returns(out)
	}
	return c.line(at, code, out)
}

// rest gives up on an unfinished rune.
func (c *castWriter) rest(at time.Duration, stream int) error {
	b := c.carry[stream]
	c.carry[stream] = nil
	if len(b) == 0 {
		return nil
	}
	return c.line(at, "ooi"[stream], b)
}

// returns puts a carriage return before each line feed that has none.
func (c *castWriter) returns(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/32)
	for _, x := range b {
		if x == '\n' && !c.cr {
			out = append(out, '\r')
		}
		out = append(out, x)
		c.cr = x == '\r'
	}
	return out
}

// unfinishedRune is the length of a rune's beginning at the end of b.
func unfinishedRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}

// line adds one event. In v3 its time is the interval since the event before, in
// milliseconds, with what rounding leaves over carried to the next, or errors add up.
func (c *castWriter) line(at time.Duration, code byte, data []byte) error {
	if c.v3 {
		v := at - c.last + c.err
		q := max(0, (v + 500*time.Microsecond).Truncate(time.Millisecond))
		c.err, c.last = v-q, at
		fmt.Fprintf(&c.buf, "[%d.%03d, \"%c\", ", q/time.Second, q%time.Second/time.Millisecond, code)
	} else {
		t := at - c.start
		fmt.Fprintf(&c.buf, "[%d.%06d, \"%c\", ", t/time.Second, t%time.Second/time.Microsecond, code)
	}
	if err := c.json(string(data)); err != nil { // what is not UTF-8 becomes U+FFFD here
		return err
	}
	c.buf.Truncate(c.buf.Len() - 1)
	c.buf.WriteString("]\n")
	if c.buf.Len() >= castFlush {
		return c.write()
	}
	return nil
}

// checkpointInfo is what a signature says, for a comment.
type checkpointInfo struct {
	at    time.Duration
	seq   uint64
	chain [32]byte
}

func (r *Reader) checkpoints() ([]checkpointInfo, error) {
	var out []checkpointInfo
	for off := int64(len(fileMagic)); off < r.end; {
		h, err := readHeader(r.r, off, r.end)
		if err == io.EOF || errors.Is(err, errHeader) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("recording: cast: %w", err)
		}
		if h.typ == blockCheckpoint {
			out = append(out, checkpointInfo{h.lastAt(), h.seq, h.chain})
		}
		off += headerSize + int64(h.stored)
	}
	return out, nil
}

// comment is a signature riding along where every reader of v3 skips it.
func (c *castWriter) comment(k checkpointInfo) error {
	fmt.Fprintf(&c.buf, "# chk {\"at\":%d.%06d,\"seq\":%d,\"chain\":\"%s\"}\n",
		k.at/time.Second, k.at%time.Second/time.Microsecond, k.seq, hex.EncodeToString(k.chain[:]))
	return nil
}

func (c *castWriter) flush() error {
	for s := range c.carry {
		if err := c.rest(c.last, s); err != nil {
			return err
		}
	}
	return c.write()
}

func (c *castWriter) write() error {
	if c.buf.Len() == 0 {
		return nil
	}
	_, err := c.w.Write(c.buf.Bytes())
	c.buf.Reset()
	if err != nil {
		return fmt.Errorf("recording: cast: %w", err)
	}
	return nil
}

// FirstChannel is the first channel that ran a shell or a program, how it began, and
// when: what a player shows of a connection.
func (r *Reader) FirstChannel() (ch uint32, o Open, at time.Duration, err error) {
	return castChannel(r, 0)
}
