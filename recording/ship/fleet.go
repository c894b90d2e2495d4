package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"tssh/recording"
)

// Port is where a recorder takes recordings in over the mesh, TCP.
const Port = 8443

const (
	// stall is how long a recorder may leave a request without an answer before another one gets
	// the recording. It is well below what a login that needs a recorder waits.
	stall = 5 * time.Second
	// signTry bounds asking one recorder for its signature, where there are others.
	signTry = 4 * time.Second
	// MaxRecorders of one list are tried; the others do not count.
	MaxRecorders = 8
	// maxSenders bounds the recorders that one host has to do with.
	maxSenders = 64
	// forgetRecorder is how long it is known of one that nothing is for whether it answers.
	forgetRecorder = time.Hour
)

// Recorder is one that recordings can go to.
type Recorder struct {
	ID   string // its alone, and for good
	Name string // for people
	// HTTP is as in SenderConfig. Whose key the other side has to show is its business.
	HTTP func() (client *http.Client, base string)
}

// FleetConfig is how a Fleet is set up.
type FleetConfig struct {
	Spool Spool
	// Resolve gives the recorders that the list of a rule names (recording.Meta.Recorders; none:
	// the hub), in the order in which they are tried. It is asked often and must not wait.
	Resolve func(to []string) []Recorder
	Log     *slog.Logger // nil discards
}

// Fleet sends each recording to one of the recorders that its rule names: the first in order
// that can be had, and that one as long as it can be.
//
//	nobody --assign--> with one --trouble, no answer, refusal--> with the next
//	   ^                                                            |
//	   +----- none can be had: offered to all until one can --------+
//
// Lock order: mu before that of a Sender.
type Fleet struct {
	cfg  FleetConfig
	kick chan struct{} // capacity 1

	mu      sync.Mutex
	members map[string]*member // by Recorder.ID
	routes  map[string]string  // by recording: who has it now
	lost    map[string]bool    // recordings that nobody is for; said once
}

// member is one recorder and the sender to it.
type member struct {
	f      *Fleet
	to     Recorder
	sender *Sender

	// guarded by Fleet.mu
	stop context.CancelFunc // nil: not running
	used time.Time          // when a recording here last named it
}

// NewFleet makes a Fleet.
func NewFleet(cfg FleetConfig) (*Fleet, error) {
	if cfg.Spool == nil || cfg.Resolve == nil {
		return nil, errors.New("ship: a fleet needs a spool, and to know recorders")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Fleet{cfg: cfg, kick: make(chan struct{}, 1), members: map[string]*member{}, routes: map[string]string{}, lost: map[string]bool{}}, nil
}

// Kick is Sender.Kick for all of them.
func (f *Fleet) Kick() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends, and returns after the last request has.
func (f *Fleet) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for kicked := true; ; {
		f.muster(ctx, &wg, kicked)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			kicked = false
		case <-f.kick:
			kicked = true
		}
	}
}

// muster starts a sender for each recorder that something here is for, and lets go of those
// that nothing was for since long: until then it is known whether they answer.
func (f *Fleet) muster(ctx context.Context, wg *sync.WaitGroup, kick bool) {
	items := f.cfg.Spool.Recordings()
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]bool, len(items))
	lists := f.lists()
	for _, it := range items {
		there[it.ID] = true
		if len(lists(it.To)) == 0 && !f.lost[it.ID] {
			f.lost[it.ID] = true
			f.cfg.Log.Error("no recorder of the mesh is for this recording; it stays in the spool", "recording", it.ID, "recorders", strings.Join(it.To, " "))
		}
	}
	maps.DeleteFunc(f.lost, func(id string, _ bool) bool { return !there[id] })
	for id := range f.routes {
		if !there[id] {
			delete(f.routes, id)
		}
	}
	for id, m := range f.members {
		switch {
		case time.Since(m.used) > forgetRecorder:
			if m.stop != nil {
				m.stop()
			}
			delete(f.members, id)
			continue
		case m.stop == nil:
			var own context.Context
			own, m.stop = context.WithCancel(ctx)
			wg.Go(func() { _ = m.sender.Run(own) }) // ends with ctx, or with stop
		}
		if kick {
			m.sender.Kick()
		}
	}
}

// lists gives a func that makes the members of a list, each list once. Called with mu held, as
// is the func.
func (f *Fleet) lists() func(to []string) []*member {
	known := map[string][]*member{}
	return func(to []string) []*member {
		key := strings.Join(to, " ")
		out, ok := known[key]
		if !ok {
			out = f.listLocked(to)
			known[key] = out
		}
		return out
	}
}

