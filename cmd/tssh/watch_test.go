package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"tssh/recording/term"
)

// TestWatch joins a session in its middle, goes on with it, and ends with it.
func TestWatch(t *testing.T) {
	detail := func(live bool, seconds string, frames int) string {
		list := []string{`{"first":0,"keyframe":false}`, `{"first":5,"keyframe":true}`, `{"first":9,"keyframe":false}`}
		return fmt.Sprintf(`{"who":"alice@example.com\u001b[2J","local_user":"deploy","host":"web","live":%v,"duration":%s,"channel_list":[{"n":2,"type":"exec"},{"n":1,"type":"shell","pty":true,"cols":40,"rows":6}],"frames":[%s]}`,
			live, seconds, strings.Join(list[:frames], ","))
	}
	frames := []string{
		`{"events":[{"t":0,"ch":1,"k":"output","d":"bm90IGFza2VkIGZvcg=="}]}`,
		`{"keyframes":[{"channel":1,"cols":40,"rows":6,"data":"a2V5ZnJhbWU="}],"events":[{"t":5,"ch":1,"k":"output","d":"IGpvaW5lZBtdMDtvd25lZAc="},{"t":5,"ch":2,"k":"output","d":"b3RoZXI="}]}`,
		`{"events":[{"t":9,"ch":1,"k":"resize","j":{"cols":30,"rows":5}},{"t":9.2,"ch":1,"k":"output","d":"IGdvZXMgb24="}]}`,
	}
	var mu sync.Mutex
	var asked []string
	stream, send := io.Pipe()
	lost := 0 // connections that break at once
	tr := &remoteTrack{get: func(path string, v any) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, path)
		text := ""
		switch {
		case path == "":
			text = detail(true, "5.5", 2)
		default:
			var n int
			if _, err := fmt.Sscanf(path, "/frames/%d", &n); err != nil {
				return err
			}
			text = frames[n]
		}
		return json.Unmarshal([]byte(text), v)
	}, stream: func(_ context.Context, from int) (io.ReadCloser, error) {
		mu.Lock()
		defer mu.Unlock()
		if from != 2 {
			return nil, fmt.Errorf("followed from frame %d on", from)
		}
		if lost++; lost == 1 {
			return io.NopCloser(strings.NewReader(": live\n\nevent: fra")), nil
		}
		return stream, nil
	}}
	say := func(name, data string) {
		t.Helper()
		if _, err := fmt.Fprintf(send, "event: %s\nid: 3\ndata: %s\n\n", name, data); err != nil {
			t.Fatal(err)
		}
	}
	state := func(live bool, more string) string {
		return strings.Replace(strings.Replace(detail(live, "0", 0), `"frames":[]`, `"frames":null`+more, 1), `"duration":0,`, "", 1)
	}
	if err := tr.refresh(); err != nil {
		t.Fatal(err)
	}
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer tty.Close()
	if err := pty.Setsize(tty, &pty.Winsize{Cols: 220, Rows: 12}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- watchTrack(t.Context(), tr, tty, tty) }()
	screen := term.New(220, 12)
	var all []byte
	parts := make(chan []byte, 256)
	go func() { // ends when master is closed
		for {
			b := make([]byte, 32<<10)
			n, err := master.Read(b)
			if err != nil {
				return
			}
			parts <- b[:n]
		}
	}()
	wait := func(text string) {
		t.Helper()
		late := time.After(30 * time.Second)
		for !strings.Contains(strings.Join(screen.Text(), "\n"), text) && !strings.Contains(string(all), text) {
			select {
			case b := <-parts:
				all = append(all, b...)
				screen.Write(b)
			case <-late:
				t.Fatalf("no %q in\n%s", text, strings.Join(screen.Text(), "\n"))
			}
		}
	}
	wait("keyframe joined")
	wait("live: alice@example.com?[2J as deploy on web")
	mu.Lock()
	for _, p := range asked {
		if p == "/frames/0" {
			t.Error("what was before the keyframe was asked for")
		}
	}
	mu.Unlock()
	say("state", state(true, `,"watchers":[{"who":"bob@example.com","you":true},{"who":"olga@example.com\u001b[2J"}]`))
	wait("also watching: olga@example.com?[2J")
	began := time.Now()
	say("frame", `{"row":{"n":2,"first":9,"last":9.2,"keyframe":false},"frame":`+frames[2]+`}`)
	wait("keyframe joined goes on")
	t.Logf("shown %v after the hub sent it, nine seconds of quiet before", time.Since(began))
	say("state", state(false, ""))
	say("end", "{}")
	wait("over: alice@example.com")
	if err := <-done; err != nil {
		t.Error(err)
	}
	onlyOurs(t, all)
}
