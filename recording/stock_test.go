package recording_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// TestStockAsciinema has the stock command-line player read a cast of ours: what it prints
// is what was recorded, byte for byte. The Debian package reads version 2.
func TestStockAsciinema(t *testing.T) {
	asciinema, err := exec.LookPath("asciinema")
	if err != nil {
		if os.Getuid() == 0 {
			t.Fatal("asciinema is not installed: apt-get install asciinema")
		}
		t.Skip("asciinema is not installed")
	}
	text := "\x1b[1m<b>$\x1b[0m café 漢字 🙂\r\n\x07\\ \"end\"\r\n"
	steps := []step{{0, 1, recording.KindOpen, js(recording.Open{Type: "shell", PTY: true, Term: "xterm-256color", Cols: 80, Rows: 24})}}
	for i := range len(text) { // every rune is cut
		steps = append(steps, step{time.Millisecond, 1, recording.KindOutput, []byte{text[i]}})
	}
	steps = append(steps, step{0, 1, recording.KindFile, js(recording.File{Op: "put", Path: "/srv/a"})}, step{0, 1, recording.KindResize, js(recording.Resize{Cols: 132, Rows: 43})},
		step{time.Second, 1, recording.KindExit, js(recording.Exit{Status: 3})})
	file := filepath.Join(t.TempDir(), "ours.cast")
	must(t, os.WriteFile(file, []byte(cast(t, recorded(t, steps), recording.CastOptions{Version: 2})), 0o600))
	// It wants a terminal, and script is one; that makes CR LF of each LF.
	cmd := exec.Command("script", "-qec", asciinema+" cat "+file, "/dev/null")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if got := strings.ReplaceAll(string(out), "\r\r\n", "\r\n"); err != nil || got != text {
		t.Errorf("asciinema cat: %v, %q, want %q", err, got, text)
	}
}
