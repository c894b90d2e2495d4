package sshd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// TestAnotherRule changes the policy so that the session goes on by another rule: its
// recording says when.
func TestAnotherRule(t *testing.T) {
	r := newRig(t, usual())
	d := r.daemon()
	cl := d.client(account(t).Username)
	run := start(t, cl, false, "cat")
	r.policy(strings.Replace(usual(), `"ssh":[`, `"ssh":[{"action":"accept","src":["bob@example.com"],"dst":["tag:web"],"users":["autogroup:nonroot"]},`, 1))
	d.reload()
	r.until("the recording says it", func() bool {
		files, _ := filepath.Glob(filepath.Join(r.spool(), "*", "recording.tsr"))
		return len(files) == 1 && len(notesSoFar(t, files[0], "policy")) == 1
	})
	fmt.Fprintln(run.in, "still here")
	r.until("the session goes on", func() bool { return run.out.String() == "still here\n" })
	cl.Close()
	if got := r.recordings(1)[0].notes("policy"); len(got) != 1 || !strings.Contains(got[0], "by ssh[1], was ssh[0]") {
		t.Errorf("notes %q", got)
	}
}

// notesSoFar reads a recording that may be running.
func notesSoFar(t *testing.T, name, what string) []string {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	rd, err := recording.NewReader(f, st.Size())
	if err != nil {
		return nil
	}
	defer rd.Close()
	var k taken
	_ = rd.Events(func(e recording.Event) error {
		e.Data = append([]byte(nil), e.Data...)
		k.events = append(k.events, e)
		return nil
	})
	return k.notes(what)
}

// TestBreakGlassIsRecorded lets somebody in by a break-glass rule because no recorder takes
// the recording that another rule demands: the host's own recording says so.
func TestBreakGlassIsRecorded(t *testing.T) {
	r := newRig(t, ruleWith(`"record":"required-remote"`, `"breakGlass":true`))
	r.Recorder, r.Limits.RecorderWait = true, 200*time.Millisecond
	if got := r.ssh("", account(t).Username, "echo in"); got.code != 0 || got.out != "in\n" {
		t.Fatalf("got %+v", got)
	}
	found := 0
	for _, k := range r.recordings(2) {
		for _, n := range k.notes("break-glass") {
			found++
			if !strings.Contains(n, "ssh[1]") || !strings.Contains(n, "could not be had") {
				t.Errorf("note %q", n)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d notes about the glass", found)
	}
}
