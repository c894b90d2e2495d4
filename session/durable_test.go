package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeepDurable is the time without a monitor: at once, then every two seconds, until
// there is one, and not again after a failure.
func TestKeepDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		pass := func(err error) error { return err }
		go keepDurable(ctx, func() error { n++; return nil }, pass)
		synctest.Wait()
		if n != 1 {
			t.Errorf("%d at the start", n)
		}
		time.Sleep(10*durableEvery + time.Millisecond)
		if n != 11 {
			t.Errorf("%d after ten rounds", n)
		}
		cancel()
		time.Sleep(time.Hour)
		if n != 11 {
			t.Errorf("went on: %d", n)
		}
		gone := errors.New("gone")
		n = 0
		keepDurable(t.Context(), func() error { n++; return gone }, pass)
		if n != 1 {
			t.Errorf("%d after a failure", n)
		}
	})
}
