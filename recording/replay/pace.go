package replay

import (
	"net/http"
	"sync"

	"golang.org/x/time/rate"

	"tssh/policy"
)

// What one person, or one machine, can have written into the audit log by looking: a page of the
// list with its pictures is a hundred entries. All that is shown is written down, so that who asks
// without end would fill the log, and the disk, for everybody.
const (
	looksPerSecond, looksBurst = 10, 2000
	maxPaced                   = 10_000 // persons remembered; when there are more all begin anew
)

// pace counts entries by whom they are about.
type pace struct {
	mu sync.Mutex
	by map[string]*rate.Limiter
}

var errTooOften = &refusal{http.StatusTooManyRequests, "this is more at once than can be written down: wait a moment", ""}

// take has one entry written, or says that it must wait.
func (p *pace) take(v *Viewer, id policy.Identity) *refusal {
	who := "person " + string(id.User)
	if id.User == "" {
		who = "node " + id.ID
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.by[who]
	if l == nil {
		if p.by == nil || len(p.by) >= maxPaced {
			p.by = map[string]*rate.Limiter{}
		}
		l = rate.NewLimiter(looksPerSecond, looksBurst)
		p.by[who] = l
	}
	if l.AllowN(v.cfg.Clock(), 1) {
		return nil
	}
	return errTooOften
}
