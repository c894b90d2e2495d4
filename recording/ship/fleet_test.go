package ship

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tssh/recording"
)

// fleetHost is a host whose rule names the tags of these recorders.
func fleetHost(t *testing.T, to map[string]*recorder, order func(tag string) []string) (*host, *Fleet) {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	var f *Fleet
	var err error
	if h.sp, err = recording.OpenSpool(recording.SpoolConfig{Dir: h.dir, MinFree: 1,
		Countersign: func(ctx context.Context, s recording.Start) (recording.Countersignature, error) {
			return f.Countersign(ctx, s)
		},
		Witness: func(ctx context.Context, p recording.Seen) (recording.Countersignature, error) {
			return f.Witness(ctx, p)
		},
	}); err != nil {
		t.Fatal(err)
	}
	f, err = NewFleet(FleetConfig{Spool: h.sp, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Resolve: func(tags []string) (out []Recorder) {
		if len(tags) == 0 {
			tags = []string{"hub"}
		}
		for _, tag := range tags {
			for _, name := range order(tag) {
				r := to[name]
				out = append(out, Recorder{ID: name, Name: name, HTTP: func() (*http.Client, string) { return r.srv.Client(), r.srv.URL }})
			}
		}
		return out
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { h.sp.Run(ctx) })
	wg.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h, f
}

func named(tag string) []string { return []string{tag} }

// beginTo is begin under a rule that names recorders.
func (h *host) beginTo(to ...string) (*recording.Session, *recording.Journal) {
	h.t.Helper()
	start := time.Now()
	x, err := h.sp.Begin(recording.Meta{Version: 1, Start: start, Host: "web", HostID: "n-web", Src: "laptop", SrcID: "n-laptop", Login: "alice@example.com", LocalUser: "deploy", Recorders: to})
	if err != nil {
		h.t.Fatal(err)
	}
	f, err := x.JournalFile()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	j := recording.NewJournal(f, start)
	if err := j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: "make"}); err != nil {
		h.t.Fatal(err)
	}
	return x, j
}

func (h *host) say(j *recording.Journal, text string) {
	h.t.Helper()
	if err := j.Append(1, recording.KindOutput, []byte(text)); err != nil {
		h.t.Fatal(err)
	}
}

// shows reports whether the recorder has this output of a recording.
func (r *recorder) shows(id, text string) bool {
	b := r.bytesOf(id)
	rd, err := recording.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return false
	}
	defer rd.Close()
	found := false
	_ = rd.Events(func(e recording.Event) error { found = found || string(e.Data) == text; return nil })
	return found
}

func (r *recorder) complete(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum, err := r.store.Lookup(id)
	return err == nil && sum.Complete
}

// holes answers nothing, as a recorder whose machine is gone.
func (r *recorder) holes() {
	over := make(chan struct{})
	r.t.Cleanup(sync.OnceFunc(func() { close(over) }))
	r.trick.Store(func(_ http.ResponseWriter, req *http.Request) bool {
		_, _ = io.Copy(io.Discard, req.Body) // or the server does not see the client go
		select {
		case <-req.Context().Done():
		case <-over:
		}
		return true
	})
}

// A recorder goes away in the middle, dead or silent: the next one has all of it, the spool is
// freed, and both signed what they saw.
func TestTheNextRecorderTakesOver(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func(*recorder){
		"dead":   func(r *recorder) { r.answers(0) },
		"silent": (*recorder).holes,
		"sick":   func(r *recorder) { r.answers(503) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, hub := newRecorder(t), newRecorder(t), newRecorder(t)
			h, f := fleetHost(t, map[string]*recorder{"a": a, "b": b, "hub": hub}, named)
			x, j := h.beginTo("a", "b")
			f.Kick()
			if err := x.WaitAcked(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.say(j, "one")
			until(t, "a has the first", 20*time.Second, func() bool { return a.shows(x.ID(), "one") })
			if b.bytesOf(x.ID()) != nil {
				t.Error("b got something while a could be had")
			}
			gone(a)
			h.say(j, "two")
			took := until(t, "b has the second", 30*time.Second, func() bool { return b.shows(x.ID(), "two") })
			t.Logf("b had it %s after a was gone", took.Round(100*time.Millisecond))
			if took > 12*time.Second {
				t.Errorf("b had it after %s: output would have been held back", took)
			}
			until(t, "the session is not behind", 10*time.Second, func() bool { return x.Behind() < 3*time.Second })
			a.answers(200) // it comes back: what runs stays with b
			h.say(j, "three")
			until(t, "b has the third", 20*time.Second, func() bool { return b.shows(x.ID(), "three") })
			file := filepath.Join(h.dir, x.ID(), "recording.tsr")
			if err := x.Finish("closed", ""); err != nil {
				t.Fatal(err)
			}
			whole, err := os.ReadFile(file)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			until(t, "the spool is empty", 30*time.Second, func() bool { return len(h.sp.Recordings()) == 0 })
			got := b.bytesOf(x.ID())
			if !b.complete(x.ID()) || len(whole) > 0 && !bytes.Equal(got, whole) {
				t.Error("b has not what was recorded")
			}
			if part := a.bytesOf(x.ID()); !bytes.HasPrefix(got, part) || len(part) == 0 || len(part) == len(got) {
				t.Errorf("a has %d bytes that are not the beginning of the %d", len(part), len(got))
			}
			if hub.bytesOf(x.ID()) != nil {
				t.Error("the hub got a recording whose rule names others")
			}
			rep, err := recording.Verify(bytes.NewReader(got))
			if err != nil || len(rep.Problems) > 0 || !rep.Complete {
				t.Fatalf("verify: %+v, %v", rep, err)
			}
			if _, ok := rep.CountersignedBy(a.key.Public().(ed25519.PublicKey)); !ok {
				t.Error("a did not sign the beginning")
			}
		})
	}
}

