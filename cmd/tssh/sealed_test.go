package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"tssh/recording"
)

func TestSealedFiles(t *testing.T) {
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := recording.ParseRecipients(id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	file := makeSealed(t, false, func() (*recording.Recipients, error) { return to, nil })
	key, wrong, junk := write("key", id.String()+"\n"), write("wrong", other.String()), write("junk", "AGE-SECRET-KEY-1JUNK")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()

	for _, c := range []struct {
		name   string
		verb   string
		args   []string
		status int
		out    string
		errs   []string
	}{
		{"play", "play", []string{"--identity", key, file}, 0, "one\ntwo\nthree", nil},
		{"play without", "play", []string{file}, 1, "", []string{"sealed, and opens with an identity of " + id.Recipient().String(), "hint: --identity FILE"}},
		{"export without", "play", []string{"--export", "cast", file}, 1, "", []string{"sealed", "hint: --identity FILE"}},
		{"export as text without", "play", []string{"--export", "text", file}, 1, "", []string{"sealed", "hint: --identity FILE"}},
		{"play with a wrong one", "play", []string{"--identity", wrong, file}, 1, "", []string{"error: the key given opens nothing here: this recording is sealed", "hint: --identity"}},
		{"play with rubbish", "play", []string{"--identity", junk, file}, 2, "", []string{"neither a file of AGE-SECRET-KEY- lines nor"}},
		{"play with nothing", "play", []string{"--identity", junk + "x", file}, 2, "", []string{"no such file"}},
		{"verify", "verify", []string{"--identity", key, file}, 0, "sealed; all of it was opened", nil},
		{"verify without", "verify", []string{file}, 0, "without a key (--identity FILE) all but the content was checked", nil},
		{"verify JSON", "verify", []string{"--json", file}, 0, `"sealed":true`, nil},
	} {
		var stderr bytes.Buffer
		out, status := outputOf(t, func(stdout *os.File) int {
			if c.verb == "play" {
				return playCommand(c.args, null, stdout, &stderr)
			}
			return verifyCommand(c.args, nil, "", stdout, &stderr)
		})
		if status != c.status || !strings.Contains(out, c.out) {
			t.Errorf("%s: status %d, %q, %q", c.name, status, out, stderr.String())
		}
		for _, e := range c.errs {
			if !strings.Contains(stderr.String(), e) {
				t.Errorf("%s: %q does not say %q", c.name, stderr.String(), e)
			}
		}
		if strings.Contains(stderr.String(), "JUNK") {
			t.Errorf("%s: quotes the key", c.name)
		}
	}

	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs}
	if err := a.search(t.Context(), []string{"--identity", key, file, "TW"}); err != nil || !strings.Contains(out.String(), "two") || strings.Contains(out.String(), "one") {
		t.Errorf("search: %v %q", err, out.String())
	}
	if err := a.search(t.Context(), []string{file, "two"}); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("search without: %v", err)
	}
	if err := a.search(t.Context(), []string{"--identity", key, file, "four"}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("search for what is not there: %v", err)
	}
	if err := a.search(t.Context(), []string{file}); err == nil || !strings.Contains(err.Error(), "what to look for") {
		t.Errorf("search for nothing: %v", err)
	}
}
