package recording

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// FrameInfo is one frame in a file's index.
type FrameInfo struct {
	Offset      int64 // of the block
	Size        int64 // of the block, header included
	Seq         uint64
	Events      int
	First, Last time.Duration
	Wall        time.Time // when it was written
	Keyframe    bool
}

func frameInfo(h header, off int64) FrameInfo {
	return FrameInfo{
		Offset: off, Size: headerSize + int64(h.stored), Seq: h.seq, Events: int(h.events),
		First: h.firstAt(), Last: h.lastAt(), Wall: time.UnixMicro(h.wall).UTC(), Keyframe: h.flags&flagKeyframe != 0,
	}
}

func appendIndex(b []byte, frames []FrameInfo) []byte {
	var p FrameInfo
	p.Wall = time.UnixMicro(0)
	for _, f := range frames {
		b = binary.AppendUvarint(b, uint64(f.Offset-p.Offset))
		b = binary.AppendUvarint(b, f.Seq-p.Seq)
		b = binary.AppendUvarint(b, uint64(f.Size-headerSize))
		flags := byte(0)
		if f.Keyframe {
			flags = flagKeyframe
		}
		b = append(b, flags)
		b = binary.AppendUvarint(b, uint64(f.Events))
		b = binary.AppendVarint(b, (f.First - p.First).Microseconds())
		b = binary.AppendVarint(b, (f.Last - p.Last).Microseconds())
		b = binary.AppendVarint(b, f.Wall.Sub(p.Wall).Microseconds())
		p = f
	}
	return b
}

// readIndex takes an index apart; size bounds what it may speak of.
func readIndex(b []byte, size int64) ([]FrameInfo, error) {
	var out []FrameInfo
	p := FrameInfo{Wall: time.UnixMicro(0).UTC()}
	for len(b) > 0 {
		var u [4]uint64
		var s [3]int64
		var flags byte
		next := func(n int) bool {
			if n <= 0 {
				return false
			}
			b = b[n:]
			return true
		}
		for i := range u {
			if i == 3 {
				if len(b) == 0 {
					return nil, errFrame
				}
				flags, b = b[0], b[1:]
			}
			v, n := binary.Uvarint(b)
			if u[i] = v; !next(n) {
				return nil, errFrame
			}
		}
		for i := range s {
			v, n := binary.Varint(b)
			if s[i] = v; !next(n) {
				return nil, errFrame
			}
		}
		if u[0] > uint64(size) || u[1] > 1<<48 || u[2] > maxStored || u[3] > maxRaw || flags > flagKeyframe {
			return nil, errFrame
		}
		const at = int64(maxAt / time.Microsecond)
		if s[0] < -at || s[0] > at || s[1] < -at || s[1] > at || s[2] < -1<<52 || s[2] > 1<<52 {
			return nil, errFrame
		}
		f := FrameInfo{
			Offset: p.Offset + int64(u[0]), Size: headerSize + int64(u[2]), Seq: p.Seq + u[1], Events: int(u[3]),
			First: p.First + time.Duration(s[0])*time.Microsecond, Last: p.Last + time.Duration(s[1])*time.Microsecond,
			Wall: p.Wall.Add(time.Duration(s[2]) * time.Microsecond), Keyframe: flags == flagKeyframe,
		}
		if f.Offset < p.Offset+p.Size || f.Offset+f.Size > size || f.First < p.Last || f.Last < f.First || f.Last > maxAt {
			return nil, errFrame
		}
		out, p = append(out, f), f
	}
	return out, nil
}

// Reader is a recording opened for reading. It is not safe for concurrent use. It does
// not verify signatures: Verify does.
type Reader struct {
	r        io.ReaderAt
	dec      *zstd.Decoder
	meta     Meta
	frames   []FrameInfo
	size     int64 // as given
	end      int64 // of the last whole block
	lastSeq  uint64
	complete bool
	sealed   bool
	first    int64 // offset of the block after the description
	opener   *opener
	keysAt   []int64 // where the key blocks of the first keysOf frames are
	keysOf   int
}

// NewReader reads the description and the index of a recording, or the headers of its
// blocks if it has no index (yet). What is after the last whole block is ignored.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	return (*Keys)(nil).NewReader(r, size)
}

// NewReader is the function of this name, for a recording that may be sealed to one of the
// keys. One that is sealed to others opens as well: Frame gives a *SealedError then.
func (k *Keys) NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	f := &Reader{r: r}
	var err error
	if f.dec, err = newDecoder(); err != nil {
		return nil, err
	}
	magic := make([]byte, len(fileMagic))
	if n, _ := r.ReadAt(magic, 0); n < len(magic) {
		magic = magic[:n]
	}
	if f.sealed, err = magicOf(magic); err != nil {
		return nil, fmt.Errorf("recording: open: %w", err)
	}
	h, payload, err := readBlock(r, int64(len(fileMagic)), size)
	if err != nil {
		return nil, fmt.Errorf("recording: open: description: %w", err)
	}
	if err := json.Unmarshal(payload, &f.meta); err != nil || h.typ != blockMeta {
		return nil, errors.New("recording: open: the description cannot be read")
	}
	f.end = int64(len(fileMagic)) + headerSize + int64(h.stored)
	f.first, f.opener = f.end, newOpener(k, sha256.Sum256(payload))
	f.size = size
	if f.fromIndex() {
		return f, nil
	}
	return f, f.scan()
}

