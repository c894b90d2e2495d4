package ship

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tssh/recording"
	"tssh/recording/store"
)

// recorder is a real Receiver over a real store, with a front door that tests can close.
type recorder struct {
	t     testing.TB
	dir   string
	srv   *httptest.Server
	host  atomic.Value // string: who the peer's key proves it is
	trick atomic.Value // func(http.ResponseWriter, *http.Request) bool: true when it answered
	puts  atomic.Int64
	key   ed25519.PrivateKey

	mu    sync.Mutex
	store *store.Store
	recv  *Receiver
}

func newRecorder(t testing.TB) *recorder {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, dir: t.TempDir(), key: key}
	r.host.Store("n-web")
	r.trick.Store(func(http.ResponseWriter, *http.Request) bool { return false })
	r.restart()
	r.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			r.puts.Add(1)
		}
		if r.trick.Load().(func(http.ResponseWriter, *http.Request) bool)(w, req) {
			return
		}
		r.mu.Lock()
		recv := r.recv
		r.mu.Unlock()
		recv.ServeHTTP(w, req)
	}))
	t.Cleanup(r.srv.Close)
	return r
}

// restart forgets everything but the files.
func (r *recorder) restart() {
	s, err := store.Open(store.Config{Dir: r.dir})
	if err != nil {
		r.t.Fatal(err)
	}
	recv, err := NewReceiver(ReceiverConfig{
		Sink: s, Key: r.key,
		HostOf: func(*http.Request) (string, bool) { h := r.host.Load().(string); return h, h != "" },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.store, r.recv = s, recv
	r.mu.Unlock()
}

func (r *recorder) answers(status int) {
	r.trick.Store(func(w http.ResponseWriter, _ *http.Request) bool {
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		if status == http.StatusOK {
			return false
		}
		w.WriteHeader(status)
		return true
	})
}

// bytesOf is what the recorder has of a recording.
func (r *recorder) bytesOf(id string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	rd, err := r.store.Read(id)
	if err != nil {
		return nil
	}
	defer rd.Close()
	b, err := io.ReadAll(rd)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// host is a spool that runs, with one recording under way in it.
type host struct {
	t    *testing.T
	sp   *recording.Spool
	dir  string
	sent *Sender
}

func newHost(t *testing.T, r *recorder) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	var err error
	if h.sp, err = recording.OpenSpool(recording.SpoolConfig{Dir: h.dir, MinFree: 1}); err != nil {
		t.Fatal(err)
	}
	h.sent, err = NewSender(SenderConfig{
		Spool: h.sp, HTTP: func() (*http.Client, string) { return r.srv.Client(), r.srv.URL }, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { h.sp.Run(ctx) })
	wg.Go(func() { h.sent.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

func (h *host) begin() (*recording.Session, *recording.Journal, *os.File) {
	h.t.Helper()
	start := time.Now()
	x, err := h.sp.Begin(recording.Meta{Version: 1, Start: start, Host: "web", HostID: "n-web", Src: "laptop", SrcID: "n-laptop", Login: "alice@example.com", LocalUser: "deploy"})
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
	return x, j, f
}

// whole is a recording that is finished in the spool; some of its bytes do not compress.
func (h *host) whole(size int) (id string, b []byte) {
	h.t.Helper()
	x, j, _ := h.begin()
	noise := make([]byte, size)
	seed := uint64(1)
	for i := range noise {
		seed = seed*6364136223846793005 + 1442695040888963407
		noise[i] = byte(seed >> 56)
	}
	if err := j.Append(1, recording.KindOutput, noise); err != nil {
		h.t.Fatal(err)
	}
	if err := x.Finish("closed", ""); err != nil {
		h.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, x.ID(), "recording.tsr"))
	if err != nil {
		h.t.Fatal(err)
	}
	return x.ID(), b
}

// until waits for something that other goroutines bring about.
func until(t *testing.T, what string, most time.Duration, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > most {
			t.Fatalf("%s: not within %s", what, most)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

func TestFinishedRecordingsArriveAndAreFreed(t *testing.T) {
	r := newRecorder(t)
	r.answers(503) // so that several wait
	h := newHost(t, r)
	want := map[string][]byte{}
	for range atOnce + 3 {
		id, b := h.whole(900_000) // two appends
		want[id] = b
	}
	r.answers(200)
	until(t, "the spool is empty", 30*time.Second, func() bool { return len(h.sp.Recordings()) == 0 })
	for id, b := range want {
		if !bytes.Equal(r.bytesOf(id), b) {
			t.Errorf("recording %s did not arrive as it was", id)
		}
		if _, err := os.Stat(filepath.Join(h.dir, id)); !os.IsNotExist(err) {
			t.Errorf("the spool keeps %s: %v", id, err)
		}
	}
	until(t, "the status is calm", 5*time.Second, func() bool {
		s := h.sent.Status()
		return s.Recordings == 0 && s.Behind == 0 && s.Err == nil
	})
}

func TestRunningRecordingsAreSentWhileTheyRun(t *testing.T) {
	r := newRecorder(t)
	h := newHost(t, r)
	x, j, _ := h.begin()
	text := func(s string) bool {
		rd, err := recording.NewReader(bytes.NewReader(r.bytesOf(x.ID())), int64(len(r.bytesOf(x.ID()))))
		if err != nil {
			return false
		}
		defer rd.Close()
		found := false
		rd.Events(func(e recording.Event) error { found = found || string(e.Data) == s; return nil })
		return found
	}
	for _, line := range []string{"first", "second"} {
		if err := j.Append(1, recording.KindOutput, []byte(line)); err != nil {
			t.Fatal(err)
		}
		took := until(t, line+" is at the recorder", 15*time.Second, func() bool { return text(line) })
		t.Logf("%q was at the recorder after %s", line, took.Round(100*time.Millisecond))
	}
	if sum, err := r.store.Lookup(x.ID()); err != nil || !sum.Live || sum.Complete {
		t.Errorf("summary %+v, %v", sum, err)
	}
	if err := x.Finish("closed", ""); err != nil {
		t.Fatal(err)
	}
	until(t, "the end is at the recorder", 15*time.Second, func() bool { sum, _ := r.store.Lookup(x.ID()); return sum.Complete })
}

func TestAfterAnOutageSendingGoesOn(t *testing.T) {
	r := newRecorder(t)
	h := newHost(t, r)
	x, j, _ := h.begin()
	size := func() int { return len(r.bytesOf(x.ID())) }
	until(t, "it began", 15*time.Second, func() bool { return size() > 0 })
	r.answers(0) // the connection breaks in the middle of each request
	before := size()
	if err := j.Append(1, recording.KindOutput, []byte("during the outage")); err != nil {
		t.Fatal(err)
	}
	until(t, "the outage is noticed", 15*time.Second, func() bool { return h.sent.Status().Err != nil })
	if s := h.sent.Status(); s.Since.IsZero() {
		t.Errorf("status %+v", s)
	}
	if err := x.Finish("closed", ""); err != nil {
		t.Fatal(err)
	}
	if got := size(); got != before {
		t.Errorf("%d bytes came through the outage", got-before)
	}
	r.restart() // and the recorder comes back as another process
	r.answers(200)
	until(t, "the rest arrived", 30*time.Second, func() bool { sum, err := r.store.Lookup(x.ID()); return err == nil && sum.Complete })
	until(t, "the outage is over", 5*time.Second, func() bool { return h.sent.Status().Err == nil })
}

// An answer that is lost: the recorder has the bytes, the host does not know.
func TestLostAnswersCostNothing(t *testing.T) {
	r := newRecorder(t)
	var lost atomic.Int64
	r.trick.Store(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPut || lost.Add(1) > 2 {
			return false
		}
		r.recv.ServeHTTP(httptest.NewRecorder(), req)
		panic(http.ErrAbortHandler)
	})
	h := newHost(t, r)
	id, b := h.whole(1_200_000)
	until(t, "it arrived", 30*time.Second, func() bool { return len(h.sp.Recordings()) == 0 })
	if !bytes.Equal(r.bytesOf(id), b) {
		t.Error("it did not arrive as it was")
	}
}

// A refused recording waits and does not hold up the others.
func TestARefusedRecordingDoesNotHoldUpOthers(t *testing.T) {
	r := newRecorder(t)
	h := newHost(t, r)
	bad, b := h.whole(1000)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(h.dir, bad, "recording.tsr"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	good, want := h.whole(1000)
	until(t, "the good one arrived", 15*time.Second, func() bool { return bytes.Equal(r.bytesOf(good), want) })
	until(t, "the bad one was tried", 15*time.Second, func() bool { return r.puts.Load() >= 2 })
	if r.bytesOf(bad) != nil {
		t.Error("a tampered recording was taken")
	}
	if _, err := os.Stat(filepath.Join(h.dir, bad)); err != nil {
		t.Errorf("the refused recording left the spool: %v", err)
	}
	puts := r.puts.Load()
	time.Sleep(3 * look)
	if n := r.puts.Load() - puts; n > 1 {
		t.Errorf("a refused recording was tried %d times within seconds", n)
	}
}

func TestTheReceiverBelievesNobody(t *testing.T) {
	r := newRecorder(t)
	r.answers(503)
	h := newHost(t, r)
	id, b := h.whole(1000)
	// The host's own sender goes on being refused, however long this takes.
	r.trick.Store(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Test") == "asks" {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	ask := func(method, path string, body []byte) (int, Ack) {
		t.Helper()
		req, err := http.NewRequest(method, r.srv.URL+"/v1/recordings/"+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Test", "asks")
		res, err := r.srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var a Ack
		json.NewDecoder(res.Body).Decode(&a)
		return res.StatusCode, a
	}
	const other = "20260101-000000-aaaaaaaaaaaaaaaa"
	tampered := bytes.Clone(b)
	tampered[len(tampered)/2] ^= 1
	for _, c := range []struct {
		name, host, method, path string
		body                     []byte
		want                     int
	}{
		{"unknown peer", "", "PUT", id + "?offset=0", b, 403},
		{"unknown peer asks", "", "GET", id, nil, 403},
		{"another host", "n-db", "PUT", id + "?offset=0", b, 403},
		{"another id", "n-web", "PUT", other + "?offset=0", b, 422},
		{"tampered", "n-web", "PUT", id + "?offset=0", tampered, 422},
		{"rubbish", "n-web", "PUT", id + "?offset=0", []byte(strings.Repeat("x", 500)), 422},
		{"no offset", "n-web", "PUT", id, b, 400},
		{"negative offset", "n-web", "PUT", id + "?offset=-1", b, 400},
		{"not the beginning", "n-web", "PUT", id + "?offset=16", b[16:], 409},
		{"path in the id", "n-web", "PUT", "..%2F..%2Fx?offset=0", b, 400},
		{"too long", "n-web", "PUT", id + "?offset=0", make([]byte, maxBody+1), 413},
		{"delete", "n-web", "DELETE", id, nil, 405},
	} {
		r.host.Store(c.host)
		if got, a := ask(c.method, c.path, c.body); got != c.want {
			t.Errorf("%s: %d %+v, want %d", c.name, got, a, c.want)
		}
		if r.bytesOf(id) != nil || r.bytesOf(other) != nil {
			t.Fatalf("%s: something was kept", c.name)
		}
	}
	// The true bytes are taken; where the recorder is stands in every conflict.
	r.host.Store("n-web")
	if got, a := ask("PUT", id+"?offset=0", b); got != 200 || a.Acked != int64(len(b)) || !a.Complete {
		t.Errorf("true bytes: %d %+v", got, a)
	}
	if got, a := ask("PUT", id+"?offset=5", b); got != 409 || a.Acked != int64(len(b)) {
		t.Errorf("conflict: %d %+v", got, a)
	}
}

func TestCountersign(t *testing.T) {
	r := newRecorder(t)
	h := newHost(t, r)
	m, err := json.Marshal(recording.Meta{Version: 1, ID: "20260101-000000-aaaaaaaaaaaaaaaa", HostID: "n-web", PublicKey: r.key.Public().(ed25519.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(m)
	s := recording.Start{ID: "20260101-000000-aaaaaaaaaaaaaaaa", Meta: m, MetaSHA256: sum[:]}
	c, err := h.sent.Countersign(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Valid(s) || !bytes.Equal(c.Key, r.key.Public().(ed25519.PublicKey)) || time.Since(c.Time).Abs() > time.Minute {
		t.Errorf("countersignature %+v", c)
	}
	r.host.Store("n-db")
	if _, err := h.sent.Countersign(t.Context(), s); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("for another host: %v", err)
	}
	r.host.Store("n-web")
	s.ID = "20260101-000000-bbbbbbbbbbbbbbbb"
	if _, err := h.sent.Countersign(t.Context(), s); err == nil {
		t.Error("a start that contradicts itself was signed")
	}
	r.trick.Store(func(w http.ResponseWriter, _ *http.Request) bool {
		c.Signature[0] ^= 1
		answer(w, 200, c)
		return true
	})
	s.ID = "20260101-000000-aaaaaaaaaaaaaaaa"
	if _, err := h.sent.Countersign(t.Context(), s); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a signature that does not fit: %v", err)
	}
}

// A recorder that says impossible things must not make the spool free anything.
func TestALyingRecorderFreesNothing(t *testing.T) {
	for name, ack := range map[string]Ack{
		"more than there is": {Acked: 1 << 40, Complete: true},
		"less than before":   {Acked: -5},
		"whole, no end":      {Acked: -1}, // replaced by the true size below
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder(t)
			h := newHost(t, r)
			asked := make(chan struct{}, 100)
			r.trick.Store(func(w http.ResponseWriter, req *http.Request) bool {
				a := ack
				if a.Acked == -1 {
					a.Acked = 0
					for _, p := range h.sp.Recordings() {
						a.Acked = p.Durable
					}
				}
				answer(w, 200, a)
				select {
				case asked <- struct{}{}:
				default:
				}
				return true
			})
			id, _ := h.whole(1000)
			<-asked
			time.Sleep(2 * look)
			if _, err := os.Stat(filepath.Join(h.dir, id, "recording.tsr")); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestConfigsThatCannotWork(t *testing.T) {
	if _, err := NewSender(SenderConfig{}); err == nil {
		t.Error("a sender without a spool")
	}
	if _, err := NewReceiver(ReceiverConfig{}); err == nil {
		t.Error("a receiver without a sink")
	}
}
