package recording

import (
	"fmt"
	"testing"
	"time"
)

// TestARecorderThatLeavesItsOwnUnanswered: however many recordings wait for it, one that it was not
// asked about is next.
func TestARecorderThatLeavesItsOwnUnanswered(t *testing.T) {
	now := time.Unix(1000, 0)
	s := &Spool{cfg: SpoolConfig{Clock: func() time.Time { return now }}, running: map[string]*Session{}}
	add := func(id string) *Session {
		x := &Session{id: id}
		s.running[id], s.queue = x, append(s.queue, x)
		return x
	}
	for i := range 20 {
		add(fmt.Sprint("slow", i))
	}
	for range 20 {
		x, _ := s.nextUnsigned()
		s.unsigned(x)
	}
	now = now.Add(signLongest) // all are due again
	fresh, over := add("fresh"), add("over")
	delete(s.running, over.id)
	if x, _ := s.nextUnsigned(); x != fresh {
		t.Errorf("next is %q", x.id)
	}
	for range 20 {
		if x, _ := s.nextUnsigned(); x == nil || x == fresh || x == over {
			t.Fatalf("then %p, fresh is %p", x, fresh)
		}
	}
	if x, wait := s.nextUnsigned(); x != nil || wait != -1 || len(s.queue) != 0 {
		t.Errorf("at last %v, %v, %d", x, wait, len(s.queue))
	}
}
