package daemon

import (
	"testing"
	"time"

	"tssh/netnode/netmap"
)

// TestLaterEndpointsStay: endpoints that come while those kept for the client are passed on are not overwritten by
// them, however long that takes.
func TestLaterEndpointsStay(t *testing.T) {
	d, m := &Daemon{}, &member{}
	d.publish(m, netmap.Where{Home: "before"})
	told := make(chan netmap.Where, 2)
	begun, release := make(chan struct{}), make(chan struct{})
	tell := func(w netmap.Where) {
		if w.Home == "before" {
			close(begun)
			<-release
		}
		told <- w
	}
	entered, published := make(chan struct{}), make(chan struct{})
	go func() { d.enter(m, nil, tell); close(entered) }() // ends with release
	<-begun
	go func() { d.publish(m, netmap.Where{Home: "after"}); close(published) }() // ends with it
	select {
	case <-published: // past the first: that is what must not be
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	<-entered
	<-published
	if first, last := <-told, <-told; first.Home != "before" || last.Home != "after" {
		t.Errorf("told %q, and then %q", first.Home, last.Home)
	}
}
