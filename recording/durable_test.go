package recording_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tssh/recording"
)

// TestJournalSync counts what is made durable: only what is new, and a failure is for ever.
func TestJournalSync(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	must(t, err)
	defer f.Close()
	j := recording.NewJournal(f, time.Now())
	synced := 0
	var fails error
	recording.OnSync(j, func() error { synced++; return fails })
	must(t, j.Sync())
	must(t, j.Append(1, recording.KindOutput, []byte("one")))
	must(t, j.Sync())
	must(t, j.Sync())
	if synced != 1 {
		t.Errorf("synced %d times", synced)
	}
	fails = errors.New("the disk is gone")
	must(t, j.Append(1, recording.KindOutput, []byte("two")))
	if err := j.Sync(); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	if err := j.Append(1, recording.KindOutput, []byte("three")); !errors.Is(err, fails) {
		t.Errorf("a journal that is not durable takes more: %v", err)
	}
	real := recording.NewJournal(f, time.Now())
	must(t, real.Append(1, recording.KindOutput, []byte("four")))
	must(t, real.Sync())
}
