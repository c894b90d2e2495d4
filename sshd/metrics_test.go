package sshd_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// TestMetrics: what happened is counted, within the format, and names nobody.
func TestMetrics(t *testing.T) {
	p, r := newInProcess(t, true)
	user := account(t).Username
	text := func() string {
		var b bytes.Buffer
		if err := p.Metrics(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	cl, _, err := p.dial(t, user)
	if err != nil {
		t.Fatal(err)
	}
	run := start(t, cl, true, "echo $$; exec sleep 300")
	pidOf(r, run)
	if _, _, err := p.dial(t, "no-such-account"); err == nil {
		t.Fatal("a login without an account")
	}
	if _, err := cl.Listen("tcp", "0.0.0.0:0"); err == nil {
		t.Fatal("a listener on every address")
	}
	r.until("the refused connection is gone", func() bool { return strings.Contains(text(), "tssh_ssh_connections 1\n") })
	got := text()
	for _, line := range []string{"tssh_ssh_sessions 1", "tssh_ssh_handshakes 0", `tssh_ssh_channels{kind="exec"} 1`, `tssh_ssh_channels{kind="pty"} 1`, `tssh_ssh_limit{limit="forwards-per-connection"} 256`,
		`tssh_ssh_connections_total{result="accepted"} 2`, `tssh_ssh_logins_total{result="accepted"} 1`, `tssh_ssh_logins_total{result="refused"} 1`,
		`tssh_ssh_channels_total{kind="exec"} 1`, `tssh_ssh_channels_refused_total{kind="forward-remote"} 1`} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	shape := regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[a-z0-9-]+"\})? \d+)$`)
	for line := range strings.Lines(got) {
		if !shape.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("line %q", line)
		}
	}
	if strings.Contains(got, "alice") || strings.Contains(got, "laptop") || strings.Contains(got, user) {
		t.Error("the metrics name somebody")
	}
	cl.Close()
	r.until("the end is counted", func() bool { return strings.Contains(text(), `tssh_ssh_sessions_ended_total{cause="closed"} 1`) })
}
