package recording

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

const (
	fileMagic    = "tsshrecording1\r\n"
	sealedMagic  = "tsshrecording2\r\n"
	anyMagic     = "tsshrecording"
	blockMagic   = "tsrb"
	trailerMagic = "tssh rec index\r\n"

	headerSize  = 96
	signedSize  = 64 // the part of a header that is hashed
	trailerSize = 8 + len(trailerMagic)

	// maxStored and maxRaw bound a block before anything is allocated for it.
	maxStored = 5 << 20
	maxRaw    = 4 << 20
	maxMeta   = 64 << 10
	// maxEvents bounds a frame's: twice what the smallest events make of FrameBytes. A
	// frame is a few hundred bytes where all its events are the same, and tens of megabytes
	// once they are apart.
	maxEvents = 2 * FrameBytes / 4
)

type blockType uint8

const (
	blockMeta blockType = 1 + iota
	blockFrame
	blockCheckpoint
	blockCountersignature
	blockIndex
	blockKey
	blockOutline
)

const (
	flagKeyframe = 1
	flagFinal    = 2
	flagSealed   = 4
)

// header is a block's, as doc.go has it.
type header struct {
	typ     blockType
	flags   uint8
	seq     uint64
	stored  uint32
	raw     uint32
	events  uint32
	sum     uint32
	first   int64
	last    int64
	journal int64
	wall    int64
	chain   [32]byte
}

func (h *header) encode() [headerSize]byte {
	var b [headerSize]byte
	copy(b[:], blockMagic)
	b[4], b[5] = byte(h.typ), h.flags
	le := binary.LittleEndian
	le.PutUint64(b[8:], h.seq)
	le.PutUint32(b[16:], h.stored)
	le.PutUint32(b[20:], h.raw)
	le.PutUint32(b[24:], h.events)
	le.PutUint32(b[28:], h.sum)
	le.PutUint64(b[32:], uint64(h.first))
	le.PutUint64(b[40:], uint64(h.last))
	le.PutUint64(b[48:], uint64(h.journal))
	le.PutUint64(b[56:], uint64(h.wall))
	copy(b[64:], h.chain[:])
	return b
}

var errHeader = errors.New("not a block header")

// decodeHeader reads a header and refuses one that no writer of ours could have made.
func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize || string(b[:4]) != blockMagic {
		return header{}, errHeader
	}
	le := binary.LittleEndian
	h := header{
		typ:     blockType(b[4]),
		flags:   b[5],
		seq:     le.Uint64(b[8:]),
		stored:  le.Uint32(b[16:]),
		raw:     le.Uint32(b[20:]),
		events:  le.Uint32(b[24:]),
		sum:     le.Uint32(b[28:]),
		first:   int64(le.Uint64(b[32:])),
		last:    int64(le.Uint64(b[40:])),
		journal: int64(le.Uint64(b[48:])),
		wall:    int64(le.Uint64(b[56:])),
	}
	copy(h.chain[:], b[64:])
	const at = int64(maxAt / time.Microsecond)
	ok := b[6] == 0 && b[7] == 0 && h.stored <= maxStored && h.raw <= maxRaw && h.events <= maxEvents &&
		0 <= h.first && h.first <= h.last && h.last <= at && h.journal >= 0 && h.seq < 1<<48
	switch h.typ {
	case blockMeta:
		ok = ok && h.seq == 0 && h.flags == 0 && h.stored == h.raw && h.stored <= maxMeta
	case blockFrame:
		ok = ok && h.flags&^(flagKeyframe|flagSealed) == 0 && h.events > 0 && h.stored > 0
	case blockCheckpoint:
		ok = ok && h.flags&^flagFinal == 0 && h.stored == checkpointSize && h.raw == checkpointSize
	case blockCountersignature, blockKey, blockOutline:
		ok = ok && h.flags == 0 && h.stored == h.raw && h.stored <= maxMeta
	case blockIndex:
		ok = ok && h.flags == 0
	default:
		ok = false
	}
	if !ok {
		return header{}, errHeader
	}
	return h, nil
}

func (h *header) firstAt() time.Duration { return time.Duration(h.first) * time.Microsecond }
func (h *header) lastAt() time.Duration  { return time.Duration(h.last) * time.Microsecond }

// chainStart stands before block 0 of a file that begins with magic.
func chainStart(magic string) [32]byte { return sha256.Sum256([]byte(magic)) }

// magicOf says what a file is by its first bytes.
func magicOf(b []byte) (sealed bool, err error) {
	switch s := string(b); {
	case s == fileMagic:
		return false, nil
	case s == sealedMagic:
		return true, nil
	case len(s) == len(fileMagic) && strings.HasPrefix(s, anyMagic):
		return false, errors.New("this recording is of a later version of the format; a newer tssh reads it")
	}
	return false, errors.New("this is not a recording")
}

func chainNext(prev [32]byte, signed, payload []byte) [32]byte {
	s := sha256.New()
	s.Write(prev[:])
	s.Write(signed)
	s.Write(payload)
	var sum [32]byte
	s.Sum(sum[:0])
	return sum
}

