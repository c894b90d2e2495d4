package store

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"tssh/recording"
)

// TestNobodyIsFirstWithAnothersID: the person recorded knows the id of the recording from
// inside the session. A machine of the person's that sends one of that name first, well
// made and its own, must not keep the host's out.
func TestNobodyIsFirstWithAnothersID(t *testing.T) {
	id, b := made(t, meta("web", "deploy", noon))
	squat := meta("laptop", "deploy", noon)
	squat.ID = id
	_, own := made(t, squat)
	s := open(t, Config{Dir: t.TempDir()})
	if _, _, err := s.Append("n-laptop", id, 0, own); !errors.Is(err, ErrForeign) {
		t.Errorf("another host's id taken: %v", err)
	}
	if _, done, err := s.Append("n-web", id, 0, b); err != nil || !done {
		t.Errorf("the host's own recording: %v %v", done, err)
	}
	// Those of hosts of an earlier version still come in.
	old := meta("web", "deploy", noon)
	old.ID = "20261120-120000-aaaaaaaaaaaaaaaa"
	_, b = made(t, old)
	if _, done, err := s.Append("n-web", old.ID, 0, b); err != nil || !done {
		t.Errorf("an id without a mark: %v %v", done, err)
	}
}

// TestOneHostLeavesRoom: with a disk that must not become full, a host that has taken what
// others would need is refused, and they are not.
func TestOneHostLeavesRoom(t *testing.T) {
	idA, a := made(t, meta("web", "a", noon))
	idB, b := made(t, meta("db", "b", noon))
	s := open(t, Config{Dir: t.TempDir(), MinFree: 1})
	s.byHost["n-web"] = 1 << 60 // more than four times any disk
	if _, _, err := s.Append("n-web", idA, 0, a); !errors.Is(err, ErrQuota) {
		t.Errorf("a host that has nearly all: %v", err)
	}
	if _, _, err := s.Append("n-db", idB, 0, b); err != nil {
		t.Errorf("another host: %v", err)
	}
	s.byHost["n-web"] = 0
	if _, _, err := s.Append("n-web", idA, 0, a); err != nil {
		t.Errorf("a host that has nothing: %v", err)
	}
}

// TestClaims: what the recorder knows better than the host that sends.
func TestClaims(t *testing.T) {
	id, b := made(t, meta("web", "a", noon))
	wrong := errors.New("another host is called web")
	s := open(t, Config{Dir: t.TempDir(), Check: func(m recording.Meta) error {
		if m.Host == "web" {
			return wrong
		}
		return nil
	}})
	var r *Refusal
	if _, _, err := s.Append("n-web", id, 0, b); !errors.Is(err, wrong) || !errors.Is(err, ErrClaims) || !errors.As(err, &r) || r.HTTPStatus() != 422 {
		t.Errorf("%v", err)
	}
	if list, _ := s.List(Query{May: all}); len(list) != 0 {
		t.Error("a refused recording is listed")
	}
	id, b = made(t, meta("db", "a", noon))
	if _, _, err := s.Append("n-db", id, 0, b); err != nil {
		t.Error(err)
	}
}

// TestSummariesAreSmall: what stays in memory of a recording is bounded whatever its host
// puts into it; compressed, megabytes of one letter cost the host nothing.
func TestSummariesAreSmall(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	var s Summary
	for n := range uint32(maxChannels + 5) {
		for k, v := range map[recording.Kind]any{
			recording.KindOpen: recording.Open{Type: long, Command: long, Term: long},
			recording.KindExit: recording.Exit{Signal: long},
			recording.KindEnd:  recording.End{Cause: long, Text: long},
		} {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			s.apply(recording.Event{Channel: n, Kind: k, Data: b})
			s.apply(recording.Event{Channel: n, Kind: k, Data: b})
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Channels) != maxChannels || len(b) > 100<<10 {
		t.Errorf("%d channels in %d bytes", len(s.Channels), len(b))
	}
}
