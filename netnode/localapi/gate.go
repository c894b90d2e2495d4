package localapi

import (
	"context"
	"sync"
)

// maxAnswers bounds the answers of one uid that list the whole mesh and are being made or
// read at a time: of a large mesh each is megabytes, held until the caller has read it.
const maxAnswers = 8

// gate counts such answers by uid. The zero value is ready.
type gate struct {
	mu sync.Mutex
	by map[int]*turns
}

type turns struct {
	slots chan struct{}
	users int // holding or waiting; at 0 it is forgotten
}

// enter waits for the uid's turn; false means that ctx ended first. leave must follow true.
func (g *gate) enter(ctx context.Context, uid int) (leave func(), ok bool) {
	g.mu.Lock()
	t := g.by[uid]
	if t == nil {
		if g.by == nil {
			g.by = map[int]*turns{}
		}
		t = &turns{slots: make(chan struct{}, maxAnswers)}
		g.by[uid] = t
	}
	t.users++
	g.mu.Unlock()
	gone := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(g.by, uid)
		}
	}
	select {
	case t.slots <- struct{}{}:
		return func() { <-t.slots; gone() }, true
	case <-ctx.Done():
		gone()
		return nil, false
	}
}
