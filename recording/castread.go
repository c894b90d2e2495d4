package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Cast is an asciicast file, read whole.
type Cast struct {
	Version    int
	Cols, Rows int
	Start      time.Time // zero if it does not say
	Title      string
	Command    string
	Events     []CastEvent
	// Truncated: the last line was not whole and is left out.
	Truncated bool
}

// CastEvent is one line: o output, i input, r resize ("80x24"), m marker, x exit
// status. Codes that are not known are kept.
type CastEvent struct {
	At   time.Duration // since the beginning
	Code byte
	Data string
}

// Bounds of a cast: it is read into memory.
const (
	maxCast     = 256 << 20
	maxCastLine = 16 << 20
)

// ReadCast reads asciicast v2 or v3. A last line that is cut off is left out; anything
// else that is wrong is an error that names the line.
func ReadCast(r io.Reader) (*Cast, error) {
	lines := bufio.NewReaderSize(io.LimitReader(r, maxCast+1), 64<<10)
	c := &Cast{}
	var at time.Duration
	total := 0
	for n := 1; ; n++ {
		line, whole, err := castLine(lines)
		if err != nil {
			return nil, fmt.Errorf("recording: cast: line %d: %w", n, err)
		}
		if len(line) == 0 && !whole {
			break
		}
		if total += len(line) + 1; total > maxCast {
			return nil, fmt.Errorf("recording: cast: longer than %d MiB", maxCast>>20)
		}
		switch text := bytes.TrimSpace(line); {
		case n == 1:
			err = c.readHeader(text)
		case len(text) == 0:
		case text[0] == '#' && c.Version == 3:
		default:
			at, err = c.readEvent(text, at)
		}
		if err != nil && !whole && n > 1 {
			c.Truncated = true
			break
		}
		if err != nil {
			return nil, fmt.Errorf("recording: cast: line %d: %w", n, err)
		}
	}
	if c.Version == 0 {
		return nil, errors.New("recording: cast: the file is empty")
	}
	return c, nil
}

// castLine reads up to a newline; whole says that there was one.
func castLine(r *bufio.Reader) (line []byte, whole bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxCastLine {
			return nil, false, fmt.Errorf("longer than %d MiB", maxCastLine>>20)
		}
		switch err {
		case nil:
			return line, true, nil
		case bufio.ErrBufferFull:
			continue
		case io.EOF:
			return line, false, nil
		}
		return nil, false, err
	}
}

func (c *Cast) readHeader(line []byte) error {
	var h struct {
		Version   int             `json:"version"`
		Width     int             `json:"width"`
		Height    int             `json:"height"`
		Term      castTerm        `json:"term"`
		Timestamp float64         `json:"timestamp"`
		Title     string          `json:"title"`
		Command   json.RawMessage `json:"command"`
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return fmt.Errorf("this is not a cast: %w", err)
	}
	switch h.Version {
	case 2:
		c.Cols, c.Rows = h.Width, h.Height
	case 3:
		c.Cols, c.Rows = h.Term.Cols, h.Term.Rows
	default:
		return fmt.Errorf("version %d is not one of 2 and 3", h.Version)
	}
	if c.Cols <= 0 || c.Rows <= 0 || c.Cols > math.MaxUint16 || c.Rows > math.MaxUint16 {
		return fmt.Errorf("a terminal of %d by %d", c.Cols, c.Rows)
	}
	if h.Timestamp > 0 && h.Timestamp < 1<<40 {
		c.Start = time.Unix(int64(h.Timestamp), 0).UTC()
	}
	_ = json.Unmarshal(h.Command, &c.Command) // some writers put other things there
	c.Version, c.Title = h.Version, h.Title
	return nil
}

func (c *Cast) readEvent(line []byte, last time.Duration) (time.Duration, error) {
	var f []json.RawMessage
	if err := json.Unmarshal(line, &f); err != nil {
		return 0, err
	}
	if len(f) < 3 {
		return 0, errors.New("an event has three fields")
	}
	var seconds float64
	var code string
	ev := CastEvent{}
	if err := json.Unmarshal(f[0], &seconds); err != nil {
		return 0, err
	}
	if err := json.Unmarshal(f[1], &code); err != nil {
		return 0, err
	}
	if code == "" {
		return 0, errors.New("an event without a code")
	}
	ev.Code = code[0]
	if json.Unmarshal(f[2], &ev.Data) != nil {
		if strings.IndexByte("oirmx", ev.Code) >= 0 {
			return 0, fmt.Errorf("the data of %q is not a string", code)
		}
		ev.Data = string(f[2])
	}
	if !(seconds >= 0 && seconds <= maxAt.Seconds()) {
		return 0, fmt.Errorf("time %v", seconds)
	}
	ev.At = time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	if c.Version == 3 {
		ev.At += last
	}
	ev.At = max(ev.At, last)
	if ev.At > maxAt {
		return 0, fmt.Errorf("time %v", ev.At)
	}
	c.Events = append(c.Events, ev)
	return ev.At, nil
}

// Duration is the time of the last event.
func (c *Cast) Duration() time.Duration {
	if len(c.Events) == 0 {
		return 0
	}
	return c.Events[len(c.Events)-1].At
}
