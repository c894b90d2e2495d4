package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording/live"
)

// sse is one server-sent event.
type sse struct{ name, id, data string }

// following reads a stream over a real connection.
type following struct {
	t      *testing.T
	res    *http.Response
	events chan sse
	cancel context.CancelFunc
}

func (w *world) follow(url, id string, from int, last string) *following {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", url+w.viewer.place+"/api/recordings/"+id+"/live?from="+strconv.Itoa(from), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.AddCookie(&http.Cookie{Name: w.viewer.cookie, Value: token})
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	f := &following{w.t, res, make(chan sse, 1000), cancel}
	w.t.Cleanup(func() { cancel(); res.Body.Close() })
	go func() { // ends with the body
		defer close(f.events)
		var e sse
		s := bufio.NewScanner(res.Body)
		s.Buffer(nil, 8<<20)
		for s.Scan() {
			switch name, value, _ := strings.Cut(s.Text(), ": "); {
			case s.Text() == "" && e.name != "":
				f.events <- e
				e = sse{}
			case name == "event":
				e.name = value
			case name == "id":
				e.id = value
			case name == "data":
				e.data = value
			}
		}
	}()
	return f
}

// next is the next event that has one of the names.
func (f *following) next(names ...string) sse {
	f.t.Helper()
	for {
		select {
		case e, ok := <-f.events:
			if !ok {
				f.t.Fatalf("the stream ends while %v is waited for", names)
			}
			for _, n := range names {
				if e.name == n {
					return e
				}
			}
		case <-time.After(20 * time.Second):
			f.t.Fatalf("no %v", names)
		}
	}
}

func TestFollowingASession(t *testing.T) {
	w := newWorld(t)
	w.hosted(func(live.End) error { return nil })
	srv := httptest.NewServer(w.viewer)
	t.Cleanup(srv.Close)
	id, b := record(t, meta("alice@example.com", "deploy", "web", w.now), shell)
	put(t, w.store, "web", id, b[:len(b)*3/10])

	f := w.follow(srv.URL, id, 0, "")
	if got := f.res.Header.Get("Content-Type"); f.res.StatusCode != 200 || !strings.HasPrefix(got, "text/event-stream") {
		t.Fatalf("status %d, %s", f.res.StatusCode, got)
	}
	var d detailJSON
	if err := json.Unmarshal([]byte(f.next("state").data), &d); err != nil || !d.Live || d.ID != id || len(d.ChannelList) == 0 {
		t.Fatalf("state %+v, %v", d, err)
	}
	if got := w.viewer.cfg.Live.Watchers(id); len(got) != 1 || got[0].By.Login != string(root.User) {
		t.Errorf("watchers %+v", got)
	}
	frames, last := 0, ""
	take := func(e sse) {
		t.Helper()
		var x streamFrame
		if err := json.Unmarshal([]byte(e.data), &x); err != nil || x.Row.N != frames || x.Frame.N != frames || len(x.Frame.Events) == 0 || e.id != strconv.Itoa(frames+1) {
			t.Fatalf("frame %d is %.200s, id %s, %v", frames, e.data, e.id, err)
		}
		frames, last = frames+1, e.id
	}
	take(f.next("frame"))
	for n := len(b) * 3 / 10; n < len(b); n += len(b) / 10 {
		put(t, w.store, "web", id, b[:min(len(b), n+len(b)/10)])
	}
	put(t, w.store, "web", id, b)
	for over := false; !over; {
		switch e := f.next("frame", "state", "end"); e.name {
		case "frame":
			if !d.Live {
				t.Error("said to be over before all of it came")
			}
			take(e)
		case "state":
			if err := json.Unmarshal([]byte(e.data), &d); err != nil {
				t.Fatal(err)
			}
		default:
			over = true
		}
	}
	if d.Live || !d.Complete {
		t.Errorf("at its end it is said to be %+v", d.summaryJSON)
	}
	want := decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+id, fromRoot))
	if frames != len(want.Frames) || frames < 3 {
		t.Errorf("%d frames by the stream, %d there are", frames, len(want.Frames))
	}
	if _, more := <-f.events; more {
		t.Error("the stream goes on after its end")
	}
	for deadline := time.Now().Add(20 * time.Second); w.viewer.cfg.Live.Watchers(id) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("whoever watched is told to watch still")
		}
	}

	// A browser that lost the connection goes on where it was.
	again := w.follow(srv.URL, id, 0, "2")
	frames = 2
	take(again.next("frame"))
	if frames != 3 || last != "3" {
		t.Errorf("came back at %d, %s", frames, last)
	}
	kinds := ""
	srv.Close()
	for _, e := range w.audited {
		kinds += e.Kind + " "
	}
	if strings.Count(kinds, "recording.watch ") != 2 || strings.Count(kinds, "recording.watched ") != 2 {
		t.Errorf("audited %s", kinds)
	}
}

// TestFollowingIsAskedAgain: who may not watch any more is shown no more.
func TestFollowingIsAskedAgain(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w.viewer)
	t.Cleanup(srv.Close)
	id, b := record(t, meta("alice@example.com", "deploy", "web", w.now), shell)
	put(t, w.store, "web", id, b[:len(b)*3/10])
	f := w.follow(srv.URL, id, 0, "")
	for range decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+id, fromRoot)).Frames {
		f.next("frame")
	}
	rules, problems := policy.Parse("test", []byte(`{"tagOwners": {"tag:x": []}, "acls": [], "ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["autogroup:self"], "users": ["deploy"]}]}`))
	if rules == nil {
		t.Fatal(problems)
	}
	w.swapPolicy(nil)
	put(t, w.store, "web", id, b)
	if e := f.next("frame", "end", "refused"); e.name != "refused" {
		t.Errorf("goes on with %s", e.name)
	}
	if _, more := <-f.events; more {
		t.Error("the stream goes on after a refusal")
	}
	for name, c := range map[string]struct {
		id     string
		from   int
		status int
	}{"nothing": {"none", 0, 404}, "negative": {id, -1, 400}, "far": {id, 1 << 30, 400}, "may not": {id, 0, 403}} {
		w.swapPolicy(rules)
		if name == "may not" {
			w.swapPolicy(nil)
		}
		r := w.follow(srv.URL, c.id, c.from, "")
		if r.res.StatusCode != c.status {
			t.Errorf("%s: status %d", name, r.res.StatusCode)
		}
	}
	w.swapPolicy(rules)
}

// TestStreamsAreBounded: nobody follows without end, and what is left is free again.
func TestStreamsAreBounded(t *testing.T) {
	var s streams
	for i := range streamsEach {
		if !s.enter("a") {
			t.Fatalf("%d are too many", i)
		}
	}
	if s.enter("a") {
		t.Error("one more than its share")
	}
	if !s.enter("b") {
		t.Error("another pays for it")
	}
	s.leave("b")
	s.leave("a")
	if !s.enter("a") || len(s.by) != 1 {
		t.Errorf("left: %v", s.by)
	}
	for i := s.all; i < streamsAll; i++ {
		s.enter(strconv.Itoa(i))
	}
	if s.enter("z") {
		t.Error("more than all")
	}
}
