package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// chunk is what a cursor reads at once: small, because a hub reads the logs of all its
// hosts side by side.
const chunk = 8 << 10

// cursor reads the lines of a folder one after the other, while they are written, and
// keeps no file open between two reads.
type cursor struct {
	dir     string
	segment int // of the next read; 0: not begun
	line    int // of the last line given, in its segment
	offset  int64
	buf     []byte // read and not given yet
}

// next gives the next whole line with its newline, and nil where there is none yet. The
// bytes are the caller's until the call after.
func (c *cursor) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			b := c.buf[:i+1]
			c.buf = c.buf[i+1:]
			c.line++
			return b, nil
		}
		if len(c.buf) >= maxLine {
			return nil, c.broken("is longer than any line that was written")
		}
		more, err := c.fill()
		if err != nil || !more {
			return nil, err
		}
	}
}

// fill reads on. It reports false at the end of what is written.
func (c *cursor) fill() (bool, error) {
	if c.segment == 0 {
		names, err := segments(c.dir)
		if err != nil {
			return false, fmt.Errorf("audit: read: %w", err)
		}
		if len(names) == 0 {
			return false, nil
		}
		if c.segment, err = segmentNumber(names[0]); err != nil {
			return false, err
		}
	}
	// Whether there is another segment is asked first: one that is made after a read that
	// came to the end may follow lines that were written after it.
	_, err := os.Stat(filepath.Join(c.dir, segmentName(c.segment+1)))
	full := err == nil
	f, err := os.Open(filepath.Join(c.dir, segmentName(c.segment)))
	if err != nil {
		return false, fmt.Errorf("audit: read: %w", err)
	}
	defer f.Close()
	had := len(c.buf)
	b := make([]byte, had+max(chunk, had))
	copy(b, c.buf)
	n, err := f.ReadAt(b[had:], c.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("audit: read: %w", err)
	}
	c.buf = b[:had+n]
	c.offset += int64(n)
	switch {
	case n > 0:
		return true, nil
	case !full:
		return false, nil
	case had > 0:
		c.line++
		return false, c.broken("is not a whole line, and another segment follows")
	}
	c.segment, c.offset, c.line = c.segment+1, 0, 0
	return true, nil
}

func (c *cursor) broken(why string) *Broken {
	return &Broken{File: segmentName(c.segment), Line: c.line, Why: why}
}
