//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tssh/netnode/localapi"
)

// TestTheNodesFolderIsOnesOwn: where there is no home the folder of one's own node is below /tmp. One that somebody
// else made there is not used, and what its log is a link to is not written to.
func TestTheNodesFolderIsOnesOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making somebody else's folder needs root")
	}
	for _, how := range []string{"folder", "link"} {
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		t.Setenv("HOME", "")
		t.Setenv("XDG_RUNTIME_DIR", "")
		mine := filepath.Join(tmp, "mine")
		if err := os.WriteFile(mine, []byte("keep"), 0o600); err != nil {
			t.Fatal(err)
		}
		theirs := filepath.Dir(localapi.UserPath())
		if !strings.HasPrefix(theirs, tmp) {
			t.Fatal(theirs)
		}
		at := theirs
		if how == "link" {
			at = filepath.Join(tmp, "elsewhere")
			if err := os.Symlink(at, theirs); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(mine, filepath.Join(at, "node.log")); err != nil {
			t.Fatal(err)
		}
		give := theirs
		if err := os.Lchown(give, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if f, err := openLog(filepath.Join(theirs, "node.log")); err == nil || !strings.Contains(err.Error(), "folder") {
			t.Errorf("%s: %v", how, err)
			f.Close()
		}
		if b, err := os.ReadFile(mine); err != nil || string(b) != "keep" {
			t.Errorf("%s: the file has %q now, %v", how, b, err)
		}
		if got, _ := filepath.Glob(filepath.Join(at, "*")); len(got) != 1 {
			t.Errorf("%s: made in it: %v", how, got)
		}
	}
}
