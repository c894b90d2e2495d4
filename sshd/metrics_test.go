package sshd_test

import (
	"bytes"
	"io"
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
	echo, err := cl.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	echo.Stdin = strings.NewReader("12345")
	if out, err := echo.Output("cat; echo 678"); string(out) != "12345678\n" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	far := listen(t, "tcp", "127.0.0.1:0")
	go func() { // ends with its connection
		if c, err := far.Accept(); err == nil {
			_, _ = c.Write([]byte("hello"))
			c.Close()
		}
		far.Close()
	}()
	fw, err := cl.Dial("tcp", far.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(fw); string(b) != "hello" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	fw.Close()
	for _, line := range []string{`tssh_ssh_received_bytes_total{kind="exec"} 5`, `tssh_ssh_sent_bytes_total{kind="exec"} 9`, `tssh_ssh_received_bytes_total{kind="forward-local"} 0`, `tssh_ssh_sent_bytes_total{kind="forward-local"} 5`} {
		r.until(line, func() bool { return strings.Contains(text(), line+"\n") })
	}
	cl.Close()
	r.until("the end is counted", func() bool { return strings.Contains(text(), `tssh_ssh_sessions_ended_total{cause="closed"} 1`) })
}
