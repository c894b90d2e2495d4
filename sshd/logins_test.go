package sshd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"
)

// TestLoginDatabases: a terminal reaches the login records of newer systems, which are
// written by their own programs (stand-ins here), and the person reads of the last time.
func TestLoginDatabases(t *testing.T) {
	needRoot(t)
	r := newRig(t, usual())
	u := account(t)
	at := func(name string) string { return filepath.Join(r.Dir, "db", name) }
	if err := os.Mkdir(filepath.Join(r.Dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"wtmp.db": "", "lastlog2.db": "", "wtmpdb": "#!/bin/sh\ncat \"$4\" >" + at("w.new") + "; mv " + at("w.new") + " " + at("w"),
		"lastlog2": "#!/bin/sh\ncase \"$3\" in --import) cat \"$4\" >" + at("l.new") + "; mv " + at("l.new") + " " + at("l") + ";; *) echo '" + u.Username + " pts/7 office Tue Nov 14 22:13:20 +0000 2023';; esac"} {
		if err := os.WriteFile(at(name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cl := r.client(u.Username)
	s, err := cl.NewSession()
	if err == nil {
		err = s.RequestPty("xterm", 24, 80, gossh.TerminalModes{})
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Stdout, s.Stdin = &out, strings.NewReader("exit\n")
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	_ = s.Wait()
	if !strings.Contains(out.String(), "Last login: Tue Nov 14") || !strings.Contains(out.String(), "2023 from office") {
		t.Errorf("shown: %q", out.String())
	}
	cl.Close()
	for name, want := range map[string]string{"l": "laptop", "w": u.Username} {
		r.until(name+" is written", func() bool { b, err := os.ReadFile(at(name)); return err == nil && bytes.Contains(b, []byte(want)) })
	}
}
