package main

import (
	"fmt"
	"os"
	"time"

	"tssh/ssh"
)

// progress draws a line for each file that is done and one for a file that is under way,
// on a terminal, and nothing elsewhere.
type progress struct {
	a     *app
	cols  func() int
	begun time.Time
	since map[string]time.Time // files under way
	files int
	bytes int64
	live  bool // the last line is of a file that is under way
}

func (a *app) progress() *progress {
	f, ok := a.err.(*os.File)
	if !ok {
		return nil
	}
	t, ok := ssh.OpenTerminal(f)
	if !ok {
		return nil
	}
	return &progress{a: a, cols: func() int { return int(t.Size().Cols) }, begun: time.Now(), since: map[string]time.Time{}}
}

func (p *progress) draw(name string, done, total int64, finish bool) {
	begun, seen := p.since[name]
	if !seen {
		begun = time.Now()
		p.since[name] = begun
	}
	took := time.Since(begun)
	percent, rate, left := int64(100), "", ""
	if total > 0 {
		percent = min(100, done*100/total)
	}
	if took > 200*time.Millisecond && done > 0 {
		perSecond := float64(done) / took.Seconds()
		rate = bytesOf(int64(perSecond)) + "/s"
		if left = clock(took); !finish {
			left = clock(time.Duration(float64(max(0, total-done))/perSecond*float64(time.Second))) + " left"
		}
	}
	right := fmt.Sprintf(" %3d%% %10s %12s %13s", percent, bytesOf(done), rate, left)
	runes := []rune(name)
	if room := p.cols() - len(right) - 1; room > 4 && len(runes) > room {
		runes = append([]rune("..."), runes[len(runes)-room+3:]...)
	}
	fmt.Fprintf(p.a.err, "\r\x1b[K%s%s", string(runes), right)
	if p.live = !finish; finish {
		delete(p.since, name)
		p.files++
		p.bytes += done
		fmt.Fprint(p.a.err, "\n")
	}
}

// sum is the last line, where there were several files.
func (p *progress) sum() {
	if p.live {
		fmt.Fprint(p.a.err, "\r\x1b[K")
	}
	if p.files > 1 {
		fmt.Fprintf(p.a.err, "%d files, %s, %s\n", p.files, bytesOf(p.bytes), clock(time.Since(p.begun)))
	}
}

// clock is a time as people read it: 0:07, 1:02:03.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
