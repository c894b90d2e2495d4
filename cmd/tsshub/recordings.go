package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/s3blob" // s3:// of --recordings

	"tssh/netnode/coord"
	"tssh/recording/audit"
	"tssh/recording/replay"
	"tssh/recording/store"
)

// recordingPath is where the administrators' socket takes what concerns recordings: POST
// /v1/recording/VERB with a recordingRequest.
const recordingPath = "/v1/recording/"

type recordingRequest struct {
	ID     string `json:"id,omitempty"`
	Reason string `json:"reason,omitempty"`
	Words  string `json:"words,omitempty"`  // of list: what must occur
	Before string `json:"before,omitempty"` // of list: the cursor
}

// recordingInfo is one line of the list.
type recordingInfo struct {
	ID        string        `json:"id"`
	Start     time.Time     `json:"start"`
	Duration  time.Duration `json:"duration"`
	Size      int64         `json:"size"`
	Person    string        `json:"person"`
	Host      string        `json:"host"`
	LocalUser string        `json:"local_user"`
	Live      bool          `json:"live,omitempty"`
	Complete  bool          `json:"complete"`
	Problem   string        `json:"problem,omitempty"`
	Unsealed  string        `json:"unsealed,omitempty"` // why it is not sealed as the policy asks
	Hold      *store.Hold   `json:"hold,omitempty"`
}

type recordingList struct {
	Recordings []recordingInfo   `json:"recordings"`
	Deleted    []store.Tombstone `json:"deleted,omitempty"`
	Next       string            `json:"next,omitempty"`
	Unrecorded []unrecordedInfo  `json:"unrecorded,omitempty"` // sessions that run and are not recorded
}

type unrecordedInfo struct {
	ID        string    `json:"id"`
	Start     time.Time `json:"start"`
	Person    string    `json:"person"`
	Host      string    `json:"host"`
	LocalUser string    `json:"local_user"`
	Why       string    `json:"why,omitempty"` // where it should be recorded
}

// serveRecordings answers the verbs about recordings.
func (r *rooms) serveRecordings(w http.ResponseWriter, req *http.Request, who string) {
	var q recordingRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 64<<10)).Decode(&q); err != nil {
		sayProblem(w, http.StatusBadRequest, "the request cannot be read")
		return
	}
	verb := strings.TrimPrefix(req.URL.Path, recordingPath)
	out, err := r.recordingVerb(req.Context(), verb, who, q)
	var no *replay.EndError
	switch {
	case errors.As(err, &no):
		sayProblem(w, no.Status, no.Say)
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	case errors.Is(err, store.ErrNotFound):
		sayProblem(w, http.StatusNotFound, "there is no recording "+q.ID)
	case errors.Is(err, store.ErrHeld), errors.Is(err, store.ErrLive):
		sayProblem(w, http.StatusConflict, strings.TrimPrefix(err.Error(), "store: "))
	default:
		r.cfg.Log.Error("recording "+verb, "id", q.ID, "err", err)
		sayProblem(w, http.StatusInternalServerError, "the hub could not do this; its log says why")
	}
}

func sayProblem(w http.ResponseWriter, status int, say string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": "recording", "say": say})
}

func (r *rooms) recordingVerb(ctx context.Context, verb, who string, q recordingRequest) (any, error) {
	note := func(text string) error {
		return r.cfg.Audit(audit.Entry{Time: time.Now(), Kind: "recording." + verb, Who: who, Session: q.ID, Text: text})
	}
	switch verb {
	case "list":
		if err := note(q.Words); err != nil {
			return nil, err
		}
		return r.listRecordings(q)
	case "hold":
		if _, err := r.store.Lookup(q.ID); err != nil {
			return nil, err
		}
		if err := note(q.Reason); err != nil {
			return nil, err
		}
		return q, r.store.Hold(q.ID, store.Hold{By: who, Reason: q.Reason, At: time.Now().UTC()})
	case "release":
		if _, err := r.store.Lookup(q.ID); err != nil {
			return nil, err
		}
		if err := note(q.Reason); err != nil {
			return nil, err
		}
		return q, r.store.Release(q.ID)
	case "delete":
		t, err := r.store.Delete(q.ID, who, q.Reason) // audited by deleting
		if errors.Is(err, store.ErrHeld) || errors.Is(err, store.ErrLive) {
			err = errors.Join(err, r.cfg.Audit(audit.Entry{Time: time.Now(), Kind: "recording.delete", Who: who, Session: q.ID, Verdict: "deny", Text: q.Reason,
				Extra: map[string]string{"reason": strings.TrimPrefix(err.Error(), "store: ")}}))
		}
		return t, err
	case "end":
		by := administrator(who)
		return q, replay.End(ctx, r.viewerConfig(replay.Config{}), by, q.ID, q.Reason)
	case "rebuild":
		if err := note(""); err != nil {
			return nil, err
		}
		n, err := r.store.Relist(ctx)
		return map[string]int{"found": n}, err
	}
	return nil, fmt.Errorf("%w: verb %.20q", store.ErrNotFound, verb)
}

