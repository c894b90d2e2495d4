package ship

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"tssh/recording"
)

// TestIngest has one recorder take 200 sessions at once: people who type and look at listings,
// and how far behind the recorder is meanwhile; then each brings a megabyte that does not
// compress, and how long that takes, against the same bytes put into files over HTTP without
// a look at them. Hosts, recorder and files are on this machine.
func TestIngest(t *testing.T) {
	if os.Getenv("TSSH_BENCH") == "" {
		t.Skip("a measurement of half a minute: TSSH_BENCH=1 makes it")
	}
	const hosts, each, span = 4, 50, 12 * time.Second
	r := newRecorder(t)
	type session struct {
		x *recording.Session
		j *recording.Journal
	}
	var all []session
	var hs []*host
	for range hosts {
		h := newHost(t, r)
		hs = append(hs, h)
		for range each {
			x, j, _ := h.begin()
			all = append(all, session{x, j})
		}
	}
	var mu sync.Mutex
	var lags []time.Duration
	written := 0
	var wg sync.WaitGroup
	stop := time.Now().Add(span)
	for n, s := range all {
		wg.Go(func() { // ends at stop
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for time.Now().Before(stop) {
				b := fmt.Appendf(nil, "deploy@web:~$ ls -la /var/log/%d\r\n", rnd.IntN(1000))
				for range 5 + rnd.IntN(40) {
					b = fmt.Appendf(b, "-rw-r--r-- 1 root adm %8d Nov %2d 12:%02d log.%d\r\n", rnd.IntN(1e7), 1+rnd.IntN(30), rnd.IntN(60), rnd.IntN(1000))
				}
				if err := s.j.Append(1, recording.KindOutput, b); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Duration(200+rnd.IntN(800)) * time.Millisecond)
				mu.Lock()
				written += len(b)
				lags = append(lags, s.x.Behind())
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(lags)
	at := func(part float64) time.Duration {
		return lags[int(part*float64(len(lags)-1))].Round(time.Millisecond)
	}
	t.Logf("200 sessions at work for %v: %.2f MB/s of output; something was waiting for the recorder since %v (middle), %v (95 %%), %v (most)", span, float64(written)/1e6/span.Seconds(), at(0.5), at(0.95), at(1))

	noise := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	began := time.Now()
	for _, s := range all {
		_, _ = rnd.Read(noise) // never fails
		if err := s.j.Append(1, recording.KindOutput, noise); err != nil {
			t.Fatal(err)
		}
	}
	gate := make(chan struct{}, 8) // sessions end side by side, and each waits for the disk
	for _, s := range all {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if err := s.x.Finish("closed", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	spooled := time.Since(began)
	for _, h := range hs {
		h.sent.Kick()
	}
	left := func() (n int) {
		for _, h := range hs {
			n += len(h.sp.Recordings())
		}
		return n
	}
	until(t, "all is acknowledged", 5*time.Minute, func() bool { return left() == 0 })
	took := time.Since(began)
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)

	dir := t.TempDir()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f, err := os.Create(filepath.Join(dir, filepath.Base(req.URL.Path)))
		if err == nil {
			_, err = io.Copy(f, req.Body)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer plain.Close()
	beganPlain := time.Now()
	for n := range all {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			req, err := http.NewRequest(http.MethodPut, fmt.Sprintf("%s/%d", plain.URL, n), bytes.NewReader(noise))
			if err != nil {
				t.Error(err)
				return
			}
			res, err := plain.Client().Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	wg.Wait()
	tookPlain := time.Since(beganPlain)
	mb := float64(len(all)*len(noise)) / 1e6
	t.Logf("200 MB from 200 sessions: recorded, sent, verified and durable after %v (%.0f MB/s; in the spools after %v); put into files %v: %.2f; heap of all of it %d MB", took.Round(time.Millisecond), mb/took.Seconds(), spooled.Round(time.Millisecond), tookPlain.Round(time.Millisecond), tookPlain.Seconds()/took.Seconds(), ms.HeapInuse>>20)
	if ms.HeapInuse > 512<<20 {
		t.Errorf("the heap has %d MB", ms.HeapInuse>>20)
	}
}
