package sshd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/recording"
	"tssh/sshd"
)

// TestPauseWhileTheRecorderIsAway: nothing is put out and nothing taken in, the person is told,
// nothing new begins, and all goes on when the recorder is back.
func TestPauseWhileTheRecorderIsAway(t *testing.T) {
	r := newRig(t, ruleWith(`"record":"required-remote","onRecordFailure":"pause"`, ""))
	r.Recorder, r.Limits = true, sshd.Limits{RecorderWait: 20 * time.Second, RecorderHold: 300 * time.Millisecond, RecorderEnd: 400 * time.Millisecond, RecorderPause: 2 * time.Minute}
	r.recorder(true)
	d := r.daemon()
	cl := d.client(account(t).Username)
	mark := filepath.Join(r.Dir, "came")
	if err := os.Chmod(r.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	run := start(t, cl, true, "echo ready; read -r x; echo $x > "+mark+"; echo got-$x; read -r y; exit 5")
	r.until("output flows", func() bool { return strings.Contains(run.out.String(), "ready") })
	r.recorder(false)
	// Only what is not acknowledged can be missed: the terminal's echo of a key.
	if _, err := run.in.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	r.until("it is paused", func() bool { return len(r.audited("session.paused")) == 1 })
	r.until("the person is told", func() bool { return strings.Contains(run.errs.String(), "not recorded at the moment") })
	if _, err := run.in.Write([]byte("bc\r")); err != nil {
		t.Fatal(err)
	}
	s, err := cl.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.CombinedOutput("echo new"); err == nil || !strings.Contains(string(out), "paused until its recording goes on") {
		t.Errorf("a new command: %v %q", err, out)
	}
	time.Sleep(time.Second) // what is held would have come, and RecorderEnd is over
	if _, err := os.Stat(mark); err == nil || strings.Contains(run.out.String(), "got-") {
		t.Errorf("it went on: %q", run.out)
	}
	r.recorder(true)
	r.until("it goes on", func() bool { return strings.Contains(run.out.String(), "got-abc") })
	r.until("the person is told again", func() bool { return strings.Contains(run.errs.String(), "recorded again") })
	r.until("that it went on is audited", func() bool { return len(r.audited("session.resumed")) == 1 })
	if _, err := run.in.Write([]byte("\r")); err != nil {
		t.Fatal(err)
	}
	if err := <-run.done; err == nil || !strings.Contains(err.Error(), "5") {
		t.Errorf("end: %v", err)
	}
	cl.Close()
	k := r.recordings(1)[0]
	if notes := k.bytes(recording.ChannelMonitor, recording.KindNote); !strings.Contains(notes, "paused") || !strings.Contains(notes, "resumed") {
		t.Errorf("notes %q", notes)
	}
}

// TestPauseIsBounded: a pause that is too long ends the session.
func TestPauseIsBounded(t *testing.T) {
	for _, c := range []struct{ name, fields, command string }{
		{"recorder away", `"record":"required-remote","onRecordFailure":"pause"`, "echo one; read x; " + everySoon},
		{"journal without room", `"record":"required","onRecordFailure":"pause"`, "prlimit --pid $PPID --fsize=307200; echo one; read x; head -c 4000000 /dev/urandom | base64 -w 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				c.fields += `,"selfAttested":true`
			}
			r := newRig(t, ruleWith(c.fields, ""))
			r.Recorder, r.Limits = true, sshd.Limits{RecorderWait: 20 * time.Second, RecorderHold: 200 * time.Millisecond, RecorderPause: time.Second}
			r.recorder(true)
			d := r.daemon()
			run := start(t, d.client(account(t).Username), true, c.command)
			r.until("output flows", func() bool { return strings.Contains(run.out.String(), "one") })
			r.recorder(false)
			if _, err := run.in.Write([]byte("\r")); err != nil {
				t.Fatal(err)
			}
			<-run.done
			r.until("the end is audited", func() bool { return len(r.audited("session.close")) == 1 })
			if len(r.audited("session.paused")) == 0 {
				t.Errorf("audit %+v", r.audit())
			}
			if k := r.recordings(1)[0]; k.end.Cause != "recorder-failed" {
				t.Errorf("end %+v, words %q", k.end, run.errs)
			}
		})
	}
}

// TestPauseWhileTheSpoolIsFull: room that comes free lets the session go on, with every byte.
func TestPauseWhileTheSpoolIsFull(t *testing.T) {
	fields := `"record":"required","onRecordFailure":"pause"`
	if os.Getuid() != 0 {
		fields += `,"selfAttested":true`
	}
	r := newRig(t, ruleWith(fields, ""))
	r.Recorder, r.SpoolMax = true, 32<<20 // a person has a quarter
	r.Limits.RecorderPause = 3 * time.Minute
	d := r.daemon()
	// Random bytes as text: they take three quarters of their length.
	much := func(pieces int) string {
		return fmt.Sprintf("i=0; while [ $i -lt %d ]; do head -c 75000 /dev/urandom | base64 -w 0; sleep 0.03; i=$((i+1)); done; echo; echo whole", pieces)
	}
	cl := d.client(account(t).Username)
	run := start(t, cl, true, much(50))
	<-run.done
	if !strings.Contains(run.out.String(), "whole") {
		t.Fatalf("the first: %q", run.errs)
	}
	cl.Close()
	r.until("the first is over", func() bool { return len(r.audited("session.close")) == 1 })
	// The first may have been held at its very end.
	before, went := len(r.audited("session.paused")), len(r.audited("session.resumed"))
	cl = d.client(account(t).Username)
	defer cl.Close()
	run = start(t, cl, true, much(60))
	r.until("it is paused", func() bool { return len(r.audited("session.paused")) > before })
	if strings.Contains(run.out.String(), "whole") {
		t.Error("it was not held")
	}
	r.recorder(true)
	if err := os.WriteFile(filepath.Join(r.Dir, "free"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-run.done
	if !strings.Contains(run.out.String(), "whole") {
		t.Errorf("it did not go on: %q", run.errs)
	}
	r.until("that it went on is audited", func() bool { return len(r.audited("session.resumed")) > went })
}
