package live

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestOpenSessionsAreTold: a hub knows of what runs on a host and is not recorded, as it comes and goes, and no more of it
// when the host has gone.
func TestOpenSessionsAreTold(t *testing.T) {
	s := newSite(t)
	one := Open{Session: "a", Of: alice, LocalUser: "root", Since: time.Unix(1000, 0).UTC()}
	two := Open{Session: "b", Of: bob, LocalUser: "deploy", UID: 1000, Since: time.Unix(2000, 0).UTC(), Why: "the spool is full"}
	now := []Open{one, two}
	s.open = func() []Open { // under s.mu
		return now
	}
	stop := s.host()
	s.await("both", func() bool { return len(s.hub.Open()) == 2 })
	if got := s.hub.Open(); got[0].Host != "web" || got[0].Session != "b" || got[0].Why != two.Why || got[0].Of.Login != bob.Login || got[1].Session != "a" || !got[1].Since.Equal(one.Since) {
		t.Errorf("%+v", got)
	}
	s.mu.Lock()
	now = []Open{two}
	s.mu.Unlock()
	s.await("one to end", func() bool { return len(s.hub.Open()) == 1 })
	s.mu.Lock()
	now = nil
	s.mu.Unlock()
	s.await("the other to end", func() bool { return len(s.hub.Open()) == 0 })
	s.mu.Lock()
	now = []Open{one}
	s.mu.Unlock()
	s.await("a new one", func() bool { return len(s.hub.Open()) == 1 })
	stop()
	s.await("the host to be gone", func() bool { return len(s.hub.Open()) == 0 })
}

// TestAHostCannotTellWithoutEnd: many sessions are the latest of them, long words are none.
func TestAHostCannotTellWithoutEnd(t *testing.T) {
	s := newSite(t)
	var many []Open
	for i := range 5000 {
		many = append(many, Open{Session: "s", Of: alice, LocalUser: strings.Repeat("x", 200), Since: time.Unix(int64(i), 0)})
	}
	s.open = func() []Open { return many }
	s.host()
	s.await("some", func() bool { return len(s.hub.Open()) > 0 })
	if got := s.hub.Open(); len(got) > maxOpen || got[0].Since.Unix() != 4999 {
		t.Errorf("%d, the latest of %v", len(got), got[0].Since)
	}
	long := Open{Session: "s", LocalUser: strings.Repeat("x", maxOpenWord+1)}
	if long.bounded() || !(&Open{Session: "s", Of: alice}).bounded() || (&Open{Of: By{Tags: make([]string, maxOpenTags+1)}}).bounded() {
		t.Error("bounds")
	}
	if res, err := http.Get(s.url + Path); err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("%v, %v", res, err)
	}
}
