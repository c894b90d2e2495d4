package recording_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
)

// TestHubSignsHowMuchItHas ships a running recording to a hub that verifies and signs: once
// a minute, not at all while nothing happens, and only what it has.
func TestHubSignsHowMuchItHas(t *testing.T) {
	_, priv, err := ed25519.GenerateKey(nil)
	must(t, err)
	_, evil, err := ed25519.GenerateKey(nil)
	must(t, err)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		hub := recording.NewVerifier()
		asked, lie := 0, false
		s := openSpool(t, recording.SpoolConfig{Dir: dir,
			Countersign: func(_ context.Context, st recording.Start) (recording.Countersignature, error) {
				return recording.Countersign(priv, st, time.Now())
			},
			Witness: func(_ context.Context, p recording.Seen) (recording.Countersignature, error) {
				asked++
				if !hub.Has(p) {
					return recording.Countersignature{}, errors.New("that is not here")
				}
				if lie {
					p.At++
				}
				return recording.CountersignSeen(priv, p, time.Now())
			}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		x, j := begin(t, s, testMeta())
		path := filepath.Join(dir, x.ID(), "recording.tsr")
		ship := func() {
			p := s.Recordings()[0]
			b, err := os.ReadFile(path)
			must(t, err)
			_, err = hub.Write(b[hub.Offset():p.Durable])
			must(t, err)
			must(t, s.Acked(p.ID, hub.Offset(), false))
		}
		for i := range 5 * 60 {
			must(t, j.Append(1, recording.KindOutput, fmt.Appendf(nil, "%d\n", i)))
			time.Sleep(time.Second)
			ship()
			lie = i == 70 // one answer that is no signature of what was asked
		}
		busy := asked
		if busy < 3 || busy > 6 {
			t.Errorf("asked %d times in five minutes", busy)
		}
		for range 10 * 60 {
			time.Sleep(time.Second)
			ship()
		}
		if asked > busy+2 {
			t.Errorf("asked %d times while nothing happened", asked-busy)
		}
		must(t, x.Finish("closed", ""))
		rep, _ := verified(t, path)
		c, ok := rep.SeenBy(priv.Public().(ed25519.PublicKey))
		if !ok || c.Until() < 4*time.Minute || c.Until() > 6*time.Minute {
			t.Errorf("seen up to %v: %v", c.Until(), ok)
		}
		if _, ok := rep.SeenBy(evil.Public().(ed25519.PublicKey)); ok {
			t.Error("seen by somebody else")
		}
		if n := len(rep.Countersignatures); n != 1 {
			t.Errorf("%d signatures of the start", n)
		}
		cancel()
		must(t, <-done)
	})
}