// With one that never answers in front, a login that needs a recorder has one in time, and the
// logins after it at once.
func TestASilentRecorderInFrontOfALogin(t *testing.T) {
	t.Parallel()
	a, b := newRecorder(t), newRecorder(t)
	a.holes()
	h, f := fleetHost(t, map[string]*recorder{"a": a, "b": b}, func(string) []string { return []string{"a", "b"} })
	for i, limit := range []time.Duration{9 * time.Second, 3 * time.Second} {
		x, _ := h.beginTo("tag:rec")
		f.Kick()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		began := time.Now()
		err := x.WaitAcked(ctx)
		cancel()
		if err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
		t.Logf("login %d had its recorder after %s", i, time.Since(began).Round(time.Millisecond))
	}
	// And when it answers again, what begins then goes there.
	a.answers(200)
	until(t, "a gets what begins", 3*time.Minute, func() bool {
		x, _ := h.beginTo("tag:rec")
		f.Kick()
		_ = x.WaitAcked(t.Context())
		return a.bytesOf(x.ID()) != nil
	})
}

// With all of them away the session waits, and whoever comes back first gets it.
func TestAllRecordersAway(t *testing.T) {
	t.Parallel()
	a, b := newRecorder(t), newRecorder(t)
	h, f := fleetHost(t, map[string]*recorder{"a": a, "b": b}, named)
	x, j := h.beginTo("a", "b")
	f.Kick()
	if err := x.WaitAcked(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.answers(0)
	b.answers(0)
	h.say(j, "nobody hears it")
	until(t, "it is behind", 30*time.Second, func() bool { return x.Behind() > 4*time.Second })
	b.answers(200)
	until(t, "b has it", 90*time.Second, func() bool { return b.shows(x.ID(), "nobody hears it") })
	until(t, "it is not behind", 10*time.Second, func() bool { return x.Behind() == 0 })
}

// A recorder that has no room for a recording keeps none from it, and one that was told to
// delete it keeps all from it.
func TestRefusalsOfOneRecorder(t *testing.T) {
	t.Parallel()
	for status, moves := range map[int]bool{http.StatusInsufficientStorage: true, http.StatusForbidden: true, http.StatusGone: false} {
		a, b := newRecorder(t), newRecorder(t)
		a.answers(status)
		h, f := fleetHost(t, map[string]*recorder{"a": a, "b": b}, named)
		x, _ := h.beginTo("a", "b")
		f.Kick()
		until(t, "a was asked", 20*time.Second, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.members["a"] != nil && f.members["a"].sender.refuses(x.ID()) == status || b.bytesOf(x.ID()) != nil
		})
		if moves {
			until(t, "b has it", 20*time.Second, func() bool { return b.bytesOf(x.ID()) != nil })
			continue
		}
		time.Sleep(3 * look)
		if b.bytesOf(x.ID()) != nil {
			t.Errorf("%d: b has what was deleted at a", status)
		}
	}
}

// Recorders that all refuse are not asked without end.
func TestRefusedByAllIsNotPingPong(t *testing.T) {
	t.Parallel()
	a, b := newRecorder(t), newRecorder(t)
	var asked atomic.Int64
	for _, r := range []*recorder{a, b} {
		r.trick.Store(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, "/start") {
				asked.Add(1)
			}
			w.WriteHeader(http.StatusInsufficientStorage)
			return true
		})
	}
	h, f := fleetHost(t, map[string]*recorder{"a": a, "b": b}, named)
	h.beginTo("a", "b")
	f.Kick()
	until(t, "both refused", 20*time.Second, func() bool { return asked.Load() >= 2 })
	time.Sleep(4 * look)
	if n := asked.Load(); n > 4 {
		t.Errorf("%d requests in a few seconds", n)
	}
}

// An answer that was lost is known at the next question: the session does not count as behind.
func TestALostAnswerIsKnownByTheQuestion(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	var lost atomic.Bool
	direct := r.srv.Config.Handler
	r.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut && !lost.Swap(true) {
			direct.ServeHTTP(discardAnswer{http.Header{}}, req)
			panic(http.ErrAbortHandler)
		}
		direct.ServeHTTP(w, req)
	})
	h := newHost(t, r)
	x, _, _ := h.begin()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := x.WaitAcked(ctx); err != nil || !lost.Load() {
		t.Fatalf("lost %v: %v", lost.Load(), err)
	}
}

type discardAnswer struct{ h http.Header }

func (d discardAnswer) Header() http.Header         { return d.h }
func (d discardAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (d discardAnswer) WriteHeader(int)             {}
