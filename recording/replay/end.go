package replay

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/live"
	"tssh/recording/store"
)

// endTime bounds the wait for a host.
const endTime = 15 * time.Second

// EndError is why a session was not ended, in words for who asked.
type EndError struct {
	Status int // of HTTP
	Say    string
	why    string
}

func (e *EndError) Error() string {
	if e.why != "" {
		return e.Say + ": " + e.why
	}
	return e.Say
}

// End has the host of a session that runs end it, where the policy lets by do that; the host
// decides again. It is audited before the host is asked, and so is what came of it where that
// is not the end. The error is an *EndError, or trouble of the recorder's own.
func End(ctx context.Context, c Config, by policy.Identity, session, reason string) error {
	reason, ok := cleanReason(reason)
	if !ok {
		return &EndError{http.StatusBadRequest, "say why, in one line of at most 300 bytes: the person reads it", ""}
	}
	now := time.Now
	if c.Clock != nil {
		now = c.Clock
	}
	sum, err := c.Store.Lookup(session)
	if err != nil || !sum.Live { // not recorded, or not any more
		if open, ok := c.open(session); ok && (err != nil || open.Meta.HostID == sum.Meta.HostID) {
			sum, err = open, nil
		}
	}
	switch {
	case c.CannotEnd != "":
		return &EndError{http.StatusConflict, c.CannotEnd, ""}
	case c.Live == nil:
		return &EndError{http.StatusNotFound, "sessions cannot be ended here", ""}
	case err != nil:
		return endElsewhere(ctx, c, by, session, reason, now)
	}
	d := mayOver(c.Policy(), policy.AskEnd, by, &sum, now())
	e := audit.Entry{Time: now(), Kind: "session.end", Who: by.Who(), Node: by.Name, Host: sum.Meta.Host, LocalUser: sum.Meta.LocalUser, Session: session,
		Verdict: d.Verdict.String(), Text: reason, Extra: map[string]string{"person": person(&sum), "reason": d.Reason}}
	if err := c.Audit(e); err != nil {
		return err
	}
	switch {
	case d.Verdict != policy.Accept:
		return &EndError{http.StatusForbidden, d.Say, d.Reason}
	case sum.Complete:
		return &EndError{http.StatusConflict, "this session is over", ""}
	}
	return endAt(ctx, c, sum.Meta.HostID, e, by, now)
}

// endAt asks the host. What came of it is audited where that is not the end.
func endAt(ctx context.Context, c Config, host string, e audit.Entry, by policy.Identity, now func() time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	no := endError(c.Live.End(ctx, host, live.End{Session: e.Session, By: byOf(by), Reason: e.Text}))
	if no == nil {
		return nil
	}
	e.Time, e.Verdict, e.Text, e.Extra = now(), "failed", no.Error(), nil
	return errors.Join(no, c.Audit(e))
}

// endElsewhere is for a session whose recording another recorder has, so that nothing is known of
// it here but its host, by the mark in its id. The host alone decides then, as it does anyway.
func endElsewhere(ctx context.Context, c Config, by policy.Identity, session, reason string, now func() time.Time) error {
	none := &EndError{http.StatusNotFound, "there is no session with this id", ""}
	host, ok := c.Live.Host(func(id string) bool { return recording.MarkedBy(session, id) })
	if !ok || slices.ContainsFunc(c.Live.Open(), func(o live.Running) bool { return o.Session == session }) {
		return none // or one that is not recorded, and of which its host said what cannot be
	}
	e := audit.Entry{Time: now(), Kind: "session.end", Who: by.Who(), Node: by.Name, Session: session, Verdict: "asked", Text: reason, Extra: map[string]string{"host_id": host}}
	if err := c.Audit(e); err != nil {
		return err
	}
	err := endAt(ctx, c, host, e, by, now)
	if no := (*EndError)(nil); errors.As(err, &no) && no.Status == http.StatusConflict {
		return errors.Join(none, err)
	}
	return err
}

// endError puts a host's answer into words.
func endError(err error) error {
	var no *live.Refused
	switch {
	case err == nil:
		return nil
	case errors.Is(err, live.ErrAway):
		return &EndError{http.StatusServiceUnavailable, "the host of this session is not connected to the hub at the moment", ""}
	case !errors.As(err, &no):
		return &EndError{http.StatusGatewayTimeout, "the host of this session did not answer in time", ""}
	}
	say := oneLine(no.Say)
	switch no.Code {
	case live.CodeDenied:
		return &EndError{http.StatusForbidden, say, "by the host"}
	case live.CodeGone:
		return &EndError{http.StatusConflict, say, "by the host"}
	}
	return &EndError{http.StatusBadGateway, say, "by the host"}
}

// oneLine makes a host's words safe to show.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s[:min(len(s), 500)], ""))
}

func cleanReason(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > live.MaxReason {
		return "", false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return "", false
		}
	}
	return s, true
}

func byOf(id policy.Identity) live.By {
	by := live.By{ID: id.ID, Node: id.Name, Login: string(id.User), Role: string(id.Role)}
	for _, t := range id.Tags {
		by.Tags = append(by.Tags, string(t))
	}
	return by
}

// asked reads {"reason":WORDS} of a request that changes something.
func (v *Viewer) asked(w http.ResponseWriter, r *http.Request, id policy.Identity) (reason string, err error) {
	// A form of another site cannot have this type, even where a browser says nothing else.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return "", &refusal{http.StatusUnsupportedMediaType, "this is asked for in JSON", ""}
	}
	var q struct {
		Reason string `json:"reason"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8<<10)).Decode(&q); err != nil {
		return "", &refusal{http.StatusBadRequest, "the request cannot be read", ""}
	}
	if no := v.pace.take(v, id); no != nil {
		return "", no
	}
	return q.Reason, nil
}

// end is POST /api/recordings/ID/end with {"reason":WORDS}.
func (v *Viewer) end(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	reason, err := v.asked(w, r, id)
	if err != nil {
		return err
	}
	err = End(r.Context(), v.cfg, id, r.PathValue("id"), reason)
	var no *EndError
	switch {
	case errors.As(err, &no):
		return &refusal{no.Status, no.Say, no.why}
	case err != nil:
		return err
	}
	respond(w, http.StatusOK, map[string]bool{"ended": true})
	return nil
}

// mayEnd says whether the page offers to.
func (v *Viewer) mayEnd(id policy.Identity, sum *store.Summary) bool {
	return v.cfg.Live != nil && v.cfg.CannotEnd == "" && sum.Live && mayOver(v.cfg.Policy(), policy.AskEnd, id, sum, v.cfg.Clock()).Verdict == policy.Accept
}
