package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"tssh/netnode/localapi"
)

const (
	hubHost  = "hub" // the hub's own node
	pagePort = 80    // of the page of a recorder
	// askAll bounds what is waited for one of several recorders, so that one that is away does
	// not keep those from being asked that answer.
	askAll = 10 * time.Second
)

// place is where recordings are kept: the hub, or a recorder that rules name. It is an HTTP
// client for its page, which knows who asks by the mesh.
type place struct {
	name string
	hc   *http.Client
}

func (p place) String() string {
	if p.name == hubHost {
		return "the hub"
	}
	return "recorder " + oneLine(p.name)
}

// places are all that the map names, the hub first.
func (a *app) places(ctx context.Context) ([]place, error) {
	c, st, err := a.ready(ctx)
	if err != nil {
		return nil, err
	}
	var out []place
	add := func(r localapi.Resolved) {
		out = append(out, place{r.Node.Name, &http.Client{Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialHost(ctx, c, st, r, pagePort) },
			DisableKeepAlives: true,
		}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}})
	}
	if r, err := c.Resolve(ctx, hubHost); err == nil {
		add(r)
	}
	for _, r := range st.Recorders {
		add(localapi.Resolved{Node: r.Node})
	}
	if len(out) == 0 {
		return nil, failed("the hub keeps no recordings in this mesh, or you may not reach it").withCode("unreachable")
	}
	return out, nil
}

// theHub is the hub's page alone.
func (a *app) theHub(ctx context.Context) (place, error) {
	places, err := a.places(ctx)
	if err == nil && places[0].name != hubHost {
		err = failed("the hub shows nothing in this mesh, or you may not reach it").withCode("unreachable")
	}
	if err != nil {
		return place{}, err
	}
	return places[0], nil
}

func (p place) get(ctx context.Context, path string, q url.Values) (*http.Response, error) {
	u := "http://" + p.name + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, "GET", u, nil)
	if err != nil {
		return nil, failed("%v", err)
	}
	return p.do(ctx, r)
}

func (p place) json(ctx context.Context, path string, v any) error {
	resp, err := p.get(ctx, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxList)).Decode(v); err != nil {
		return failed("the answer of %s is not understood: %v", p, err)
	}
	return nil
}

// do gives the place's answer, or its refusal as an error.
func (p place) do(ctx context.Context, r *http.Request) (*http.Response, error) {
	resp, err := p.hc.Do(r)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, explain(err).withCode("unreachable")
	}
	if resp.StatusCode == 200 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	var said struct {
		Error string `json:"error"`
	}
	words := string(b)
	if json.Unmarshal(b, &said) == nil && said.Error != "" {
		words = said.Error
	}
	m := failed("%s says: %s", p, oneLine(words))
	switch resp.StatusCode {
	case 401, 403:
		m.code = "denied"
	case 503, 504:
		m.code = "unreachable"
	}
	return nil, m
}

