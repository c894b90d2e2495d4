package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// What Append of Copies may say.
var (
	ErrElsewhere  = errors.New("audit: the copy ends elsewhere")
	ErrNotALine   = errors.New("audit: this is no line of an audit log")
	ErrNotFollows = errors.New("audit: this line does not follow the one before it")
	ErrFull       = errors.New("audit: there is no more room for lines of this host")
	ErrTooSoon    = errors.New("audit: this log had a gap a moment ago")
	ErrNoHost     = errors.New("audit: this is not the name of a host")
)

// stampForm is the time before each line of a copy: always of this length.
const stampForm = "2006-01-02T15:04:05.000Z"

// gapEvery bounds what a host can write into the owner's log by claiming gaps.
const gapEvery = time.Minute

// gapLine stands, after its time, where lines are missing.
const gapLine = "gap\n"

// maxCopied bounds a line of another's log, which stands in the copy behind its time.
const maxCopied = maxLine - 64

var hostID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// CopiesConfig is where copies of other logs live.
type CopiesConfig struct {
	Dir string
	// MaxBytes bounds the copy of one log; 0 is 4 GiB. So a host that floods its own log takes
	// room from nobody else: where something new does not fit the oldest lines go, if they are
	// older than keptFor; else what is new is refused until they are.
	MaxBytes int64
	// Noted gets what the owner's own log should say about a copy: a gap, no more room. An
	// error keeps the lines out.
	Noted func(Entry) error
	Clock func() time.Time // nil is time.Now
}

// Copies keeps copies of the logs of other hosts, each verified as it comes. Safe for
// concurrent use.
type Copies struct {
	cfg CopiesConfig
	seg int64 // segmentSize

	mu    sync.Mutex
	hosts map[string]*hostCopy
}

// hostCopy is the end of one copy.
type hostCopy struct {
	mu      sync.Mutex
	loaded  bool
	name    string // in the mesh, the last time it sent something
	segment int
	size    int64 // of the last segment
	total   int64
	seq     uint64
	hash    Hash
	full    bool // and that was noted
	gapAt   time.Time
}

// OpenCopies opens the folder, which it makes if it is not there.
func OpenCopies(c CopiesConfig) (*Copies, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = 4 << 30
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Noted == nil {
		return nil, errors.New("audit: copies need a log that notes gaps")
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: copies: %w", err)
	}
	return &Copies{cfg: c, seg: segmentSize, hosts: map[string]*hostCopy{}}, nil
}

// host is one copy, locked; the caller unlocks it.
func (c *Copies) host(id string) (*hostCopy, error) {
	if !hostID.MatchString(id) {
		return nil, ErrNoHost
	}
	c.mu.Lock()
	h := c.hosts[id]
	if h == nil {
		h = &hostCopy{}
		c.hosts[id] = h
	}
	c.mu.Unlock()
	h.mu.Lock()
	if !h.loaded {
		if err := h.load(filepath.Join(c.cfg.Dir, id)); err != nil {
			h.mu.Unlock()
			return nil, fmt.Errorf("audit: copy of %s: %w", id, err)
		}
	}
	return h, nil
}

