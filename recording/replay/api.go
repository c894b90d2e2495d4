package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/store"
)

const (
	pageSize = 100
	maxQuery = 200   // bytes of a filter
	maxIndex = 50000 // frames that an index names; some 40 hours of activity
)

// The API's structs; doc.go describes them. Times are seconds since the start.
type (
	summaryJSON struct {
		ID           string    `json:"id"`
		Start        time.Time `json:"start"`
		Duration     float64   `json:"duration"`
		Host         string    `json:"host"`
		Src          string    `json:"src"`
		Who          string    `json:"who"`
		LocalUser    string    `json:"local_user"`
		Type         string    `json:"type"`
		Command      string    `json:"command,omitempty"`
		Channels     int       `json:"channels"`
		PTY          bool      `json:"pty,omitempty"`
		Exit         *exitJSON `json:"exit,omitempty"`
		Cause        string    `json:"cause,omitempty"`
		Size         int64     `json:"size"`
		Complete     bool      `json:"complete"`
		Live         bool      `json:"live"`
		Mine         bool      `json:"mine"`
		SelfAttested bool      `json:"self_attested,omitempty"`
		Sealed       bool      `json:"sealed,omitempty"`
		Unsealed     string    `json:"unsealed,omitempty"` // why it is not sealed as the policy asks
	}
	exitJSON struct {
		Status int    `json:"status"`
		Signal string `json:"signal,omitempty"`
	}
	listJSON struct {
		Viewer     viewerJSON    `json:"viewer"`
		Recordings []summaryJSON `json:"recordings"`
		Next       string        `json:"next,omitempty"`
		// Sealed is how many more recordings fit but for a term about what they hold (cmd, path): nobody here can
		// look into those. It is of the range that was looked through.
		Sealed int `json:"sealed,omitempty"`
		// Unrecorded runs and is not recorded, or not any more; on the first page.
		Unrecorded []unrecordedJSON `json:"unrecorded,omitempty"`
	}
	viewerJSON struct {
		Who  string `json:"who"`
		Node string `json:"node"`
	}
	detailJSON struct {
		summaryJSON
		Viewer      viewerJSON    `json:"viewer"`
		Because     string        `json:"because,omitempty"` // why the viewer may see it
		UID         uint32        `json:"uid"`
		Rule        string        `json:"rule"`
		Client      string        `json:"client"`
		Mesh        string        `json:"mesh"`
		SrcAddr     string        `json:"src_addr"`
		ChannelList []channelJSON `json:"channel_list"`
		MayEnd      bool          `json:"may_end,omitempty"` // the viewer may end it
		MayDelete   bool          `json:"may_delete,omitempty"`
		WatchShown  bool          `json:"watch_shown,omitempty"` // of one that runs: whoever watches is shown to the others and to the person
		Watchers    []watcherJSON `json:"watchers,omitempty"`    // of one that runs, where its rule has them shown
		Frames      []frameRow    `json:"frames"`
		Problems    []string      `json:"problems,omitempty"`
		Locked      bool          `json:"locked,omitempty"`    // sealed, and no key here opens it
		SealedTo    []string      `json:"sealed_to,omitempty"` // of a sealed one, whom
	}
	channelJSON struct {
		N       uint32    `json:"n"`
		Type    string    `json:"type"`
		Command string    `json:"command,omitempty"`
		PTY     bool      `json:"pty,omitempty"`
		Cols    int       `json:"cols,omitempty"`
		Rows    int       `json:"rows,omitempty"`
		Opened  float64   `json:"opened"`
		Closed  float64   `json:"closed,omitempty"`
		Exit    *exitJSON `json:"exit,omitempty"`
	}
	frameRow struct {
		N        int     `json:"n"`
		First    float64 `json:"first"`
		Last     float64 `json:"last"`
		Bytes    int64   `json:"bytes"`
		Events   int     `json:"events"`
		Keyframe bool    `json:"keyframe"`
	}
	frameJSON struct {
		N         int            `json:"n"`
		Keyframes []keyframeJSON `json:"keyframes,omitempty"`
		Events    []eventJSON    `json:"events"`
	}
	keyframeJSON struct {
		Channel uint32 `json:"channel"`
		Cols    int    `json:"cols"`
		Rows    int    `json:"rows"`
		Data    []byte `json:"data"`
	}
	eventJSON struct {
		T       float64         `json:"t"`
		Channel uint32          `json:"ch"`
		Kind    string          `json:"k"`
		Data    []byte          `json:"d,omitempty"`
		JSON    json.RawMessage `json:"j,omitempty"`
	}
)

// kinds are the names of events in the API; bytes says which carry bytes, not JSON.
var kinds = map[recording.Kind]struct {
	name  string
	bytes bool
}{
	recording.KindOutput:       {"output", true},
	recording.KindStderr:       {"stderr", true},
	recording.KindInput:        {"input", true},
	recording.KindResize:       {"resize", false},
	recording.KindOpen:         {"open", false},
	recording.KindExit:         {"exit", false},
	recording.KindClose:        {"close", true},
	recording.KindSignal:       {"signal", true},
	recording.KindFile:         {"file", false},
	recording.KindGap:          {"gap", false},
	recording.KindNote:         {"note", false},
	recording.KindEnd:          {"end", false},
	recording.KindInputSummary: {"input-summary", false},
	recording.KindForward:      {"forward", false},
	recording.KindBulk:         {"bulk", false},
	recording.KindHidden:       {"hidden", false},
}

