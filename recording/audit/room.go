package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// keptFor is how long lines of a host are kept whatever comes after them: whoever has become
// root there cannot push them out by writing many.
const (
	keptFor   = 30 * 24 * time.Hour
	keptWords = "30 days"
)

// droppedName is the file that says which line of a copy was the last to go, so that the next
// can be compared with it.
const droppedName = "dropped.json"

type droppedFile struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// dropped is the line before the first that a copy still has; 0 where none went.
func dropped(dir string) (uint64, Hash, error) {
	b, err := os.ReadFile(filepath.Join(dir, droppedName))
	if errors.Is(err, os.ErrNotExist) {
		return 0, Hash{}, nil
	}
	var f droppedFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return 0, Hash{}, err
	}
	h, err := ParseHash(f.Hash)
	return f.Seq, h, err
}

// makeRoom lets the oldest segments of a copy go until there is room for more bytes, and says
// so in the owner's log before. It reports false where they may not go yet.
func (c *Copies) makeRoom(h *hostCopy, id, name string, more int64) (bool, error) {
	dir := filepath.Join(c.cfg.Dir, id)
	for h.total+more > c.cfg.MaxBytes {
		names, err := segments(dir)
		if err != nil || len(names) < 2 {
			return false, err
		}
		// All of the oldest came before the first line of the next.
		until, err := firstStamp(filepath.Join(dir, names[1]))
		if err != nil || c.cfg.Clock().Sub(until) < keptFor {
			return false, err
		}
		oldest := filepath.Join(dir, names[0])
		f, err := os.Open(oldest)
		if err != nil {
			return false, err
		}
		st, err := f.Stat()
		var e end
		if err == nil {
			e, _, err = findEnd(f, parseStamped)
		}
		f.Close()
		if err != nil {
			return false, err
		}
		if seq, _, err := dropped(dir); err != nil {
			return false, err
		} else if e.found && e.line.seq != seq { // else a crash came between the two
			err := c.cfg.Noted(Entry{Kind: "audit.dropped", Host: name, Text: fmt.Sprintf("the lines of this host up to %d, which came before %s, are not kept any longer: its log has filled its room here", e.line.seq, until.UTC().Format(time.DateTime)),
				Extra: map[string]string{"id": id, "up_to": fmt.Sprint(e.line.seq), "hash": e.line.hash.String()}})
			if err != nil {
				return false, err
			}
			b, err := json.Marshal(droppedFile{e.line.seq, e.line.hash.String()})
			if err != nil {
				return false, err
			}
			tmp := filepath.Join(dir, droppedName+".new")
			if err := writeSynced(tmp, b); err != nil {
				return false, err
			}
			if err := os.Rename(tmp, filepath.Join(dir, droppedName)); err != nil {
				return false, err
			}
			if err := syncDir(dir); err != nil {
				return false, err
			}
		}
		if err := errors.Join(os.Remove(oldest), syncDir(dir)); err != nil {
			return false, err
		}
		h.total -= st.Size()
	}
	return true, nil
}

// firstStamp is when the first line of a segment came.
func firstStamp(name string) (time.Time, error) {
	f, err := os.Open(name)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	b := make([]byte, len(stampForm)+1)
	if _, err := f.ReadAt(b, 0); err != nil {
		return time.Time{}, err
	}
	at, _, err := unstamp(b)
	return at, err
}
