package recording_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tssh/recording"
)

// TestBulk sends streams of many sizes in pieces of any size: what is within the budget is
// kept whole; of what is beyond it the head and tail are, and count and hash of the rest.
func TestBulk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, recording.BulkBudget, recording.BulkBudget + 1, recording.BulkBudget + recording.BulkTail,
		recording.BulkBudget + recording.BulkTail + 1, 3*recording.BulkBudget + 12345} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		dir := t.TempDir()
		s := openSpool(t, recording.SpoolConfig{Dir: dir})
		x, err := s.Begin(testMeta())
		must(t, err)
		f, err := x.JournalFile()
		must(t, err)
		j := recording.NewJournal(f, x.Meta().Start)
		must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: "cat big"}))
		st := recording.NewStream(j, 1, recording.KindOutput)
		for rest := data; len(rest) > 0; {
			n := min(1+rng.IntN(3*recording.BulkTail), len(rest))
			must(t, st.Append(rest[:n]))
			rest = rest[n:]
		}
		must(t, st.Close())
		must(t, st.Close())
		must(t, j.AppendJSON(1, recording.KindExit, recording.Exit{}))
		must(t, f.Close())
		must(t, x.Finish("closed", ""))
		path := filepath.Join(dir, x.ID(), "recording.tsr")
		_, evs := verified(t, path)

		var kept []byte
		var said []recording.Bulk
		first := -1 // where in kept the first Bulk stands
		for _, ev := range evs {
			switch ev.Kind {
			case recording.KindOutput:
				kept = append(kept, ev.Data...)
			case recording.KindBulk:
				var b recording.Bulk
				must(t, json.Unmarshal(ev.Data, &b))
				if said = append(said, b); first < 0 {
					first = len(kept)
				}
			}
		}
		if size <= recording.BulkBudget {
			if len(said) != 0 || !bytes.Equal(kept, data) {
				t.Errorf("%d bytes: %d kept, %d Bulk events", size, len(kept), len(said))
			}
			continue
		}
		if len(said) < 2 || first != recording.BulkBudget || said[0].Bytes != 0 || said[0].Ends {
			t.Fatalf("%d bytes: events %+v, the first after %d", size, said, first)
		}
		last := said[len(said)-1]
		out := data[recording.BulkBudget:]
		sum := sha256.Sum256(out)
		tail := min(recording.BulkTail, len(out))
		want := recording.Bulk{Stream: "output", Head: recording.BulkBudget, Bytes: int64(len(out)), SHA256: hex.EncodeToString(sum[:]), Ends: true, Tail: int64(tail)}
		if last != want {
			t.Errorf("%d bytes: %+v, want %+v", size, last, want)
		}
		if !bytes.Equal(kept[:first], data[:first]) || !bytes.Equal(kept[first:], data[size-tail:]) {
			t.Errorf("%d bytes: head or tail are not those of the stream", size)
		}
		var cast bytes.Buffer
		file, err := os.Open(path)
		must(t, err)
		size64, err := file.Stat()
		must(t, err)
		reader, err := recording.NewReader(file, size64.Size())
		must(t, err)
		must(t, recording.WriteCast(&cast, reader, recording.CastOptions{}))
		reader.Close()
		must(t, file.Close())
		if n := strings.Count(cast.String(), "bytes of output are left out here"); n != 1 {
			t.Errorf("%d bytes: the cast says %d times what is left out", size, n)
		}
	}
}

// BenchmarkStream is a copied gigabyte's way, beside that of one that is kept.
func BenchmarkStream(b *testing.B) {
	piece := bytes.Repeat([]byte("0123456789abcdef"), 2048)
	for _, how := range []string{"counted", "kept"} {
		b.Run(how, func(b *testing.B) {
			s, err := recording.OpenSpool(recording.SpoolConfig{Dir: b.TempDir(), MaxBytesPerPerson: 1 << 40, MaxBytes: 1 << 40, MinFree: 1})
			if err != nil {
				b.Fatal(err)
			}
			x, err := s.Begin(testMeta())
			if err != nil {
				b.Fatal(err)
			}
			f, err := x.JournalFile()
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			j := recording.NewJournal(f, x.Meta().Start)
			st := recording.NewStream(j, 1, recording.KindOutput)
			b.SetBytes(int64(len(piece)))
			for b.Loop() {
				if how == "counted" {
					err = st.Append(piece)
				} else {
					err = j.Append(1, recording.KindOutput, piece)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
