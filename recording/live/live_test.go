package live

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// site is a hub with one host that keeps what it is told.
type site struct {
	t     *testing.T
	hub   *Hub
	url   string
	known func() (string, bool)

	mu    sync.Mutex
	told  []Watched
	ended []End
	open  func() []Open // what is not recorded; nil: nothing
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t}
	s.known = func() (string, bool) { return "web", true }
	hub, err := NewHub(HubConfig{HostOf: func(*http.Request) (string, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.known()
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.hub = hub
	srv := httptest.NewServer(hub)
	t.Cleanup(srv.Close)
	t.Cleanup(hub.Close)
	s.url = srv.URL
	return s
}

// host runs a host until the returned func is called.
func (s *site) host() (stop func()) {
	s.t.Helper()
	h, err := NewHost(HostConfig{
		HTTP: func() (*http.Client, string) { return http.DefaultClient, s.url },
		End: func(e End) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ended = append(s.ended, e)
			switch e.Session {
			case "mine":
				return nil
			case "broken":
				return errors.New("a detail of the host's")
			}
			return &Refused{CodeDenied, "policy does not let you end this session"}
		},
		Open: func() []Open {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.open == nil {
				return nil
			}
			return s.open()
		},
		Watched: func(w Watched) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told = append(s.told, w)
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() { h.Run(ctx); close(done) }() // ends with ctx
	stop = sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(stop)
	s.await("the host to connect", func() bool { return s.connected() })
	return stop
}

func (s *site) connected() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hub.hosts["web"] != nil
}

func (s *site) await(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// last is what the host was told last about a session.
func (s *site) last(session string) (Watched, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.told) - 1; i >= 0; i-- {
		if s.told[i].Session == session {
			return s.told[i], true
		}
	}
	return Watched{}, false
}

var alice, bob = By{ID: "n1", Node: "laptop", Login: "alice@example.com", Role: "admin"}, By{ID: "n2", Node: "phone", Login: "bob@example.com"}

func TestAnOrderIsAnswered(t *testing.T) {
	s := newSite(t)
	if err := s.hub.End(t.Context(), "web", End{Session: "mine"}); !errors.Is(err, ErrAway) {
		t.Errorf("without a host: %v", err)
	}
	stop := s.host()
	want := End{Session: "mine", By: alice, Reason: "too long \u2028"}
	if err := s.hub.End(t.Context(), "web", want); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	if len(s.ended) != 1 || !reflect.DeepEqual(s.ended[0], want) {
		t.Errorf("the host got %+v", s.ended)
	}
	s.mu.Unlock()
	var no *Refused
	if err := s.hub.End(t.Context(), "web", End{Session: "others"}); !errors.As(err, &no) || no.Code != CodeDenied || no.Say == "" {
		t.Errorf("refused: %v", err)
	}
	if err := s.hub.End(t.Context(), "web", End{Session: "broken"}); !errors.As(err, &no) || no.Code != CodeFailed || strings.Contains(no.Say, "detail") {
		t.Errorf("failed: %v", err)
	}
	stop()
	s.await("the host to be gone", func() bool { return !s.connected() })
	if err := s.hub.End(t.Context(), "web", End{Session: "mine"}); !errors.Is(err, ErrAway) {
		t.Errorf("after it went: %v", err)
	}
}

func TestWatchersAreTold(t *testing.T) {
	s := newSite(t)
	first := s.hub.Watch("web", "a", alice) // before the host is there
	s.host()
	names := func(session string) string {
		w, _ := s.last(session)
		var out []string
		for _, x := range w.Watchers {
			out = append(out, x.By.Login)
		}
		return strings.Join(out, " ")
	}
	s.await("the state", func() bool { return names("a") == "alice@example.com" })
	again, second := s.hub.Watch("web", "a", alice), s.hub.Watch("web", "a", bob)
	s.await("the second", func() bool { return names("a") == "alice@example.com bob@example.com" })
	select {
	case <-first.Changed:
	case <-time.After(20 * time.Second):
		t.Error("the first watcher does not hear of the second")
	}
	first.Stop()
	first.Stop() // once is once
	if got := len(s.hub.Watchers("a")); got != 2 {
		t.Errorf("%d watchers, alice still has another window", got)
	}
	again.Stop()
	s.await("alice to be gone", func() bool { return names("a") == "bob@example.com" })
	second.Stop()
	s.await("nobody", func() bool { w, _ := s.last("a"); return len(w.Watchers) == 0 })
	if s.hub.Watchers("a") != nil || len(s.hub.watched) != 0 {
		t.Errorf("something is left: %v", s.hub.watched)
	}
	s.hub.Look("web", "b", bob, 50*time.Millisecond)
	s.await("the look", func() bool { _, ok := s.last("b"); return ok })
	s.await("its end", func() bool { w, _ := s.last("b"); return len(w.Watchers) == 0 })
}

// TestComesBack: what is watched is said again after the connection was lost, and what ended
// meanwhile is taken back.
func TestComesBack(t *testing.T) {
	s := newSite(t)
	s.host()
	stays, goes := s.hub.Watch("web", "a", alice), s.hub.Watch("web", "b", bob)
	defer stays.Stop()
	s.await("both", func() bool { _, a := s.last("a"); _, b := s.last("b"); return a && b })
	s.mu.Lock()
	s.known = func() (string, bool) { return "", false }
	s.mu.Unlock()
	s.hub.Close()
	s.await("the connection to be lost", func() bool { return !s.connected() })
	goes.Stop()
	s.mu.Lock()
	s.told = nil
	s.known = func() (string, bool) { return "web", true }
	s.mu.Unlock()
	s.await("the state again", func() bool {
		a, okA := s.last("a")
		b, okB := s.last("b")
		return okA && len(a.Watchers) == 1 && okB && len(b.Watchers) == 0
	})
}

func TestWhoMayConnect(t *testing.T) {
	s := newSite(t)
	ask := func(upgrade string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if upgrade != "" {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", upgrade)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := ask(""); got != http.StatusBadRequest {
		t.Errorf("a plain request: %d", got)
	}
	if got := ask("websocket"); got != http.StatusBadRequest {
		t.Errorf("another protocol: %d", got)
	}
	s.mu.Lock()
	s.known = func() (string, bool) { return "", false }
	s.mu.Unlock()
	if got := ask(Protocol); got != http.StatusForbidden {
		t.Errorf("nobody known: %d", got)
	}
}

// FuzzLines: whatever the other side writes, reading ends, with messages or an error.
func FuzzLines(f *testing.F) {
	f.Add("{\"n\":7,\"end\":{\"session\":\"x\",\"by\":{\"login\":\"a@b\"},\"reason\":\"r\"}}\n{\"ping\":true}\n")
	f.Add("{\"state\":[{\"session\":\"x\",\"watchers\":null}]}\n")
	f.Add("[1]\n")
	f.Fuzz(func(t *testing.T, s string) {
		in := newLines(strings.NewReader(s))
		for range len(s) + 2 {
			var m toHost
			if in.next(&m) != nil {
				return
			}
		}
		t.Error("reads without end")
	})
}
