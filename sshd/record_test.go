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

// ruleWith is the usual policy with more fields in its rule, and more rules after it.
func ruleWith(fields, rules string) string {
	users := `["autogroup:nonroot"]`
	if os.Getuid() != 0 {
		users = `["root","autogroup:nonroot"]`
	}
	rule := `{"action":"accept","src":["alice@example.com"],"dst":["tag:web"],"users":` + users
	if rules != "" {
		rules = "," + rule + "," + rules + "}"
	}
	return `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],"ssh":[` + rule + "," + fields + "}" + rules + "]}"
}

func (r *rig) recorder(there bool) {
	r.t.Helper()
	name := filepath.Join(r.Dir, "recorder")
	var err error
	if there {
		err = os.WriteFile(name, nil, 0o600)
	} else {
		err = os.Remove(name)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestRecordOff(t *testing.T) {
	r := newRig(t, ruleWith(`"record":"off"`, ""))
	if got := r.ssh("", account(t).Username, "echo here; exit 3"); got.out != "here\n" || got.code != 3 {
		t.Fatalf("got %+v", got)
	}
	if files, _ := filepath.Glob(filepath.Join(r.spool(), "*")); len(files) != 0 {
		t.Errorf("recorded: %q", files)
	}
	open, end := r.audited("session.open"), r.audited("session.close")
	if len(open) != 1 || len(end) != 1 || open[0].Extra["recording"] != "off" || open[0].Session == "" || open[0].Session != end[0].Session {
		t.Errorf("audit %+v %+v", open, end)
	}
}

// TestInput types a secret while the terminal does not echo, and more while it does.
func TestInput(t *testing.T) {
	for _, asked := range []bool{true, false} {
		r := newRig(t, ruleWith(fmt.Sprintf(`"recordInput":%v`, asked), ""))
		d := r.daemon()
		cl := d.client(account(t).Username)
		run := start(t, cl, true, "stty -echo; echo A; read -r x; stty echo; echo B; read -r y; echo C$y")
		for _, step := range []struct{ wait, say string }{{"A\r\n", "s3cret\r"}, {"B\r\n", "hello\r"}, {"Chello\r\n", ""}} {
			r.until("the program says "+step.wait, func() bool { return strings.Contains(run.out.String(), step.wait) })
			if _, err := run.in.Write([]byte(step.say)); err != nil && step.say != "" {
				t.Fatal(err)
			}
		}
		<-run.done
		cl.Close()
		k := r.recordings(1)[0]
		in, hidden, sum := k.bytes(1, recording.KindInput), k.bytes(1, recording.KindHidden), k.bytes(1, recording.KindInputSummary)
		if asked && (in != "hello\r" || hidden != `{"keys":7}`) || !asked && in+hidden != "" || sum != `{"bytes":13}` {
			t.Errorf("asked %v: input %q, hidden %q, summary %q", asked, in, hidden, sum)
		}
		b, err := os.ReadFile(k.path)
		if err != nil || strings.Contains(string(b), "s3cret") {
			t.Errorf("the secret is in the recording (%v)", err)
		}
	}
}

const everySoon = "while :; do echo tick; sleep 0.05; done"

// TestRecorderRequired: no session without a recorder; output is held back while it is
// away, and flows again.
func TestRecorderRequired(t *testing.T) {
	r := newRig(t, ruleWith(`"record":"required-remote"`, ""))
	r.Recorder, r.Limits = true, sshd.Limits{RecorderWait: time.Second, RecorderHold: 500 * time.Millisecond, RecorderEnd: time.Minute}
	who := account(t).Username
	if got := r.ssh("", who, "echo here"); got.code != 255 || got.out != "" {
		t.Fatalf("without a recorder: %+v", got)
	}
	if no := r.audited("session.refuse"); len(no) != 1 || !strings.Contains(no[0].Text, "insists on a recorder") || len(r.audited2("session.open")) != 0 {
		t.Errorf("audit %+v", r.audit())
	}
	r.recorder(true)
	r.Limits.RecorderWait = 20 * time.Second
	d := r.daemon()
	run := start(t, d.client(who), false, everySoon)
	ticks := func() int { return strings.Count(run.out.String(), "tick") }
	r.until("output flows", func() bool { return ticks() > 5 })
	r.recorder(false)
	r.until("output is held back", func() bool { return len(r.audited("session.held")) > 0 })
	before := -1
	r.until("it stands still", func() bool {
		now := ticks()
		still := now == before
		before = now
		time.Sleep(200 * time.Millisecond) // four ticks, if they came
		return still
	})
	r.recorder(true)
	r.until("it flows again", func() bool { return ticks() > before+3 })
	run.in.Close()
	d.kill()
}

func TestRecorderAwayForLong(t *testing.T) {
	r := newRig(t, ruleWith(`"record":"required-remote"`, ""))
	r.Recorder, r.Limits = true, sshd.Limits{RecorderWait: 20 * time.Second, RecorderHold: 200 * time.Millisecond, RecorderEnd: time.Second}
	r.recorder(true)
	d := r.daemon()
	run := start(t, d.client(account(t).Username), false, "echo one; read x; "+everySoon)
	r.until("output flows", func() bool { return strings.Contains(run.out.String(), "one") })
	r.recorder(false)
	if _, err := run.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	r.until("the session ends", func() bool { return len(r.audited("session.revoke")) > 0 })
	<-run.done
	if k := r.recordings(1)[0]; k.end.Cause != "recorder-failed" || !strings.Contains(run.errs.String(), "has not answered") {
		t.Errorf("end %+v, words %q", k.end, run.errs)
	}
}

// TestRecordingFails fills the spool, and takes the journal's room away, under a rule that
// ends the session then and one that lets it go on.
func TestRecordingFails(t *testing.T) {
	much := "head -c 4000000 /dev/urandom | base64 -w 0; echo; echo whole"
	for _, c := range []struct {
		name, fields, command string
		whole                 bool
	}{
		{"spool, end", `"record":"required"`, "base64 -w 0 /dev/urandom; echo whole", false},
		{"spool, continue", `"record":"required","onRecordFailure":"continue"`, much, true},
		{"journal, continue", `"record":"best-effort"`, "prlimit --pid $PPID --fsize=307200; " + much, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				c.fields += `,"selfAttested":true`
			}
			if strings.Contains(c.fields, "best-effort") {
				c.fields = `"record":"best-effort"`
			}
			r := newRig(t, ruleWith(c.fields, ""))
			if r.SpoolMax = 4 << 20; strings.HasPrefix(c.name, "journal") {
				r.SpoolMax = 0
			}
			d := r.daemon()
			cl := d.client(account(t).Username)
			run := start(t, cl, true, c.command)
			<-run.done
			if whole := strings.Contains(run.out.String(), "whole"); whole != c.whole {
				t.Errorf("whole %v; words %q", whole, run.errs)
			}
			want := "recorder-failed"
			if c.whole {
				want = "unrecorded"
				r.until("that it goes on is audited", func() bool { return len(r.audited("session.unrecorded")) == 1 })
			}
			k := r.recordings(1)[0]
			gap := k.bytes(recording.ChannelMonitor, recording.KindGap)
			if k.end.Cause != want || c.whole != strings.Contains(gap, "is not recorded") {
				t.Errorf("end %+v, gap %q", k.end, gap)
			}
			if !c.whole {
				return
			}
			run = start(t, cl, false, "echo again") // the connection is still good
			if <-run.done; run.out.String() != "again\n" {
				t.Errorf("after it %q %q", run.out, run.errs)
			}
			cl.Close()
			r.until("the end is audited", func() bool { return len(r.audited("session.close")) == 1 })
		})
	}
}