func (f *Fleet) listLocked(to []string) []*member {
	rs := f.cfg.Resolve(to)
	var out []*member
	for _, r := range rs[:min(len(rs), MaxRecorders)] {
		m := f.members[r.ID]
		if m == nil {
			if len(f.members) >= maxSenders {
				continue
			}
			m = &member{f: f, to: r}
			var err error
			m.sender, err = NewSender(SenderConfig{Spool: m, HTTP: r.HTTP, Log: f.cfg.Log.With("recorder", r.Name)})
			if err != nil {
				f.cfg.Log.Error("recorder", "recorder", r.Name, "err", err)
				continue
			}
			f.members[r.ID] = m
		}
		m.used = time.Now()
		out = append(out, m)
	}
	return out
}

// has says whether the recorder can be had for this recording.
func (m *member) has(id string) bool {
	st := m.sender.Status()
	return st.Err == nil && st.Waiting < stall && m.sender.refuses(id) == 0
}

// assignLocked says who is to have a recording; nil: whoever of them answers first.
func (f *Fleet) assignLocked(id string, list []*member) *member {
	was := f.routes[id]
	var now *member
	for _, m := range list {
		if m.sender.refuses(id) == http.StatusGone {
			return m // it was deleted there, by somebody who may: nobody else gets it
		}
		if m.has(id) && (now == nil || m.to.ID == was) {
			now = m
		}
	}
	if now == nil || now.to.ID == was {
		return now
	}
	f.routes[id] = now.to.ID
	if was != "" {
		f.cfg.Log.Warn("recording goes to another recorder", "recording", id, "to", now.to.Name)
	}
	return now
}

// Recordings is what this recorder is to get.
func (m *member) Recordings() []recording.Progress {
	items := m.f.cfg.Spool.Recordings()
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	lists := m.f.lists()
	var out []recording.Progress
	for _, it := range items {
		list := lists(it.To)
		if to := m.f.assignLocked(it.ID, list); to == m || to == nil && slices.Contains(list, m) {
			out = append(out, it)
		}
	}
	return out
}

// Acked passes on what the recorder of a recording says. Where none could be had, whoever
// answers first is it.
func (m *member) Acked(id string, offset int64, final bool) error {
	if !final {
		m.f.mu.Lock()
		was := m.f.members[m.f.routes[id]]
		if was != m && was != nil && was.has(id) {
			m.f.mu.Unlock()
			return nil // an answer that came late
		}
		m.f.routes[id] = m.to.ID
		m.f.mu.Unlock()
	}
	return m.f.cfg.Spool.Acked(id, offset, final)
}

// Holder is the recorder that has a recording now; false while none does.
func (f *Fleet) Holder(id string) (Recorder, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.members[f.routes[id]]; m != nil {
		return m.to, true
	}
	return Recorder{}, false
}

// Holders are the recorders that have recordings which are here.
func (f *Fleet) Holders() []Recorder {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := map[string]bool{}
	var out []Recorder
	for _, id := range f.routes {
		if m := f.members[id]; m != nil && !have[id] {
			have[id] = true
			out = append(out, m.to)
		}
	}
	return out
}

// Countersign has a recorder of a recording sign that it began, the one that has it first.
func (f *Fleet) Countersign(ctx context.Context, start recording.Start) (recording.Countersignature, error) {
	var meta recording.Meta
	if err := json.Unmarshal(start.Meta, &meta); err != nil {
		return recording.Countersignature{}, fmt.Errorf("ship: countersign: %w", err)
	}
	f.mu.Lock()
	list := f.listLocked(meta.Recorders)
	if has := f.assignLocked(start.ID, list); has != nil {
		list = slices.DeleteFunc(list, func(m *member) bool { return m == has || !m.has(start.ID) })
		list = slices.Insert(list, 0, has)
	} else {
		list = nil
	}
	f.mu.Unlock()
	err := errors.New("ship: countersign: no recorder that answers is known")
	for i, m := range list {
		limited, cancel := ctx, context.CancelFunc(func() {})
		if i < len(list)-1 {
			limited, cancel = context.WithTimeout(ctx, signTry)
		}
		var c recording.Countersignature
		c, err = m.sender.Countersign(limited, start)
		cancel()
		if err == nil || ctx.Err() != nil {
			return c, err
		}
	}
	return recording.Countersignature{}, err
}

// Witness has the recorder that has a recording sign how much of it that is.
func (f *Fleet) Witness(ctx context.Context, p recording.Seen) (recording.Countersignature, error) {
	f.mu.Lock()
	m := f.members[f.routes[p.ID]]
	f.mu.Unlock()
	if m == nil {
		return recording.Countersignature{}, errors.New("ship: countersign: no recorder has this recording yet")
	}
	return m.sender.Witness(ctx, p)
}
