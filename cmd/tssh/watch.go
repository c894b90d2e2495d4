package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	xterm "golang.org/x/term"

	"tssh/recording"
	"tssh/recording/term"
	"tssh/recording/transcript"
)

// watch is `tssh watch ID`: a session that still runs, from its last keyframe on, followed until it ends.
// The keys are those of play: one may go back, and End goes to what happens now.
func (a *app) watch(ctx context.Context, args []string) error {
	f := a.flags("watch")
	form := "watch ID"
	if err := f.parse(args, 1, 1, form); err != nil {
		return err
	}
	id := f.rest[0]
	if !recordingID.MatchString(id) {
		return usage("%q is not the id of a recording", id).withHint("tssh sessions is:live")
	}
	if !xterm.IsTerminal(int(a.outFile.Fd())) {
		return usage("watch draws on a terminal, and this is none").withHint("tssh play " + id + " | cat")
	}
	at, err := a.placeOf(ctx, id)
	if err != nil {
		return err
	}
	base := "/api/recordings/" + url.PathEscape(id)
	t := &remoteTrack{
		get: func(path string, v any) error { return at.json(ctx, base+path, v) },
		stream: func(ctx context.Context, from int) (io.ReadCloser, error) {
			resp, err := at.get(ctx, base+"/live", url.Values{"from": {strconv.Itoa(from)}})
			if err != nil {
				return nil, err
			}
			return resp.Body, nil
		},
	}
	for began := time.Now(); ; {
		if err := t.refresh(); err != nil {
			return err
		}
		if len(t.d.Channels) > 0 || !t.d.Live || time.Since(began) > beginTime {
			break
		}
		select {
		case <-time.After(beginLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if len(t.d.Channels) == 0 {
		return failed("nothing has been asked for on this connection yet")
	}
	return watchTrack(ctx, t, a.in, a.outFile)
}

// A login of this moment has its first frame at the hub within some seconds.
const (
	beginTime = 10 * time.Second
	beginLook = 300 * time.Millisecond
)

// watchTrack shows a session as it goes on. The hub sends each frame when it has it.
func watchTrack(ctx context.Context, t *remoteTrack, in, out *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.choose()
	p := newPlayer(t, playOptions{Speed: 1, Idle: time.Second}, in, out)
	p.from = t.duration()
	news := make(chan struct{}, 1)
	p.news = news
	var followed sync.WaitGroup
	defer followed.Wait()
	defer cancel()
	followed.Go(func() { // ends with the session, or with ctx
		t.follow(ctx, func() {
			select {
			case news <- struct{}{}:
			default:
			}
		})
	})
	p.more = t.more
	if err := p.run(); err != nil {
		return explain(err)
	}
	return nil
}

// remoteTrack is a recording at the hub, of which frames come when they are needed, and those of
// a session that runs by themselves (watchfollow.go).
type remoteTrack struct {
	get     func(path string, v any) error
	open    recording.Open
	ch      uint32
	frame   int // the next to get
	pending []remoteEvent

	// stream asks the hub for what comes from a frame on.
	stream func(ctx context.Context, from int) (io.ReadCloser, error)

	mu   sync.Mutex
	came map[int]remoteFrame // by the stream, the last ones
	over bool                // nothing comes any more
	err  error               // why, if it is not the session's end
	d    remoteDetail
}

// remoteDetail is what the hub says of a recording.
type remoteDetail struct {
	Who      string  `json:"who"`
	User     string  `json:"local_user"`
	Host     string  `json:"host"`
	Live     bool    `json:"live"`
	Duration float64 `json:"duration"`
	Channels []struct {
		N      uint32  `json:"n"`
		Type   string  `json:"type"`
		PTY    bool    `json:"pty"`
		Cols   int     `json:"cols"`
		Rows   int     `json:"rows"`
		Opened float64 `json:"opened"`
	} `json:"channel_list"`
	Frames   []frameIndex `json:"frames"`
	Watchers []struct {
		Who  string `json:"who"`
		Node string `json:"node"`
		You  bool   `json:"you"`
	} `json:"watchers"`
}

type remoteEvent struct {
	T       float64         `json:"t"`
	Channel uint32          `json:"ch"`
	Kind    string          `json:"k"`
	Data    []byte          `json:"d"`
	JSON    json.RawMessage `json:"j"`
}

type remoteFrame struct {
	Keyframes []struct {
		Channel uint32 `json:"channel"`
		Cols    int    `json:"cols"`
		Rows    int    `json:"rows"`
		Data    []byte `json:"data"`
	} `json:"keyframes"`
	Events []remoteEvent `json:"events"`
}

func (t *remoteTrack) refresh() error { return t.get("", &t.d) }

// choose takes the first channel with a terminal, or the first.
func (t *remoteTrack) choose() {
	c := t.d.Channels[0]
	for _, x := range t.d.Channels {
		if x.PTY {
			c = x
			break
		}
	}
	t.ch, t.open = c.N, recording.Open{Type: c.Type, PTY: c.PTY, Cols: c.Cols, Rows: c.Rows}
}

func (t *remoteTrack) fetch(i int) (remoteFrame, error) {
	t.mu.Lock()
	f, came := t.came[i]
	t.mu.Unlock()
	if came {
		return f, nil
	}
	err := t.get("/frames/"+strconv.Itoa(i), &f)
	return f, err
}

// index is the frames that there are now.
func (t *remoteTrack) index() []frameIndex {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.d.Frames
}

func (t *remoteTrack) start(at time.Duration) (*term.Term, error) {
	t.pending, t.frame = nil, 0
	screen := blankScreen(t.open)
	frames := t.index()
	for i := len(frames) - 1; i > 0; i-- {
		if !frames[i].Keyframe || frames[i].First > at.Seconds() {
			continue
		}
		f, err := t.fetch(i)
		if err != nil {
			return nil, err
		}
		for _, k := range f.Keyframes {
			if k.Channel == t.ch {
				screen = term.New(k.Cols, k.Rows)
				screen.Write(k.Data)
				t.pending, t.frame = f.Events, i+1
				return screen, nil
			}
		}
	}
	return screen, nil
}

func (t *remoteTrack) next() (playEvent, error) {
	for {
		for len(t.pending) > 0 {
			e := t.pending[0]
			t.pending = t.pending[1:]
			if e.Channel != t.ch {
				continue
			}
			at := time.Duration(e.T * float64(time.Second))
			switch e.Kind {
			case "output", "stderr":
				return playEvent{at: at, data: e.Data}, nil
			case "resize":
				var r recording.Resize
				if json.Unmarshal(e.JSON, &r) == nil && r.Cols > 0 && r.Rows > 0 {
					return playEvent{at: at, cols: r.Cols, rows: r.Rows}, nil
				}
			}
		}
		if t.frame >= len(t.index()) {
			return playEvent{}, io.EOF
		}
		f, err := t.fetch(t.frame)
		if err != nil {
			return playEvent{}, err
		}
		t.pending = f.Events
		t.frame++
	}
}

func (t *remoteTrack) duration() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Duration(t.d.Duration * float64(time.Second))
}

func (t *remoteTrack) title() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := "live"
	if !t.d.Live {
		state = "over"
	}
	return fmt.Sprintf("%s: %s as %s on %s%s", state, t.d.Who, t.d.User, t.d.Host, t.watchedBy())
}

func (t *remoteTrack) close() {}

func (t *remoteTrack) text() (*transcript.Transcript, error) {
	var got struct {
		Lines []struct {
			T       float64 `json:"t"`
			Channel uint32  `json:"ch"`
			Text    string  `json:"text"`
		} `json:"lines"`
		Commands []struct {
			T    float64 `json:"t"`
			Text string  `json:"text"`
		} `json:"commands"`
		Total int `json:"total"`
	}
	out := &transcript.Transcript{}
	for {
		got.Lines, got.Commands = nil, nil
		if err := t.get("/transcript?from="+strconv.Itoa(len(out.Lines)), &got); err != nil {
			return nil, err
		}
		for _, l := range got.Lines {
			out.Lines = append(out.Lines, transcript.Line{Channel: l.Channel, At: time.Duration(l.T * float64(time.Second)), Text: l.Text})
		}
		for _, c := range got.Commands {
			out.Commands = append(out.Commands, transcript.Command{Channel: t.ch, At: time.Duration(c.T * float64(time.Second)), Text: c.Text})
		}
		if len(got.Lines) == 0 || len(out.Lines) >= got.Total {
			return out, nil
		}
	}
}
