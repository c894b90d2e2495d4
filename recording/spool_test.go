package recording_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
	"tssh/recording/term"
)

func newKeyframer(cols, rows int) recording.Keyframer { return term.New(cols, rows) }

func testMeta() recording.Meta {
	return recording.Meta{
		Mesh: "lab", Host: "web", HostID: "n1", Src: "laptop", SrcID: "n2", SrcAddr: "100.64.0.2",
		Login: "alice@example.com", LocalUser: "deploy", UID: 1000, Rule: "ssh[0]", Client: "SSH-2.0-OpenSSH_9.2",
	}
}

func openSpool(t testing.TB, cfg recording.SpoolConfig) *recording.Spool {
	t.Helper()
	if cfg.Keyframer == nil {
		cfg.Keyframer = newKeyframer
	}
	s, err := recording.OpenSpool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// begin makes a session and its journal as a connection process has it.
func begin(t testing.TB, s *recording.Spool, m recording.Meta) (*recording.Session, *recording.Journal) {
	t.Helper()
	x, err := s.Begin(m)
	if err != nil {
		t.Fatal(err)
	}
	return x, journalOf(t, x)
}

func journalOf(t testing.TB, x *recording.Session) *recording.Journal {
	t.Helper()
	f, err := x.JournalFile()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return recording.NewJournal(f, x.Meta().Start)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// verified reads a recording, fails on any problem, and returns its events.
func verified(t testing.TB, path string) (recording.Report, []recording.Event) {
	t.Helper()
	return verifiedWith(t, path, nil)
}

func verifiedWith(t testing.TB, path string, keys *recording.Keys) (recording.Report, []recording.Event) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	rep, err := keys.Verify(bytes.NewReader(b))
	must(t, err)
	if len(rep.Problems) > 0 || !rep.Complete || rep.ProvenUntil != rep.Ends {
		t.Fatalf("%s: complete %v, proven until %v of %v, problems %q", path, rep.Complete, rep.ProvenUntil, rep.Ends, rep.Problems)
	}
	return rep, eventsWith(t, b, keys)
}

func eventsOf(t testing.TB, b []byte) []recording.Event {
	t.Helper()
	return eventsWith(t, b, nil)
}

func eventsWith(t testing.TB, b []byte, keys *recording.Keys) []recording.Event {
	t.Helper()
	r, err := keys.NewReader(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	defer r.Close()
	var evs []recording.Event
	must(t, r.Events(func(ev recording.Event) error {
		ev.Data = bytes.Clone(ev.Data)
		evs = append(evs, ev)
		return nil
	}))
	for i := 1; i < len(evs); i++ {
		if evs[i].At < evs[i-1].At {
			t.Fatalf("event %d goes back in time", i)
		}
	}
	return evs
}

func output(evs []recording.Event, ch uint32) string {
	var b strings.Builder
	for _, ev := range evs {
		if ev.Channel == ch && ev.Kind == recording.KindOutput {
			b.Write(ev.Data)
		}
	}
	return b.String()
}

func TestSpoolRecordsASession(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openSpool(t, recording.SpoolConfig{Dir: dir})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()

		x, j := begin(t, s, testMeta())
		path := filepath.Join(dir, x.ID(), "recording.tsr")
		must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm", Cols: 80, Rows: 24}))
		var want strings.Builder
		for i := range 40 {
			line := fmt.Sprintf("line %d é\r\n", i)
			want.WriteString(line)
			must(t, j.Append(1, recording.KindOutput, []byte(line)))
			time.Sleep(time.Second)
		}
		p := s.Recordings()
		if len(p) != 1 || p[0].Final {
			t.Fatalf("%+v", p)
		}
		// What is durable by now is what was written up to 3.2 seconds ago, and it can
		// be verified as it stands.
		b, err := os.ReadFile(path)
		must(t, err)
		if got := output(eventsOf(t, b[:p[0].Durable]), 1); !strings.Contains(got, "line 36 ") {
			t.Errorf("durable after 40 s: %q", got[len(got)-30:])
		}
		rep, err := recording.Verify(bytes.NewReader(b))
		must(t, err)
		if len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0], "without the last signature") || rep.ProvenUntil < 25*time.Second {
			t.Errorf("running: proven until %v, %q", rep.ProvenUntil, rep.Problems)
		}
		must(t, s.Acked(x.ID(), p[0].Durable, false))
		must(t, x.Note("limit", "no more forwards"))
		must(t, j.AppendJSON(1, recording.KindExit, recording.Exit{Status: 3}))
		must(t, j.Append(1, recording.KindClose, nil))
		must(t, j.AppendJSON(0, recording.KindEnd, recording.End{Cause: "closed"}))
		must(t, x.Finish("lost", ""))
		must(t, x.Finish("again", ""))

		rep, evs := verified(t, path)
		if rep.ID != x.ID() || rep.Meta.Login != "alice@example.com" || len(rep.Countersignatures) != 0 {
			t.Errorf("%+v", rep)
		}
		if got := output(evs, 1); got != want.String() {
			t.Errorf("output %q", got)
		}
		last := evs[len(evs)-1]
		if last.Kind != recording.KindEnd || string(last.Data) != `{"cause":"closed"}` {
			t.Errorf("ends with %+v", last)
		}
		var noted bool
		for _, ev := range evs {
			noted = noted || ev.Kind == recording.KindNote && ev.Channel == recording.ChannelMonitor && strings.Contains(string(ev.Data), "no more forwards")
		}
		if !noted {
			t.Error("the note is not in")
		}

		p = s.Recordings()
		if len(p) != 1 || !p[0].Final || p[0].Acked == 0 {
			t.Fatalf("%+v", p)
		}
		if _, err := os.Stat(filepath.Join(dir, x.ID(), "journal")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("journal: %v", err)
		}
		if err := s.Acked(x.ID(), p[0].Durable-1, true); err == nil {
			t.Error("freed without all of it")
		}
		must(t, s.Acked(x.ID(), p[0].Durable, true))
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left %v %v", left, err)
		}
		cancel()
		must(t, <-done)
	})
}
