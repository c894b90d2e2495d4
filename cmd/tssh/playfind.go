package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"tssh/recording"
	"tssh/recording/transcript"
)

// finder is what a player knows of the text of its track; it is read when it is first asked for.
type finder struct {
	t       *transcript.Transcript
	typing  bool // "/" was typed, and no Enter yet
	typed   []rune
	pattern *regexp.Regexp
	say     string // in the status line, until the next key
}

// text reads the transcript once.
func (p *player) text() (*transcript.Transcript, error) {
	if p.find.t == nil {
		t, err := p.tr.text()
		if err != nil {
			return nil, err
		}
		p.find.t = t
		// Reading moved the track on.
		if err := p.seek(p.at); err != nil {
			return nil, err
		}
	}
	return p.find.t, nil
}

// longestFind bounds a search with an expression; the recorded text may have been made for it.
const longestFind = 5 * time.Second

// typed takes a key of a pattern.
func (p *player) typeKey(k byte) error {
	f := &p.find
	switch {
	case k == '\r' || k == '\n':
		f.typing = false
		if len(f.typed) == 0 {
			return nil
		}
		text := string(f.typed)
		var err error
		if f.pattern, err = regexp.Compile("(?i)" + text); err != nil {
			f.pattern = regexp.MustCompile("(?i)" + regexp.QuoteMeta(text))
		}
		return p.hit(1)
	case k == 0x7f || k == 8:
		if len(f.typed) > 0 {
			f.typed = f.typed[:len(f.typed)-1]
		}
	case k == 3 || k == 0x15 || k == 0x1b:
		f.typing = false
	case k >= ' ' && k < 0x7f && len(f.typed) < 100:
		f.typed = append(f.typed, rune(k))
	}
	return nil
}

// hit goes to the next or the previous line that the pattern fits, from now on round the end.
func (p *player) hit(by int) error {
	if p.find.pattern == nil {
		return nil
	}
	t, err := p.text()
	if err != nil {
		return err
	}
	var to, first, last time.Duration
	n, found, late := 0, false, false
	until := time.Now().Add(longestFind)
	for _, l := range t.Lines {
		if late = time.Now().After(until); late {
			break
		}
		if !p.find.pattern.MatchString(l.Text) {
			continue
		}
		if n++; n == 1 {
			first = l.At
		}
		last = l.At
		if by > 0 && !found && l.At > p.at || by < 0 && l.At < p.at-time.Millisecond {
			to, found = l.At, true
		}
	}
	switch {
	case n == 0 && late:
		p.find.say = "this expression takes too long"
		return nil
	case n == 0:
		p.find.say = "nothing found"
		return nil
	}
	if !found {
		if to = first; by < 0 {
			to = last
		}
	}
	p.paused = true
	p.find.say = fmt.Sprintf("%d found", n)
	if late {
		p.find.say += " until it took too long"
	}
	return p.seek(to)
}

// command goes to the next or the previous command.
func (p *player) command(by int) error {
	t, err := p.text()
	if err != nil {
		return err
	}
	to := -1
	for i, c := range t.Commands {
		if by > 0 && c.At > p.at {
			to = i
			break
		}
		if by < 0 && c.At < p.at-time.Millisecond {
			to = i
		}
	}
	if to < 0 {
		p.find.say = "no more commands"
		return nil
	}
	p.find.say = t.Commands[to].Text
	switch c := t.Commands[to]; {
	case c.Source == transcript.SourceGuess:
		p.find.say += " (guess)"
	case c.Signal != "":
		p.find.say += " (SIG" + c.Signal + ")"
	case c.Exit != nil:
		p.find.say += fmt.Sprintf(" (exit %d)", *c.Exit)
	}
	return p.seek(t.Commands[to].At)
}

// back goes to the event before this moment.
func (p *player) back() error {
	p.paused = true
	to := time.Duration(0)
	for span := 5 * time.Second; ; span *= 8 {
		if _, err := p.tr.start(max(0, p.at-span)); err != nil {
			return err
		}
		for {
			ev, err := p.tr.next()
			if err != nil || ev.at >= p.at { // an error comes again in seek
				break
			}
			to = ev.at
		}
		if to > 0 || span >= p.at {
			return p.seek(to)
		}
	}
}

// ofChannel keeps what belongs to one channel, with times since its beginning.
func ofChannel(t *transcript.Transcript, ch uint32, began time.Duration) *transcript.Transcript {
	out := &transcript.Transcript{}
	for _, l := range t.Lines {
		if l.Channel == ch {
			l.At = max(0, l.At-began)
			out.Lines = append(out.Lines, l)
		}
	}
	for _, c := range t.Commands {
		if c.Channel == ch {
			c.At = max(0, c.At-began)
			out.Commands = append(out.Commands, c)
		}
	}
	return out
}

func (t *recordingTrack) text() (*transcript.Transcript, error) {
	all, err := transcript.Read(t.r, transcript.Limits{})
	if err != nil {
		return nil, err
	}
	return ofChannel(all, t.ch, t.began), nil
}

func (c *castTrack) text() (*transcript.Transcript, error) {
	b := transcript.NewBuilder(transcript.Limits{})
	add := func(at time.Duration, k recording.Kind, v any) {
		data, ok := v.([]byte)
		if !ok {
			data, _ = json.Marshal(v) // structs of numbers
		}
		b.Event(recording.Event{At: at, Channel: 1, Kind: k, Data: data})
	}
	add(0, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: c.c.Cols, Rows: c.c.Rows})
	c.i = 0
	for {
		ev, err := c.next()
		if err != nil {
			return b.Done(c.duration()), nil // io.EOF alone
		}
		if ev.cols > 0 {
			add(ev.at, recording.KindResize, recording.Resize{Cols: ev.cols, Rows: ev.rows})
			continue
		}
		add(ev.at, recording.KindOutput, ev.data)
	}
}
