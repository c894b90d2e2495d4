package localapi

import (
	"context"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAnswersNobodyReads: a local user who asks again and again and reads nothing must not
// make the daemon hold the list of the mesh a hundred times.
func TestAnswersNobodyReads(t *testing.T) {
	var made atomic.Int64
	long := strings.Repeat("x", 4<<20) // more than a socket takes
	path := start(t, Config{OwnerUID: os.Getuid(), Status: func(context.Context) (Status, error) {
		made.Add(1)
		return Status{State: long}, nil
	}})
	for range 3 * maxAnswers {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: localapi\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); made.Load() < maxAnswers && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	// Other calls of the same user are answered meanwhile: the daemon has seen all of these.
	if _, err := NewClient(path).WhoIs(t.Context(), "100.64.0.1"); err == nil || !strings.Contains(err.Error(), "does not offer") {
		t.Error(err)
	}
	if n := made.Load(); n != maxAnswers {
		t.Errorf("%d answers are held", n)
	}
}

func TestGate(t *testing.T) {
	var g gate
	var leave []func()
	for range maxAnswers {
		f, ok := g.enter(t.Context(), 1)
		if !ok {
			t.Fatal("no turn")
		}
		leave = append(leave, f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := g.enter(ctx, 1); ok {
		t.Error("one too many")
	}
	f, ok := g.enter(ctx, 2) // may be either: both are ready
	if ok {
		f()
	}
	for _, f := range leave {
		f()
	}
	if f, ok := g.enter(t.Context(), 1); !ok {
		t.Error("no turn after the others left")
	} else {
		f()
	}
	if len(g.by) != 0 {
		t.Errorf("%d uids are remembered", len(g.by))
	}
}
