package coord

import (
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// What those may ask for who hold no auth key of this hub's, and what one member may say
// of itself. A member's host keys are signed, logged and sent to all who see it, so that
// they change seldom; its endpoints go to all who see it.
const (
	strangersPerSecond, strangerBurst = 5, 20
	endpointsEvery, endpointsBurst    = 2 * time.Second, 20
	hostKeysEvery, hostKeysBurst      = 10 * time.Minute, 10
	// In steps of keys: a node that was away can bring several at once.
	rotationsEvery, rotationsBurst = time.Minute, netmap.MaxRotations
	// Keys stay taken for ever, in the database: so many may a node have had, and so many all
	// nodes that a person has. A change takes two; one every 12 hours does for seven years.
	maxKeysPerNode, maxKeysPerPerson = 10_000, 50_000
	// Refused joins that are audited one by one; what is beyond is only counted, in the
	// next one that is written. Anybody who reaches the port can be refused.
	refusalsEvery, refusalsBurst = 10 * time.Second, 200
	maxRefusedName               = 64
)

// limits are what is counted. The zero value is not usable.
type limits struct {
	strangers                  *rate.Limiter
	keysPerNode, keysPerPerson int

	mu       sync.Mutex // guards what follows
	refusals *rate.Limiter
	unsaid   int // refused joins that are in no entry
	byNode   map[string]*nodeLimits
}

type nodeLimits struct {
	endpoints, hostKeys, rotations *rate.Limiter

	full bool // it was audited that the node may have no more keys; guarded by Server.writing
}

func newLimits() *limits {
	return &limits{
		strangers:   rate.NewLimiter(strangersPerSecond, strangerBurst),
		keysPerNode: maxKeysPerNode, keysPerPerson: maxKeysPerPerson,
		refusals: rate.NewLimiter(rate.Every(refusalsEvery), refusalsBurst),
		byNode:   map[string]*nodeLimits{},
	}
}

// of is a member's, where nodes is how many there are.
func (l *limits) of(id string, nodes int) *nodeLimits {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.byNode[id]
	if n == nil {
		if len(l.byNode) > 1000+2*nodes { // most are of nodes that went
			clear(l.byNode)
		}
		n = &nodeLimits{endpoints: rate.NewLimiter(rate.Every(endpointsEvery), endpointsBurst), hostKeys: rate.NewLimiter(rate.Every(hostKeysEvery), hostKeysBurst),
			rotations: rate.NewLimiter(rate.Every(rotationsEvery), rotationsBurst)}
		l.byNode[id] = n
	}
	return n
}

// refused reports whether a refused join is audited, and notes in its entry how many
// before it were not.
func (l *limits) refused(e *audit.Entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.refusals.Allow() {
		l.unsaid++
		return false
	}
	if l.unsaid > 0 {
		e.Extra["unaudited_before"] = strconv.Itoa(l.unsaid)
		l.unsaid = 0
	}
	if len(e.Node) > maxRefusedName {
		e.Node = e.Node[:maxRefusedName]
	}
	return true
}

// known reports whether an auth key is one of this hub's. Those who have none are few at a
// time: whoever merely reaches the port must keep nobody out.
func (s *Server) known(authKey string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.st.keys[hashKey(authKey)] != nil
}

// turn waits for the turn of those who are known; strangers wait for nothing.
func (s *Server) turn(ctx context.Context, known bool) bool {
	if known {
		return s.joins.Wait(ctx) == nil
	}
	return s.lim.strangers.Allow()
}

var errTooOften = &Refusal{Code: netmap.CodeBusy, Say: "this node says too much of itself at once; it is heard again in a while"}

func (s *Server) nodeLimits(id string) *nodeLimits {
	s.mu.RLock()
	n := len(s.st.nodes)
	s.mu.RUnlock()
	return s.lim.of(id, n)
}
