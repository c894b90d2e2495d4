package session

import (
	"fmt"
	"io"
	"time"

	"tssh/recording"
)

// touch notes that something happened on the connection.
func (c *conn) touch() { c.active.Store(time.Now().UnixNano()) }

// watchIdle ends the connection when nothing happened for the limit; 0 is none. Where there
// is a terminal only what is typed counts, elsewhere every byte either way.
func (c *conn) watchIdle(limit time.Duration) {
	if limit <= 0 {
		return
	}
	c.touch()
	for { // ends with the connection
		left := time.Until(time.Unix(0, c.active.Load()).Add(limit))
		if left <= 0 {
			c.stop(ended{causeIdle, fmt.Sprintf("nothing happened for %s, the limit of the rule for this login", limit)})
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(left):
		}
	}
}

// denied refuses a program so that every client shows the words: most say no more of a
// request that failed than that it did, so this one succeeds, and its program is the refusal.
func (s *channel) denied(kind, say string) bool {
	s.c.note(s.id, "refused", clip(kind+": "+say, 1024))
	line := "tssh: error: " + plain(say) + " [denied]\r\n"
	if s.c.record(s.id, recording.KindStderr, []byte(line)) != nil {
		return false
	}
	go func() { // ends with the channel
		if _, err := io.WriteString(s.ch.Stderr(), line); err == nil {
			sendExit(s.ch, recording.Exit{Status: 255})
			_ = s.ch.CloseWrite()
		}
		_ = s.ch.Close()
	}()
	return true
}
