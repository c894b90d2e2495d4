package recording

import (
	"testing"
	"time"
)

// TestFrameBombs: a frame of a few hundred bytes must not become a million events in
// whoever reads it, and a writer never makes one that is refused.
func TestFrameBombs(t *testing.T) {
	h := header{typ: blockFrame, stored: 200, raw: maxRaw, events: maxRaw / 4}
	b := h.encode()
	if _, err := decodeHeader(b[:]); err == nil {
		t.Errorf("a frame of %d events was read", h.events)
	}
	h.events = FrameBytes/4 + 1 // as many as fit before it is closed
	b = h.encode()
	if _, err := decodeHeader(b[:]); err != nil {
		t.Error(err)
	}
	var raw []byte
	n := uint32(0)
	for ; len(raw) < FrameBytes; n++ {
		raw = appendEvent(raw, Event{At: time.Second, Channel: 1, Kind: KindClose}, time.Second.Microseconds())
	}
	if n > maxEvents/2+1 {
		t.Errorf("a writer can put %d events into a frame", n)
	}
}