// ofAll asks all places side by side. What those say that do not answer is told, and is the
// error where none does.
func ofAll[T any](ctx context.Context, a *app, places []place, missing string, ask func(context.Context, place) (T, error)) ([]T, error) {
	if len(places) == 1 {
		one, err := ask(ctx, places[0])
		return []T{one}, err
	}
	answers, errs := make([]T, len(places)), make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() { // ends with its time
			ctx, cancel := context.WithTimeout(ctx, askAll)
			defer cancel()
			answers[i], errs[i] = ask(ctx, p)
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	var out []T
	for i := range places {
		if errs[i] == nil {
			out = append(out, answers[i])
		}
	}
	if len(out) == 0 {
		return nil, errs[0]
	}
	for i, err := range errs {
		if err != nil && missing != "" {
			words := oneLine(err.Error())
			if errors.Is(err, context.DeadlineExceeded) {
				words = fmt.Sprintf("nothing in %v", askAll)
			}
			fmt.Fprintf(a.err, "tssh: warning: %s does not answer, and what it keeps %s: %s\n", places[i], missing, words)
		}
	}
	return out, nil
}

// better reports whether of two copies of one recording r is the one to look at, not x: a recorder
// that went away in the middle has a part of it. What the hub has whole, or gets at this moment, is
// its own, whatever a recorder says: one of some rules says nothing about what others keep.
func (r recordingRow) better(x recordingRow) bool {
	if hubs := r.Recorder == hubHost && (r.Complete || r.Live); hubs || x.Recorder == hubHost && (x.Complete || x.Live) {
		return hubs
	}
	if r.Complete != x.Complete {
		return r.Complete
	}
	return r.Size > x.Size
}

// differs reports whether two copies cannot be of one recording.
func (r recordingRow) differs(x recordingRow) bool {
	return !r.Start.Equal(x.Start) || r.Host != x.Host || r.Src != x.Src || r.Who != x.Who || r.LocalUser != x.LocalUser || r.Complete && x.Complete && r.Size != x.Size
}

// contradicted tells of copies that cannot both be what was recorded.
func (a *app) contradicted(r, x recordingRow) {
	if r.differs(x) {
		fmt.Fprintf(a.err, "tssh: warning: %s and %s say different things about %s; tssh verify has the proof\n", place{name: r.Recorder}, place{name: x.Recorder}, oneLine(r.ID))
	}
}

// allRows are the recordings of all places, each once: those that run first, then the newest.
// sealed is how many sealed ones may fit the filter as well.
func (a *app) allRows(ctx context.Context, places []place, filter string) (rows []recordingRow, sealed int, err error) {
	type list struct {
		rows   []recordingRow
		sealed int
	}
	lists, err := ofAll(ctx, a, places, "is not in this list", func(ctx context.Context, p place) (l list, err error) {
		l.rows, l.sealed, err = recordingRows(ctx, p, filter)
		return l, err
	})
	if err != nil {
		return nil, 0, err
	}
	var all []recordingRow
	for _, l := range lists {
		all, sealed = append(all, l.rows...), sealed+l.sealed
	}
	if len(places) == 1 {
		return append([]recordingRow{}, all...), sealed, nil
	}
	return a.merged(all), sealed, nil
}

// merged has each recording once.
func (a *app) merged(all []recordingRow) []recordingRow {
	rows := []recordingRow{}
	by := map[string]int{}
	for _, r := range all {
		key := r.ID
		if r.Unrecorded { // what goes on of it, beside what was recorded
			key += " unrecorded"
		}
		i, have := by[key]
		if !have {
			by[key] = len(rows)
			rows = append(rows, r)
			continue
		}
		a.contradicted(rows[i], r)
		if r.better(rows[i]) {
			rows[i] = r
		}
	}
	slices.SortStableFunc(rows, func(x, y recordingRow) int {
		if x.Live != y.Live {
			if x.Live {
				return -1
			}
			return 1
		}
		return cmp.Or(y.Start.Compare(x.Start), cmp.Compare(x.ID, y.ID))
	})
	return rows
}

// placeOf finds the place that has most of a recording.
func (a *app) placeOf(ctx context.Context, id string) (place, error) {
	at, err := a.placesOf(ctx, id)
	if err != nil {
		return place{}, err
	}
	return at[0], nil
}

// placesOf are the places that have a recording or a part of it, that with most of it first;
// where there is only one place it is not asked. Where none has it or shows it, the hub's words
// count, unless one says that the recording is there and not to be seen.
func (a *app) placesOf(ctx context.Context, id string) ([]place, error) {
	places, err := a.places(ctx)
	if err != nil || len(places) == 1 {
		return places, err
	}
	type found struct {
		at  place
		row recordingRow
		err error
	}
	all, err := ofAll(ctx, a, places, "", func(ctx context.Context, p place) (found, error) {
		f := found{at: p}
		f.err = p.json(ctx, "/api/recordings/"+url.PathEscape(id), &f.row)
		f.row.ID, f.row.Recorder = id, p.name // whatever it says
		return f, nil
	})
	if err != nil {
		return nil, err
	}
	var has []found
	for _, f := range all {
		if f.err == nil {
			has = append(has, f)
		}
	}
	slices.SortStableFunc(has, func(x, y found) int {
		switch {
		case x.row.better(y.row):
			return -1
		case y.row.better(x.row):
			return 1
		}
		return 0
	})
	if len(has) > 0 {
		for _, f := range has[1:] {
			a.contradicted(has[0].row, f.row)
		}
		for _, f := range all {
			if m := (*mistake)(nil); !has[0].row.Complete && f.err != nil && (!errors.As(f.err, &m) || m.code == "unreachable") {
				fmt.Fprintf(a.err, "tssh: warning: %s does not answer, and may have more of this recording\n", f.at)
			}
		}
		var at []place
		for _, f := range has {
			at = append(at, f.at)
		}
		return at, nil
	}
	for _, f := range all {
		if m := (*mistake)(nil); errors.As(f.err, &m) && m.code == "denied" {
			return nil, f.err
		}
	}
	for _, f := range all {
		if m := (*mistake)(nil); !errors.As(f.err, &m) || m.code == "unreachable" {
			return nil, failed("no recorder that answers has a recording %s; %s does not answer: %s", oneLine(id), f.at, oneLine(f.err.Error())).withCode("unreachable")
		}
	}
	return nil, all[0].err
}
