package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestARecorderSaysNothingForTheHub: what the hub has whole, or gets, is shown as the hub has it, though
// a recorder of some rule says that it has more of it; and that they differ is said.
func TestARecorderSaysNothingForTheHub(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	hub := func(r recordingRow) recordingRow {
		r.ID, r.Start, r.Who, r.Host, r.Recorder = "rec-0001", at, "alice@example.com", "web", hubHost
		return r
	}
	lie := recordingRow{ID: "rec-0001", Start: at, Who: "bob@example.com", Host: "web", Complete: true, Size: 1 << 40, Recorder: "rec-a"}
	part := recordingRow{ID: "rec-0001", Start: at, Who: "alice@example.com", Host: "web", Complete: true, Size: 100, Recorder: "rec-a"}
	for name, c := range map[string]struct {
		hub, other recordingRow
		from       string
		said       bool
	}{
		"the hub has it whole":              {hub(recordingRow{Complete: true, Size: 100}), lie, hubHost, true},
		"the hub gets it":                   {hub(recordingRow{Live: true, Size: 50}), lie, hubHost, true},
		"the hub had a part":                {hub(recordingRow{Size: 50}), part, "rec-a", false},
		"both have it":                      {hub(recordingRow{Complete: true, Size: 100}), part, hubHost, false},
		"both have it, and of another size": {hub(recordingRow{Complete: true, Size: 101}), part, hubHost, true},
	} {
		for _, all := range [][]recordingRow{{c.hub, c.other}, {c.other, c.hub}} {
			var errs bytes.Buffer
			rows := (&app{err: &errs}).merged(all)
			if len(rows) != 1 || rows[0].Recorder != c.from || strings.Contains(errs.String(), "say different things about rec-0001") != c.said {
				t.Errorf("%s: %+v, %q", name, rows, errs.String())
			}
		}
	}
}
