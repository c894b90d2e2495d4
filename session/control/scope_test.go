package control

import (
	"os"
	"testing"
)

// TestScopeTravels: a Go message can carry the journal, logind's descriptor, both, or none.
func TestScopeTravels(t *testing.T) {
	for _, c := range []struct{ journal, scope bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		end, err := FromFile(theirs, false)
		if err != nil {
			t.Fatal(err)
		}
		named := func(name string) *os.File {
			f, err := os.CreateTemp(t.TempDir(), name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(name); err != nil {
				t.Fatal(err)
			}
			return f
		}
		says := func(f *os.File) string {
			if f == nil {
				return ""
			}
			defer f.Close()
			b := make([]byte, 16)
			n, _ := f.ReadAt(b, 0)
			return string(b[:n])
		}
		g := &GoMsg{OK: true, Scoped: c.scope}
		var journal *os.File
		want := [2]string{}
		if c.journal {
			journal, want[0] = named("journal"), "journal"
		}
		if c.scope {
			g.Scope, want[1] = named("scope"), "scope"
		}
		if err := ours.Send(Message{Type: Go, Body: g}, journal); err != nil {
			t.Fatal(err)
		}
		m, file, err := end.Receive()
		if err != nil {
			t.Fatal(err)
		}
		got := m.Body.(*GoMsg)
		if have := [2]string{says(file), says(got.Scope)}; have != want {
			t.Errorf("%+v: %q, not %q", c, have, want)
		}
		// One that says it has a scope and has none is no message.
		if err := ours.Send(Message{Type: Go, Body: &GoMsg{OK: true, Scoped: true}}, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := end.Receive(); err == nil {
			t.Error("a scope that is not there was taken")
		}
		ours.Close()
		end.Close()
	}
}
