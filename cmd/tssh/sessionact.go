package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// endSession is `tssh sessions end ID --reason WORDS`: the hub and then the session's host
// decide whether this person may.
func (a *app) endSession(ctx context.Context, id, reason string) error {
	if !recordingID.MatchString(id) {
		return usage("%q is not the id of a session", id).withHint("tssh sessions is:live")
	}
	if reason == "" {
		return usage("the person reads why you end this session: say it").withHint("tssh sessions end " + id + " --reason WORDS")
	}
	return a.actOn(ctx, "end", id, reason, "session %s is ended\n")
}

// deleteRecording is `tssh sessions delete ID --reason WORDS`, for whom the session's rule names.
func (a *app) deleteRecording(ctx context.Context, id, reason string) error {
	if !recordingID.MatchString(id) {
		return usage("%q is not the id of a session", id).withHint("tssh sessions")
	}
	if reason == "" {
		return usage("why this recording is deleted stays on record: say it").withHint("tssh sessions delete " + id + " --reason WORDS")
	}
	return a.actOn(ctx, "delete", id, reason, "the recording %s is deleted; a note signed by the hub says by whom and why\n")
}

func (a *app) actOn(ctx context.Context, what, id, reason, done string) error {
	hc, err := a.hub(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return failed("%v", err)
	}
	if err := hubPost(ctx, hc, "/api/recordings/"+url.PathEscape(id)+"/"+what, body); err != nil {
		return err
	}
	fmt.Fprintf(a.out, done, oneLine(id))
	return nil
}

// hubPost asks the hub to do something; what it answers when it did is not looked at.
func hubPost(ctx context.Context, hc *http.Client, path string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+hubHost+path, bytes.NewReader(body))
	if err != nil {
		return failed("%v", err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := hubDo(ctx, hc, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	return err
}
