package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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

	"tssh/recording/audit"
)

// auditHub is a hub with a front door that tests can close.
type auditHub struct {
	t      *testing.T
	dir    string
	own    *audit.Log
	copies *audit.Copies
	srv    *httptest.Server
	host   atomic.Value // string: who the peer's key proves it is
	trick  atomic.Value // func(http.ResponseWriter) bool: true when it answered
	recv   atomic.Pointer[AuditReceiver]
}

func openAudit(t *testing.T, dir string) *audit.Log {
	t.Helper()
	l, err := audit.OpenBounded(dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func newAuditHub(t *testing.T) *auditHub {
	t.Helper()
	h := &auditHub{t: t, dir: t.TempDir()}
	h.own = openAudit(t, filepath.Join(h.dir, "own"))
	h.host.Store("n-web")
	h.open()
	h.restart()
	h.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.trick.Load().(func(http.ResponseWriter) bool)(w) {
			h.recv.Load().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.srv.Close)
	return h
}

func (h *auditHub) open() {
	h.trick.Store(func(http.ResponseWriter) bool { return false })
}

// restart forgets everything but the files.
func (h *auditHub) restart() {
	h.t.Helper()
	var err error
	if h.copies, err = audit.OpenCopies(audit.CopiesConfig{Dir: filepath.Join(h.dir, "hosts"), Noted: h.own.Append}); err != nil {
		h.t.Fatal(err)
	}
	recv, err := NewAuditReceiver(AuditReceiverConfig{Copies: h.copies, HostOf: func(*http.Request) (string, string, bool) {
		id := h.host.Load().(string)
		return id, strings.TrimPrefix(id, "n-"), id != ""
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.recv.Store(recv)
}

func (h *auditHub) all(f audit.Filter) (out []audit.Record) {
	h.t.Helper()
	if err := audit.ReadAll(h.own.Dir(), h.copies, f, func(r audit.Record) error { out = append(out, r); return nil }); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// send runs a sender of l until the returned func is called.
func (h *auditHub) send(l *audit.Log) (stop func()) {
	h.t.Helper()
	s, err := NewAuditSender(AuditSenderConfig{
		Audit: l, HTTP: func() (*http.Client, string) { return h.srv.Client(), h.srv.URL }, Log: slog.New(slog.NewTextHandler(testWriter{h.t}, nil)),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	h.t.Cleanup(stop)
	return stop
}

func note(t *testing.T, l *audit.Log, text string) {
	t.Helper()
	if err := l.Append(audit.Entry{Kind: "session.open", Who: "alice@example.com", Text: text}); err != nil {
		t.Fatal(err)
	}
}

func TestTheHubHasEveryDecisionOfAHost(t *testing.T) {
	h := newAuditHub(t)
	l := openAudit(t, t.TempDir())
	note(t, l, "before the first contact")
	h.send(l)
	has := func(n int) func() bool { return func() bool { return len(h.all(audit.Filter{Host: "web"})) == n } }
	until(t, "the first arrived", 20*time.Second, has(1))
	note(t, l, "while it runs")
	took := until(t, "the second arrived", 20*time.Second, has(2))
	t.Logf("a decision was at the hub after %s", took.Round(time.Millisecond))

	// The hub is away, and comes back as another process.
	h.trick.Store(func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) })
	for i := range 50 {
		note(t, l, fmt.Sprint("during the outage ", i))
	}
	h.restart()
	h.open()
	until(t, "all arrived", 30*time.Second, has(52))
	for i, r := range h.all(audit.Filter{Host: "web"}) {
		if r.Seq != uint64(i+1) || r.FromID != "n-web" {
			t.Fatalf("entry %d: %+v", i, r)
		}
	}
	if n := len(h.all(audit.Filter{Kind: "audit.gap"})); n != 0 {
		t.Errorf("%d gaps", n)
	}
}

// An answer that is lost makes neither a gap nor a line that is there twice.
func TestALostAnswerAboutAuditLines(t *testing.T) {
	h := newAuditHub(t)
	l := openAudit(t, t.TempDir())
	var lost atomic.Int64
	direct := h.srv.Config.Handler
	h.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && lost.Add(1) <= 2 {
			direct.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		direct.ServeHTTP(w, r)
	})
	note(t, l, "one")
	h.send(l)
	until(t, "the first answer is lost", 20*time.Second, func() bool { return lost.Load() >= 1 })
	note(t, l, "two")
	until(t, "both are there", 30*time.Second, func() bool { return len(h.all(audit.Filter{})) >= 2 })
	until(t, "an answer came through", 30*time.Second, func() bool { note(t, l, "more"); return lost.Load() > 2 })
	seq, _ := l.Head()
	until(t, "all are there", 30*time.Second, func() bool { return len(h.all(audit.Filter{})) >= int(seq) })
	if n := len(h.all(audit.Filter{})); n != int(seq) {
		t.Errorf("%d entries of %d", n, seq)
	}
}

func TestAHostThatLostItsAuditLogShowsAGap(t *testing.T) {
	h := newAuditHub(t)
	dir := t.TempDir()
	l := openAudit(t, dir)
	note(t, l, "one")
	note(t, l, "two")
	stop := h.send(l)
	until(t, "both are there", 20*time.Second, func() bool { return len(h.all(audit.Filter{})) == 2 })
	stop()
	l.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l = openAudit(t, dir)
	note(t, l, "another one")
	h.send(l)
	until(t, "the new log is there", 20*time.Second, func() bool { return len(h.all(audit.Filter{Host: "n-web"})) == 3 })
	if gaps := h.all(audit.Filter{Kind: "audit.gap"}); len(gaps) != 1 || gaps[0].FromID != "" || gaps[0].Entry.Host != "web" {
		t.Errorf("gaps: %+v", gaps)
	}
}

func TestAuditLinesOfAnotherHostAreItsOwn(t *testing.T) {
	h := newAuditHub(t)
	l := openAudit(t, t.TempDir())
	if err := l.Append(audit.Entry{Kind: "session.open", Host: "db", Who: "nobody"}); err != nil {
		t.Fatal(err)
	}
	var line []byte
	tail, err := l.Tail(0, audit.Hash{})
	if err == nil {
		line, _, err = tail.Next(1 << 20)
	}
	if err != nil || len(line) == 0 {
		t.Fatal(err)
	}
	ask := func(method, query string, body []byte) (int, AuditAck) {
		t.Helper()
		req, err := http.NewRequest(method, h.srv.URL+"/v1/audit"+query, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := h.srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var a AuditAck
		json.NewDecoder(io.LimitReader(res.Body, 4096)).Decode(&a)
		return res.StatusCode, a
	}
	for _, c := range []struct {
		name, host, method, query string
		body                      []byte
		want                      int
	}{
		{"unknown peer", "", "PUT", "?after=0", line, 403},
		{"unknown peer asks", "", "GET", "", nil, 403},
		{"no place", "n-web", "PUT", "", line, 400},
		{"a negative place", "n-web", "PUT", "?after=-1", line, 400},
		{"elsewhere", "n-web", "PUT", "?after=7", line, 409},
		{"rubbish", "n-web", "PUT", "?after=0", []byte("x\n"), 422},
		{"half a line", "n-web", "PUT", "?after=0", line[:len(line)-1], 422},
		{"changed", "n-web", "PUT", "?after=0", bytes.Replace(line, []byte("nobody"), []byte("alicia"), 1), 422},
		{"too much", "n-web", "PUT", "?after=0", make([]byte, auditBody+1), 413},
		{"delete", "n-web", "DELETE", "", nil, 405},
	} {
		h.host.Store(c.host)
		if got, a := ask(c.method, c.query, c.body); got != c.want {
			t.Errorf("%s: %d %+v, want %d", c.name, got, a, c.want)
		}
		if n := len(h.all(audit.Filter{})); n != 0 {
			t.Fatalf("%s: %d entries were kept", c.name, n)
		}
	}
	h.host.Store("n-web")
	if got, a := ask("PUT", "?after=0", line); got != 200 || a.Seq != 1 {
		t.Fatalf("a true line: %d %+v", got, a)
	}
	// It says that it is of db; it is of the host that sent it.
	if n := len(h.all(audit.Filter{Host: "db"})); n != 0 {
		t.Error("a host wrote what is shown as another's")
	}
	if r := h.all(audit.Filter{Host: "web"}); len(r) != 1 || r[0].From != "web" {
		t.Errorf("of the host that sent it: %+v", r)
	}
	h.host.Store("n-db")
	if got, a := ask("GET", "", nil); got != 200 || a.Seq != 0 {
		t.Errorf("another host's log: %d %+v", got, a)
	}
}

// An idle sender asks nothing.
func TestAnIdleAuditSenderIsSilent(t *testing.T) {
	h := newAuditHub(t)
	l := openAudit(t, t.TempDir())
	note(t, l, "one")
	h.send(l)
	until(t, "it arrived", 20*time.Second, func() bool { return len(h.all(audit.Filter{})) == 1 })
	var asked atomic.Int64
	h.trick.Store(func(http.ResponseWriter) bool { asked.Add(1); return false })
	time.Sleep(1500 * time.Millisecond)
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests with nothing to send", n)
	}
}
