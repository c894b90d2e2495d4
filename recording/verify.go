package recording

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Report is what Verify found.
type Report struct {
	ID   string
	Meta Meta
	// Ends is the time of the last event that could be read.
	Ends time.Duration
	// ProvenUntil is the time up to which a signature, and no problem before it, shows
	// the recording as it was made.
	ProvenUntil time.Duration
	// Problems are words for people, each beginning with the second it is about. None:
	// the file is whole and as it was written.
	Problems []string
	// Complete: the recording was closed with a last signature.
	Complete bool
	// SelfAttested: made by a host that could not protect it from the person recorded.
	SelfAttested bool
	// Sealed: frames are encrypted, to SealedTo at last. Opened says that a key opened all of
	// them; without one chain and signatures are checked, and not what is inside.
	Sealed, Opened bool
	SealedTo       []string
	// Countersignatures say that the recording began, each by the key it names. Whose keys
	// these are is for the caller to know: see CountersignedBy.
	Countersignatures []Countersignature
	// Seen says how much a hub had, and when: the last such signature of each key.
	Seen           []Countersignature
	Frames, Events int
}

// CountersignedBy finds the countersignature of one of the keys.
func (r Report) CountersignedBy(keys ...ed25519.PublicKey) (Countersignature, bool) {
	for _, c := range r.Countersignatures {
		if slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return bytes.Equal(k, c.Key) }) {
			return c, true
		}
	}
	return Countersignature{}, false
}

// maxCountersignatures bounds how many a report holds; a recording has one.
const maxCountersignatures = 8

// maxProblems keeps a report readable: a file from nowhere has one a block.
const maxProblems = 20

// Verify reads a whole recording and reports on it. The error is of reading, or that
// this is no recording at all; what is wrong inside is in the report.
func Verify(r io.Reader) (Report, error) { return (*Keys)(nil).Verify(r) }

// Verify is the function of this name; it opens what is sealed to one of the keys.
func (k *Keys) Verify(r io.Reader) (Report, error) {
	v := NewVerifier()
	v.lenient, v.keys = true, k
	var err error
	if v.dec, err = newDecoder(); err != nil {
		return Report{}, err
	}
	defer v.dec.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if _, werr := v.Write(buf[:n]); werr != nil {
			return Report{}, werr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return Report{}, fmt.Errorf("recording: verify: %w", err)
		}
	}
	return v.finish()
}

// Verifier checks a recording as its bytes arrive, for a recorder that takes a running
// recording in parts. It knows where the last whole block that was verified ended; what
// comes after that is not to be kept.
//
// The first thing that is wrong stops it: Write returns an error then and always.
type Verifier struct {
	off      int64  // end of the last whole block
	buf      []byte // what came after it
	err      error
	begun    bool // the file's magic was read
	prev     [32]byte
	alt      [32]byte // lenient: what prev would be if only the chain in the header was changed
	seq      uint64
	key      ed25519.PublicKey
	metaSum  [32]byte
	meta     Meta
	metaRaw  []byte
	journal  int64 // bytes of the journal in the file
	lastAt   time.Duration
	proven   time.Duration
	signed   int64 // end of the last checkpoint
	final    bool
	index    int64 // offset of the index block, 0 before
	indexAt  place // where the writer was then
	done     bool  // the trailer was read
	covered  bool  // no frame since the last checkpoint
	points   points
	missing  [][2]uint64 // numbers that did not come, first and one after the last
	sealed   bool        // the file is a sealed one
	ended    bool        // and its outline has the end
	sealedTo []string    // by its last key block

	lenient bool
	dec     *zstd.Decoder
	lost    bool // looking for the next header
	frames  []FrameInfo
	report  Report
	keys    *Keys
	opener  *opener
	unopen  bool // a frame that no key opens
	keyless bool // no key block came yet
}

// NewVerifier expects a recording from its first byte.
func NewVerifier() *Verifier { return &Verifier{keyless: true} }

