package replay

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// TestSeekInALongRecording: wherever one goes in ten hours, a bounded part of the recording is read for it.
// TSSH_BENCH_MB=200 makes it as long as it is in the promise; the time is logged, not asserted.
func TestSeekInALongRecording(t *testing.T) {
	mb := 1
	fmt.Sscan(os.Getenv("TSSH_BENCH_MB"), &mb)
	w := newWorld(t)
	const hours = 10
	r := rand.New(rand.NewPCG(1, 2))
	line := func() string {
		var b strings.Builder
		for b.Len() < 3900 {
			fmt.Fprintf(&b, "\x1b[3%dm%08x\x1b[0m item %d of %x\r\n", r.IntN(8), r.Uint32(), r.IntN(1000), r.Uint64())
		}
		return b.String()
	}
	n := mb << 20 / 4000
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 120, Rows: 40})
		for range n {
			s.wait(hours*time.Hour/time.Duration(n)).data(1, recording.KindOutput, line())
		}
	})
	began := time.Now()
	path := hub + "/api/recordings/" + id
	d := decode[detailJSON](t, w.ask("GET", path, fromAlice))
	opened := time.Since(began)
	if d.Duration < hours*3600-60 {
		t.Fatalf("%v s", d.Duration)
	}
	for from, want := range map[int]int{len(d.Frames) - 3: 3, len(d.Frames): 0, len(d.Frames) + 9: 0} { // who knows the first frames
		if rest := decode[detailJSON](t, w.ask("GET", fmt.Sprintf("%s?from=%d", path, from), fromAlice)); len(rest.Frames) != want || want > 0 && rest.Frames[0].N != from || rest.Duration != d.Duration {
			t.Errorf("from %d: %d frames, %v s", from, len(rest.Frames), rest.Duration)
		}
	}
	var slowest, sum time.Duration
	most, bytes := 0, 0
	const seeks = 40
	for range seeks {
		began := time.Now()
		at := r.Float64() * d.Duration
		target := 0
		for target+1 < len(d.Frames) && d.Frames[target+1].First <= at {
			target++
		}
		from := target
		for from > 0 && !d.Frames[from].Keyframe {
			from--
		}
		size := 0
		for i := from; i <= target; i++ {
			res := w.ask("GET", fmt.Sprintf("%s/frames/%d", path, i), fromAlice)
			text := body(t, res)
			var f frameJSON
			if res.StatusCode != http.StatusOK || json.Unmarshal([]byte(text), &f) != nil {
				t.Fatalf("frame %d: %d", i, res.StatusCode)
			}
			size += len(text)
		}
		took := time.Since(began)
		slowest, sum = max(slowest, took), sum+took
		most, bytes = max(most, target-from+1), max(bytes, size)
	}
	t.Logf("%d h, %.1f MB of output, %.1f MB recorded, %d frames: opened in %v; a seek %v, at most %v, %d frames, %.2f MB of JSON",
		hours, float64(n)*4000/1e6, float64(d.Size)/1e6, len(d.Frames), opened.Round(time.Millisecond), (sum / seeks).Round(100*time.Microsecond), slowest.Round(100*time.Microsecond), most, float64(bytes)/1e6)
	if most > 32 || bytes > 4<<20 {
		t.Errorf("a seek reads %d frames, %d bytes", most, bytes)
	}
}
