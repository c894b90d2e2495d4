package ship

import (
	"context"
	"sync"
)

// Bounds of the bodies that are in memory at once, and so of what hosts that all come back
// after an outage can make the recorder hold: the others wait. Of one host only a few count, or
// one that never finishes its requests would keep all others from being recorded.
const (
	maxAppends   = 24
	maxOfOneHost = atOnce // as many as a Sender makes
)

// turns lets requests with bodies in.
type turns struct {
	all chan struct{}

	mu sync.Mutex
	by map[string]*hostTurns
}

type hostTurns struct {
	slots chan struct{}
	users int // having or awaiting one; at 0 it is forgotten
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, maxAppends), by: map[string]*hostTurns{}}
}

// enter waits for the host's turn, and then for a free place; false means that ctx ended
// first. leave must follow true.
func (t *turns) enter(ctx context.Context, host string) (leave func(), ok bool) {
	t.mu.Lock()
	h := t.by[host]
	if h == nil {
		h = &hostTurns{slots: make(chan struct{}, maxOfOneHost)}
		t.by[host] = h
	}
	h.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(t.by, host)
		}
	}
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		forget()
		return nil, false
	}
	select {
	case t.all <- struct{}{}:
		return func() { <-t.all; <-h.slots; forget() }, true
	case <-ctx.Done():
		<-h.slots
		forget()
		return nil, false
	}
}
