package sshd_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// withRule is a policy of one rule with more fields, and more rules after it.
func withRule(fields, more string) string {
	return `{"tagOwners":{"tag:web":["alice@example.com"]},"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],
		"ssh":[{"action":"accept","src":["alice@example.com"],"dst":["tag:web"],"users":["root","autogroup:nonroot"],` + fields + `}` + more + `]}`
}

func TestAllowedCommands(t *testing.T) {
	u := account(t)
	r := newRig(t, withRule(`"commands": ["echo *", "printf ..."]`, ""))
	for _, c := range []struct {
		command, out string
		ok           bool
	}{
		{"echo hello", "hello\n", true}, {"echo 'two  words'", "two  words\n", true}, {"printf %s-%s a b", "a-b", true},
		{"echo a; id", "", false}, {"echo $(id)", "", false}, {"id", "", false}, {"", "", false},
		{"printf " + strings.Repeat("a", 9000) + " ; id", "", false}, // longer than what is asked of the monitor
	} {
		args := []string{c.command}
		if c.command == "" {
			args = nil
		}
		got := r.ssh("", u.Username, args...)
		if got.out != c.out || (got.code == 0) != c.ok || !c.ok && !strings.Contains(got.err, "tssh: ") {
			t.Errorf("%.40q: %+v", c.command, got)
		}
	}
}

// TestPermit: what is not permitted is refused in words, what is goes on.
func TestPermit(t *testing.T) {
	u := account(t)
	r := newRig(t, withRule(`"permit": {"exec": true}`, ""))
	if got := r.ssh("", u.Username, "echo yes"); got.out != "yes\n" {
		t.Errorf("exec: %+v", got)
	}
	if got := r.ssh("exit\n", u.Username); got.code == 0 || !strings.Contains(got.err, "a shell is not allowed") {
		t.Errorf("shell: %+v", got)
	}
	if got := r.run("", "ssh", append(append([]string{"-tt"}, r.options()...), u.Username+"@web", "tty")...); !strings.Contains(got.out+got.err, "not a tty") && !strings.Contains(got.err, "PTY allocation request failed") {
		t.Errorf("pty: %+v", got)
	}
}

// TestClockEnds: what ends sessions by the clock, each in words and on record.
func TestClockEnds(t *testing.T) {
	for _, c := range []struct {
		name, cause, say string
		fields           func() string
	}{
		{"limit", "expired", "limit of the rule", func() string { return `"sessionLimit": "2s"` }},
		{"until", "expired", "the time that the rule", func() string {
			return fmt.Sprintf(`"until": %q`, time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))
		}},
		{"idle", "idle", "nothing happened", func() string { return `"idleLimit": "1s"` }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := account(t)
			r := newRig(t, withRule(c.fields(), ""))
			d := r.daemon()
			run := start(t, d.client(u.Username), false, "echo $$; exec sleep 300")
			pid := pidOf(r, run)
			r.until("the session ends", func() bool { return !alive(pid) })
			r.until("words", func() bool { return strings.Contains(run.errs.String(), c.say) })
			if k := r.recordings(1)[0]; k.end.Cause != c.cause {
				t.Errorf("end %+v", k.end)
			}
		})
	}
}

// TestBusyIsNotIdle: output keeps a session without a terminal going.
func TestBusyIsNotIdle(t *testing.T) {
	u := account(t)
	r := newRig(t, withRule(`"idleLimit": "2s"`, ""))
	if got := r.ssh("", u.Username, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done"); got.code != 0 || !strings.HasSuffix(got.out, "8\n") {
		t.Errorf("%+v", got)
	}
}

// TestAtOnce counts the sessions of one person, also over a restart of the daemon.
func TestAtOnce(t *testing.T) {
	u := account(t)
	r := newRig(t, withRule(`"sessionsAtOnce": 1`, ""))
	d := r.daemon()
	first := d.client(u.Username)
	run := start(t, first, false, "cat")
	refused := func(what string) {
		t.Helper()
		cl, err := handshake(d.connect(), u.Username)
		if err != nil {
			return
		}
		defer cl.Close()
		if s, err := cl.NewSession(); err == nil && s.Run("true") == nil {
			t.Errorf("%s: a second session ran", what)
		}
	}
	refused("beside the first")
	d.kill()
	d = r.daemon()
	r.until("the session is back", func() bool {
		fmt.Fprintln(run.in, "x")
		return strings.Contains(run.out.String(), "x")
	})
	refused("after a restart")
	first.Close()
	r.recordings(1)
	if err := start(t, d.client(u.Username), false, "true").wait(t); err != nil {
		t.Errorf("after the first ended: %v", err)
	}
	found := false
	for _, e := range r.audited("session.refuse") {
		found = found || strings.Contains(e.Text, "one session at a time")
	}
	if !found {
		t.Error("the refusal is not in the audit log")
	}
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("a program did not end")
		return nil
	}
}
