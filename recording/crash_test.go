package recording_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/recording"
)

// copyTree copies a spool as a kill -9 of everything would leave it.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	must(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// adoptAll finishes every orphan of a spool and returns the recordings.
func adoptAll(t *testing.T, dir string) []string {
	t.Helper()
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	ids, err := s.Orphans()
	must(t, err)
	var paths []string
	for _, id := range ids {
		x, err := s.Adopt(id)
		must(t, err)
		must(t, x.Finish("lost", "the connection process is gone"))
	}
	done, err := s.Finished()
	must(t, err)
	for _, id := range done {
		paths = append(paths, filepath.Join(dir, id, "recording.tsr"))
	}
	if left, err := s.Orphans(); err != nil || len(left) != 0 {
		t.Fatalf("orphans left: %v %v", left, err)
	}
	return paths
}

// TestCrashAnywhere takes the folder as it is at many moments, tears the end of the
// recording and of the journal at any byte, and expects every whole event of the
// journal in the recording, signed, once.
func TestCrashAnywhere(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	x, j := begin(t, s, testMeta())
	id := x.ID()
	r := rand.New(rand.NewPCG(1, 1))
	must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24}))
	signed := int64(0) // what is signed cannot be torn: it was synced before the key moved
	for i := range 60 {
		for range r.IntN(4) {
			must(t, j.Append(1, recording.KindOutput, []byte(fmt.Sprintf("<%d %s>\r\n", i, strings.Repeat("x", r.IntN(300))))))
		}
		if r.IntN(3) == 0 {
			must(t, x.Note("mark", ""))
			signed = s.Recordings()[0].Durable
		} else {
			must(t, x.Flush()) // a frame without a signature
		}

		crashed := copyTree(t, dir)
		tsr, journal := filepath.Join(crashed, id, "recording.tsr"), filepath.Join(crashed, id, "journal")
		st, err := os.Stat(tsr)
		must(t, err)
		must(t, os.Truncate(tsr, signed+r.Int64N(st.Size()-signed+1)))
		b, err := os.ReadFile(journal)
		must(t, err)
		torn := 0
		if r.IntN(2) == 0 { // an event more, of which only a part came to disk
			var rec bytes.Buffer
			must(t, recording.NewJournal(&rec, x.Meta().Start).Append(1, recording.KindOutput, []byte("torn")))
			torn = r.IntN(rec.Len())
			b = append(b, rec.Bytes()[:torn]...)
			must(t, os.WriteFile(journal, b, 0o600))
		}
		want := journalOutput(t, b)

		paths := adoptAll(t, crashed)
		if len(paths) != 1 {
			t.Fatalf("%d recordings", len(paths))
		}
		_, evs := verified(t, paths[0])
		if got := output(evs, 1); got != want {
			t.Fatalf("%d: output of %d bytes, journal has %d", i, len(got), len(want))
		}
		last := evs[len(evs)-1]
		if last.Kind != recording.KindEnd || !strings.Contains(string(last.Data), "lost") {
			t.Fatalf("ends with %d %s", last.Kind, last.Data)
		}
		if gap := evs[len(evs)-2]; (gap.Kind == recording.KindGap) != (torn > 0) {
			t.Fatalf("%d torn bytes, event before the end is %d %s", torn, gap.Kind, gap.Data)
		}
	}
}

// journalOutput is what the whole records of a journal say was put out on channel 1.
func journalOutput(t *testing.T, b []byte) string {
	var out strings.Builder
	for _, ev := range recording.ReadRecords(b) {
		if ev.Channel == 1 && ev.Kind == recording.KindOutput {
			out.Write(ev.Data)
		}
	}
	return out.String()
}

