package netmap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestHerd: nodes that all lost their hub at one moment do not come back at one moment.
func TestHerd(t *testing.T) {
	const nodes = 300
	states := make([]*State, nodes)
	for i := range states {
		ck, err := NewControlKey()
		if err != nil {
			t.Fatal(err)
		}
		states[i] = &State{Dir: t.TempDir(), Hub: "192.0.2.1:8443", Pin: ck.Public(), MeshID: "m", NodeID: "n", Control: ck}
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seconds := map[int]int{}
		begin := time.Now()
		dial := func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			seconds[int(time.Since(begin).Seconds())]++
			return nil, errors.New("away")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, s := range states {
			k, err := NewClient(ClientConfig{State: s, Log: slog.New(slog.DiscardHandler), Dial: dial})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { k.Run(ctx) })
		}
		time.Sleep(10 * time.Minute) // of the bubble's clock
		cancel()
		wg.Wait()
		most, all := 0, 0
		for s, n := range seconds {
			if s >= 300 {
				most, all = max(most, n), all+n
			}
		}
		t.Logf("from the sixth minute on: %d tries, at most %d of %d nodes in one second", all, most, nodes)
		if most > nodes/10 || all < nodes*5 {
			t.Errorf("%d tries, %d in one second", all, most)
		}
	})
}
