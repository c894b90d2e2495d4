package ship

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"tssh/recording"
)

// TestNothingIsSentTwice: appends end with a whole block, so that the recorder takes all of each.
func TestNothingIsSentTwice(t *testing.T) {
	r := newRecorder(t)
	var sent atomic.Int64
	r.trick.Store(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodPut {
			sent.Add(req.ContentLength)
		}
		return false
	})
	h := newHost(t, r)
	x, j, _ := h.begin()
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	if err := j.Append(1, recording.KindOutput, noise); err != nil {
		t.Fatal(err)
	}
	if err := x.Finish("closed", ""); err != nil {
		t.Fatal(err)
	}
	until(t, "all is acknowledged", time.Minute, func() bool { h.sent.Kick(); return len(h.sp.Recordings()) == 0 })
	size, complete, err := r.store.Size("n-web", x.ID())
	if err != nil || !complete || size < int64(len(noise)) {
		t.Fatalf("%d bytes are there, complete %v, %v", size, complete, err)
	}
	if sent.Load() != size {
		t.Errorf("%d bytes were sent for %d", sent.Load(), size)
	}
}
