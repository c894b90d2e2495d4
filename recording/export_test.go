package recording

import (
	"bytes"
	"os"
)

// NewStart is what the spool sends to a hub.
var NewStart = newStart

// WeakKeys and StartMessage are what verification stands on.
var (
	WeakKeys     = weakKeys
	StartMessage = startMessage
)

// OnSync puts fn in the place of what makes the journal durable.
func OnSync(j *Journal, fn func() error) { j.sync = fn }

// Rechain rewrites the block at off and makes every chain value after it anew, as
// somebody without the key can. change gives the new payload; nil moves the wall clock.
func Rechain(b []byte, off int64, change func([]byte) []byte) []byte {
	out := bytes.Clone(b[:len(fileMagic)])
	prev := chainStart(string(b[:len(fileMagic)]))
	for at := int64(len(fileMagic)); ; {
		h, err := decodeHeader(b[at:])
		if err != nil {
			return append(out, b[at:]...)
		}
		payload := b[at+headerSize : at+headerSize+int64(h.stored)]
		size := headerSize + int64(h.stored)
		if at == off {
			if change != nil {
				payload = change(payload)
			} else {
				h.wall += 1e6
			}
		}
		out = append(out, makeBlock(&h, prev, payload)...)
		prev, at = h.chain, at+size
	}
}

// Flush reads the journal and makes a durable frame of it, without a signature.
func (x *Session) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.drainLocked(64); err != nil {
		return err
	}
	if err := x.sealLocked(); err != nil {
		return err
	}
	return x.syncLocked()
}

// ReadRecords are the whole records at the start of a journal.
func ReadRecords(b []byte) (evs []Event) {
	for {
		ev, n, err := readJournalRecord(b)
		if err != nil {
			return evs
		}
		evs, b = append(evs, ev), b[n:]
	}
}

// AppendRecord is a record as a hostile process may write it.
func AppendRecord(b []byte, at int64, ch uint32, k Kind, data []byte) []byte {
	return appendJournalRecord(b, at, ch, k, data)
}

// FillDisk gives the recording a file that takes nothing, until the function it
// returns is called.
func (x *Session) FillDisk(t interface{ Fatal(...any) }) (restore func()) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.w.f
	x.w.f = full
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.w.f = old
		full.Close()
	}
}
