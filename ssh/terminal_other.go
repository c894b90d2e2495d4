//go:build !linux && !darwin

package ssh

import (
	"sync"
	"time"

	"golang.org/x/term"
)

// Size asks the console; one that does not say is 80 by 24.
func (t *Terminal) Size() Size {
	w, h, err := term.GetSize(int(t.f.Fd()))
	if err != nil || w <= 0 || h <= 0 {
		return Size{Cols: 80, Rows: 24}
	}
	return Size{Cols: uint32(w), Rows: uint32(h)}
}

// onResize looks twice a second: there is no signal for it here.
func (t *Terminal) onResize(f func(Size)) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		last := t.Size()
		for {
			select {
			case <-tick.C:
				if s := t.Size(); s != last {
					last = s
					f(s)
				}
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func suspendSelf() {}

func modes(*Terminal) string { return plainModes }