// Offset is the end of the last whole block (or the trailer) that was verified.
func (v *Verifier) Offset() int64 { return v.off }

// Signed is the end of the last checkpoint, and the time that it proves.
func (v *Verifier) Signed() (offset int64, until time.Duration) { return v.signed, v.proven }

// Meta is the recording's own description; ok is false before it was read.
func (v *Verifier) Meta() (m Meta, ok bool) { return v.meta, v.seq > 0 }

// Ends is the time of the last event so far.
func (v *Verifier) Ends() time.Duration { return v.lastAt }

// Complete says whether the whole file was read, with its last signature and index.
func (v *Verifier) Complete() bool { return v.done && v.final && v.err == nil }

// Write takes the next bytes of the file. It keeps no reference to p. When it returns
// an error, bytes up to Offset are still good.
func (v *Verifier) Write(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	v.buf = append(v.buf, p...)
	used := 0
	for {
		n, err := v.step(v.buf[used:])
		if err != nil {
			v.err = err
			break
		}
		used += n
		v.off += int64(n)
		if n == 0 {
			break
		}
	}
	v.buf = append(v.buf[:0], v.buf[used:]...)
	if v.err != nil {
		return 0, v.err
	}
	return len(p), nil
}

// DropRest forgets what came after the last whole block; the next bytes are expected at Offset.
func (v *Verifier) DropRest() { v.buf = nil }

// place is where the next block goes.
type place struct {
	off  int64
	seq  uint64
	prev [32]byte
}

// resume is where a writer goes on after a crash: behind the last whole block, or
// where the index stands, which is made anew.
func (v *Verifier) resume() place {
	if v.index > 0 {
		return v.indexAt
	}
	return place{off: v.off, seq: v.seq, prev: v.prev}
}

// step verifies the first whole thing in b and says how long it is; 0 when b holds
// less.
func (v *Verifier) step(b []byte) (int, error) {
	switch {
	case !v.begun:
		if len(b) < len(fileMagic) {
			return 0, nil
		}
		magic := b[:len(fileMagic)]
		var err error
		if v.sealed, err = magicOf(magic); err != nil {
			return 0, fmt.Errorf("recording: verify: %w", err)
		}
		v.begun, v.prev = true, chainStart(string(magic))
		v.alt = v.prev
		return len(fileMagic), nil
	case v.done:
		if len(b) == 0 {
			return 0, nil
		}
		return len(b), v.problem("there are %d bytes after the end", len(b))
	case v.index > 0:
		if len(b) < trailerSize {
			return 0, nil
		}
		v.done = true
		if !isTrailer(b[:trailerSize], v.index) {
			return trailerSize, v.problem("the end of the file was changed")
		}
		return trailerSize, nil
	case len(b) < headerSize:
		return 0, nil
	}
	h, err := decodeHeader(b)
	if err != nil {
		return v.resync(b)
	}
	size := headerSize + int(h.stored)
	if len(b) < size {
		return 0, nil
	}
	v.lost = false
	return size, v.block(h, b[:signedSize], b[headerSize:size])
}

// resync goes on at the next header, in a report; a receiver stops here.
func (v *Verifier) resync(b []byte) (int, error) {
	if !v.lost {
		if err := v.problem("what follows block %d cannot be read", int64(v.seq)-1); err != nil {
			return 0, err
		}
		v.lost = true
	}
	if i := bytes.Index(b[1:], []byte(blockMagic)); i >= 0 {
		return 1 + i, nil
	}
	return len(b) - len(blockMagic) + 1, nil
}

