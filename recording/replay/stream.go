package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/live"
	"tssh/recording/store"
)

const (
	streamsEach = 16               // of one node
	streamsAll  = 256              //
	streamAlive = 15 * time.Second // between signs of life, and looks at who may what
	streamWrite = 20 * time.Second // for the other side to take what is written
	streamBatch = 32               // frames read at once: between two the file is anybody's
)

// streams counts what is followed.
type streams struct {
	mu  sync.Mutex
	by  map[string]int
	all int
}

func (s *streams) enter(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= streamsAll || s.by[node] >= streamsEach {
		return false
	}
	if s.by == nil {
		s.by = map[string]int{}
	}
	s.all++
	s.by[node]++
	return true
}

func (s *streams) leave(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[node]--; s.by[node] == 0 {
		delete(s.by, node)
	}
}

// The events of a stream. A frame is one as of the frames' own address, with its row of the
// index; a state is the description without index, when it is another than before.
type (
	streamFrame struct {
		Row   frameRow   `json:"row"`
		Frame *frameJSON `json:"frame,omitempty"`
		Raw   []byte     `json:"raw,omitempty"` // the block as it is, where the page has the key
	}
	watcherJSON struct {
		Who   string    `json:"who"`
		Node  string    `json:"node,omitempty"`
		Since time.Time `json:"since"`
		You   bool      `json:"you,omitempty"`
	}
)