func (v *Viewer) list(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	q := r.URL.Query()
	words, own := q.Get("q"), q.Get("own") == "1"
	if len(words) > maxQuery {
		return &refusal{http.StatusBadRequest, "this filter is too long", ""}
	}
	if err := v.note("recording.list", id, nil, 0, map[string]string{"q": words, "own": q.Get("own"), "before": q.Get("before")}); err != nil {
		return err
	}
	terms, rest, no := parseTerms(words, v.cfg.Clock())
	if no != nil {
		return no
	}
	if err := terms.find(r.Context(), v.cfg.Search); err != nil {
		return err
	}
	ask := v.asker(id)
	closed := map[string]bool{}
	may := func(s *store.Summary) bool {
		inside := terms.inside(s)
		if !inside && !s.Meta.Sealed || own && !mine(id, s) || !terms.fit(s) || !ask(s) {
			return false
		}
		if !inside {
			closed[s.Meta.ID] = true
		}
		return inside
	}
	query := store.Query{Words: rest, May: may, Before: q.Get("before"), Limit: pageSize, Live: terms.live}
	var sums []store.Summary
	if query.Before == "" && !terms.live { // what runs comes first, however long ago it began
		live := query
		live.Live = true
		sums, _ = v.cfg.Store.List(live)
	}
	running := map[string]bool{}
	for i := range sums {
		running[sums[i].Meta.ID] = true
	}
	more, next := v.cfg.Store.List(query)
	for i := range more {
		if !running[more[i].Meta.ID] {
			sums = append(sums, more[i])
		}
	}
	out := listJSON{Viewer: viewerJSON{id.Who(), id.Name}, Recordings: make([]summaryJSON, 0, len(sums)), Next: next, Sealed: len(closed)}
	for i := range sums {
		out.Recordings = append(out.Recordings, summarize(id, &sums[i]))
	}
	if query.Before == "" {
		out.Unrecorded = v.unrecorded(id, rest, func(s *store.Summary) bool { return (!own || mine(id, s)) && terms.fit(s) })
	}
	respond(w, http.StatusOK, out)
	return nil
}

// asker is may for many recordings at one moment: many are of the same person on the same host, and each such
// pair is one question. What it returns is for one request.
func (v *Viewer) asker(id policy.Identity) func(*store.Summary) bool {
	p := v.cfg.Policy()
	type pair struct { // all of the question that differs from recording to recording
		srcID, src, user, role, srcTags, hostID, host, owner, hostTags, mesh, local string
		uid                                                                         uint32
	}
	known := map[pair]bool{}
	return func(s *store.Summary) bool {
		m := &s.Meta
		k := pair{m.SrcID, m.Src, m.Login, m.Role, strings.Join(m.SrcTags, ","), m.HostID, m.Host, m.HostUser, strings.Join(m.HostTags, ","), m.Mesh, m.LocalUser, m.UID}
		ok, asked := known[k]
		if !asked {
			ok = v.may(p, id, s).Verdict == policy.Accept
			known[k] = ok
		}
		return ok
	}
}

func mine(id policy.Identity, s *store.Summary) bool {
	return id.User != "" && string(id.User) == s.Meta.Login
}

func summarize(id policy.Identity, s *store.Summary) summaryJSON {
	first := s.Main()
	out := summaryJSON{
		ID: s.Meta.ID, Start: s.Meta.Start, Duration: s.Duration.Seconds(), Host: s.Meta.Host, Src: s.Meta.Src, Who: person(s),
		LocalUser: s.Meta.LocalUser, Type: first.Type, Command: first.Command, Channels: s.Opened, PTY: first.PTY, Exit: exit(first.Exit),
		Size: s.Size, Complete: s.Complete, Live: s.Live, Mine: mine(id, s), SelfAttested: s.Meta.SelfAttested, Sealed: s.Meta.Sealed, Unsealed: s.Unsealed,
	}
	if s.End != nil {
		out.Cause = s.End.Cause
	}
	return out
}

func exit(x *recording.Exit) *exitJSON {
	if x == nil {
		return nil
	}
	return &exitJSON{x.Status, x.Signal}
}

func (v *Viewer) detail(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.allowed(r, id)
	if err != nil {
		return err
	}
	if err := v.note("recording.open", id, &sum, 0, nil); err != nil {
		return err
	}
	out, err := v.describe(id, &sum)
	if err != nil {
		return err
	}
	// Who knows the first frames and asks for more of a session that runs does not need them again.
	if from, err := strconv.Atoi(r.URL.Query().Get("from")); err == nil && from > 0 {
		out.Frames = out.Frames[min(from, len(out.Frames)):]
	}
	respond(w, http.StatusOK, out)
	return nil
}

