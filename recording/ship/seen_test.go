package ship

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/recording"
)

// newest is the last checkpoint in a file.
func newest(t *testing.T, b []byte, id string) recording.Seen {
	t.Helper()
	var out recording.Seen
	for off := 16; off+96 <= len(b); off += 96 + int(binary.LittleEndian.Uint32(b[off+16:])) {
		h := b[off : off+96]
		switch h[4] {
		case 1:
			sum := sha256.Sum256(b[off+96 : off+96+int(binary.LittleEndian.Uint32(h[16:]))])
			out = recording.Seen{ID: id, MetaSHA256: sum[:]}
		case 3:
			out.Seq, out.At, out.Chain = binary.LittleEndian.Uint64(h[8:]), int64(binary.LittleEndian.Uint64(h[40:])), append([]byte(nil), h[64:96]...)
		}
	}
	return out
}

func TestARecorderSignsOnlyWhatItHas(t *testing.T) {
	r := newRecorder(t)
	h := newHost(t, r)
	x, _, _ := h.begin()
	if err := x.Note("hello", ""); err != nil { // durable, with a checkpoint
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, x.ID(), "recording.tsr"))
	if err != nil {
		t.Fatal(err)
	}
	p := newest(t, b, x.ID())
	until(t, "the recorder has it", 15*time.Second, func() bool { return len(r.bytesOf(x.ID())) >= len(b) })
	c, err := h.sent.Witness(t.Context(), p)
	if err != nil || !c.ValidSeen(p) || string(c.Key) != string(r.key.Public().(ed25519.PublicKey)) {
		t.Fatalf("%+v, %v", c, err)
	}
	r.restart() // and from the file
	if _, err := h.sent.Witness(t.Context(), p); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	other := p
	other.Chain = append([]byte{p.Chain[0] ^ 1}, p.Chain[1:]...)
	if _, err := h.sent.Witness(t.Context(), other); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("another past: %v", err)
	}
	later := p
	later.Seq++
	if _, err := h.sent.Witness(t.Context(), later); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("what it does not have: %v", err)
	}
	r.host.Store("n-db")
	if _, err := h.sent.Witness(t.Context(), p); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("for another host: %v", err)
	}
}

// BenchmarkIngest is a recorder that takes 200 recordings at once, each in a few appends
// that are verified and synced.
func BenchmarkIngest(b *testing.B) {
	r := newRecorder(b)
	dir, err := os.MkdirTemp("", "ingest-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sp, err := recording.OpenSpool(recording.SpoolConfig{Dir: dir, MinFree: 1, MaxBytesPerPerson: 1 << 40, MaxBytes: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	const hosts = 200
	for b.Loop() {
		b.StopTimer()
		type one struct {
			id   string
			data []byte
		}
		var all []one
		var bytes int64
		for range hosts {
			start := time.Now()
			x, err := sp.Begin(recording.Meta{Version: 1, Start: start, Host: "web", HostID: "n-web", Src: "laptop", SrcID: "n-laptop", Login: "alice@example.com", LocalUser: "deploy"})
			if err != nil {
				b.Fatal(err)
			}
			f, err := x.JournalFile()
			if err != nil {
				b.Fatal(err)
			}
			j := recording.NewJournal(f, start)
			for i := range 200 {
				text, _ := json.Marshal(map[string]any{"line": i, "at": time.Now(), "id": x.ID()})
				if err := j.Append(1, recording.KindOutput, text); err != nil {
					b.Fatal(err)
				}
			}
			f.Close()
			if err := x.Finish("closed", ""); err != nil {
				b.Fatal(err)
			}
			data, err := os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
			if err != nil {
				b.Fatal(err)
			}
			all, bytes = append(all, one{x.ID(), data}), bytes+int64(len(data))
		}
		b.StartTimer()
		began := time.Now()
		var wg sync.WaitGroup
		for _, o := range all {
			wg.Go(func() {
				for off := int64(0); off < int64(len(o.data)); {
					end := min(off+8<<10, int64(len(o.data)))
					size, _, err := r.store.Append("n-web", o.id, off, o.data[off:end])
					if err == nil && size == off { // a block is longer than the piece
						size, _, err = r.store.Append("n-web", o.id, off, o.data[off:])
					}
					if err != nil {
						b.Error(err)
						return
					}
					off = size
				}
			})
		}
		wg.Wait()
		b.ReportMetric(hosts/time.Since(began).Seconds(), "recordings/s")
		b.ReportMetric(float64(bytes)/1e6/time.Since(began).Seconds(), "MB/s")
	}
}
