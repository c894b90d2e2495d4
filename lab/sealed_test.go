package lab

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// holding lists the files under a folder that hold a text.
func holding(t *testing.T, dir, text string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it went meanwhile, or is no file
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestSealedRecordings goes the whole way of recordings that the policy seals: no file of the
// host, nor of a hub without the key, has what was shown, the auditor has it, and a hub
// with the key finds it.
func TestSealedRecordings(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity := m.laptop.Host.Path("auditor.key")
	if err := os.WriteFile(identity, []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.setPolicy(t, strings.Replace(basePolicy, "{", `{"sealRecordingsTo": ["`+key.Recipient().String()+`"],`, 1))
	// A session that is there before the daemon is restarted, and after.
	const marker = "quagga-in-the-machine"
	run := m.laptop.Host.Command("ssh", "-tt", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "deploy@"+m.webAddr,
		"echo "+marker+"; read -r x; echo more-$x; exit 7")
	in, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	run.Stdout, run.Stderr = &out, &errs
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	var id string
	if err := Until(60*time.Second, func() error {
		r := m.laptop.Tssh("sessions", "is:live", "host:web")
		if f := strings.Fields(r.Stdout); r.Status == 0 && strings.Contains(r.Stdout, "exec") {
			for _, w := range f {
				if strings.Contains(w, "-") && len(w) > 20 {
					id = w
					break
				}
			}
		}
		if id == "" {
			return fmt.Errorf("%v", r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	spool := filepath.Join(m.web.State, "spool")
	clean := func() error {
		if files := holding(t, m.web.State, marker); len(files) > 0 {
			return fmt.Errorf("the host has it in %q", files)
		}
		if files := holding(t, m.web.Host.Path("run"), marker); len(files) > 0 {
			return fmt.Errorf("the host has it in %q", files)
		}
		return nil
	}
	if err := Until(30*time.Second, clean); err != nil {
		t.Fatal(err)
	}
	if tsr, _ := filepath.Glob(filepath.Join(spool, id, "recording.tsr")); len(tsr) != 1 {
		t.Fatalf("not in the spool any more: the test looked too late; %q", errs.String())
	}
	m.web.Proc.Kill()
	if err := m.web.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte(marker + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(); run.ProcessState.ExitCode() != 7 || !strings.Contains(out.String(), "more-"+marker) {
		t.Fatalf("%v: %q %q", err, out.String(), errs.String())
	}
	if err := Until(60*time.Second, func() error {
		if r := m.laptop.Tssh("sessions", "exit:7", "host:web"); r.Status != 0 || !strings.Contains(r.Stdout, id) {
			return fmt.Errorf("%v", r)
		}
		return clean()
	}); err != nil {
		t.Fatal(err)
	}
	if files := holding(t, m.hub.State, marker); len(files) > 0 {
		t.Errorf("the hub has it in %q", files)
	}
	if r := m.laptop.Tssh("play", id); r.Status != 1 || !strings.Contains(r.Stderr, "sealed") || !strings.Contains(r.Stderr, "--identity") {
		t.Errorf("played without the key: %v", r)
	}
	if r := m.laptop.Tssh("play", id, "--identity", identity); r.Status != 0 || !strings.Contains(r.Stdout, "more-"+marker) {
		t.Errorf("played with the key: %v", r)
	}
	if r := m.laptop.Tssh("verify", id, "--identity", identity); r.Status != 0 || !strings.Contains(r.Stdout, "all of it was opened") {
		t.Errorf("verified: %v", r)
	}
	if r := m.laptop.Tssh("verify", id); r.Status != 0 || !strings.Contains(r.Stdout, "all but the content was checked") {
		t.Errorf("verified without the key: %v", r)
	}
	if r := m.laptop.Tssh("search", marker); r.Status != 1 {
		t.Errorf("found without the key: %v", r)
	}
	m.hub.Proc.Stop()
	m.hub.args = append(m.hub.args, "--seal-identity", identity)
	if err := m.hub.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Until(60*time.Second, func() error {
		if r := m.laptop.Tssh("search", marker); r.Status != 0 || !strings.Contains(r.Stdout, id) {
			return fmt.Errorf("%v", r)
		}
		return nil
	}); err != nil {
		t.Errorf("a hub with the key: %v", err)
	}

	// A host that is told to seal by a file that names nobody does not start.
	m.web.Proc.Stop()
	bad := m.web.Host.Path("nobody")
	if err := os.WriteFile(bad, []byte("# nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := m.web.Host.Run("tsshd", append(append([]string{}, m.web.args...), "--seal-to", bad)...)
	if r.Status != 1 || !strings.Contains(r.Stderr, "--seal-to") || !strings.Contains(r.Stderr, "there is none") {
		t.Errorf("%v", r)
	}
}
