package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Hash is the link of the chain.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String writes.
func ParseHash(s string) (Hash, error) {
	var h Hash
	err := unhex(&h, s)
	return h, err
}

// line is one line taken apart.
type line struct {
	seq  uint64
	prev Hash
	hash Hash
	raw  []byte // the entry's JSON, exactly as written
}

func sum(prev Hash, seq uint64, raw []byte) Hash {
	h := sha256.New()
	h.Write([]byte("tssh audit 1\n"))
	h.Write(prev[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], seq)
	h.Write(n[:])
	h.Write(raw)
	return Hash(h.Sum(nil))
}

// newLine makes the line that follows prev.
func newLine(prev Hash, seq uint64, e Entry) (line, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return line{}, fmt.Errorf("audit: entry %q: %w", e.Kind, err)
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return line{seq: seq, prev: prev, hash: sum(prev, seq, raw), raw: raw}, nil
}

// text is the line as it stands in the file, with its newline.
func (l line) text() []byte {
	return fmt.Appendf(nil, "{\"seq\":%d,\"prev\":\"%s\",\"hash\":\"%s\",\"entry\":%s}\n", l.seq, l.prev, l.hash, l.raw)
}

// parseLine takes a line apart and accepts it only if it is whole in itself: written in the
// one form there is, its hash being that of its own prev, seq and entry.
func parseLine(b []byte) (line, error) {
	var w struct {
		Seq   uint64          `json:"seq"`
		Prev  string          `json:"prev"`
		Hash  string          `json:"hash"`
		Entry json.RawMessage `json:"entry"`
	}
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return line{}, errors.New("is not a whole line")
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return line{}, fmt.Errorf("is not JSON: %w", err)
	}
	l := line{seq: w.Seq, raw: w.Entry}
	if err := unhex(&l.prev, w.Prev); err != nil {
		return line{}, err
	}
	if err := unhex(&l.hash, w.Hash); err != nil {
		return line{}, err
	}
	if !bytes.Equal(l.text(), b) {
		return line{}, errors.New("is not in the form that was written")
	}
	if sum(l.prev, l.seq, l.raw) != l.hash {
		return line{}, errors.New("was changed: its hash does not fit its content")
	}
	return l, nil
}

func unhex(h *Hash, s string) error {
	if len(s) != 2*len(h) {
		return errors.New("has a hash of the wrong length")
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return errors.New("has a hash that is not hexadecimal")
	}
	return nil
}

// follows says why l cannot be the line after one with this seq and hash; "" if it can.
func (l line) follows(seq uint64, hash Hash) string {
	if l.seq != seq+1 {
		return fmt.Sprintf("has number %d where %d belongs: lines are missing, repeated or swapped", l.seq, seq+1)
	}
	if l.prev != hash {
		return "does not follow the line before it: one of the two was replaced"
	}
	return ""
}