// stream is GET /api/recordings/ID/live?from=N, server-sent events: everything from frame N
// on, as it comes, until the session is over. What may be seen is asked again all the time. With raw=1 frames come as
// they are in the file, for a page that has the key of what is sealed.
func (v *Viewer) stream(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.allowed(r, id)
	if err != nil {
		return err
	}
	from := r.URL.Query().Get("from")
	if last := r.Header.Get("Last-Event-ID"); last != "" { // a browser that lost the connection
		from = last
	}
	next, err := strconv.Atoi(from)
	if err != nil || next < 0 || next > maxIndex {
		return &refusal{http.StatusBadRequest, "this is followed from a frame on", ""}
	}
	if !sum.Live && !sum.Complete {
		return &refusal{http.StatusConflict, "this session does not run any more", ""}
	}
	if !v.streams.enter(id.ID + "\n" + id.Name) {
		return &refusal{http.StatusTooManyRequests, "too many sessions are watched at once", ""}
	}
	defer v.streams.leave(id.ID + "\n" + id.Name)
	began := sum.Duration
	if err := v.watchNote("recording.watch", id, &sum, map[string]string{"from": second(began)}); err != nil {
		return err
	}
	var watching live.Watching
	if v.cfg.Live != nil && sum.Live {
		watching = v.cfg.Live.Watch(sum.Meta.HostID, sum.Meta.ID, byOf(id))
		defer watching.Stop()
	}
	more, stop := v.cfg.Store.Follow(sum.Meta.ID)
	defer stop()
	defer func() {
		if now, err := v.cfg.Store.Lookup(sum.Meta.ID); err == nil {
			if err := v.watchNote("recording.watched", id, &now, map[string]string{"from": second(began), "until": second(now.Duration)}); err != nil {
				v.cfg.Log.Error("audit", "err", err)
			}
		}
	}()

	out := &eventWriter{w: w, rc: http.NewResponseController(w)}
	if err := out.begin(); err != nil {
		return nil // gone already
	}
	alive := time.NewTicker(streamAlive)
	defer alive.Stop()
	for {
		next, err = v.streamOn(out, r, id, next)
		if err != nil {
			if no := (*refusal)(nil); errors.As(err, &no) {
				_ = out.event("refused", "", map[string]string{"error": sentence(no.say)})
			} else if err != errStreamOver && r.Context().Err() == nil {
				v.cfg.Log.Info("stream", "recording", sum.Meta.ID, "err", err)
			}
			return nil
		}
		select {
		case <-more:
		case <-watching.Changed:
		case <-alive.C:
			if out.comment("alive") != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// errStreamOver ends a stream whose session is over.
var errStreamOver = errors.New("over")

// streamOn sends what is new, and says which frame comes next.
func (v *Viewer) streamOn(out *eventWriter, r *http.Request, id policy.Identity, next int) (int, error) {
	// Who it is and what they may see can have changed since.
	now, no := v.who(r)
	if no != nil || now.ID != id.ID || now.User != id.User {
		return next, &refusal{http.StatusForbidden, "this mesh does not know who you are", ""}
	}
	raw := r.URL.Query().Get("raw") == "1"
	for {
		sum, err := v.allowed(r, now)
		if err != nil {
			return next, err
		}
		var frames []streamFrame
		total := 0
		err = v.open.with(&sum, func(f *recording.Reader) error {
			if sealed, open, _ := f.Sealed(); sealed && !open && !raw {
				return &refusal{http.StatusConflict, "this recording is sealed, and no key of this recorder opens it", ""}
			}
			index := f.Index()
			total = min(len(index), maxIndex)
			for n := next; n < min(total, next+streamBatch); n++ {
				one, err := frameOf(f, n, raw)
				if err != nil {
					return err
				}
				frames = append(frames, one)
			}
			return nil
		})
		if no := (*refusal)(nil); errors.As(err, &no) {
			return next, no
		}
		if err != nil {
			v.cfg.Log.Warn("stream", "recording", sum.Meta.ID, "frame", next, "err", err)
			return next, &refusal{http.StatusUnprocessableEntity, "a part of this recording cannot be read", ""}
		}
		// The channels before what is in them; that it is over after all of it.
		if len(frames) > 0 {
			sofar := sum
			sofar.Live, sofar.Complete, sofar.End = true, false, nil
			if err := v.sendState(out, now, &sofar); err != nil {
				return next, err
			}
		}
		for _, f := range frames {
			next = f.Row.N + 1
			if err := out.event("frame", strconv.Itoa(next), f); err != nil {
				return next, err
			}
		}
		if next < total {
			continue
		}
		if err := v.sendState(out, now, &sum); err != nil {
			return next, err
		}
		if !sum.Live {
			return next, errors.Join(out.event("end", "", struct{}{}), errStreamOver)
		}
		return next, nil
	}
}

func frameOf(f *recording.Reader, n int, raw bool) (streamFrame, error) {
	out := streamFrame{Row: row(n, f.Index()[n])}
	if raw {
		b, err := f.RawFrame(n)
		out.Raw = b.Bytes
		return out, err
	}
	events, key, err := f.Frame(n)
	if err == nil {
		j := encodeFrame(n, events, key)
		out.Frame = &j
	}
	return out, err
}

// sendState sends the description where it is another than before.
func (v *Viewer) sendState(out *eventWriter, id policy.Identity, sum *store.Summary) error {
	d := v.describeShort(id, sum)
	d.Duration, d.Size, d.Frames = 0, 0, nil
	b, err := json.Marshal(d)
	if err != nil || bytes.Equal(b, out.state) {
		return err
	}
	out.state = b
	return out.raw("state", "", b)
}

// watchShown says whether whoever watches is shown.
func (v *Viewer) watchShown(id policy.Identity, sum *store.Summary) bool {
	return v.cfg.Live != nil && sum.Live && v.may(v.cfg.Policy(), id, sum).Named
}

// watchers is who watches a session, where its rule has that shown.
func (v *Viewer) watchers(id policy.Identity, sum *store.Summary) []watcherJSON {
	if !v.watchShown(id, sum) {
		return nil
	}
	var out []watcherJSON
	for _, w := range v.cfg.Live.Watchers(sum.Meta.ID) {
		who := w.By.Login
		if who == "" {
			who = w.By.Node
		}
		out = append(out, watcherJSON{who, w.By.Node, w.Since, w.By.ID == id.ID && w.By.Login == string(id.User)})
	}
	return out
}

// lookTime is how long somebody who asked for a part of a session that runs counts as watching.
const lookTime = 20 * time.Second

// shown is allowed for what a recording holds: whoever takes a part of a session that runs,
// by whichever address, watches it.
func (v *Viewer) shown(r *http.Request, id policy.Identity) (store.Summary, error) {
	sum, err := v.allowed(r, id)
	if err == nil && v.cfg.Live != nil && sum.Live && !v.watches(id, &sum) {
		v.cfg.Live.Look(sum.Meta.HostID, sum.Meta.ID, byOf(id), lookTime)
	}
	return sum, err
}

func (v *Viewer) watches(id policy.Identity, sum *store.Summary) bool {
	return slices.ContainsFunc(v.cfg.Live.Watchers(sum.Meta.ID), func(w live.Watcher) bool { return w.By.ID == id.ID && w.By.Login == string(id.User) })
}

func (v *Viewer) watchNote(kind string, id policy.Identity, sum *store.Summary, extra map[string]string) error {
	err := v.cfg.Audit(audit.Entry{Time: v.cfg.Clock(), Kind: kind, Who: id.Who(), Node: id.Name, Verdict: "accept", Host: sum.Meta.Host, LocalUser: sum.Meta.LocalUser,
		Session: sum.Meta.ID, Text: "recording of " + person(sum), Extra: extra})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

func second(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) }

func row(n int, f recording.FrameInfo) frameRow {
	return frameRow{n, f.First.Seconds(), f.Last.Seconds(), f.Size, f.Events, f.Keyframe}
}

// eventWriter writes server-sent events (HTML, section 9.2).
type eventWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	state []byte // the last one sent
}

func (e *eventWriter) begin() error {
	h := e.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	// The server's limit for reading requests would end the stream.
	if err := e.rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	e.w.WriteHeader(http.StatusOK)
	return e.comment("live")
}

func (e *eventWriter) event(name, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.raw(name, id, b)
}

// raw sends JSON, which has no line feeds.
func (e *eventWriter) raw(name, id string, data []byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\n", name)
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return e.write(b.Bytes())
}

func (e *eventWriter) comment(text string) error { return e.write([]byte(": " + text + "\n\n")) }

func (e *eventWriter) write(b []byte) error {
	if err := e.rc.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	if err := e.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