func (r *rooms) listRecordings(q recordingRequest) (recordingList, error) {
	sums, next := r.store.List(store.Query{Words: q.Words, Before: q.Before, Limit: 1000, May: func(*store.Summary) bool { return true }})
	out := recordingList{Next: next, Recordings: []recordingInfo{}}
	for _, s := range sums {
		person := s.Meta.Login
		if person == "" {
			person = s.Meta.Src
		}
		out.Recordings = append(out.Recordings, recordingInfo{ID: s.Meta.ID, Start: s.Meta.Start, Duration: s.Duration, Size: s.Size, Person: person, Host: s.Meta.Host,
			LocalUser: s.Meta.LocalUser, Live: s.Live, Complete: s.Complete, Problem: s.Problem, Unsealed: s.Unsealed, Hold: r.store.Held(s.Meta.ID)})
	}
	if q.Before == "" && r.live != nil {
		for _, u := range replay.Open(r.viewerConfig(replay.Config{}), q.Words, func(*store.Summary) bool { return true }) {
			person := u.Meta.Login
			if person == "" {
				person = u.Meta.Src
			}
			out.Unrecorded = append(out.Unrecorded, unrecordedInfo{u.Meta.ID, u.Meta.Start, person, u.Meta.Host, u.Meta.LocalUser, u.Why})
		}
	}
	var err error
	if q.Words == "" && q.Before == "" {
		out.Deleted, err = r.store.Tombstones()
	}
	return out, err
}

// deleting puts a deletion into the audit log before it happens.
func (r *rooms) deleting(t store.Tombstone) error {
	return r.cfg.Audit(audit.Entry{Time: time.Now(), Kind: "recording.delete", Who: t.By, Session: t.ID, Host: t.Host, LocalUser: t.LocalUser, Text: t.Reason,
		Extra: map[string]string{"sha256": t.SHA256, "person": t.Login, "start": t.Start.UTC().Format(time.RFC3339)}})
}

// expireEvery is how often what is kept no longer is deleted.
const expireEvery = time.Hour

// keep brings recordings to their bucket, and deletes what is kept no longer, until ctx ends.
func (r *rooms) keep(ctx context.Context) {
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		_ = r.store.Archive(ctx) // its trouble is in the log
	}()
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		switch n, err := r.store.Expire(); {
		case err != nil:
			r.cfg.Log.Error("recordings that are kept no longer", "err", err)
		case n > 0:
			r.cfg.Log.Info("recordings deleted that are kept no longer", "n", n)
		}
		select {
		case <-ctx.Done():
			<-done
			return
		case <-tick.C:
		}
	}
}

// openBucket opens the bucket of --recordings s3://...; nil without one.
func openBucket(url string) (*blob.Bucket, error) {
	if url == "" {
		return nil, nil
	}
	b, err := blob.OpenBucket(context.Background(), url)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return b, nil
}

