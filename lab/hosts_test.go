package lab

import (
	"os"
	"strings"
	"testing"
)

// needRoot skips what cannot be had without root; make test runs as root in CI.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
}

func TestHostsAreApart(t *testing.T) {
	needRoot(t)
	l, err := New(t.TempDir(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	a, err := l.AddHost("a", Account{"ann", 4001})
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AddHost("b")
	if err != nil {
		t.Fatal(err)
	}
	if r := a.Run("getent", "passwd", "ann"); !strings.Contains(r.Stdout, ":4001:4001:") {
		t.Errorf("ann on a: %v", r)
	}
	if r := b.Run("getent", "passwd", "ann"); r.Status == 0 {
		t.Errorf("ann is on b too: %v", r)
	}
	if r := a.Run("bash", "-c", "timeout 5 bash -c '</dev/tcp/"+b.Addr.String()+"/9'"); !strings.Contains(r.Stderr, "refused") {
		t.Errorf("a does not reach b: %v", r)
	}
}