// makeBlock finishes h for payload and returns the block's bytes.
func makeBlock(h *header, prev [32]byte, payload []byte) []byte {
	h.stored = uint32(len(payload))
	h.sum = crc32.Checksum(payload, castagnoli)
	b := h.encode()
	h.chain = chainNext(prev, b[:signedSize], payload)
	copy(b[signedSize:], h.chain[:])
	return append(append(make([]byte, 0, headerSize+len(payload)), b[:]...), payload...)
}

// WholeBlocks is how much of b, which begins with a block, or with the file where start is set, are
// whole blocks (and what follows the last), by what their headers say.
func WholeBlocks(b []byte, start bool) int {
	n := 0
	if start {
		n = len(fileMagic)
	}
	for n <= len(b) {
		h, err := decodeHeader(b[n:])
		if err != nil {
			break
		}
		next := n + headerSize + int(h.stored)
		if h.typ == blockIndex {
			next += trailerSize
		}
		if next > len(b) {
			break
		}
		n = next
	}
	if n > len(b) || start && n == len(fileMagic) {
		return 0
	}
	return n
}

// Screen is one terminal in a keyframe.
type Screen struct {
	Channel    uint32
	Cols, Rows int
	ANSI       []byte // repaints it
}

// Keyframe is what all terminals of a connection showed at one moment.
type Keyframe struct {
	At      time.Duration
	Screens []Screen
}

// maxScreens and maxScreen bound a keyframe, and so what the monitor holds for a
// connection.
const (
	maxScreens = 16
	maxScreen  = 256 << 10
)

func appendScreens(b []byte, screens []Screen) []byte {
	b = binary.AppendUvarint(b, uint64(len(screens)))
	for _, s := range screens {
		b = binary.AppendUvarint(b, uint64(s.Channel))
		b = binary.AppendUvarint(b, uint64(s.Cols))
		b = binary.AppendUvarint(b, uint64(s.Rows))
		b = binary.AppendUvarint(b, uint64(len(s.ANSI)))
		b = append(b, s.ANSI...)
	}
	return b
}

func appendEvent(b []byte, ev Event, prev int64) []byte {
	b = binary.AppendUvarint(b, uint64(ev.At.Microseconds()-prev))
	b = binary.AppendUvarint(b, uint64(ev.Channel))
	b = append(b, byte(ev.Kind))
	b = binary.AppendUvarint(b, uint64(len(ev.Data)))
	return append(b, ev.Data...)
}

var errFrame = errors.New("frame is not well-formed")

// frameReader takes a decompressed frame apart.
type frameReader struct{ b []byte }

func (r *frameReader) uvarint(limit uint64) (uint64, error) {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit {
		return 0, errFrame
	}
	r.b = r.b[n:]
	return v, nil
}

func (r *frameReader) bytes(limit uint64) ([]byte, error) {
	n, err := r.uvarint(min(limit, uint64(len(r.b))))
	if err != nil || n > uint64(len(r.b)) {
		return nil, errFrame
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v, nil
}

func (r *frameReader) screens() ([]Screen, error) {
	n, err := r.uvarint(maxScreens)
	if err != nil {
		return nil, err
	}
	out := make([]Screen, n)
	for i := range out {
		var v [3]uint64
		for j, limit := range [...]uint64{0xffffffff, 1 << 16, 1 << 16} {
			if v[j], err = r.uvarint(limit); err != nil {
				return nil, err
			}
		}
		out[i] = Screen{Channel: uint32(v[0]), Cols: int(v[1]), Rows: int(v[2])}
		if out[i].ANSI, err = r.bytes(maxScreen); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// decodeFrame takes the decompressed payload of h apart. Events and screens point
// into b. Everything the header says about it must be so.
func decodeFrame(h header, b []byte) (events []Event, key *Keyframe, err error) {
	r := frameReader{b}
	if h.flags&flagKeyframe != 0 {
		key = &Keyframe{At: h.firstAt()}
		if key.Screens, err = r.screens(); err != nil {
			return nil, nil, fmt.Errorf("keyframe: %w", err)
		}
	}
	if uint64(h.events)*4 > uint64(len(r.b)) { // an event takes four bytes at least
		return nil, nil, errFrame
	}
	events = make([]Event, 0, h.events)
	at := h.first
	for len(r.b) > 0 {
		dt, err := r.uvarint(uint64(h.last - at))
		if err != nil {
			return nil, nil, err
		}
		ch, err := r.uvarint(0xffffffff)
		if err != nil {
			return nil, nil, err
		}
		if len(r.b) == 0 {
			return nil, nil, errFrame
		}
		k := Kind(r.b[0])
		r.b = r.b[1:]
		data, err := r.bytes(MaxEventData)
		if err != nil {
			return nil, nil, err
		}
		at += int64(dt)
		if len(events) == 0 && dt != 0 {
			return nil, nil, errFrame
		}
		events = append(events, Event{At: time.Duration(at) * time.Microsecond, Channel: uint32(ch), Kind: k, Data: data})
	}
	if len(events) != int(h.events) || at != h.last {
		return nil, nil, errFrame
	}
	return events, key, nil
}

// isTrailer says whether b is the end of a finished file whose index is at off.
func isTrailer(b []byte, off int64) bool {
	return bytes.Equal(b, appendTrailer(nil, off))
}

func appendTrailer(b []byte, off int64) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(off)), trailerMagic...)
}
