package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"tssh/recording"
)

// keyHelp is what ? shows.
var keyHelp = []string{
	"space       pause, go on",
	"left right  5 seconds back, on",
	"down up     a minute back, on",
	"home end    to the beginning, to the end",
	"0 ... 9     to that tenth",
	", .         one event back, on",
	"+ -         faster, slower",
	"i           pauses shortened, or as they were",
	"/           find: words, or a regular expression",
	"n N         next, previous hit",
	"} {         next, previous command",
	"?           these keys",
	"q           end",
}

// paintHelp shows the keys where the picture was; the picture is painted anew after it.
func (p *player) paintHelp() error {
	p.painter = nil
	var b strings.Builder
	b.WriteString("\x1b[0m\x1b[2J")
	const wide = 47 // of a column
	down := max(1, p.rows-3)
	for i, line := range keyHelp {
		if left := 3 + i/down*wide; left < p.cols {
			fmt.Fprintf(&b, "\x1b[%d;%dH%.*s", i%down+2, left, p.cols-left, line)
		}
	}
	b.WriteString(p.status())
	_, err := io.WriteString(p.out, b.String())
	return err
}

// status is the line below the picture.
func (p *player) status() string {
	how := "playing"
	if p.paused {
		how = "paused"
	}
	first, last := p.bar()+"  ? keys  q quit", printable(p.tr.title())
	if p.more != nil { // of one that runs: who else watches comes before the rest
		first, last = last, first
	}
	part := "" // of a screen that is larger than the terminal
	if cols, rows := p.screen.Size(); cols > p.cols || rows > p.rows-1 {
		part = fmt.Sprintf("  %dx%d of %dx%d", min(cols, p.cols), min(rows, p.rows-1), cols, rows)
	}
	words := fmt.Sprintf(" %s %gx  %s / %s%s  %s  %s", how, p.opt.Speed, recording.Clock(p.at), recording.Clock(p.tr.duration()), part, first, last)
	if p.find.say != "" {
		words = " " + printable(p.find.say) + " " + words
	}
	if p.find.typing {
		words = " /" + string(p.find.typed) + "_   Enter finds, a regular expression will do"
	}
	r := []rune(words)
	for i := range r { // whatever is wide elsewhere must not push the line over the edge
		if r[i] > 0x7e {
			r[i] = '?'
		}
	}
	for len(r) < p.cols-1 {
		r = append(r, ' ')
	}
	return fmt.Sprintf("\x1b[%d;1H\x1b[0;7m%s\x1b[0m", p.rows, string(r[:min(len(r), p.cols-1)]))
}

// bar is where we are, with the commands as far as they are known: "[==|===>---|--!-]", ! for one that failed.
func (p *player) bar() string {
	width := min(40, p.cols/4)
	if width < 8 {
		return ""
	}
	whole := max(p.tr.duration(), time.Millisecond)
	cell := func(at time.Duration) int {
		return max(0, min(width-1, int(float64(width)*float64(at)/float64(whole))))
	}
	b := []byte(strings.Repeat("-", width))
	here := cell(p.at)
	copy(b, strings.Repeat("=", here))
	if p.find.t != nil {
		for _, c := range p.find.t.Commands {
			switch i := cell(c.At); {
			case c.Signal != "" || c.Exit != nil && *c.Exit != 0:
				b[i] = '!'
			case b[i] != '!':
				b[i] = '|'
			}
		}
	}
	b[here] = '>'
	return "[" + string(b) + "]"
}