// TestCrashWhileClosing tears a finished file in what Finish writes last.
func TestCrashWhileClosing(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	x, j := begin(t, s, testMeta())
	must(t, j.Append(1, recording.KindOutput, []byte("hello")))
	must(t, x.Note("mark", ""))
	before := copyTree(t, dir)
	must(t, x.Finish("closed", ""))
	whole, err := os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
	must(t, err)
	part, err := os.ReadFile(filepath.Join(before, x.ID(), "recording.tsr"))
	must(t, err)
	if !bytes.Equal(part, whole[:len(part)]) {
		t.Fatal("Finish changed what was there")
	}
	for n := len(part); n <= len(whole); n += 1 + (len(whole)-n)%5 { // some, and all near the end
		crashed := copyTree(t, before)
		must(t, os.WriteFile(filepath.Join(crashed, x.ID(), "recording.tsr"), whole[:n], 0o600))
		paths := adoptAll(t, crashed)
		if len(paths) != 1 {
			t.Fatalf("cut to %d: %d recordings", n, len(paths))
		}
		if _, evs := verified(t, paths[0]); output(evs, 1) != "hello" {
			t.Fatalf("cut to %d: %q", n, output(evs, 1))
		}
	}
}

// TestPowerLoss takes away the end of the journal, which nobody made durable, while
// the frames were.
func TestPowerLoss(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	x, j := begin(t, s, testMeta())
	must(t, j.Append(1, recording.KindOutput, []byte("durable")))
	must(t, x.Flush())
	for _, size := range []int64{0, 10} {
		crashed := copyTree(t, dir)
		must(t, os.Truncate(filepath.Join(crashed, x.ID(), "journal"), size))
		for _, path := range adoptAll(t, crashed) {
			_, evs := verified(t, path)
			if output(evs, 1) != "durable" {
				t.Errorf("%q", output(evs, 1))
			}
			for _, ev := range evs {
				if ev.Kind == recording.KindGap {
					t.Errorf("a gap: %s", ev.Data)
				}
			}
		}
	}
}

// TestAdoptCutsWhatIsBroken leaves more behind the last whole block than is written after it.
func TestAdoptCutsWhatIsBroken(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	x, j := begin(t, s, testMeta())
	must(t, j.Append(1, recording.KindOutput, []byte("kept")))
	must(t, x.Flush())
	crashed := copyTree(t, dir)
	f, err := os.OpenFile(filepath.Join(crashed, x.ID(), "recording.tsr"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write(append([]byte("tsrb\x02"), bytes.Repeat([]byte{0xa5}, 64<<10)...))
	must(t, err)
	must(t, f.Close())
	for _, path := range adoptAll(t, crashed) {
		if _, evs := verified(t, path); output(evs, 1) != "kept" {
			t.Errorf("%q", output(evs, 1))
		}
	}
}

func TestRestartGoesOn(t *testing.T) {
	dir := t.TempDir()
	x, j := begin(t, openSpool(t, recording.SpoolConfig{Dir: dir}), testMeta())
	must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24}))
	var want strings.Builder
	for i := range 5 { // the connection process lives through five monitors
		for k := range 40 {
			line := fmt.Sprintf("monitor %d line %d %s\r\n", i, k, strings.Repeat("=", 1000))
			want.WriteString(line)
			must(t, j.Append(1, recording.KindOutput, []byte(line)))
		}
		if i%2 == 0 {
			must(t, x.Flush())
		}
		s := openSpool(t, recording.SpoolConfig{Dir: dir})
		if _, err := s.Adopt("nobody"); err == nil {
			t.Error("adopted what is not there")
		}
		var err error
		x, err = s.Adopt(x.ID())
		must(t, err)
		if _, err := s.Adopt(x.ID()); err == nil {
			t.Error("adopted twice")
		}
	}
	must(t, j.AppendJSON(0, recording.KindEnd, recording.End{Cause: "closed"}))
	must(t, x.Finish("lost", ""))
	path := filepath.Join(dir, x.ID(), "recording.tsr")
	_, evs := verified(t, path)
	if output(evs, 1) != want.String() {
		t.Error("output is not what was written")
	}
	adopted := 0
	for _, ev := range evs {
		if ev.Kind == recording.KindNote && strings.Contains(string(ev.Data), `"adopted"`) {
			adopted++
		}
	}
	if adopted != 5 {
		t.Errorf("adopted %d times", adopted)
	}
	b, err := os.ReadFile(path)
	must(t, err)
	keys := 0
	for _, f := range frames(t, b) {
		if f.Keyframe {
			keys++
		}
	}
	if keys < 2 { // 200 KB of terminal output
		t.Errorf("%d keyframes", keys)
	}
}

