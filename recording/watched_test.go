package recording_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
)

// TestWatchedRecordingsAreCutSooner: what a watched session shows is durable a moment later, a
// flood makes few frames all the same, and afterwards all is as before.
func TestWatchedRecordingsAreCutSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hurried atomic.Int32
		dir := t.TempDir()
		s := openSpool(t, recording.SpoolConfig{Dir: dir, MinFree: 1, Hurry: func() { hurried.Add(1) }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }() // ends with ctx
		defer func() { cancel(); <-done }()
		x, j := begin(t, s, testMeta())
		frames := func() int {
			b, err := os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			return len(r.Index())
		}
		time.Sleep(5 * time.Second)
		until := func(n int) time.Duration {
			t.Helper()
			began := time.Now()
			for frames() < n {
				if time.Since(began) > 10*time.Second {
					t.Fatalf("%d frames, not %d", frames(), n)
				}
				time.Sleep(time.Millisecond)
			}
			return time.Since(began)
		}
		key := func() { j.Append(1, recording.KindOutput, []byte("k")) }
		key()
		if took := until(1); took < time.Second {
			t.Errorf("a frame after %v while nobody watches", took)
		}
		if hurried.Load() != 0 {
			t.Error("hurried for nobody")
		}
		s.Watch(x.ID(), true)
		time.Sleep(time.Second)
		key()
		took := until(2)
		synctest.Wait() // it is synced and told after it can be read
		if took > 60*time.Millisecond || hurried.Load() == 0 {
			t.Errorf("the first key of a watched session is in a frame after %v, hurried %d times", took, hurried.Load())
		}
		for range 500 { // five seconds of keys
			key()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := frames(); n < 20 || n > 29 {
			t.Errorf("%d frames of five seconds", n-2)
		}
		s.Watch(x.ID(), false)
		n := frames()
		time.Sleep(time.Second)
		key()
		if took := until(n + 1); took < time.Second {
			t.Errorf("a frame after %v when nobody watches any more", took)
		}
		s.Watch("nothing", true)
		if err := x.Finish("closed", ""); err != nil {
			t.Fatal(err)
		}
		s.Watch(x.ID(), true)
	})
}
