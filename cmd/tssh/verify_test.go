package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// TestWhoseSignatureItIs: hub and recorders by name, and nobody who signs for himself.
func TestWhoseSignatureItIs(t *testing.T) {
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	hub, a, b := signer{key: key(1)}, signer{key: key(2), recorder: "rec-a", node: "n-a"}, signer{key: key(3), recorder: "rec-b", node: "n-b"}
	now := time.Unix(1e9, 0).UTC()
	starts := func(b byte) recording.Report {
		return recording.Report{Complete: true, Meta: recording.Meta{Start: now, HostID: "n-web"}, Countersignatures: []recording.Countersignature{{Key: key(b), Time: now}}}
	}
	saw := func(r recording.Report, b byte, until int64) recording.Report {
		r.Seen = append(r.Seen, recording.Countersignature{Key: key(b), Time: now.Add(time.Duration(until) * time.Second), At: until * 1e6})
		return r
	}
	itself := starts(2)
	itself.Meta.HostID = "n-a"
	for name, c := range map[string]struct {
		rep   recording.Report
		known []signer
		kind  string
		says  []string
		until float64
	}{
		"the hub":                  {starts(1), []signer{hub, a, b}, witnessHub, []string{"countersigned by the hub at "}, 0},
		"a recorder":               {starts(2), []signer{hub, a, b}, witnessRecorder, []string{"countersigned by the recorder rec-a at "}, 0},
		"one began, another ended": {saw(saw(starts(2), 2, 60), 3, 120), []signer{hub, a, b}, witnessRecorder, []string{"countersigned by the recorder rec-a at ", "the same key signed at ", "the recorder rec-b signed at 2001-09-09 01:48:40 UTC that it had all up to 0:02:00"}, 120},
		"the first is gone since":  {saw(saw(starts(2), 2, 60), 3, 120), []signer{hub, b}, witnessRecorder, []string{"which is no key that is known here", "the recorder rec-b signed at "}, 120},
		"a key of nobody":          {saw(starts(9), 9, 60), []signer{hub, a}, witnessOther, []string{"problem: its start was countersigned by ", "nothing is proven"}, 60},
		"a recorder of itself":     {itself, []signer{hub, a}, witnessOther, []string{"nothing is proven"}, 0},
		"nothing to compare with":  {starts(2), nil, witnessUnknown, []string{"no hub's key is known here"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := witnessOf(c.rep, c.known)
			good := w.kind != witnessOther
			words := verifyWords(c.rep, w, good)
			if w.kind != c.kind {
				t.Errorf("kind %s, not %s", w.kind, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(words, s) {
					t.Errorf("no %q in:\n%s", s, words)
				}
			}
			if v := verifyJSON(c.rep, w, good); v.SeenUntil != c.until || v.Countersigned != c.kind {
				t.Errorf("%+v", v)
			}
		})
	}
}