// fromIndex reads the index at the end. A file without a good one is scanned.
func (f *Reader) fromIndex() bool {
	if f.size < f.end+headerSize+int64(trailerSize) {
		return false
	}
	trailer := make([]byte, trailerSize)
	if _, err := f.r.ReadAt(trailer, f.size-int64(trailerSize)); err != nil {
		return false
	}
	off := int64(binary.LittleEndian.Uint64(trailer))
	if off < f.end || off > f.size || !isTrailer(trailer, off) {
		return false
	}
	h, payload, err := readBlock(f.r, off, f.size)
	if err != nil || h.typ != blockIndex || h.raw == 0 {
		return false
	}
	raw, err := decompress(f.dec, h, payload)
	if err != nil {
		return false
	}
	frames, err := readIndex(raw, off)
	if err != nil {
		return false
	}
	f.frames, f.end, f.lastSeq, f.complete = frames, f.size, h.seq, true
	return true
}

// scan reads headers from where it stopped before.
func (f *Reader) scan() error {
	for {
		h, err := readHeader(f.r, f.end, f.size)
		if err == io.EOF || errors.Is(err, errHeader) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("recording: open: %w", err)
		}
		switch h.typ {
		case blockFrame:
			f.frames = append(f.frames, frameInfo(h, f.end))
		case blockIndex:
			trailer := make([]byte, trailerSize)
			end := f.end + headerSize + int64(h.stored)
			if n, _ := f.r.ReadAt(trailer, end); n == trailerSize && isTrailer(trailer, f.end) && f.size == end+int64(trailerSize) {
				f.complete, f.lastSeq, f.end = true, h.seq, f.size
				return nil
			}
		}
		f.lastSeq = h.seq
		f.end += headerSize + int64(h.stored)
	}
}

// Refresh looks for blocks written since; size is the file's now. It is cheap when
// nothing was.
func (f *Reader) Refresh(size int64) error {
	if f.complete || size <= f.size {
		return nil
	}
	f.size = size
	return f.scan()
}

// readHeader reads the header at off; io.EOF when the block is not whole.
func readHeader(r io.ReaderAt, off, size int64) (header, error) {
	if off+headerSize > size {
		return header{}, io.EOF
	}
	var b [headerSize]byte
	if _, err := r.ReadAt(b[:], off); err != nil {
		return header{}, err
	}
	h, err := decodeHeader(b[:])
	if err != nil {
		return header{}, err
	}
	if off+headerSize+int64(h.stored) > size {
		return header{}, io.EOF
	}
	return h, nil
}

func readBlock(r io.ReaderAt, off, size int64) (header, []byte, error) {
	h, err := readHeader(r, off, size)
	if err != nil {
		return header{}, nil, err
	}
	payload := make([]byte, h.stored)
	if _, err := r.ReadAt(payload, off+headerSize); err != nil {
		return header{}, nil, err
	}
	if crc32.Checksum(payload, castagnoli) != h.sum {
		return header{}, nil, errors.New("the bytes do not sum up")
	}
	return h, payload, nil
}

// Meta is the recording's description of itself.
func (f *Reader) Meta() Meta { return f.meta }

// Index lists the frames; the slice is the Reader's.
func (f *Reader) Index() []FrameInfo { return f.frames }

// Complete says whether the recording was closed and has its index.
func (f *Reader) Complete() bool { return f.complete }

// Duration is the time of the last event.
func (f *Reader) Duration() time.Duration {
	if len(f.frames) == 0 {
		return 0
	}
	return f.frames[len(f.frames)-1].Last
}

// Close frees what reading took; the reader stays open.
func (f *Reader) Close() { f.dec.Close() }

// Frame reads frame i: its events, and the keyframe before them if it has one. A frame that is
// sealed to others, in a recording that opens in other parts, is a Gap.
func (f *Reader) Frame(i int) ([]Event, *Keyframe, error) {
	if i < 0 || i >= len(f.frames) {
		return nil, nil, fmt.Errorf("recording: frame %d: there are %d", i, len(f.frames))
	}
	events, key, err := f.frame(f.frames[i])
	var to *SealedError
	if errors.As(err, &to) && f.opensSome() {
		return []Event{f.frames[i].sealedGap(to)}, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("recording: frame %d at %s: %w", i, Clock(f.frames[i].First), err)
	}
	return events, key, nil
}

func (f *Reader) frame(info FrameInfo) ([]Event, *Keyframe, error) {
	h, payload, err := readBlock(f.r, info.Offset, info.Offset+info.Size)
	if err != nil {
		return nil, nil, err
	}
	if h.typ != blockFrame || h.seq != info.Seq || f.sealed != (h.flags&flagSealed != 0) {
		return nil, nil, errFrame
	}
	if f.sealed {
		if payload, err = f.opener.open(h, info.Offset, payload, f.block); err != nil {
			return nil, nil, err
		}
	}
	raw, err := decompress(f.dec, h, payload)
	if err != nil {
		return nil, nil, err
	}
	return decodeFrame(h, raw)
}

// Events calls fn with every event in order, until it returns an error.
func (f *Reader) Events(fn func(Event) error) error {
	return f.EventsFrom(0, fn)
}

// EventsFrom is Events from frame i on.
func (f *Reader) EventsFrom(i int, fn func(Event) error) error {
	for ; i < len(f.frames); i++ {
		events, _, err := f.Frame(i)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := fn(ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// KeyframeBefore is the last frame with a keyframe that begins at or before at; 0 if
// there is none, for there every terminal is still as it began.
func (f *Reader) KeyframeBefore(at time.Duration) int {
	found := 0
	for i, info := range f.frames {
		if info.First > at {
			break
		}
		if info.Keyframe {
			found = i
		}
	}
	return found
}
