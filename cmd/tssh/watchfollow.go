package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
)

const (
	keptFrames   = 64               // that came by the stream, in memory
	maxEvent     = 64 << 20         // one event of the stream
	streamAgain  = time.Second      // between tries where the connection was lost
	streamGiveUp = 45 * time.Second // of trying
)

// frameIndex is a frame's row of the index.
type frameIndex struct {
	N        int     `json:"n"`
	First    float64 `json:"first"`
	Last     float64 `json:"last"`
	Keyframe bool    `json:"keyframe"`
}

// follow takes what the hub sends until the session is over or ctx ends; told is called after
// each change. A connection that was lost goes on at the frame where it was.
func (t *remoteTrack) follow(ctx context.Context, told func()) {
	defer told()
	up := time.Now()
	for ctx.Err() == nil {
		t.mu.Lock()
		from := len(t.d.Frames)
		t.mu.Unlock()
		body, err := t.stream(ctx, from)
		if err == nil {
			up = time.Now()
			err = t.take(body, told)
			body.Close()
			if err == nil {
				return
			}
			up = time.Now()
		}
		var m *mistake
		final := errors.As(err, &m) && m.code != "unreachable"
		if ctx.Err() == nil && (final || time.Since(up) > streamGiveUp) {
			t.mu.Lock()
			t.over, t.err = true, err
			t.mu.Unlock()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(streamAgain):
		}
	}
}

// take reads one stream of server-sent events. No error means that the session is over.
func (t *remoteTrack) take(r io.Reader, told func()) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var name, data string
	for in.Scan() {
		switch field, value, _ := strings.Cut(in.Text(), ":"); {
		case in.Text() == "" && name != "":
			over, err := t.event(name, []byte(data))
			if over || err != nil {
				return err
			}
			told()
			name, data = "", ""
		case field == "event":
			name = strings.TrimPrefix(value, " ")
		case field == "data":
			data = strings.TrimPrefix(value, " ")
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func (t *remoteTrack) event(name string, data []byte) (over bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch name {
	case "state":
		was := t.d
		t.d.Watchers = nil
		if err := json.Unmarshal(data, &t.d); err != nil {
			return false, failed("the hub's words are not understood: %v", err)
		}
		t.d.Frames, t.d.Duration = was.Frames, was.Duration
	case "frame":
		var x struct {
			Row   frameIndex  `json:"row"`
			Frame remoteFrame `json:"frame"`
		}
		if err := json.Unmarshal(data, &x); err != nil {
			return false, failed("the hub's words are not understood: %v", err)
		}
		n := len(t.d.Frames)
		if x.Row.N != n {
			return false, io.ErrUnexpectedEOF // asked for again
		}
		t.d.Frames = append(t.d.Frames, x.Row)
		t.d.Duration = max(t.d.Duration, x.Row.Last)
		if t.came == nil {
			t.came = map[int]remoteFrame{}
		}
		t.came[n] = x.Frame
		delete(t.came, n-keptFrames)
	case "end":
		t.over, t.d.Live = true, false
		return true, nil
	case "refused":
		var said struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(data, &said) // without words it is refused all the same
		return false, failed("the hub says: %s", oneLine(said.Error)).withCode("denied")
	}
	return false, nil
}

// more says whether there may be more, for the player.
func (t *remoteTrack) more() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.over || t.frame < len(t.d.Frames), t.err
}

// watchedBy is who else watches, where that is shown.
func (t *remoteTrack) watchedBy() string {
	var who []string
	for _, w := range t.d.Watchers {
		if !w.You {
			who = append(who, w.Who)
		}
	}
	switch {
	case len(t.d.Watchers) == 0:
		return ""
	case len(who) == 0:
		return "  nobody else watches"
	}
	return "  also watching: " + strings.Join(who, ", ")
}
