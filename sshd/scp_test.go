package sshd_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestOldSCP copies a tree both ways with the old protocol of the stock scp, with what cannot
// be read and what cannot be written in it.
func TestOldSCP(t *testing.T) {
	u := account(t)
	r := newRig(t, usual())
	dir, far := t.TempDir(), filepath.Join(u.HomeDir, "tssh test tree")
	t.Cleanup(func() { os.RemoveAll(far) })
	tree := filepath.Join(dir, "tree")
	contents := map[string]string{"a": "hello\n", "sub/deep/empty": "", "sub/it's": "x"}
	for name, b := range contents {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scp := func(args ...string) result {
		return r.run("", "scp", append(append([]string{"-O"}, r.options()...), args...)...)
	}
	if got := scp("-r", "-p", tree, u.Username+"@web:'tssh test tree'"); got.code != 0 {
		t.Fatalf("up: %+v", got)
	}
	want := func(op, root string, more ...string) (out []string) {
		for name, b := range contents {
			sum := sha256.Sum256([]byte(b))
			out = append(out, fmt.Sprintf("%s %s %d %s ", op, filepath.Join(root, name), len(b), hex.EncodeToString(sum[:])))
			if op == "put" {
				out = append(out, fmt.Sprintf("setstat %s 0  ", filepath.Join(root, name)))
			}
		}
		out = append(out, more...)
		slices.Sort(out)
		return out
	}
	seen := map[string]bool{}
	events := func(n int) (out []string) { // of the recording that is new
		for _, k := range r.recordings(n) {
			for _, f := range k.files(t) {
				line := fmt.Sprintf("%s %s %d %s %s", f.Op, f.Path, f.Bytes, f.SHA256, f.Error)
				if !seen[line] {
					out = append(out, line)
				}
			}
		}
		for _, line := range out {
			seen[line] = true
		}
		slices.Sort(out)
		return out
	}
	if got, want := events(1), want("put", far); !slices.Equal(got, want) {
		t.Errorf("up:\n%q\n%q", got, want)
	}
	if got := scp("-r", u.Username+"@web:'tssh test tree'", filepath.Join(dir, "back")); got.code != 0 {
		t.Fatalf("down: %+v", got)
	}
	if got, want := events(2), want("get", far); !slices.Equal(got, want) {
		t.Errorf("down:\n%q\n%q", got, want)
	}
	if got := scp(u.Username+"@web:tssh-nothing", filepath.Join(dir, "none")); got.code == 0 {
		t.Fatal("a file that is not there was copied")
	}
	if got, want := events(3), []string{"get tssh-nothing 0  No such file or directory"}; !slices.Equal(got, want) {
		t.Errorf("not there: %q", got)
	}
	if os.Getuid() != 0 {
		return
	}
	if got := scp(filepath.Join(tree, "a"), u.Username+"@web:/etc/tssh-not-allowed"); got.code == 0 {
		t.Fatal("a file was put where it may not be")
	}
	if got, want := events(4), []string{"put /etc/tssh-not-allowed 0  scp: /etc/tssh-not-allowed: Permission denied"}; !slices.Equal(got, want) {
		t.Errorf("not allowed: %q", got)
	}
}
