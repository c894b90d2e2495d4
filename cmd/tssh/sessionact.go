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
	hub, err := a.theHub(ctx) // wherever the recording is
	if err != nil {
		return err
	}
	if err := hub.act(ctx, "end", id, reason); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "session %s is ended\n", oneLine(id))
	return nil
}

// deleteRecording is `tssh sessions delete ID --reason WORDS`, for whom the session's rule names:
// at every recorder that has it, or a part of it.
func (a *app) deleteRecording(ctx context.Context, id, reason string) error {
	if !recordingID.MatchString(id) {
		return usage("%q is not the id of a session", id).withHint("tssh sessions")
	}
	if reason == "" {
		return usage("why this recording is deleted stays on record: say it").withHint("tssh sessions delete " + id + " --reason WORDS")
	}
	at, err := a.placesOf(ctx, id)
	if err != nil {
		return err
	}
	for _, p := range at {
		if e := p.act(ctx, "delete", id, reason); e != nil && err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	by := "the hub"
	if at[0].name != hubHost {
		by = "its recorder"
	}
	fmt.Fprintf(a.out, "the recording %s is deleted; a note signed by %s says by whom and why\n", oneLine(id), by)
	return nil
}

func (p place) act(ctx context.Context, what, id, reason string) error {
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return failed("%v", err)
	}
	return p.post(ctx, "/api/recordings/"+url.PathEscape(id)+"/"+what, body)
}

// post asks for something to be done; what is answered when it was is not looked at.
func (p place) post(ctx context.Context, path string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.name+path, bytes.NewReader(body))
	if err != nil {
		return failed("%v", err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := p.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	return err
}
