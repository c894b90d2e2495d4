package filter

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxOutFlows  = 32768
	maxInFlows   = 1024 // of one peer
	maxFragments = 512

	tcpLife      = 24 * time.Hour // without a packet from the peer
	flowLife     = 5 * time.Minute
	fragmentLife = 30 * time.Second
)

// flowKey is a flow as seen from here. Protocols without ports have zeros; echo has its
// identifier in both.
type flowKey struct {
	local, peer         netip.Addr
	localPort, peerPort uint16
	proto               uint8
}

type fragmentKey struct {
	src, dst netip.Addr
	proto    uint8
	id       uint32
}

func (k flowKey) life() time.Duration {
	if k.proto == protoTCP {
		return tcpLife
	}
	return flowLife
}

func (fragmentKey) life() time.Duration { return fragmentLife }

// table remembers keys for a while and never more than max of them. When it is full a
// new key takes the place of the oldest of a few.
type table[K interface {
	comparable
	life() time.Duration
}] struct {
	max int

	mu sync.RWMutex
	m  map[K]*atomic.Int64 // when last seen
}

func newTable[K interface {
	comparable
	life() time.Duration
}](max int) *table[K] {
	return &table[K]{max: max, m: map[K]*atomic.Int64{}}
}

// has reports whether k is known and not too old, and makes it young again.
func (t *table[K]) has(k K, now int64) bool {
	t.mu.RLock()
	last := t.m[k]
	t.mu.RUnlock()
	if last == nil || now-last.Load() > int64(k.life()) {
		return false
	}
	last.Store(now)
	return true
}

func (t *table[K]) put(k K, now int64) {
	if t.has(k, now) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.m[k]; !ok && len(t.m) >= t.max {
		t.evict(now)
	}
	v := new(atomic.Int64)
	v.Store(now)
	t.m[k] = v
}

// evict makes room for one. Map iteration begins somewhere else each time. Callers hold mu.
func (t *table[K]) evict(now int64) {
	var oldest K
	least, n := int64(1<<63-1), 0
	for k, v := range t.m {
		if left := v.Load() + int64(k.life()) - now; left < least {
			oldest, least = k, left
		}
		if n++; n == 16 {
			break
		}
	}
	delete(t.m, oldest)
}

func (t *table[K]) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.m)
}