// recordingVerbs are the administrator's.
func (c *cli) recordingVerbs() map[string]verb {
	var reason, words string
	because := func(fs *flag.FlagSet) { fs.StringVar(&reason, "reason", "", "") }
	need := func(verb string, do func(recordingRequest) error) func([]string) error {
		return func(a []string) error {
			if reason == "" {
				return usageError{"recording " + verb + ": say why, with --reason TEXT"}
			}
			return do(recordingRequest{ID: a[0], Reason: reason})
		}
	}
	return map[string]verb{
		"recording list": {flags: func(fs *flag.FlagSet) { fs.StringVar(&words, "words", "", "") }, run: func([]string) error { return c.recordingList(words) }},
		"recording hold": {min: 1, max: 1, flags: because, run: need("hold", func(q recordingRequest) error {
			return c.recordingDo("hold", q, "recording %s is on hold\n")
		})},
		"recording release": {min: 1, max: 1, flags: because, run: need("release", func(q recordingRequest) error {
			return c.recordingDo("release", q, "recording %s is not on hold any more\n")
		})},
		"recording delete": {min: 1, max: 1, flags: because, run: need("delete", func(q recordingRequest) error {
			return c.recordingDo("delete", q, "recording %s is deleted; a tombstone is left\n")
		})},
		"recording end": {min: 1, max: 1, flags: because, run: need("end", func(q recordingRequest) error {
			return c.recordingDo("end", q, "session %s is ended\n")
		})},
		"recording rebuild": {run: func([]string) error {
			var out struct {
				Found int `json:"found"`
			}
			if err := c.post(recordingPath+"rebuild", recordingRequest{}, &out); err != nil || c.json {
				return errors.Join(err, c.printIf(err == nil, out))
			}
			_, err := fmt.Fprintf(c.out, "%d recordings found that were not in the list\n", out.Found)
			return err
		}},
	}
}

func (c *cli) printIf(ok bool, v any) error {
	if !ok {
		return nil
	}
	return c.printJSON(v)
}

func (c *cli) recordingDo(verb string, q recordingRequest, done string) error {
	var out json.RawMessage
	if err := c.post(recordingPath+verb, q, &out); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(out)
	}
	_, err := fmt.Fprintf(c.out, done, printable(q.ID))
	return err
}

func (c *cli) recordingList(words string) error {
	var all recordingList
	for before := ""; ; before = all.Next {
		var page recordingList
		if err := c.post(recordingPath+"list", recordingRequest{Words: words, Before: before}, &page); err != nil {
			return err
		}
		all.Unrecorded = append(all.Unrecorded, page.Unrecorded...)
		all.Recordings, all.Deleted, all.Next = append(all.Recordings, page.Recordings...), append(all.Deleted, page.Deleted...), page.Next
		if page.Next == "" {
			break
		}
	}
	if c.json {
		return c.printJSON(all)
	}
	var rows [][]string
	for _, u := range all.Unrecorded {
		state := "live, not recorded"
		if u.Why != "" {
			state += ": " + u.Why
		}
		rows = append(rows, []string{u.ID, u.Start.UTC().Format("2006-01-02 15:04"), time.Since(u.Start).Round(time.Second).String(), "", u.Person, u.LocalUser + "@" + u.Host, state})
	}
	for _, r := range all.Recordings {
		state := "complete"
		switch {
		case r.Problem != "":
			state = r.Problem
		case r.Live:
			state = "live"
		case !r.Complete:
			state = "cut off"
		}
		if r.Unsealed != "" {
			state += ", " + r.Unsealed
		}
		if r.Hold != nil {
			state += ", on hold by " + r.Hold.By + ": " + r.Hold.Reason
		}
		rows = append(rows, []string{r.ID, r.Start.UTC().Format("2006-01-02 15:04"), r.Duration.Round(time.Second).String(), fmt.Sprint(r.Size), r.Person, r.LocalUser + "@" + r.Host, state})
	}
	for _, t := range all.Deleted {
		person := t.Login
		if person == "" {
			person = t.Src
		}
		rows = append(rows, []string{t.ID, t.Start.UTC().Format("2006-01-02 15:04"), "", fmt.Sprint(t.Size), person, t.LocalUser + "@" + t.Host,
			"deleted " + t.At.UTC().Format("2006-01-02 15:04") + " by " + t.By + ": " + t.Reason})
	}
	if len(rows) == 0 {
		say := "nothing is recorded yet"
		if words != "" {
			say = "nothing fits these words"
		}
		_, err := fmt.Fprintln(c.err, "tsshub: "+say)
		return err
	}
	return c.table("ID START LASTED BYTES PERSON AS STATE", rows)
}

// recordingAdmin adds the verbs about recordings to the administrators' socket.
func (h *hub) recordingAdmin(w http.ResponseWriter, r *http.Request) {
	who, ok := coord.Caller(r.Context())
	if !ok {
		sayProblem(w, http.StatusForbidden, "only root and the user that tsshub runs as may do this")
		return
	}
	rooms := h.rooms.Load()
	if rooms == nil || r.Method != http.MethodPost {
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 64<<10))
		sayProblem(w, http.StatusNotFound, "this hub keeps no recordings")
		return
	}
	rooms.serveRecordings(w, r, who)
}
