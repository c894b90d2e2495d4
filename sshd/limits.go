package sshd

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tssh/policy"
	"tssh/recording/audit"
)

// owner is whose limits a peer uses up: a person's are the same on all of the person's
// machines and addresses, a tagged machine has its own.
func owner(id policy.Identity) string {
	if id.User != "" {
		return "user:" + string(id.User)
	}
	return "node:" + id.ID
}

// What peers can have written down about them without being let in. It is bounded, or who
// may do nothing could fill the audit log and push out of it what others did; what is
// beyond is counted, in the next entry.
const (
	limitsEvery, limitsBurst       = time.Minute, 5
	refusalsEvery, refusalsBurst   = 5 * time.Second, 100
	handoversEvery, handoversBurst = 100 * time.Millisecond, 500 // connections given to the host's own server
	maxHushed                      = 10_000                      // owners remembered; when there are more all begin anew
)

// hush counts what is written down, by owner.
type hush struct {
	mu sync.Mutex
	by map[string]*hushed
}

type hushed struct {
	limits, refusals, handovers *rate.Limiter
	unsaid                      int
}

func newHush() *hush { return &hush{by: map[string]*hushed{}} }

// allow reports whether e, about who, is to be written down.
func (h *hush) allow(who policy.Identity, e *audit.Entry) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := owner(who)
	x := h.by[k]
	if x == nil {
		if len(h.by) >= maxHushed {
			clear(h.by)
		}
		x = &hushed{limits: rate.NewLimiter(rate.Every(limitsEvery), limitsBurst), refusals: rate.NewLimiter(rate.Every(refusalsEvery), refusalsBurst),
			handovers: rate.NewLimiter(rate.Every(handoversEvery), handoversBurst)}
		h.by[k] = x
	}
	l := x.refusals
	switch e.Kind {
	case "session.limit":
		l = x.limits
	case "session.handover":
		l = x.handovers
	}
	if !l.Allow() {
		x.unsaid++
		return false
	}
	if x.unsaid > 0 {
		if e.Extra == nil {
			e.Extra = map[string]string{}
		}
		e.Extra["unaudited_before"] = strconv.Itoa(x.unsaid)
		x.unsaid = 0
	}
	return true
}
