package sshd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tssh/recording"
)

// withTerms is the usual policy whose rule has more fields.
func withTerms(terms string) string {
	return strings.Replace(usual(), `"users":`, terms+`,"users":`, 1)
}

func TestForcedCommand(t *testing.T) {
	r := newRig(t, withTerms(`"command":"echo \"asked for: $SSH_ORIGINAL_COMMAND\"; cat"`))
	u := account(t)
	if got := r.ssh("in", u.Username, "rm -rf /"); got.out != "asked for: rm -rf /\nin" || got.code != 0 {
		t.Errorf("a command: %+v", got)
	}
	if got := r.ssh("in", u.Username); got.out != "asked for: \nin" {
		t.Errorf("a shell: %+v", got)
	}
	if got := r.run("ls\n", "sftp", append(append([]string{"-b", "-"}, r.options()...), u.Username+"@web")...); got.code == 0 {
		t.Errorf("sftp: %+v", got)
	}
	found := false
	for _, k := range r.recordings(3) {
		if open := k.bytes(1, recording.KindOpen); open != "" && !strings.Contains(open, "asked for: $SSH_ORIGINAL_COMMAND") {
			t.Errorf("opened with %s", open)
		}
		found = found || strings.Contains(strings.Join(k.notes("command"), "\n"), "rm -rf /")
	}
	if !found {
		t.Error("what was asked for is not on record")
	}
}

// TestGitHosting is a host whose rule lets people do nothing but git.
func TestGitHosting(t *testing.T) {
	r := newRig(t, withTerms(`"command":"git-shell -c \"$SSH_ORIGINAL_COMMAND\""`))
	u := account(t)
	far := filepath.Join(u.HomeDir, "tssh-test.git")
	t.Cleanup(func() { os.RemoveAll(far) })
	opts := shell(append([]string{"ssh"}, r.options()...))
	here := t.TempDir()
	script := fmt.Sprintf(`set -e; cd %s; git init -q .; git -c user.name=t -c user.email=t@example.com commit -q --allow-empty -m one
		git init -q --bare %s; chown -R %s %s; git push -q %s@web:tssh-test.git HEAD:main; git clone -q -b main %s@web:tssh-test.git b; git -C b log --oneline | wc -l`,
		here, far, u.Username, far, u.Username, u.Username)
	got := r.run("", "env", "GIT_SSH_COMMAND="+opts, "GIT_CONFIG_GLOBAL=/dev/null", "sh", "-c", script)
	if strings.TrimSpace(got.out) != "1" || got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := r.ssh("", u.Username, "id"); got.code == 0 || strings.Contains(got.out, "uid=") {
		t.Errorf("id: %+v", got)
	}
}

func TestSFTPForReading(t *testing.T) {
	r := newRig(t, withTerms(`"permit":{"sftp":"read"}`))
	u := account(t)
	far := filepath.Join(u.HomeDir, "tssh-test-read")
	if err := os.WriteFile(far, []byte("text"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(far) })
	local := filepath.Join(t.TempDir(), "got")
	batch := fmt.Sprintf("ls -l\nget tssh-test-read %s\ndf\n-put /etc/passwd tssh-test-read\n-rm tssh-test-read\n-mkdir tssh-test-d\n-rename tssh-test-read x\n-chmod 600 tssh-test-read\n-ln -s a tssh-test-l\n-ln tssh-test-read tssh-test-l\n-cp tssh-test-read tssh-test-l\n", local)
	got := r.run(batch, "sftp", append(append([]string{"-b", "-"}, r.options()...), u.Username+"@web")...)
	if got.code != 0 || strings.Count(got.err, "ermission denied") != 8 {
		t.Errorf("%+v", got)
	}
	if b, err := os.ReadFile(local); err != nil || string(b) != "text" {
		t.Errorf("read %q %v", b, err)
	}
	if b, err := os.ReadFile(far); err != nil || string(b) != "text" {
		t.Errorf("changed to %q %v", b, err)
	}
	if st, err := os.Stat(far); err != nil || st.Mode().Perm() == 0o600 {
		t.Errorf("%v %v", st, err)
	}
	denied := map[string]bool{}
	for _, f := range r.recordings(1)[0].files(t) {
		if f.Error == "Permission denied" {
			denied[f.Op] = true
		}
	}
	for _, op := range []string{"put", "remove", "mkdir", "rename", "setstat", "symlink"} {
		if !denied[op] {
			t.Errorf("the refusal of %s is not on record", op)
		}
	}
}

// TestGreeting: what a terminal shows before its shell.
func TestGreeting(t *testing.T) {
	r := newRig(t, withTerms(`"loginMessage":"be careful"`))
	u := account(t)
	login := func() string {
		got := r.run("", "script", "-qec", shell(append(append([]string{"ssh"}, r.options()...), "-tt", u.Username+"@web"))+" <<'X'\nexit\nX", "/dev/null")
		return strings.ReplaceAll(got.out, "\r", "")
	}
	first := login()
	motd, err := os.ReadFile("/etc/motd")
	if !strings.Contains(first, "tssh: be careful\n") || err == nil && !strings.Contains(first, strings.TrimSpace(string(motd))) {
		t.Errorf("first %q", first)
	}
	if second := login(); os.Getuid() == 0 && (!strings.Contains(second, "Last login: ") || !strings.Contains(second, " from laptop\n") || strings.Contains(first, "Last login")) {
		t.Errorf("first %q second %q", first, second)
	}
	hush := filepath.Join(u.HomeDir, ".hushlogin")
	if err := os.WriteFile(hush, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(hush)
	if hushed := login(); strings.Contains(hushed, "Last login") || !strings.Contains(hushed, "be careful") {
		t.Errorf("hushed %q", hushed)
	}
	if out := r.ssh("", u.Username, "echo x").out; out != "x\n" {
		t.Errorf("a command without a terminal: %q", out)
	}
}

// TestShowRecording: a terminal says whether it is recorded where the rule asks, and a command never.
func TestShowRecording(t *testing.T) {
	for _, c := range []struct{ terms, want string }{
		{`"showRecording":true`, "tssh: this session is recorded\n"},
		{`"showRecording":true,"recordInput":true`, "tssh: this session is recorded, and so is what you type while the screen shows it\n"},
		{`"showRecording":true,"record":"off"`, "tssh: this session is not recorded\n"},
		{`"record":"required"`, ""},
	} {
		r := newRig(t, withTerms(c.terms))
		u := account(t)
		got := r.run("", "script", "-qec", shell(append(append([]string{"ssh"}, r.options()...), "-tt", u.Username+"@web"))+" <<'X'\nexit\nX", "/dev/null")
		out := strings.ReplaceAll(got.out, "\r", "")
		if !strings.Contains(out, c.want) || strings.Contains(out, "recorded") != (c.want != "") {
			t.Errorf("%s: %q", c.terms, out)
		}
		if got := r.ssh("", u.Username, "echo x"); got.out != "x\n" || strings.Contains(got.err, "recorded") {
			t.Errorf("%s, a command: %+v", c.terms, got)
		}
	}
}