// block checks one block in its place.
func (v *Verifier) block(h header, signed, payload []byte) error {
	prev := v.prev
	chain := chainNext(prev, signed, payload)
	if chain != h.chain && v.alt != prev {
		if c := chainNext(v.alt, signed, payload); c == h.chain {
			prev, chain = v.alt, c
		}
	}
	good := chain == h.chain && h.seq == v.seq
	if !good {
		if err := v.misfit(h, payload); err != nil {
			return err
		}
	}
	v.prev, v.alt = h.chain, chain
	v.seq = h.seq + 1
	if good && h.firstAt() < v.lastAt {
		if err := v.problem("block %d begins earlier, at %s", h.seq, Clock(h.firstAt())); err != nil {
			return err
		}
	}
	if v.final && h.typ != blockIndex {
		if err := v.problem("block %d follows the last signature", h.seq); err != nil {
			return err
		}
	}
	if (h.seq == 0) != (h.typ == blockMeta) {
		if err := v.problem("block %d should not be here", h.seq); err != nil {
			return err
		}
	}
	switch h.typ {
	case blockMeta:
		return v.metaBlock(payload)
	case blockFrame:
		return v.frame(h, payload, good)
	case blockCheckpoint:
		return v.checkpoint(h, prev, payload, good)
	case blockCountersignature:
		return v.countersignature(payload)
	case blockKey:
		return v.keyBlock(h, payload)
	case blockOutline:
		return v.outline(h, payload)
	}
	v.indexAt = place{off: v.off, seq: h.seq, prev: prev}
	return v.indexBlock(h, payload, good)
}

// misfit finds the words for a block that is not what the chain says.
func (v *Verifier) misfit(h header, payload []byte) error {
	switch {
	case crc32.Checksum(payload, castagnoli) != h.sum:
		return v.problem("block %d (up to %s) was changed", h.seq, Clock(h.lastAt()))
	case h.seq > v.seq:
		if len(v.missing) < maxProblems {
			v.missing = append(v.missing, [2]uint64{v.seq, h.seq})
		}
		return v.problem("blocks %d to %d are missing: cut out, moved, or what follows is from another recording", v.seq, h.seq-1)
	case h.seq < v.seq:
		for _, m := range v.missing {
			if m[0] <= h.seq && h.seq < m[1] {
				return v.problem("block %d stands after block %d: moved, or swapped with it", h.seq, v.seq-1)
			}
		}
		return v.problem("block %d stands here again, after block %d: repeated, or put in", h.seq, v.seq-1)
	}
	return v.problem("block %d (up to %s) does not follow from what is before it: changed, or from another recording", h.seq, Clock(h.lastAt()))
}

func (v *Verifier) metaBlock(payload []byte) error {
	if err := json.Unmarshal(payload, &v.meta); err != nil {
		return v.problem("the description cannot be read")
	}
	if v.meta.Sealed != v.sealed {
		if err := v.problem("the description does not say whether the recording is sealed as it is"); err != nil {
			return err
		}
	}
	v.metaRaw = bytes.Clone(payload)
	v.metaSum = sha256.Sum256(payload)
	v.key = v.meta.PublicKey
	return nil
}

func (v *Verifier) frame(h header, payload []byte, good bool) error {
	v.covered = false
	v.report.Frames++
	v.report.Events += int(h.events)
	v.lastAt = max(v.lastAt, h.lastAt())
	v.journal = max(v.journal, h.journal)
	if v.sealed != (h.flags&flagSealed != 0) || v.sealed && v.keyless {
		if err := v.problem("block %d is sealed where it should not be, or is not where it should", h.seq); err != nil {
			return err
		}
	}
	if !v.lenient {
		return nil
	}
	v.frames = append(v.frames, frameInfo(h, v.off))
	if !good {
		return nil
	}
	if h.flags&flagSealed != 0 {
		var err error
		payload, err = v.openFrame(h, payload)
		if err != nil || payload == nil {
			return err
		}
	}
	raw, err := decompress(v.dec, h, payload)
	if err == nil {
		_, _, err = decodeFrame(h, raw)
	}
	if err != nil {
		return v.problem("block %d (up to %s) cannot be read", h.seq, Clock(h.lastAt()))
	}
	return nil
}

