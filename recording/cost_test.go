//go:build unix

package recording_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
)

// TestBytesPerHour records ten minutes of somebody who types and looks at listings,
// and says what an hour of that takes, with frames, chain, keyframes and signatures.
func TestBytesPerHour(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openSpool(t, recording.SpoolConfig{Dir: dir})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		x, j := begin(t, s, testMeta())
		r := rand.New(rand.NewPCG(1, 1))
		must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 120, Rows: 40}))
		raw := 0
		put := func(s string) {
			raw += len(s)
			must(t, j.Append(1, recording.KindOutput, []byte(s)))
		}
		const span = 10 * time.Minute
		for began := time.Now(); time.Since(began) < span; {
			put("\x1b[01;32mdeploy@web\x1b[00m:\x1b[01;34m~\x1b[00m$ ")
			for _, key := range "ls -la /var/log/some" {
				time.Sleep(time.Duration(80+r.IntN(200)) * time.Millisecond)
				put(string(key))
			}
			put("\r\n")
			for i := range 5 + r.IntN(30) {
				put(fmt.Sprintf("-rw-r--r-- 1 root adm %8d Nov %2d 12:%02d \x1b[01;34mlog.%d\x1b[0m\r\n", r.IntN(1e7), 1+r.IntN(30), r.IntN(60), i))
			}
			time.Sleep(time.Duration(1+r.IntN(4)) * time.Second)
		}
		must(t, x.Finish("closed", ""))
		cancel()
		must(t, <-done)
		rep, _ := verified(t, filepath.Join(dir, x.ID(), "recording.tsr"))
		size := s.Recordings()[0].Durable
		perHour := func(n int64) float64 { return float64(n) / 1e6 * float64(time.Hour) / float64(span) }
		t.Logf("terminal output %.2f MB/h, recording %.2f MB/h (%d frames, %d events in ten minutes)", perHour(int64(raw)), perHour(size), rep.Frames, rep.Events)
		if perHour(size) > 1.5 {
			t.Errorf("%.2f MB an hour", perHour(size))
		}
	})
}

// BenchmarkIdle is the monitor's processor time for 300 sessions in which nothing
// happens.
func BenchmarkIdle(b *testing.B) {
	s := openSpool(b, recording.SpoolConfig{Dir: b.TempDir()})
	for range 300 {
		m := testMeta()
		if _, err := s.Begin(m); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	time.Sleep(2 * time.Second)
	began, before := time.Now(), processorTime(b)
	for b.Loop() {
		time.Sleep(time.Second)
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/1000/time.Since(began).Seconds(), "cpu-ms/s")
	cancel()
	must(b, <-done)
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