// describeShort makes the description of a recording, without its index.
func (v *Viewer) describeShort(id policy.Identity, sum *store.Summary) detailJSON {
	m := &sum.Meta
	out := detailJSON{summaryJSON: summarize(id, sum), Viewer: viewerJSON{id.Who(), id.Name}, Because: v.because(id, sum), UID: m.UID, Rule: m.Rule, Client: m.Client, Mesh: m.Mesh, SrcAddr: m.SrcAddr,
		MayEnd: v.mayEnd(id, sum), MayDelete: v.mayDelete(id, sum), WatchShown: v.watchShown(id, sum), Watchers: v.watchers(id, sum), ChannelList: make([]channelJSON, 0, len(sum.Channels))}
	for _, c := range sum.Channels {
		out.ChannelList = append(out.ChannelList, channelJSON{c.N, c.Type, c.Command, c.PTY, c.Cols, c.Rows, c.Opened.Seconds(), c.Closed.Seconds(), exit(c.Exit)})
	}
	if sum.Opened > len(sum.Channels) {
		out.Problems = append(out.Problems, fmt.Sprintf("This connection had %d channels; the first %d can be chosen here.", sum.Opened, len(sum.Channels)))
	}
	if sum.Unsealed != "" {
		out.Problems = append(out.Problems, sentence("this recording is "+sum.Unsealed))
	}
	if sum.Problem != "" {
		out.Problems = append(out.Problems, sentence(sum.Problem))
	}
	return out
}

// describe makes the description and the index of a recording.
func (v *Viewer) describe(id policy.Identity, sum *store.Summary) (detailJSON, error) {
	out := v.describeShort(id, sum)
	err := v.open.with(sum, func(f *recording.Reader) error {
		index := f.Index()
		if len(index) > maxIndex {
			out.Problems = append(out.Problems, "This recording is too long to be shown whole here; download it for the rest.")
			index = index[:maxIndex]
		}
		out.Frames = make([]frameRow, len(index))
		for i, fi := range index {
			out.Frames[i] = row(i, fi)
		}
		out.Duration = max(out.Duration, f.Duration().Seconds())
		if sealed, open, to := f.Sealed(); sealed {
			out.Locked, out.SealedTo = !open, to
		}
		return nil
	})
	return out, err
}

func (v *Viewer) frame(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 {
		return &refusal{http.StatusNotFound, "this recording has no such part", ""}
	}
	var out frameJSON
	err = v.open.with(&sum, func(f *recording.Reader) error {
		if n >= len(f.Index()) {
			return &refusal{http.StatusNotFound, "this recording has no such part", ""}
		}
		at := f.Index()[n].First
		if err := v.view(id, &sum, n, at, f.Index()[n].Last, ""); err != nil {
			return err
		}
		events, key, err := f.Frame(n)
		if sealed := (*recording.SealedError)(nil); errors.As(err, &sealed) {
			return err
		}
		if err != nil {
			v.cfg.Log.Warn("frame cannot be read", "recording", sum.Meta.ID, "frame", n, "err", err)
			return &refusal{http.StatusUnprocessableEntity, "the part of this recording at " + recording.Clock(at) + " cannot be read", ""}
		}
		out = encodeFrame(n, events, key)
		return nil
	})
	if err != nil {
		return err
	}
	respond(w, http.StatusOK, out)
	return nil
}

func encodeFrame(n int, events []recording.Event, key *recording.Keyframe) frameJSON {
	out := frameJSON{N: n, Events: make([]eventJSON, 0, len(events))}
	if key != nil {
		for _, s := range key.Screens {
			out.Keyframes = append(out.Keyframes, keyframeJSON{s.Channel, s.Cols, s.Rows, s.ANSI})
		}
	}
	for _, e := range events {
		k, ok := kinds[e.Kind]
		if !ok {
			continue // of a later version
		}
		j := eventJSON{T: e.At.Seconds(), Channel: e.Channel, Kind: k.name}
		switch {
		case k.bytes:
			j.Data = e.Data
		case json.Valid(e.Data):
			j.JSON = e.Data
		default:
			continue // the host wrote something else than its kind says
		}
		out.Events = append(out.Events, j)
	}
	return out
}

// UnsealedHeader is with a recording that is not sealed as the policy asks, and says so: the recording itself cannot.
const UnsealedHeader = "Tssh-Unsealed"

// file gives the recording as it is, for tssh verify and tssh play.
func (v *Viewer) file(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	extra := map[string]string{"as": "tsr", "from": "0.0"}
	if r.URL.Query().Get("for") == "page" { // which verifies it, and reads it where it is sealed and the key is there
		extra["for"] = "page"
	}
	if err := v.note("recording.download", id, &sum, -1, extra); err != nil {
		return err
	}
	src, err := v.cfg.Store.Read(sum.Meta.ID)
	if err != nil {
		return err
	}
	defer src.Close()
	h := w.Header()
	if sum.Unsealed != "" {
		h.Set(UnsealedHeader, sum.Unsealed)
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+sum.Meta.ID+`.tsr"`)
	http.ServeContent(w, r, "", time.Time{}, src)
	return nil
}
