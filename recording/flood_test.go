//go:build unix

package recording_test

import (
	"bytes"
	"context"
	"testing"

	"tssh/recording"
	"tssh/recording/term"
)

// BenchmarkFlood is the monitor's and the journal's processor time for a terminal that is
// flooded, in pieces as a pty gives them.
func BenchmarkFlood(b *testing.B) {
	plain := bytes.Repeat([]byte("all work and no play makes jack a dull boy\r\n"), 4095/44)
	b.Run("plain", func(b *testing.B) { flood(b, plain) })
	coloured := bytes.Repeat([]byte("\x1b[01;34mlog.1\x1b[0m  \x1b[01;32mrun\x1b[0m some words that follow\r\n"), 4095/60)
	b.Run("coloured", func(b *testing.B) { flood(b, coloured) })
}

func flood(b *testing.B, piece []byte) {
	s := openSpool(b, recording.SpoolConfig{Dir: b.TempDir(), Keyframer: func(c, r int) recording.Keyframer { return term.New(c, r) }})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	x, j := begin(b, s, testMeta())
	must(b, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24}))
	before := processorTime(b)
	n := 0
	for b.Loop() {
		must(b, j.Append(1, recording.KindOutput, piece))
		n += len(piece)
	}
	must(b, x.Finish("closed", ""))
	b.ReportMetric((processorTime(b)-before).Seconds()*1e3/(float64(n)/1e6), "cpu-ms/MB")
	cancel()
	must(b, <-done)
}
