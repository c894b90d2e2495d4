package coord

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
)

// BenchmarkPolicyToStreams has a change of the policy reach 2,000 streams in one process,
// and says how long that took and what a stream costs in memory, both of its ends and
// without TLS. The nodes see nobody, so that what is measured is the walk over all nodes
// for every stream, and the frame.
func BenchmarkPolicyToStreams(b *testing.B) {
	const streams = 2000
	h := benchHub(b)
	var keys []netmap.ControlPublic
	for range streams {
		k, err := netmap.NewControlKey()
		if err != nil {
			b.Fatal(err)
		}
		keys = append(keys, k.Public())
	}
	err := h.change(b.Context(), func(c *change) error {
		for i, k := range keys {
			n := &netmap.Node{Control: k, Name: fmt.Sprintf("n%d", i), Tags: []policy.Tag{"tag:web"}, WG: netmap.WGPublic(k)}
			if err := c.fresh(n); err != nil {
				return err
			}
			if err := c.put(n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	got := make(chan string, streams)
	var wg sync.WaitGroup
	var ends []net.Conn
	for _, k := range keys {
		node, hub := net.Pipe()
		ends = append(ends, node)
		wg.Go(func() { h.serveStream(b.Context(), hub, bufio.NewReaderSize(hub, 512), k) })
		wg.Go(func() { // ends with the pipe
			if netmap.WriteFrame(node, &netmap.Frame{Hello: &netmap.Hello{Epoch: h.st.epoch, Since: h.st.rev}}, false) != nil {
				return
			}
			for {
				f, err := netmap.ReadFrame(node, netmap.MaxFrame)
				if err != nil {
					if err != io.EOF && err != io.ErrClosedPipe {
						got <- err.Error()
					}
					return
				}
				for _, e := range f.Up {
					if strings.Contains(string(e.Payload), `"kind":"policy"`) {
						got <- ""
					}
				}
			}
		})
	}
	for h.Status().Online < streams {
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for i := 0; b.Loop(); i++ {
		text := strings.Repeat("\n", i+1) + DefaultPolicy
		if r, err := h.SetPolicy(b.Context(), "bench", "bench", []byte(text), 0); err != nil || !r.OK {
			b.Fatal(err, r.Problems)
		}
		for range streams {
			if e := <-got; e != "" {
				b.Fatal(e)
			}
		}
	}
	b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/streams, "B/stream")
	for _, c := range ends {
		c.Close()
	}
	wg.Wait()
}

func benchHub(b *testing.B) *Server {
	db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(b.TempDir(), "hub.db")))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	key, err := netmap.NewControlKey()
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(b.Context(), Config{DB: db, Key: key, Mesh: "bench", Log: slog.New(slog.DiscardHandler), Audit: func(audit.Entry) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	return s
}