// The helper processes of TestKillNine: this test binary, started again.
const helperEnv = "TSSH_RECORDING_HELPER"

// TestHelperConn writes numbered lines to the journal and says which are in.
func TestHelperConn(t *testing.T) {
	if os.Getenv(helperEnv) != "conn" {
		return // only as a process of TestKillNine
	}
	j := recording.NewJournal(os.NewFile(3, "journal"), time.Now())
	for i := 0; ; i++ {
		if err := j.Append(1, recording.KindOutput, fmt.Appendf(nil, "%d\n", i)); err != nil {
			os.Exit(1)
		}
		fmt.Printf("%d\n", i)
	}
}

// TestHelperMonitor adopts what is in the spool and follows it.
func TestHelperMonitor(t *testing.T) {
	if os.Getenv(helperEnv) != "monitor" {
		return // only as a process of TestKillNine
	}
	cfg := recording.SpoolConfig{Dir: os.Getenv("TSSH_RECORDING_DIR")}
	if to := os.Getenv("TSSH_RECORDING_SEAL"); to != "" {
		cfg.SealTo = sealTo(t, to)
	}
	s := openSpool(t, cfg)
	ids, err := s.Orphans()
	must(t, err)
	for _, id := range ids {
		_, err := s.Adopt(id)
		must(t, err)
	}
	fmt.Println("ready")
	must(t, s.Run(context.Background()))
}

func helper(t *testing.T, what, dir string, files ...*os.File) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper"+strings.ToUpper(what[:1])+what[1:]+"$", "-test.v=false")
	cmd.Env = append(os.Environ(), helperEnv+"="+what, "TSSH_RECORDING_DIR="+dir)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

// TestKillNine kills a real connection process and real monitors at any moment. Every
// line the connection process said was in must be in the recording.
func TestKillNine(t *testing.T) { killNine(t, recording.SpoolConfig{}, nil) }

func killNine(t *testing.T, cfg recording.SpoolConfig, keys *recording.Keys) {
	dir := t.TempDir()
	cfg.Dir = dir
	x, err := openSpool(t, cfg).Begin(testMeta())
	must(t, err)
	f, err := x.JournalFile()
	must(t, err)
	conn, said := helper(t, "conn", dir, f)
	must(t, f.Close())
	for i := range 3 {
		monitor, ready := helper(t, "monitor", dir)
		if !ready.Scan() || ready.Text() != "ready" {
			t.Fatalf("monitor: %q", ready.Text())
		}
		time.Sleep(time.Duration(30+70*i) * time.Millisecond)
		if i == 2 {
			must(t, conn.Process.Kill())
		}
		must(t, monitor.Process.Kill())
		_ = monitor.Wait() // killed
	}
	last := ""
	for said.Scan() {
		last = said.Text()
	}
	_ = conn.Wait() // killed
	if last == "" {
		t.Fatal("the connection process said nothing")
	}
	paths := adoptAll(t, dir)
	if len(paths) != 1 {
		t.Fatalf("%d recordings", len(paths))
	}
	_, evs := verifiedWith(t, paths[0], keys)
	lines := strings.Split(strings.TrimSuffix(output(evs, 1), "\n"), "\n")
	for i, line := range lines {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	n := 0
	must(t, json.Unmarshal([]byte(last), &n))
	if len(lines) <= n {
		t.Errorf("%d lines recorded, %d were in", len(lines), n+1)
	}
	t.Logf("%d lines over three monitors", len(lines))
}

var _ io.Writer = (*recording.Verifier)(nil)
