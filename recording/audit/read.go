package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Record is an entry with its place in the chain.
type Record struct {
	Seq   uint64 `json:"seq"`
	Hash  string `json:"hash"`
	Entry Entry  `json:"entry"`
	Raw   []byte `json:"-"` // the entry's JSON as written, fields unknown to this version included

	// Of a line from another host's log: whose it is, by the key that the host proved, and
	// when it came. What the entry says itself is that host's word.
	From     string    `json:"from,omitempty"`
	FromID   string    `json:"from_id,omitempty"`
	Received time.Time `json:"received,omitzero"`
}

// Broken says where the chain does not hold: the first bad line.
type Broken struct {
	File string // of the segment; empty for Verify
	Line int    // in the file, from 1
	Why  string
}

func (b *Broken) Error() string {
	if b.File == "" {
		return fmt.Sprintf("audit: line %d %s", b.Line, b.Why)
	}
	return fmt.Sprintf("audit: %s line %d %s", b.File, b.Line, b.Why)
}

// Report is what Verify found to hold.
type Report struct {
	Lines int
	First uint64 // seq of the first line; 0 when there is none
	Last  uint64 // seq of the last line that holds
	Head  Hash   // its hash
}

// chain walks lines and checks each against the one before.
type chain struct {
	Report
	begun bool
	fromA bool // the first line must be line 1
}

func (c *chain) next(b []byte) (line, string) {
	l, err := parseLine(b)
	if err != nil {
		return line{}, err.Error()
	}
	if c.begun || c.fromA {
		if why := l.follows(c.Last, c.Head); why != "" {
			return line{}, why
		}
	}
	if !c.begun {
		c.First = l.seq
	}
	c.begun = true
	c.Lines++
	c.Last, c.Head = l.seq, l.hash
	return l, ""
}

// Verify checks one segment, or several read one after the other. A stream that starts at
// line 1 is checked from the beginning of the chain; one that starts later is taken to follow
// what its first line says. The error is a *Broken, or one of reading.
func Verify(r io.Reader) (Report, error) {
	c := &chain{}
	err := eachLine(r, func(n int, b []byte) error {
		_, why := c.next(b)
		if why == "" && n == 1 && c.Last == 1 {
			if l, _ := parseLine(b); l.prev != (Hash{}) {
				why = "is the first and follows another"
			}
		}
		if why != "" {
			return &Broken{Line: n, Why: why}
		}
		return nil
	})
	return c.Report, err
}

// VerifyDir checks the whole log in dir from its first line on. It takes no lock; a line that
// is being written while it reads may be reported as not whole.
func VerifyDir(dir string) (Report, error) {
	c := &chain{fromA: true}
	names, err := segments(dir)
	if err != nil {
		return c.Report, fmt.Errorf("audit: verify: %w", err)
	}
	for i, name := range names {
		if n, err := segmentNumber(name); err != nil || n != i+1 {
			return c.Report, &Broken{File: name, Line: 1, Why: fmt.Sprintf("belongs to segment %d where %d should be: a segment is missing", n, i+1)}
		}
		err := inFile(dir, name, func(n int, b []byte) error {
			if _, why := c.next(b); why != "" {
				return &Broken{File: name, Line: n, Why: why}
			}
			return nil
		})
		if err != nil {
			return c.Report, err
		}
	}
	return c.Report, nil
}

// Read gives fn every entry that filter chooses, oldest first, and stops at fn's first error,
// which it returns. Only whole lines that were complete when it came to them are given. A line
// that does not parse ends the reading with a *Broken; the chain is not checked, see VerifyDir.
func Read(dir string, filter Filter, fn func(Record) error) error {
	names, err := segments(dir)
	if err != nil {
		return fmt.Errorf("audit: read: %w", err)
	}
	for _, name := range names {
		err := inFile(dir, name, func(n int, b []byte) error {
			if b[len(b)-1] != '\n' {
				return nil // being written
			}
			l, err := parseLine(b)
			if err != nil {
				return &Broken{File: name, Line: n, Why: err.Error()}
			}
			r := Record{Seq: l.seq, Hash: l.hash.String(), Raw: l.raw}
			if err := json.Unmarshal(l.raw, &r.Entry); err != nil {
				return &Broken{File: name, Line: n, Why: "holds no entry: " + err.Error()}
			}
			if !filter.Match(r.Entry) {
				return nil
			}
			return fn(r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Read is Read on the log's folder; it does not stop others from appending.
func (l *Log) Read(filter Filter, fn func(Record) error) error { return Read(l.dir, filter, fn) }

func inFile(dir, name string, fn func(n int, b []byte) error) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("audit: read: %w", err)
	}
	defer f.Close()
	err = eachLine(f, fn)
	var b *Broken
	if errors.As(err, &b) && b.File == "" {
		b.File = name
	}
	return err
}

// eachLine calls fn with every line, its newline included; the last may lack it. The bytes are
// fn's only during the call.
func eachLine(r io.Reader, fn func(n int, b []byte) error) error {
	br := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		b, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return &Broken{Line: n, Why: "is longer than any line that was written"}
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("audit: read: %w", err)
		}
		if len(b) > 0 {
			if ferr := fn(n, b); ferr != nil {
				return ferr
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}
