package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Forget is how long a host keeps what it knows of watchers while no hub answers.
const Forget = 20 * time.Second

// openEvery is how often a host looks whether its sessions that are not recorded are others.
const openEvery = 2 * time.Second

const (
	firstWait    = time.Second
	longestWait  = 10 * time.Second
	unservedWait = time.Minute // where the hub is of an earlier version, or keeps no recordings
)

// HostConfig is how a Host is set up.
type HostConfig struct {
	// HTTP gives the client and base URL of the hub; asked again for each connection.
	HTTP func() (client *http.Client, base string)
	// End ends a session, or says why not: a *Refused, or any other error, which is a failure.
	End func(End) error
	// Open gives the sessions that run and are not recorded; nil: the hub is not told of them.
	Open func() []Open
	// Watched says who watches a session; nobody any more with an empty list. One call at a time.
	Watched func(Watched)
	Log     *slog.Logger // nil discards
}

// Host is a host's side.
type Host struct {
	cfg HostConfig

	// owned by Run
	watched map[string]bool // sessions of which watchers were told
}

// NewHost makes a Host.
func NewHost(cfg HostConfig) (*Host, error) {
	if cfg.HTTP == nil || cfg.End == nil || cfg.Watched == nil {
		return nil, errors.New("live: a host needs a hub, and something that obeys")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Host{cfg: cfg, watched: map[string]bool{}}, nil
}

// Run keeps a connection to the hub until ctx ends, and returns after the last of its work.
func (h *Host) Run(ctx context.Context) error {
	wait := firstWait
	forget := time.NewTimer(Forget)
	defer forget.Stop()
	for {
		up, err := h.connection(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.cfg.Log.Debug("live: connection to the hub", "err", err)
		if up {
			wait = firstWait
			forget.Reset(Forget)
		}
		pause := wait
		if old := (*notServed)(nil); errors.As(err, &old) {
			pause = unservedWait
		}
		again := time.NewTimer(pause/2 + rand.N(pause/2+1))
		for over := false; !over; {
			select {
			case <-again.C:
				over = true
			case <-forget.C:
				h.state(nil)
			case <-ctx.Done():
				again.Stop()
				return ctx.Err()
			}
		}
		wait = min(2*wait, longestWait)
	}
}

// notServed is a hub's answer that is not the connection.
type notServed struct{ status int }

func (n *notServed) Error() string { return fmt.Sprintf("live: hub answers %d", n.status) }

// connection is one connection's life. It says whether there was one.
func (h *Host) connection(ctx context.Context) (up bool, err error) {
	client, base := h.cfg.HTTP()
	if client == nil {
		return false, errors.New("live: no hub is known yet")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(3*pingEvery, cancel)
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+Path, nil)
	if err != nil {
		return false, fmt.Errorf("live: %w", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	// The client's own limit is one of whole answers; this one has no end.
	res, err := (&http.Client{Transport: client.Transport}).Do(req)
	if err != nil {
		return false, fmt.Errorf("live: %w", err)
	}
	defer res.Body.Close()
	conn, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		return false, &notServed{res.StatusCode}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var mu sync.Mutex
	answer := func(m toHub) {
		b, err := line(m)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = conn.Write(b) // a dead connection shows in the reads
	}
	var orders sync.WaitGroup
	defer orders.Wait()
	if h.cfg.Open != nil {
		orders.Go(func() { h.tellOpen(ctx, answer) }) // ends with ctx
	}
	defer cancel()
	slots := make(chan struct{}, maxOrders)
	in := newLines(conn)
	for {
		var m toHost
		if err := in.next(&m); err != nil {
			return true, err
		}
		silence.Reset(3 * pingEvery)
		switch {
		case m.Ping:
			answer(toHub{Pong: true})
		case m.State != nil:
			h.state(*m.State)
		case m.Watch != nil:
			h.watch(*m.Watch)
		case m.End != nil:
			select {
			case slots <- struct{}{}:
			default:
				answer(toHub{N: m.N, Code: CodeFailed, Say: "too much is asked of this host at this moment; try again"})
				continue
			}
			orders.Go(func() { // ends when the order is carried out or refused
				defer func() { <-slots }()
				answer(h.end(m.N, *m.End))
			})
		case m.N != 0:
			answer(toHub{N: m.N, Code: CodeFailed, Say: "this host is too old for that"})
		}
	}
}

// tellOpen tells of sessions that are not recorded, when they are others than before.
func (h *Host) tellOpen(ctx context.Context, tell func(toHub)) {
	tick := time.NewTicker(openEvery)
	defer tick.Stop()
	var last []byte
	for {
		open := h.cfg.Open()
		open = open[max(0, len(open)-maxOpen):] // the latest
		if open == nil {
			open = []Open{}
		}
		b, err := json.Marshal(open)
		for err == nil && len(b) > MaxLine-100 {
			open = open[len(open)/2+1:]
			b, err = json.Marshal(open)
		}
		if err == nil && !bytes.Equal(b, last) {
			last = b
			tell(toHub{Open: &open})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (h *Host) end(n uint64, e End) toHub {
	err := h.cfg.End(e)
	var no *Refused
	switch {
	case err == nil:
		return toHub{N: n, Done: true}
	case errors.As(err, &no):
		return toHub{N: n, Code: no.Code, Say: no.Say}
	}
	h.cfg.Log.Error("live: order", "session", e.Session, "err", err)
	return toHub{N: n, Code: CodeFailed, Say: "the host could not do this; its log says why"}
}

// state replaces all that is known of watchers.
func (h *Host) state(all []Watched) {
	now := map[string]bool{}
	for _, w := range all[:min(len(all), maxWatched)] {
		now[w.Session] = true
	}
	for id := range h.watched {
		if !now[id] {
			h.watch(Watched{Session: id})
		}
	}
	for _, w := range all[:min(len(all), maxWatched)] {
		h.watch(w)
	}
}

func (h *Host) watch(w Watched) {
	w.Watchers = w.Watchers[:min(len(w.Watchers), maxWatchers)]
	switch {
	case len(w.Watchers) == 0:
		if !h.watched[w.Session] {
			return
		}
		delete(h.watched, w.Session)
	case !h.watched[w.Session] && len(h.watched) >= maxWatched:
		return
	default:
		h.watched[w.Session] = true
	}
	h.cfg.Watched(w)
}
