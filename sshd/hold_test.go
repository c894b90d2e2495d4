package sshd_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tssh/sshd"
)

// TestForwardsAreHeldToo: while the recorder takes nothing, nothing leaves the host through a forward either.
func TestForwardsAreHeldToo(t *testing.T) {
	r := newRig(t, ruleWith(`"record":"required-remote"`, ""))
	r.Recorder, r.Limits = true, sshd.Limits{RecorderWait: 20 * time.Second, RecorderHold: 500 * time.Millisecond, RecorderEnd: 2 * time.Minute}
	r.recorder(true)
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	go func() { // ends with the listener, or the connection
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for {
			if _, err := fmt.Fprintln(c, "tick"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	cl := r.client(account(t).Username)
	defer cl.Close()
	fc, err := cl.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	go func() { // ends with the connection
		b := make([]byte, 4096)
		for {
			n, err := fc.Read(b)
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	r.until("it flows", func() bool { return got.Load() > 10 })
	r.recorder(false)
	r.until("output is held back", func() bool { return len(r.audited("session.held")) > 0 })
	before := int64(-1)
	r.until("it stands still", func() bool {
		now := got.Load()
		still := now == before
		before = now
		time.Sleep(300 * time.Millisecond) // fifteen ticks, if they came
		return still
	})
	r.recorder(true)
	r.until("it flows again", func() bool { return got.Load() > before+20 })
}
