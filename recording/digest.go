package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"runtime"
)

// Digest is a running SHA-256. Where there are processors enough it is computed beside what
// else is done with the bytes: a stream then goes as fast as its slower part and not as both
// together. With one or two handing over costs more than it brings (measured: 1.2 ms of
// processor time a MB, and 0.6 in place). One goroutine uses it at a time.
type Digest struct {
	sum  hash.Hash
	busy chan struct{} // holds a token while a piece is being added
}

// fewProcessors are too few to compute beside.
const fewProcessors = 2

// smallPiece is added at once: handing it over would cost more.
const smallPiece = 4 << 10

// NewDigest is of nothing yet.
func NewDigest() *Digest { return &Digest{sum: sha256.New(), busy: make(chan struct{}, 1)} }

// Add adds b, which must stay as it is until the next call has returned.
func (d *Digest) Add(b []byte) {
	d.wait()
	if len(b) <= smallPiece || runtime.GOMAXPROCS(0) <= fewProcessors {
		d.sum.Write(b) // never fails
		return
	}
	d.busy <- struct{}{}
	go d.add(b) // ends with its one piece
}

func (d *Digest) add(b []byte) {
	d.sum.Write(b)
	<-d.busy
}

func (d *Digest) wait() {
	d.busy <- struct{}{}
	<-d.busy
}

// Hex is the sum of what was added.
func (d *Digest) Hex() string {
	d.wait()
	return hex.EncodeToString(d.sum.Sum(nil))
}
