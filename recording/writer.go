package recording

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
)

// writer appends blocks to one recording. It is not safe for concurrent use.
//
// A write that fails leaves the file as it was before, as far as the disk allows; the
// next try begins at the same place.
type writer struct {
	f       *os.File
	off     int64
	seq     uint64
	prev    [32]byte
	last    int64 // time of the last event
	journal int64 // bytes of the journal that are in the file
	seed    *ratchet
	final   bool
	clock   func() time.Time
	enc     *zstd.Encoder // shared
	seal    *sealer       // nil: not sealed
}

func (w *writer) put(h header, payload []byte) error {
	h.seq, h.journal, h.wall = w.seq, w.journal, w.clock().UnixMicro()
	if h.typ != blockFrame {
		h.first, h.last = w.last, w.last
	}
	var b []byte
	if h.typ == blockFrame && w.seal != nil {
		h.flags |= flagSealed
		var err error
		if payload, err = w.seal.seal(h, payload); err != nil {
			return err
		}
	}
	if h.typ == blockCheckpoint {
		b = makeCheckpoint(&h, w.prev, w.seed)
	} else {
		if h.typ != blockFrame && h.typ != blockIndex {
			h.raw = uint32(len(payload))
		}
		b = makeBlock(&h, w.prev, payload)
	}
	return w.commit(h, b, nil)
}

// commit writes a block, and what goes with it, and only then moves on.
func (w *writer) commit(h header, b, more []byte) error {
	b = append(b, more...)
	if _, err := w.f.WriteAt(b, w.off); err != nil {
		_ = w.f.Truncate(w.off) // best effort: a reader cuts at the last whole block anyway
		return err
	}
	w.off += int64(len(b))
	w.seq, w.prev, w.last = h.seq+1, h.chain, h.last
	return nil
}

// begin writes the magic, the meta block and a first checkpoint, so that the
// description is signed and the first key gone before anything else happens.
func (w *writer) begin(m Meta, to *Recipients) ([]byte, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(payload) > maxMeta {
		return nil, fmt.Errorf("the description has %d bytes", len(payload))
	}
	magic := fileMagic
	if to != nil {
		magic = sealedMagic
	}
	if _, err := w.f.WriteAt([]byte(magic), 0); err != nil {
		return nil, err
	}
	w.off, w.prev = int64(len(magic)), chainStart(magic)
	if err := w.put(header{typ: blockMeta}, payload); err != nil {
		return nil, err
	}
	if to != nil {
		if err := w.newEpoch(sha256.Sum256(payload), to); err != nil {
			return nil, err
		}
	}
	if err := w.put(header{typ: blockCheckpoint}, nil); err != nil {
		return nil, err
	}
	next := w.seed.next()
	w.seed = &next
	return payload, nil
}

// closeFile writes the last signature, if it can be made, and the index.
func (w *writer) closeFile() error {
	if !w.final && w.seed != nil {
		if err := w.put(header{typ: blockCheckpoint, flags: flagFinal}, nil); err != nil {
			return err
		}
	}
	w.final, w.seed = true, nil
	r, err := NewReader(w.f, w.off)
	if err != nil {
		return err
	}
	defer r.Close()
	raw := appendIndex(nil, r.Index())
	if len(raw) > maxRaw {
		raw = nil // a recording of weeks: readers go by the headers
	}
	h := header{typ: blockIndex, raw: uint32(len(raw)), seq: w.seq, journal: w.journal, wall: w.clock().UnixMicro(), first: w.last, last: w.last}
	b := makeBlock(&h, w.prev, w.enc.EncodeAll(raw, nil))
	return w.commit(h, b, appendTrailer(nil, w.off))
}

// newEncoder is for whole frames: it may be shared.
func newEncoder() (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(512<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("recording: zstd: %w", err)
	}
	return e, nil
}

// keyFile keeps the seed in force on disk, in one of two slots, so that there is
// always a whole one, and the one before is overwritten where it lay.
//
//	0   8  how many checkpoints came before
//	8   32 seed
//	40  4  CRC-32C of these
const (
	keySlot     = 4096 // distance of the slots: never in one sector
	keySlotSize = 44
)

func writeKey(f *os.File, n uint64, r *ratchet) error {
	b := binary.LittleEndian.AppendUint64(nil, n)
	b = append(b, r.seed[:]...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := f.WriteAt(b, int64(n%2)*keySlot); err != nil {
		return err
	}
	if err := datasync(f); err != nil {
		return err
	}
	_, err := f.WriteAt(make([]byte, keySlotSize), int64(1-n%2)*keySlot)
	return err
}

// readKey returns the newest whole seed.
func readKey(f *os.File) (n uint64, r *ratchet) {
	for slot := range int64(2) {
		b := make([]byte, keySlotSize)
		if _, err := f.ReadAt(b, slot*keySlot); err != nil {
			continue
		}
		k := binary.LittleEndian.Uint64(b)
		if crc32.Checksum(b[:40], castagnoli) != binary.LittleEndian.Uint32(b[40:]) || k%2 != uint64(slot) || r != nil && k < n {
			continue
		}
		n, r = k, &ratchet{}
		copy(r.seed[:], b[8:])
	}
	return n, r
}