// TestSpoolFullAtLogin: what each setting does when no recording can be begun.
func TestSpoolFullAtLogin(t *testing.T) {
	who := account(t).Username
	for _, c := range []struct {
		name, fields, rules string
		code                int
		recording           string
	}{
		{"required", `"acceptEnv":[]`, "", 255, ""},
		{"best-effort", `"record":"best-effort"`, "", 0, "failed: "},
		{"break-glass", `"acceptEnv":[]`, `"breakGlass":true`, 0, "failed: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, ruleWith(c.fields, ""))
			r.ssh("", who, "true") // its recording is more than there may be
			r.recordings(1)
			r.SpoolMax = 1
			r.policy(ruleWith(c.fields, c.rules))
			got := r.ssh("", who, "-tt", "echo here")
			if got.code != c.code || strings.Contains(got.out, "here") != (c.code == 0) {
				t.Fatalf("got %+v", got)
			}
			open := r.audited("session.open")
			if c.code != 0 {
				if no := r.audited("session.refuse"); len(open) != 1 || len(no) != 1 || !strings.Contains(no[0].Text, "cannot record") {
					t.Errorf("audit %+v", r.audit())
				}
				return
			}
			if len(open) != 2 || !strings.HasPrefix(open[1].Extra["recording"], c.recording) {
				t.Errorf("audit %+v", open)
			}
			glass := c.name == "break-glass"
			if n := len(r.audited2("session.breakglass")); (n == 1) != glass || strings.Contains(got.err, "break-glass rule") != glass {
				t.Errorf("%d break-glass entries, words %q", n, got.err)
			}
			r.recordings(1)
		})
	}
}

// TestSpoolLow: what is left of the room is for sessions that must be recorded.
func TestSpoolLow(t *testing.T) {
	who := account(t).Username
	for _, c := range []struct{ fields, recording string }{{`"record":"best-effort"`, "failed: the room that is left"}, {`"record":"required","selfAttested":true`, "local"}} {
		r := newRig(t, ruleWith(c.fields, ""))
		r.ssh("", who, "true")
		r.recordings(1)
		r.SpoolLow = 1
		if got := r.ssh("", who, "echo here"); got.out != "here\n" || got.code != 0 {
			t.Fatalf("%s: %+v", c.fields, got)
		}
		open := r.audited("session.open")
		if len(open) != 2 || open[0].Extra["recording"] != "local" || !strings.HasPrefix(open[1].Extra["recording"], c.recording) {
			t.Errorf("%s: audit %+v", c.fields, open)
		}
		if len(r.audited2("spool.low")) == 0 {
			t.Errorf("%s: that it is low is not audited", c.fields)
		}
	}
}