// load finds the end of a copy. What a crash left after it was acknowledged to nobody.
func (h *hostCopy) load(dir string) error {
	names, err := segments(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(names) == 0 {
		h.loaded = true
		return nil
	}
	if err != nil {
		return err
	}
	if h.name, err = readName(dir); err != nil {
		return err
	}
	h.segment, h.size, h.total, h.seq, h.hash = 0, 0, 0, 0, Hash{}
	for i := len(names) - 1; i >= 0; i-- {
		n, err := segmentNumber(names[i])
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, names[i]), os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil && h.seq == 0 {
			var e end
			var torn []byte
			e, torn, err = findEnd(f, parseStamped)
			if err == nil && len(torn) > 0 {
				err = errors.Join(f.Truncate(e.offset), f.Sync())
			}
			if h.segment == 0 {
				h.segment, h.size = n, e.offset
			}
			if e.found {
				h.seq, h.hash = e.line.seq, e.line.hash
			}
			h.total += e.offset
		} else if err == nil {
			h.total += st.Size()
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
	}
	h.loaded = true
	return nil
}

// parseStamped is parseLine for a line of a copy.
func parseStamped(b []byte) (line, error) {
	_, b, err := unstamp(b)
	if err != nil {
		return line{}, err
	}
	return parseLine(b)
}

// unstamp takes the time off a line of a copy.
func unstamp(b []byte) (time.Time, []byte, error) {
	n := len(stampForm)
	if len(b) <= n || b[n] != ' ' {
		return time.Time{}, nil, errors.New("has no time before it")
	}
	t, err := time.Parse(stampForm, string(b[:n]))
	if err != nil {
		return time.Time{}, nil, errors.New("has no time before it")
	}
	return t, b[n+1:], nil
}

// Head is the last line of the copy of a host's log; 0 when there is none.
func (c *Copies) Head(id string) (uint64, Hash, error) {
	h, err := c.host(id)
	if err != nil {
		return 0, Hash{}, err
	}
	defer h.mu.Unlock()
	return h.seq, h.hash, nil
}

// Append adds whole lines to the copy of a host's log, durably, all or none. after is the
// number of the last line the host takes to be here. gap is the host saying that it cannot
// give the lines between; without it the first line must follow the last one here. What it
// returns beside an error is where the copy ends.
func (c *Copies) Append(id, name string, after uint64, gap bool, lines []byte) (uint64, Hash, error) {
	h, err := c.host(id)
	if err != nil {
		return 0, Hash{}, err
	}
	defer h.mu.Unlock()
	if after != h.seq {
		return h.seq, h.hash, ErrElsewhere
	}
	text, last, missing, err := c.check(h, gap, lines)
	if err != nil || len(text) == 0 {
		return h.seq, h.hash, err
	}
	room, err := c.makeRoom(h, id, name, int64(len(text)))
	if err != nil {
		return h.seq, h.hash, fmt.Errorf("audit: copy of %s: %w", id, err)
	}
	if !room {
		if !h.full {
			h.full = true
			if err := c.cfg.Noted(Entry{Kind: "audit.full", Host: name, Text: "the audit log of this host has filled its room here within " + keptWords + "; the host keeps what is new itself until the oldest is older", Extra: map[string]string{"id": id}}); err != nil {
				return h.seq, h.hash, err
			}
		}
		return h.seq, h.hash, ErrFull
	}
	if missing != "" {
		now := c.cfg.Clock()
		if d := now.Sub(h.gapAt); d >= 0 && d < gapEvery {
			return h.seq, h.hash, ErrTooSoon
		}
		h.gapAt = now
		e := Entry{Kind: "audit.gap", Host: name, Text: missing, Extra: map[string]string{"id": id, "had": fmt.Sprint(h.seq), "had_hash": h.hash.String()}}
		if err := c.cfg.Noted(e); err != nil {
			return h.seq, h.hash, err
		}
	}
	h.full = false
	if err := c.write(h, id, name, text); err != nil {
		h.loaded = false // look again at what is there
		return h.seq, h.hash, fmt.Errorf("audit: copy of %s: %w", id, err)
	}
	h.seq, h.hash = last.seq, last.hash
	return h.seq, h.hash, nil
}

// check verifies lines as the continuation of a copy and gives them as they are kept.
// missing says in words what lies between, where that is not nothing.
func (c *Copies) check(h *hostCopy, gap bool, lines []byte) (text []byte, last line, missing string, err error) {
	stamp := c.cfg.Clock().UTC().Format(stampForm) + " "
	seq, hash := h.seq, h.hash
	for first := true; len(lines) > 0; first = false {
		i := bytes.IndexByte(lines, '\n') + 1
		// One that is longer than what is read again would end the reading of all logs.
		if i == 0 || i > maxCopied {
			return nil, last, "", ErrNotALine
		}
		ln, perr := parseLine(lines[:i])
		var e Entry
		if perr != nil || json.Unmarshal(ln.raw, &e) != nil || e.Kind == "" {
			return nil, last, "", ErrNotALine
		}
		if ln.follows(seq, hash) != "" {
			if !first || !gap {
				return nil, last, "", ErrNotFollows
			}
			if missing = fmt.Sprintf("lines %d to %d of this host's log are missing", seq+1, ln.seq-1); ln.seq <= seq+1 {
				missing = fmt.Sprintf("the log of this host does not go on from line %d that it sent before: it was replaced, and begins again at line %d", seq, ln.seq)
			}
			text = append(text, stamp+gapLine...)
		}
		text = append(append(text, stamp...), lines[:i]...)
		seq, hash, last = ln.seq, ln.hash, ln
		lines = lines[i:]
	}
	last.raw = nil
	return text, last, missing, nil
}

// write appends text to the last segment, or to a new one.
func (c *Copies) write(h *hostCopy, id, name string, text []byte) error {
	dir := filepath.Join(c.cfg.Dir, id)
	if h.segment == 0 {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := syncDir(c.cfg.Dir); err != nil {
			return err
		}
	}
	if name != h.name || h.segment == 0 {
		if err := writeName(dir, name); err != nil {
			return err
		}
		h.name = name
	}
	fresh := h.segment == 0 || h.size >= c.seg
	segment, size := h.segment, h.size
	if fresh {
		segment, size = segment+1, 0
	}
	f, err := os.OpenFile(filepath.Join(dir, segmentName(segment)), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Truncate(size) // else load does it
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if fresh {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	h.segment, h.size, h.total = segment, size+int64(len(text)), h.total+int64(len(text))
	return nil
}

// A copy's host.json has the name by which people know the host.
type hostFile struct {
	Name string `json:"name"`
}

func readName(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "host.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	var f hostFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	return f.Name, err
}

func writeName(dir, name string) error {
	b, err := json.Marshal(hostFile{name})
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "host.json.new")
	if err := writeSynced(tmp, b); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "host.json"))
}
