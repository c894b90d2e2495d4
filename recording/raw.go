package recording

import (
	"encoding/binary"
	"fmt"
)

// RawBlock is a block as it is in the file, header and all.
type RawBlock struct {
	Offset int64
	Bytes  []byte
}

// RawFrame is the block of frame i, sealed where the recording is: for whoever has the key, and is elsewhere.
func (f *Reader) RawFrame(i int) (RawBlock, error) {
	if i < 0 || i >= len(f.frames) {
		return RawBlock{}, fmt.Errorf("recording: frame %d: there are %d", i, len(f.frames))
	}
	return f.raw(f.frames[i].Offset)
}

// Heads are the blocks without which no frame opens: the description, and of a sealed recording the key blocks of its
// frames, in their order.
func (f *Reader) Heads() ([]RawBlock, error) {
	first, err := f.raw(int64(len(fileMagic)))
	if err != nil {
		return nil, err
	}
	out := []RawBlock{first}
	for _, off := range f.keyBlocks() {
		b, err := f.raw(off)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (f *Reader) raw(off int64) (RawBlock, error) {
	h, err := readHeader(f.r, off, f.size)
	if err != nil {
		return RawBlock{}, fmt.Errorf("recording: block at %d: %w", off, err)
	}
	b := make([]byte, headerSize+int(h.stored))
	if _, err := f.r.ReadAt(b, off); err != nil {
		return RawBlock{}, fmt.Errorf("recording: block at %d: %w", off, err)
	}
	return RawBlock{off, b}, nil
}

// keyBlocks says where the key blocks of the frames are, at most maxEpochs of them. Each frame is looked at once.
func (f *Reader) keyBlocks() []int64 {
	if !f.sealed {
		return nil
	}
	for ; f.keysOf < len(f.frames) && len(f.keysAt) < maxEpochs; f.keysOf++ {
		info := f.frames[f.keysOf]
		var at [sealPrefix]byte
		if _, err := f.r.ReadAt(at[:], info.Offset+headerSize); err != nil {
			break
		}
		off := int64(binary.LittleEndian.Uint64(at[:]))
		if n := len(f.keysAt); off <= 0 || off >= info.Offset || n > 0 && f.keysAt[n-1] == off {
			continue
		}
		if h, err := readHeader(f.r, off, f.size); err == nil && h.typ == blockKey {
			f.keysAt = append(f.keysAt, off)
		}
	}
	return f.keysAt
}