func (v *Verifier) checkpoint(h header, prev [32]byte, payload []byte, good bool) error {
	next, ok := checkCheckpoint(h, prev, v.key, payload)
	v.key = next
	v.final = v.final || h.flags&flagFinal != 0
	if !ok {
		if !good {
			return nil // said already
		}
		return v.problem("the signature of what is between %s and %s does not fit: something in there is not as it was recorded",
			Clock(v.proven), Clock(h.lastAt()))
	}
	v.points.add(point{h.seq, h.chain, h.last})
	if len(v.report.Problems) == 0 {
		v.proven, v.signed = h.lastAt(), v.off+headerSize+checkpointSize
		v.covered = true
	}
	return nil
}

func (v *Verifier) countersignature(payload []byte) error {
	var c Countersignature
	err := json.Unmarshal(payload, &c)
	if err == nil && c.Chain != nil {
		return v.progress(c)
	}
	if err != nil || !c.valid(v.metaSum) {
		return v.problem("the hub's signature of the start does not fit")
	}
	if len(v.report.Countersignatures) < maxCountersignatures {
		v.report.Countersignatures = append(v.report.Countersignatures, c)
	}
	return nil
}

func (v *Verifier) indexBlock(h header, payload []byte, good bool) error {
	v.index = v.off
	if !v.final {
		if err := v.problem("the index comes before the last signature"); err != nil {
			return err
		}
	}
	if !v.lenient || !good {
		return nil
	}
	raw, err := decompress(v.dec, h, payload)
	if err == nil && !bytes.Equal(raw, appendIndex(nil, v.frames)) {
		err = errFrame
	}
	if err != nil && len(v.report.Problems) == 0 {
		return v.problem("the index does not describe this file")
	}
	return nil
}

// problem ends a strict verifier and is noted by a lenient one.
func (v *Verifier) problem(format string, args ...any) error {
	words := Clock(v.lastAt) + ": " + fmt.Sprintf(format, args...)
	if !v.lenient {
		return errors.New("recording: verify: " + words)
	}
	switch n := len(v.report.Problems); {
	case n < maxProblems:
		v.report.Problems = append(v.report.Problems, words)
	case n == maxProblems:
		v.report.Problems = append(v.report.Problems, Clock(v.lastAt)+": and more")
	}
	return nil
}

// finish is the end of the file.
func (v *Verifier) finish() (Report, error) {
	if !v.begun {
		return Report{}, errors.New("recording: verify: this is not a recording")
	}
	unsealed := !v.covered && v.lastAt > v.proven
	switch {
	case v.done:
	case len(v.buf) > 0 && !v.lost:
		_ = v.problem("the file ends inside a block: it was cut, or is being written") // lenient: never an error
	case v.final:
		_ = v.problem("the index at the end is missing")
	case unsealed:
		_ = v.problem("the file ends without the last signature: it was cut, or is still being recorded; what is after %s is not signed", Clock(v.proven))
	default:
		_ = v.problem("the file ends without the last signature: it was cut, or is still being recorded")
	}
	r := v.report
	r.ID, r.Meta, r.Ends, r.ProvenUntil = v.meta.ID, v.meta, v.lastAt, v.proven
	r.Complete = v.done && v.final
	r.SelfAttested = v.meta.SelfAttested
	if r.Sealed = v.sealed; r.Sealed {
		r.Opened = !v.unopen && !v.keyless
		r.SealedTo = v.sealedTo
	}
	return r, nil
}

// Clock is a time in a recording, in the words of players: 1:02:03.4.
func Clock(d time.Duration) string {
	d = d.Round(100 * time.Millisecond)
	return fmt.Sprintf("%d:%02d:%02d.%d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60, d.Milliseconds()%1000/100)
}

func newDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("recording: zstd: %w", err)
	}
	return d, nil
}

// decompress returns the payload of h as it was before compression; no more than the
// header says, which is bounded.
func decompress(d *zstd.Decoder, h header, payload []byte) ([]byte, error) {
	raw, err := d.DecodeAll(payload, make([]byte, 0, min(h.raw, 1<<20)))
	if err != nil {
		return nil, err
	}
	if len(raw) != int(h.raw) {
		return nil, errFrame
	}
	return raw, nil
}
