package sshd_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tssh/recording"
)

// TestBulkIsCounted pushes 24 MB through commands, both ways: the client gets every byte,
// the recording stays small, and has count and hash of what it does not have.
func TestBulkIsCounted(t *testing.T) {
	r := newRig(t, usual())
	data := bytes.Repeat([]byte("all work and no play makes jack a dull boy\n"), 280000) // 12 MB
	sum := sha256.Sum256(data)
	who := account(t).Username
	got := r.ssh(string(data), who, "cat; echo done >&2")
	if got.out != string(data) || got.err != "done\n" || got.code != 0 {
		t.Fatalf("%d bytes came back, status %d, %q", len(got.out), got.code, got.err)
	}
	k := r.recordings(1)[0]
	kept := k.bytes(1, recording.KindOutput)
	if !strings.HasPrefix(kept, string(data[:recording.BulkBudget])) || !strings.HasSuffix(kept, string(data[len(data)-recording.BulkTail:])) ||
		len(kept) != recording.BulkBudget+recording.BulkTail {
		t.Errorf("%d bytes kept", len(kept))
	}
	if err := k.bytes(1, recording.KindStderr); err != "done\n" {
		t.Errorf("stderr %q", err)
	}
	var last recording.Bulk
	dec := json.NewDecoder(strings.NewReader(k.bytes(1, recording.KindBulk)))
	for dec.More() {
		if err := dec.Decode(&last); err != nil {
			t.Fatal(err)
		}
	}
	out := sha256.Sum256(data[recording.BulkBudget:])
	if !last.Ends || last.Head+last.Bytes != int64(len(data)) || last.SHA256 != hex.EncodeToString(out[:]) {
		t.Errorf("last count %+v", last)
	}
	var in recording.InputSummary
	if err := json.Unmarshal([]byte(k.bytes(1, recording.KindInputSummary)), &in); err != nil || in.Bytes != int64(len(data)) || in.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("input %+v, %v", in, err)
	}
	files, err := filepath.Glob(filepath.Join(r.spool(), "*", "recording.tsr"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	if st, err := os.Stat(files[0]); err != nil || st.Size() > 256<<10 {
		t.Errorf("the recording has %d bytes, %v", st.Size(), err)
	}
}
