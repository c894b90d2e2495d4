package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A burst of traffic makes the heap grow by a hundred megabytes of packet buffers, and the
// runtime keeps them: without new allocations it collects once in two minutes, and gives
// pages back slowly. So when work is over the memory is given back at once.
const (
	breathEvery = 10 * time.Second
	breathBusy  = 1 << 20 // bytes allocated in that time: not quiet yet
	breathWork  = 8 << 20 // bytes allocated since memory was last given back: worth it
	breathShare = 64      // after much work this share of it in that time is quiet too: what
	// comes after a flood (recordings being sent) must not keep the flood's memory
)

// breather gives memory back when things are quiet. Owned by one goroutine.
type breather struct {
	allocated func() uint64 // in all, since the start
	free      func()
	last      uint64 // a moment ago
	given     uint64 // when memory was last given back
}

func (b *breather) step() {
	now := b.allocated()
	work := now - b.given
	if now-b.last < max(breathBusy, work/breathShare) && work >= breathWork {
		b.free()
		now = b.allocated()
		b.given = now
	}
	b.last = now
}

// giveBack collects twice: pools of buffers let go of what was not used since the last time.
func giveBack() {
	debug.FreeOSMemory()
	debug.FreeOSMemory()
}

// breathe runs until ctx ends.
func breathe(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	b := breather{free: giveBack, allocated: func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}}
	tick := time.NewTicker(breathEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.step()
		}
	}
}
